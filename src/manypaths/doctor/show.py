"""A diagnosis on the terminal: a line a check, three examples with what is trained on marked, memory by part, a verdict."""

from collections.abc import Iterator

from rich.console import Console
from rich.table import Table
from rich.text import Text

from . import Diagnosis
from .config import amount
from .rows import Example

STYLES = {"ok": "green", "warn": "yellow", "fail": "bold red", "not run": "dim"}
TRAINED = "black on green"
RUN = 300  # characters shown of a piece of text


def show(diagnosis: Diagnosis, console: Console) -> None:
    """Prints it; in colours where the console has them, else with brackets around what is trained on."""
    console.print(checks(diagnosis))
    for example in diagnosis.examples:
        console.print(Text(f"\n{example.title}", style="bold"))
        console.print(marked(example, colours=console.is_terminal and not console.no_color))
    if diagnosis.parts:
        console.print(Text("\nMemory of a device at its peak", style="bold"))
        console.print(memory(diagnosis))
    console.print(verdict(diagnosis))


def checks(diagnosis: Diagnosis) -> Table:
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for check in diagnosis.checks:
        if check.verdict == "not run":
            continue
        seen = Text(check.seen)
        if check.advice:
            seen.append(f"\n-> {check.advice}", style=STYLES[check.verdict])
        table.add_row(Text(check.verdict, style=STYLES[check.verdict]), Text(check.name), seen)
    waiting = [check.name for check in diagnosis.checks if check.verdict == "not run"]
    if waiting:
        table.add_row(
            Text("not run", style=STYLES["not run"]), Text(""), Text(f"needs what failed: {', '.join(waiting)}")
        )
    return table


def marked(example: Example, colours: bool) -> Text:
    text = Text()
    for piece, is_trained in example.runs:
        piece = shortened(piece)
        if colours:
            text.append(piece, style=TRAINED if is_trained else "")
        else:
            text.append(f"[[{piece}]]" if is_trained else piece)
    return text


def shortened(text: str) -> str:
    return text if len(text) <= RUN else f"{text[: RUN // 2]} [...] {text[-RUN // 2 :]}"


def memory(diagnosis: Diagnosis) -> Table:
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column()
    table.add_column(justify="right")
    for name, size in memory_rows(diagnosis):
        table.add_row(name, amount(size))
    return table


def memory_rows(diagnosis: Diagnosis) -> Iterator[tuple[str, float]]:
    yield from sorted(diagnosis.parts.items(), key=lambda part: -part[1])
    yield "together", sum(diagnosis.parts.values())


def verdict(diagnosis: Diagnosis) -> Text:
    """The last line."""
    counts = {kind: sum(check.verdict == kind for check in diagnosis.checks) for kind in STYLES}
    names = ", ".join(dict.fromkeys(check.name for check in diagnosis.checks if check.verdict == "fail"))
    left = f", {counts['not run']} not looked at" if counts["not run"] else ""
    tail = f"{counts['ok']} ok, {counts['warn']} to look at, {counts['fail']} wrong{left}"
    if diagnosis.failed:
        return Text(f"\nDo not start yet: {names} ({tail}).", style=STYLES["fail"])
    return Text(f"\nReady ({tail}).", style=STYLES["warn" if counts["warn"] else "ok"])
