import io

import pytest
from rich.console import Console

from invented_results import SIZES, make_forgetting, make_result
from manypaths.report import print_evaluation


def printed(results, width=80):
    console = Console(file=io.StringIO(), width=width, color_system=None)
    print_evaluation(results, console)
    return console.file.getvalue()


@pytest.fixture(scope="module")
def results():
    options = {"benchmarks": tuple(SIZES), "size": 8}
    return [make_result("ce", **options), make_result("gem [bold] with a long name", skill=1, truncated=0.5, **options)]


@pytest.mark.parametrize("width", [40, 80, 200])
def test_every_number_is_whole_at_any_width(results, width):
    text = printed(results, width)
    assert "\u2026" not in text and max(map(len, text.splitlines())) <= width
    for evaluation in results[1]["evaluations"]:
        assert f"{100 * evaluation['scores']['avg@8']['value']:.1f}" in text


def test_warnings_come_first(results):
    text = printed(results, 200)
    assert 0 < text.index("! Not to be trusted: more than 5% of the answers were cut off") < text.index("Accuracy by")
    assert "gem [bold]" in text


def test_one_temperature_asks_for_more(results):
    assert "--temperatures" in printed(results) and "--temperatures" not in printed(results[:1])


def test_temperatures_get_matched_differences():
    options = {"temperatures": (0.6, 1.0), "size": 20}
    text = printed([make_result("ce", **options), make_result("gem", **options)], 200)
    assert "Differences to ce, matched" in text and "--temperatures" not in text


def test_nothing_comparable_is_said():
    text = printed([make_result("ce", size=5), make_result("gem", temperatures=(1.0,), size=5)], 200)
    assert "Differences to" not in text
    assert "Nothing could be compared. Left out: gem, T=1, AIME 2024, AMC 2023: ce was only evaluated at T=0.7." in text
    assert text.index("Accuracy by benchmark") < text.index("Nothing could be") < text.index("One sample and many")


def test_forgetting_shows_both_models():
    text = printed([make_result("ce", size=5, forgetting=make_forgetting("ce"))], 120)
    assert "alignment tax" in text and "acc_norm" in text and "base - tuned" in text
