"""Scores with their intervals as cells of a table."""

from ..evaluation.intervals import Interval
from .layout import PLUS_MINUS, Cell
from .wording import Score, number

LOPSIDED = 0.1  # of an interval's width: how far its middle may lie from the value before its limits are shown


def interval_cell(found: Interval | None, score: Score, mark: str = "", *, strong: bool = False) -> Cell:
    """Value and half its interval, or the limits of a lopsided one."""
    return Cell("") if found is None else Cell(number(score, found.value), spread(found, score), mark, strong)


def signed_cell(found: Interval | None, score: Score, mark: str = "") -> Cell:
    """A difference with its limits; bold when they leave out zero."""
    if found is None:
        return Cell("")
    value = number(score, found.value, signed=True)
    return Cell(value, limits(found, score, signed=True), mark, strong=found.excludes(0.0))


def spread(found: Interval, score: Score, *, signed: bool = False) -> str:
    """Half the interval; its limits where it is lopsided, because half of it would misplace them."""
    if found.low is None or found.high is None:
        return ""
    width, middle = found.high - found.low, (found.high + found.low) / 2
    if abs(middle - found.value) > LOPSIDED * width:
        return limits(found, score, signed=signed)
    return f"{PLUS_MINUS} {number(score, width / 2)}"


def limits(found: Interval, score: Score, *, signed: bool) -> str:
    if found.low is None or found.high is None:
        return ""
    return f"[{number(score, found.low, signed=signed)}, {number(score, found.high, signed=signed)}]"
