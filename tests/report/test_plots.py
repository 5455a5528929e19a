import re
import xml.etree.ElementTree as ElementTree

import pytest

from manypaths.report.plots import inline_svg, plots_of, save_plots


@pytest.fixture
def plots(make_results):
    return plots_of(make_results(seeds=1, methods=("base", "ce", "ce_early", "gem")))


def test_three_pictures_with_every_method_named(plots):
    assert [plot.name for plot in plots] == ["frontier", "pass_at_k", "forgetting"]
    for plot in plots:
        text = inline_svg(plot)
        for label in ("no SFT", "CE", "CE, stopped early", "GEM"):
            assert f">{label}</text>" in text


def test_inline_svg_is_well_formed_themed_and_self_contained(plots):
    ids = []
    for plot in plots:
        text = inline_svg(plot)
        ElementTree.fromstring(text)
        assert "var(--ink)" in text and "#1f2328" not in text
        assert not re.search(r"(href|src)=\"(?!#)", text)
        ids += re.findall(r'\bid="([^"]+)"', text)
        for target in re.findall(r'(?:href="#|url\(#)([^")]+)', text):
            assert f'id="{target}"' in text
    assert len(ids) == len(set(ids))


def test_arrows_need_both_stages(make_results):
    (frontier, *_) = plots_of(make_results(seeds=1, methods=("ce", "gem"), stages=("sft",)))
    assert not [text for text in frontier.figure.axes[0].texts if text.arrowprops]
    (frontier, *_) = plots_of(make_results(seeds=1, methods=("ce", "gem", "ce_hot")))
    assert len([text for text in frontier.figure.axes[0].texts if text.arrowprops]) == 2


def test_old_notation_gets_its_own_panel(cold_results):
    forgetting = plots_of(cold_results)[-1]
    assert [axes.get_title("left") for axes in forgetting.figure.axes] == [
        "side tasks",
        "old notation pass@1",
    ]


def test_unknown_objectives_are_drawn_too(make_results):
    results = make_results(seeds=1, methods=("ce", "gem"))
    for run in results["runs"]:
        if run["method"] == "gem":
            run.update(method="my_module:my_loss", label="my loss")
    assert ">my loss</text>" in inline_svg(plots_of(results)[0])


def test_saved_files(plots, tmp_path):
    names = save_plots(plots[:1], tmp_path / "plots")
    assert names == {"Diversity against accuracy": "frontier.png"}
    assert (tmp_path / "plots" / "frontier.png").read_bytes().startswith(b"\x89PNG")
    ElementTree.parse(tmp_path / "plots" / "frontier.svg")
