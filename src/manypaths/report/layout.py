"""What every report is made of, without layout: tables of rows and cells, and names beside values.

Markdown, HTML and terminal render the same ones.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

PLUS_MINUS = "\u00b1"


@dataclass(frozen=True)
class Cell:
    """A number as shown: value, spread (`\u00b1 1.3` or `[0.4, 0.5]`), mark, and whether it stands out."""

    value: str
    spread: str = ""
    mark: str = ""
    strong: bool = False


@dataclass(frozen=True)
class Row:
    """One method or model: its key, label, kind ("baseline", "control" or "method"), cells, and a hint."""

    key: str
    label: str
    kind: str
    cells: list[Cell]
    hint: str = ""


@dataclass(frozen=True)
class Table:
    """Title, column (heading, meaning) pairs without the row label, rows, and the note that says what limits mean."""

    title: str
    columns: list[tuple[str, str]]
    rows: list[Row]
    note: str


def flat(name: str, value: Any) -> list[tuple[str, str]]:
    """Nested settings as (dotted name, value) pairs; what is None is left out."""
    if isinstance(value, Mapping):
        return [line for key, inner in value.items() for line in flat(f"{name}.{key}" if name else key, inner)]
    if isinstance(value, (list, tuple)):
        return [(name, ", ".join(map(str, value)))]
    return [] if value is None else [(name, str(value))]
