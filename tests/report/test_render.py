"""Terminal, Markdown and HTML of recorded results; hostile names and texts stay text."""

import io
import json
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from rich.console import Console

from manypaths.report import ReportConfig, print_report, report, study_markdown, write_report
from manypaths.report.figures import INKS, PALETTES
from recorded_results import HERE, renamed

HOSTILE = "</script><script>alert(1)</script> <b>x</b> | `a` *b* [red]c[/red]"


class Elements(HTMLParser):
    """Start tags of a page with their attributes, and texts of its scripts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags, self.scripts, self.inside = [], [], False
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.inside = tag == "script"
        if self.inside:
            self.scripts.append("")

    def handle_endtag(self, tag):
        self.inside = False

    def handle_data(self, data):
        if self.inside:
            self.scripts[-1] += data


@pytest.fixture(scope="module")
def hostile_page(tmp_path_factory):
    """The experiment with names, problems and samples that try to break out."""
    from manypaths.evaluation.table import load_results

    folder = tmp_path_factory.mktemp("hostile")
    shutil.copytree(HERE / "experiment", folder / "experiment")
    for path in (folder / "experiment").glob("*/*.jsonl"):
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        for row in rows:
            row |= {name: HOSTILE for name in ("text", "problem") if name in row}
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    results = renamed(load_results(folder / "experiment"), {"SED": HOSTILE})
    return write_report(replace(results, experiment={**results.experiment, "title": HOSTILE}), folder / "report")


def test_hostile_texts_stay_text(hostile_page):
    page = Elements(hostile_page.read_text())
    assert not [script for script in page.scripts if script.strip().startswith("alert")]
    assert HOSTILE not in hostile_page.read_text()
    data = next(script for script, (_, about) in zip(page.scripts, [one for one in page.tags if one[0] == "script"], strict=True)
                if about.get("id") == "data-completions")  # fmt: skip
    assert json.loads(data)["problems"][0]["question"] == HOSTILE
    assert any(column["label"].startswith(HOSTILE) for column in json.loads(data)["columns"])


def test_hostile_names_do_not_break_markdown_or_the_terminal(hostile_page):
    text = (hostile_page.parent / "report.md").read_text()
    assert "<script>" not in text
    widths = {line.count("|") - line.count("\\|") for line in text.splitlines() if line.startswith("| ")}
    assert all(count >= 3 for count in widths)


def test_the_page_needs_no_network_and_is_small(hostile_page):
    page = Elements(hostile_page.read_text())
    for tag, attributes in page.tags:
        for name in ("src", "href"):
            assert not (attributes.get(name) or "").startswith(("http", "//")), (tag, attributes)
    data = sum(len(script) for script in page.scripts if "vega" not in script[:4000] and len(script) < 500_000)
    assert data < 3_000_000


def test_files_of_a_report(recall, tmp_path):
    page = write_report(recall, tmp_path / "report")
    assert page == tmp_path / "report/report.html"
    plots = {path.name for path in (tmp_path / "report/plots").iterdir()}
    assert plots == {"accuracy_diversity.svg", "samples.svg", "forgetting.svg", "training.svg"}
    links = re.findall(r"!\[.*?\]\((.*?)\)", (tmp_path / "report/report.md").read_text())
    assert links and all((tmp_path / "report" / link).is_file() for link in links)


def test_markdown_for_a_document(recall):
    text = study_markdown(recall, "images/recall_{name}.svg")
    assert text.startswith("## Most problems have many right answers.")
    assert "images/recall_samples.svg" in text and "Every score" not in text
    assert "| GEM | 87.2 ± 1.3 | **+4.8\\*** ± 0.9 |" in text


@pytest.mark.parametrize("width", [60, 80, 160])
def test_terminal_fits_its_width(recall, width):
    console = Console(file=io.StringIO(), width=width)
    print_report(recall, console)
    text = console.file.getvalue()
    assert max(map(len, text.splitlines())) <= width
    assert "No method is ahead of both CE and every control after RL." in " ".join(text.split())
    assert "42.5" in text and "Which model is most accurate after RL?" in " ".join(text.split())


@pytest.mark.slow
def test_subcommand_never_overwrites_another_runs_page(tmp_path, capsys):
    config = ReportConfig(
        results=[str(HERE / "evaluation-base"), str(HERE / "evaluation-CE")], output_dir=str(tmp_path / "r")
    )
    page = report(config)
    assert page.is_file() and "base or CE" in capsys.readouterr().out
    assert report(config) == page, "the same inputs are the same run"
    with pytest.raises(ValueError, match="holds another run"):
        report(ReportConfig(results=[str(HERE / "evaluation-base")], output_dir=str(tmp_path / "r")))
    with pytest.raises(ValueError, match="give --results"):
        report(ReportConfig())


def luminance(color):
    parts = [int(color[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    r, g, b = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * r + 0.7152 * g + 0.0722 * b


def contrast(one, other):
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize(("mode", "background"), [("light", "#ffffff"), ("dark", "#191f28")])
def test_colours_of_figures_are_legible(mode, background):
    first, chromatic, muted = PALETTES[mode]
    assert all(contrast(color, background) >= 4.5 for color in (first, *chromatic, *muted, *INKS[mode][:2]))


def test_colours_of_the_page_are_legible():
    from importlib.resources import files

    css = (files("manypaths.report") / "page.css").read_text()
    for block in (css.split("@media")[0], css.split("@media")[1]):
        color = dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6});", block))
        for ground in ("page", "card"):
            assert all(contrast(color[name], color[ground]) >= 4.5 for name in ("ink", "quiet", "link"))
        assert all(
            contrast(color[tone], color[f"{tone}-soft"]) >= 4.5 for tone in ("good", "warn", "bad", "open", "none")
        )
