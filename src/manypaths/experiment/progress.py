"""A bar for the whole experiment, a line for each stage that runs, and a line that stays for each finished evaluation."""

import contextlib
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence

from rich.console import Console, RenderableType
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.text import Text

from ..evaluation.table import read_results
from ..functions import duration
from .controls import headlines
from .stages import Stage, Told

SHOWN = ("pass@1", "distinct_correct", "mean_reward")
NAME = 44  # columns of a stage's name
LINES = 8  # of running stages
TAIL = 4000  # bytes of a log in which its last step stands
STEP = re.compile(r"^ *(\d+)/(\d+) ", re.MULTILINE)  # as training's log lines begin
COUNT = re.compile(r"(?:^|\|) *(\d+/\d+) ", re.MULTILINE)  # there, and in the bars of everything else


class Work:
    """What is done and what is left, in expected seconds of work, at any moment.

    costs: expected seconds of each stage by key; what was expected is corrected by what was seen.
    """

    def __init__(self, stages: Sequence[Stage], costs: Mapping[str, float], slots: int) -> None:
        self.costs, self.expected, self.finished = costs, sum(costs.values()), 0.0
        self.began, self.first_pace = time.monotonic(), 1 / min(slots, len(stages))
        self.running: dict[str, tuple[Stage, float]] = {}  # key -> stage, when it started

    def told(self, event: str, stage: Stage) -> None:
        if event == "started":
            self.running[stage.key] = (stage, time.monotonic())
        elif event == "kept":
            self.expected -= self.costs[stage.key]
        else:
            self.running.pop(stage.key, None)
            self.finished += self.costs[stage.key]

    def done(self) -> float:
        """Of all stages; of a running one by its steps where it tells them, else by time, and never all of it."""
        return self.finished + sum(
            self.costs[key] * min(0.95, share(stage) or (time.monotonic() - started) / self.costs[key])
            for key, (stage, started) in list(self.running.items())
        )

    def left(self) -> float:
        """Seconds, as expected before any stage is finished, and then at the pace so far."""
        done = self.done()
        pace = (time.monotonic() - self.began) / done if self.finished else self.first_pace
        return pace * (self.expected - done)


class Bar(Progress):
    """Draws the work anew twice a second, whether or not anything was told."""

    def __init__(self, work: Work, console: Console) -> None:
        self.work = work
        columns = (
            TextColumn("{task.percentage:3.0f}%"),
            BarColumn(20),
            TimeElapsedColumn(),
            TextColumn("{task.description}"),
        )
        super().__init__(*columns, console=console, refresh_per_second=2, disable=not console.is_terminal)
        self.add_task("", total=work.expected)

    def get_renderables(self) -> Iterator[RenderableType]:
        for task in self.tasks:
            left = f"about {duration(self.work.left())} left"
            self.update(task.id, total=self.work.expected, completed=self.work.done(), description=left)
        yield self.make_tasks_table(self.tasks)
        running = list(self.work.running.values())
        for stage, started in running[:LINES]:
            counts = COUNT.findall(tail(stage))[-1:]
            yield Text(f"     {stage.name:{NAME}} {', '.join([*counts, duration(time.monotonic() - started)])}")
        if len(running) > LINES:
            yield Text(f"     and {len(running) - LINES} more")


@contextlib.contextmanager
def progress(stages: Sequence[Stage], costs: Mapping[str, float], slots: int, console: Console) -> Iterator[Told]:
    """Gives what `run_stages` tells its events to. Without a terminal there is no bar, only the lines."""
    work = Work(stages, costs, slots)
    with Bar(work, console):

        def told(event: str, stage: Stage, text: str) -> None:
            work.told(event, stage)
            line = f"{event}: {text}" if text else headline_of(stage) if event in ("finished", "kept") else ""
            if line:
                kept = " (kept)" if event == "kept" else ""
                console.print(f"{stage.name:{NAME}} {line}{kept}", soft_wrap=True, markup=False, highlight=False)

        yield told


def share(stage: Stage) -> float | None:
    """Of the steps of a training, as far as its log has told them."""
    steps = STEP.findall(tail(stage))
    return int(steps[-1][0]) / int(steps[-1][1]) if steps else None


def tail(stage: Stage) -> str:
    """The end of a stage's log, since its last start."""
    try:
        with open(stage.log, "rb") as log:
            log.seek(max(0, os.fstat(log.fileno()).st_size - TAIL))
            return log.read().decode(errors="replace").rpartition("\n== ")[2]
    except OSError:
        return ""


def headline_of(stage: Stage) -> str:
    """The main scores of a finished evaluation; nothing for other stages."""
    if stage.subcommand != "eval" or "temperatures" in stage.options:
        return ""
    scores = read_results(stage.output).scores
    values = {metric: headlines(scores, metric)["value"] for metric in SHOWN}
    return "  ".join(f"{metric} {value.iloc[0]:.3f}" for metric, value in values.items() if len(value))
