import re
from html.parser import HTMLParser

import pytest

from invented_results import make_forgetting, make_ledger, make_result, make_tokens
from manypaths.report.evaluation_page import digest, evaluation_html, evaluation_markdown, lead, sections
from manypaths.report.evaluation_plots import evaluation_plots

VOID = {"meta", "link", "br", "img", "hr", "path", "use"}


class Balance(HTMLParser):
    def __init__(self):
        super().__init__()
        self.open, self.cells = [], []

    def handle_starttag(self, tag, attributes):
        if tag not in VOID:
            self.open.append(tag)
        if tag == "table":
            self.cells.append([])
        if tag == "tr":
            self.cells[-1].append(0)
        if tag in ("td", "th"):
            self.cells[-1][-1] += 1

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag


@pytest.fixture(scope="module")
def whole():
    options = {"temperatures": (0.6, 1.0), "size": 12}
    return digest([
        make_result("ce", **options, forgetting=make_forgetting("ce"), tokens=make_tokens()),
        make_result("gem <b>", **options, truncated=0.2, open_ended=("poem",)),
    ])  # fmt: skip


@pytest.fixture(scope="module")
def page(whole):
    return evaluation_html(whole, evaluation_plots(whole.found, whole.means))


def test_page_is_balanced_and_its_tables_are_rectangular(page):
    balance = Balance()
    balance.feed(page)
    assert balance.open == [] and len(balance.cells) > 8
    assert all(len(set(table)) == 1 for table in balance.cells)


def test_page_asks_the_network_for_nothing_and_escapes_labels(page):
    assert not re.search(r"<(script|link|img|iframe)\b|@import|url\((?!#)|(src|href)=\"(?!#)", page)
    assert "gem &lt;b&gt;" in page and "gem <b>" not in page
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))


def test_sections_in_reading_order(whole):
    titles = [
        section.title or section.parts[0].title
        for section in sections(whole, evaluation_plots(whole.found, whole.means))
    ]
    assert titles == [
        "Accuracy", "Paired comparisons", "One sample and many: pass@k", "What many samples are worth", "Diversity",
        "Diversity is not heat", "What was forgotten", "Other measurements", "What may distort the numbers",
        "p-values", "All scores",
    ]  # fmt: skip


def test_warnings_stand_above_all_tables(page, whole):
    assert 0 < page.index("Not to be trusted") < page.index("Raise --max_new_tokens") < page.index("<table")
    text = evaluation_markdown(whole, {}, {})
    assert text.index("> **Not to be trusted") < text.index("## Accuracy")
    assert "> - gem \\<b>, T=0.6: AIME 2024 20%, AMC 2023 20%, poem 20%" in text


def test_markdown_has_every_table_and_links_plots(whole):
    plots = evaluation_plots(whole.found, whole.means)
    text = evaluation_markdown(whole, plots, {plot.title: f"plots/{name}.png" for name, plot in plots.items()})
    for name, plot in plots.items():
        assert f"](plots/{name}.png)" in text and plot.caption in text
    for title in ("### Accuracy by benchmark", "### Differences to ce", "### Differences to ce, matched", "### MMLU"):
        assert (title in text) == (title != "### MMLU")
    before, after = text.split("## How it was run")
    fact = "- versions at the last command.torch: 2.13.0"
    assert fact in after and fact not in before


def test_lead_counts_and_says_how_hot(whole):
    clear = sum(one.distinguishable for one in whole.made.values())
    assert lead(whole) == (
        "2 models, 2 graded benchmarks, 1 open-ended set of prompts, sampled at temperature 0.6, 1. "
        f"Of 6 paired comparisons, {clear or 'none'} can be told from chance after correction."
    )
    assert lead(digest([make_result("ce", temperatures=(None,), size=4)])) == (
        "One model, 2 graded benchmarks, sampled at the default temperature of each benchmark."
    )


