import pytest

from manypaths.report.wording import main_columns, number, pass_ks, score_for, world_story


def test_columns_are_those_the_results_hold():
    available = {"pass@1", "pass@2", "pass@8", "pass@16", "entropy", "side_sort", "old_pass@1", "own_score"}
    assert [column.key for column in main_columns(available)] == [
        "pass@1",
        "pass@8",
        "pass@16",
        "entropy",
        "old_pass@1",
    ]
    assert pass_ks({"pass@16", "pass@2", "old_pass@1"}) == [2, 16]


@pytest.mark.parametrize(
    ("key", "value", "signed", "text"),
    [
        ("pass@1", 0.4444, False, "44.4"),
        ("pass@1", -0.036, True, "-3.6"),
        ("pass@64", 0.036, True, "+3.6"),
        ("pass@1", -0.0001, True, "0.0"),
        ("distinct_correct", 2.346, False, "2.35"),
        ("entropy", 0.1884, False, "0.188"),
        ("side_sort", 0.5, False, "50.0"),
        ("own_score", 1.5, False, "1.500"),
    ],
)
def test_numbers_are_shown_in_display_units(key, value, signed, text):
    assert number(score_for(key), value, signed) == text


def test_unknown_worlds_get_neutral_words():
    assert "Countdown" in world_story({"world": "recall"})[1]
    assert "Countdown" not in world_story({"world": "my-model"})[1]
