"""Results on the terminal: one compact table and the sentences."""

from collections.abc import Mapping

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from .layout import PLUS_MINUS
from .reading import VERDICTS, readings
from .summary import check_runs, estimate, methods_of, score_keys, short_label_of, stages_of
from .tables import conditions
from .wording import BASELINE, CONTROLS, OVER, Score, number, pass_ks, score_for

ARROW = "\u2192"
VERDICT_STYLES = {
    "visible": "green",
    "partly": "cyan",
    "unclear": "dim",
    "mixed": "yellow",
    "opposite": "magenta",
}


def print_table(results: Mapping, console: Console | None = None) -> None:
    """Print accuracy, coverage, diversity and side tasks before and after RL, then one sentence per claim.

    Raises ValueError as check_runs does.
    """
    check_runs(results)
    console = console or Console()
    stages = stages_of(results)
    steps = f"before RL {ARROW} after RL" if len(stages) == 2 else {"sft": "after SFT", "rl": "after RL"}[stages[0]]
    table = Table(title=f"{results['world']}: {steps}", box=SIMPLE_HEAD, padding=(0, 1, 0, 0), title_justify="left")
    table.add_column("", no_wrap=True)
    columns = _columns(results)
    for column in columns:
        table.add_column(column.label.replace(" ", "\n"), justify="right", no_wrap=True)
    for method in methods_of(results):
        style = "bold" if method == BASELINE else "dim" if method in CONTROLS else ""
        cells = [_cell(results, method, column) for column in columns]
        table.add_row(Text(short_label_of(results, method)), *cells, style=style)
    console.print(table)
    console.print(_caption(results), style="dim", highlight=False)
    found = readings(results)
    for reading in found:
        style = VERDICT_STYLES[reading.verdict]
        title, verdict = escape(reading.title), VERDICTS[reading.verdict]
        console.print(f"\n[bold]{title}.[/bold] [{style}]{verdict}:[/{style}] {escape(reading.plain)}", highlight=False)
    for basis in dict.fromkeys(reading.basis for reading in found):
        console.print(f"\n{escape(basis)} The figures are in the report.", style="dim", highlight=False)


def _columns(results: Mapping) -> list[Score]:
    available = set(score_keys(results["runs"]))
    ks = pass_ks(available)
    keys = [f"pass@{k}" for k in sorted({*ks[:1], *ks[-1:]})] + ["distinct_correct", "side_tasks"]
    return [score_for(key) for key in keys if key in available]


def _cell(results: Mapping, method: str, column: Score) -> str:
    """One line a stage: the value and half its interval."""
    lines = []
    for stage in stages_of(results):
        found = estimate(results, method, stage, column.key)
        if found is None:
            lines.append("-")
            continue
        half = "" if found.low is None else f" {PLUS_MINUS}{number(column, (found.high - found.low) / 2)}"
        lines.append(f"{ARROW + ' ' if stage == 'rl' else ''}{number(column, found.value)}{half}")
    return "\n".join(lines)


def _caption(results: Mapping) -> str:
    kinds = {
        found.interval_over
        for method in methods_of(results)
        for stage in stages_of(results)
        for found in [estimate(results, method, stage, column.key) for column in _columns(results)]
        if found and found.interval_over
    }
    spans = " or, without three seeds, ".join(OVER[over] for over in OVER if over in kinds)
    return f"{conditions(results)}; {PLUS_MINUS} 95 % interval over {spans}" if spans else conditions(results)