def test_one_temperature_asks_for_more():
    whole = digest([make_result("ce", size=6), make_result("gem", size=6)])
    (section,) = [section for section in sections(whole, {}) if section.title == "Diversity is not heat"]
    assert "--temperatures 0.6,0.8,1.0,1.2" in section.text and section.parts == []


def test_tokens_forgetting_or_a_ledger_alone_make_a_page():
    for part in ({"tokens": make_tokens()}, {"forgetting": make_forgetting("ce")}, {"ledger": make_ledger()}):
        whole = digest([{"schema": 2, "label": "ce", "model": "ce", **part}])
        text = evaluation_html(whole, evaluation_plots(whole.found, whole.means))
        assert "<table" in text and "Accuracy by benchmark" not in text and "--temperatures" not in text


def recorded(label, setting=None, **options):
    result = make_result(label, temperatures=(setting,), size=4, **options)
    for one in result["evaluations"]:
        made_elsewhere(one, setting)
    return result


def made_elsewhere(one, setting=None):
    one |= {"temperature": setting, "sampling": {"backend": "recorded", "num_samples": 8, "temperature": setting}}


def test_texts_made_elsewhere_have_no_default_temperature():
    assert lead(digest([recorded("ce")])) == (
        "One model, 2 graded benchmarks; the texts were made elsewhere, temperature not known."
    )
    assert lead(digest([recorded("ce", 0.7)])) == (
        "One model, 2 graded benchmarks; the texts were made elsewhere at temperature 0.7."
    )
    by_benchmark = recorded("ce")
    made_elsewhere(by_benchmark["evaluations"][1], 0.7)
    assert lead(digest([by_benchmark])) == (
        "One model, 2 graded benchmarks; texts of ce (AMC 2023) were made elsewhere at temperature 0.7; texts of ce "
        "(AIME 2024) were made elsewhere, temperature not known."
    )
    made_elsewhere(by_benchmark["evaluations"][0], 1.0)
    assert lead(digest([by_benchmark])).endswith("; the texts were made elsewhere at temperature 0.7, 1.")
    drawn = make_result("gem", temperatures=(None,), size=4)
    assert lead(digest([recorded("ce"), drawn])).startswith(
        "2 models, 2 graded benchmarks, sampled at the default temperature of each benchmark; texts of ce were made "
        "elsewhere, temperature not known. Of 3"
    )
    made_elsewhere(drawn["evaluations"][1])
    assert lead(digest([drawn])) == (
        "One model, 2 graded benchmarks, sampled at the default temperature of each benchmark; texts of gem "
        "(AMC 2023) were made elsewhere, temperature not known."
    )


def test_nothing_comparable_is_said_with_its_reason():
    results = [make_result("ce", size=5), make_result("gem", size=5)]
    for one in results[1]["evaluations"]:
        one["prompt_hash"] = "0000000000"
    whole = digest(results)
    for text in (evaluation_markdown(whole, {}, {}), evaluation_html(whole, {})):
        assert "Holm" not in text and "Differences to" not in text
        assert "Nothing could be compared. Left out: gem, AIME 2024: other prompts (hash" in text
    one = evaluation_markdown(digest(results[:1]), {}, {})
    assert "Paired comparisons" not in one and "could be compared" not in one


def test_labels_do_not_break_markdown():
    names = ("a|b", "`c`*d*", "e\nf|")
    results = [make_result(name, benchmarks=("aime24", "my|set"), size=5) for name in names]
    text = evaluation_markdown(digest(results), {}, {})
    tables = [block.splitlines() for block in text.split("\n\n") if block.startswith("|")]
    assert len(tables) > 5
    for table in tables:
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table}) == 1
    assert "| **a\\|b** |" in text and "| \\`c\\`\\*d\\* |" in text and "| e f\\| |" in text
    assert "| my\\|set |" in text and "### Differences to a\\|b" in text
    assert text.startswith("# Evaluation of a\\|b, \\`c\\`\\*d\\* and e f\\|\n")
    assert "\n\\* p < 0.05 after Holm" in text
