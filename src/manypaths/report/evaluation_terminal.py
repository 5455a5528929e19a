"""Evaluations on the terminal: the tables that fit, warnings first and last."""

from collections.abc import Mapping, Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from .evaluation_conditions import Alert, trust_table
from .evaluation_forgetting import forgetting_table
from .evaluation_page import FEW_TEMPERATURES, Digest, digest, lead, uncompared
from .evaluation_tables import (
    benchmark_table,
    curve_table,
    difference_table,
    diversity_table,
    ledger_table,
    matched_table,
    other_tables,
)
from .evaluation_wording import INTERVALS, benchmark_label
from .layout import PLUS_MINUS, Cell, Table

LABEL_WIDTH = 18  # longer names continue on the next line


def print_evaluation(results: Sequence[Mapping], console: Console | None = None) -> None:
    """Print one or several results of `manypaths eval`, one row a model and temperature.

    Raises ValueError for no results, other dictionaries, or two with one label.
    """
    print_digest(digest(results), console or Console())


def print_digest(whole: Digest, console: Console) -> None:
    """print_evaluation for what was computed already."""
    found = whole.found
    console.print(lead(whole), highlight=False)
    for alert in whole.alerts:
        _print_alert(console, alert)
    parts = [
        benchmark_table(found, whole.means, whole.made),
        difference_table(found, whole.made, whole.left_out) or uncompared(whole),
        curve_table(found),
        diversity_table(found, found.graded, "Diversity on graded benchmarks"),
        *(diversity_table(found, [name], f"Open-ended: {benchmark_label(name)}") for name in found.open_ended),
        matched_table(found, whole.matched),
        forgetting_table(found),
        ledger_table(found),
        *other_tables(found),
        trust_table(found) if whole.alerts else None,
    ]
    for part in parts:
        if isinstance(part, str) and part:
            console.print(Text(f"\n{part}"))
        elif part:
            _print_table(console, part)
    if found.entries:
        console.print(f"\n{PLUS_MINUS} and brackets: {INTERVALS}.", style="dim", highlight=False)
    if len(found.results) > 1 and found.entries and not whole.matched:
        why = " ".join(f"{reason}." for reason in whole.unmatched)
        console.print(f"{FEW_TEMPERATURES} {why}".strip(), style="dim", highlight=False)


def _print_alert(console: Console, alert: Alert) -> None:
    console.print(Text(f"! {alert.title}", style="bold red"))
    for line in alert.where:
        console.print(Text(f"  {line}", style="red"))
    console.print(Text(f"  {alert.advice}"))


def _print_table(console: Console, table: Table) -> None:
    """The table under its title; columns that do not fit go into further blocks with the same rows."""
    console.print(Text(f"\n{table.title}", style="bold"))
    cells = [[_cell(cell) for cell in row.cells] for row in table.rows]
    headings = [heading.replace(" ", "\n") for heading, _ in table.columns]
    widths = [
        max(_width(headings[place]), *(_width(row[place].plain) for row in cells)) for place in range(len(headings))
    ]
    label = min(LABEL_WIDTH, max(len(row.label) for row in table.rows))
    for block in _blocks(widths, console.width - label):
        drawn = RichTable(box=SIMPLE_HEAD, padding=0, show_edge=False)
        drawn.add_column("", overflow="fold", width=label)
        for place in block:
            drawn.add_column(headings[place], justify="right", no_wrap=True)
        for row, own in zip(table.rows, cells, strict=True):
            name = Text(row.label, style="bold" if row.kind == "baseline" else "")
            drawn.add_row(name, *(own[place] for place in block))
        console.print(drawn)
    if table.note:
        console.print(Text(table.note), style="dim", highlight=False)


def _blocks(widths: Sequence[int], room: int) -> list[list[int]]:
    """Columns in as few blocks as fit, each column with one space beside it."""
    blocks: list[list[int]] = []
    left = 0
    for place, width in enumerate(widths):
        if not blocks or width + 1 > left:
            blocks.append([])
            left = room
        blocks[-1].append(place)
        left -= width + 1
    return blocks


def _width(text: str) -> int:
    return max(map(len, text.split("\n")))


def _cell(cell: Cell) -> Text:
    """The value above its spread."""
    text = Text(cell.value + cell.mark, style="bold" if cell.strong else "")
    if cell.spread:
        text.append("\n" + cell.spread.replace(f"{PLUS_MINUS} ", PLUS_MINUS).replace(", ", "\n"), style="not bold dim")
    return text
