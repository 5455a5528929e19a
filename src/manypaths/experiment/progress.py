"""A bar with an estimate for long work, and one line per finished evaluation."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from .stages import Stage

SHOWN = ("pass@1", "pass@64", "distinct_correct", "side_tasks")


@contextlib.contextmanager
def progress(stages: list[Stage]) -> Iterator[Callable[[Stage, dict[str, Any], bool], None]]:
    """Gives the `on_done` callback of `run_stages`; the estimate is in expected seconds of work."""
    console = Console(highlight=False)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:.0f}%"),
        TimeElapsedColumn(),
        TextColumn("left:"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, speed_estimate_period=600) as bar:
        task = bar.add_task("starting".ljust(20), total=sum(stage.cost for stage in stages))

        def on_done(stage: Stage, result: dict[str, Any], cached: bool) -> None:
            bar.update(task, advance=stage.cost, description=stage.name.ljust(20))
            if "scores" in result:
                scores = ", ".join(f"{name} {result['scores'][name]['value']:.3f}" for name in SHOWN)
                line = f"{stage.name:20} {scores}{' (kept)' if cached else ''}"
                console.print(line, soft_wrap=True, markup=False)
            elif "skipped" in result and stage.name.endswith("-model"):
                console.print(f"{stage.name:20} left out: {result['skipped']}", markup=False)

        yield on_done
