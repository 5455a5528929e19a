from manypaths.evaluation.intervals import Interval, share_interval
from manypaths.report.evaluation_cells import interval_cell, signed_cell, spread
from manypaths.report.layout import Cell
from manypaths.report.wording import Score

PERCENT = Score("", "", 100, 1, "")


def test_an_even_interval_is_shown_by_half_of_it():
    assert interval_cell(Interval(0.5, 0.4, 0.61, 30), PERCENT, "*", strong=True) == Cell(
        "50.0", "\u00b1 10.5", "*", True
    )


def test_a_lopsided_interval_is_shown_by_its_limits():
    """Nobody can read [0, 11.6] out of 0.0 and half of 11.6."""
    assert interval_cell(share_interval([0.0] * 30), PERCENT) == Cell("0.0", "[0.0, 11.6]")
    assert interval_cell(share_interval([1.0] * 30), PERCENT) == Cell("100.0", "[88.4, 100.0]")
    assert spread(Interval(0.5, 0.445, 0.545, 9), PERCENT) == "\u00b1 5.0"
    assert spread(Interval(0.5, 0.46, 0.53, 9), PERCENT) == "\u00b1 3.5"
    assert spread(Interval(0.5, 0.47, 0.57, 9), PERCENT) == "[47.0, 57.0]"
    assert spread(Interval(0.5, 0.43, 0.53, 9), PERCENT, signed=True) == "[+43.0, +53.0]"


def test_without_limits_there_is_no_spread():
    assert interval_cell(Interval(0.5, None, None, 1), PERCENT) == Cell("50.0")
    assert interval_cell(None, PERCENT) == signed_cell(None, PERCENT) == Cell("")
    assert interval_cell(Interval(0.5, 0.5, 0.5, 3), PERCENT).spread == "\u00b1 0.0"


def test_differences_show_their_limits_and_whether_they_leave_out_zero():
    assert signed_cell(Interval(0.02, 0.01, 0.03, 9), PERCENT) == Cell("+2.0", "[+1.0, +3.0]", strong=True)
    assert signed_cell(Interval(0.02, -0.01, 0.05, 9), PERCENT, "*") == Cell("+2.0", "[-1.0, +5.0]", "*")
    assert signed_cell(Interval(0.02, None, None, 1), PERCENT) == Cell("+2.0")
