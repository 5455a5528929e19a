"""A bar with what is running and how long it will take, and a line per finished evaluation."""

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from ..evaluation.table import read_results
from ..functions import duration
from .controls import headlines
from .stages import Stage, Told

SHOWN = ("pass@1", "distinct_correct", "mean_reward")
NAME = 44  # columns of a stage's name


@contextlib.contextmanager
def progress(stages: Sequence[Stage], costs: Mapping[str, float], slots: int, console: Console) -> Iterator[Told]:
    """Gives what `run_stages` tells its events to. Without a terminal there is no bar, only the lines."""
    columns = [
        TextColumn("{task.percentage:3.0f}%"),
        BarColumn(20),
        TimeElapsedColumn(),
        TextColumn("{task.description}"),
    ]
    running: list[Stage] = []
    began, expected, done = time.monotonic(), sum(costs.values()), 0.0
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("starting", total=expected)

        def told(event: str, stage: Stage, text: str) -> None:
            nonlocal expected, done
            if event == "started":
                running.append(stage)
            elif event == "kept":
                expected -= costs[stage.key]
            else:
                running[:] = [each for each in running if each is not stage]
                done += costs[stage.key]
            # What was expected is corrected by what was seen.
            pace = (time.monotonic() - began) / done if done else 1 / min(slots, len(stages))
            names = ", ".join(each.name for each in running) or "done"
            left = f"about {duration(pace * (expected - done))} left: {names}"
            bar.update(task, total=expected, completed=done, description=left)
            line = f"{event}: {text}" if text else headline_of(stage) if event in ("finished", "kept") else ""
            if line:
                kept = " (kept)" if event == "kept" else ""
                console.print(f"{stage.name:{NAME}} {line}{kept}", soft_wrap=True, markup=False, highlight=False)

        yield told


def headline_of(stage: Stage) -> str:
    """The main scores of a finished evaluation; nothing for other stages."""
    if stage.subcommand != "eval" or "temperatures" in stage.options:
        return ""
    scores = read_results(stage.output).scores
    values = {metric: headlines(scores, metric)["value"] for metric in SHOWN}
    return "  ".join(f"{metric} {value.iloc[0]:.3f}" for metric, value in values.items() if len(value))
