"""The bar of an experiment: an estimate from the first second, running stages, and never a standstill."""

import io
import re
from types import SimpleNamespace

import pytest
from rich.console import Console

from manypaths.experiment import progress as module
from manypaths.experiment.progress import Bar, Work, progress


@pytest.fixture
def clock(monkeypatch):
    now = SimpleNamespace(seconds=100.0)
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: now.seconds))
    return now


@pytest.fixture
def stages(tmp_path):
    def stage(name):
        return SimpleNamespace(key=name, name=name, log=tmp_path / f"{name}.txt", subcommand="sft", options={})

    return [stage("CE-0-sft"), stage("SED-0-sft"), stage("GEM-0-sft")]


COSTS = {"CE-0-sft": 60.0, "SED-0-sft": 60.0, "GEM-0-sft": 120.0}


def test_work_goes_on_while_stages_run(clock, stages):
    first, second, third = stages
    work = Work(stages, COSTS, 2)
    assert work.left() == 120 and work.done() == 0  # at once: 240 s of work, two at a time
    work.told("started", first)
    clock.seconds += 30
    assert work.done() == 30 and work.left() == 105  # by time, as long as the stage tells no steps
    clock.seconds += 300
    assert work.done() == 57  # it takes longer than expected and is not done for that
    work.told("finished", first)
    work.told("started", second)
    second.log.write_text("== SED-0-sft\n 90/100 of an earlier start\n== SED-0-sft\n   step  loss\n 25/100     3.1\n")
    assert work.done() == 75
    assert work.left() == pytest.approx(330 / 75 * (240 - 75))  # at the pace that was seen
    work.told("kept", third)
    assert work.left() == pytest.approx(330 / 75 * (120 - 75))


def test_the_bar_names_what_runs_and_is_drawn_anew_without_events(clock, stages):
    screen = Console(file=io.StringIO(), force_terminal=True, width=120)
    work = Work(stages, COSTS, 2)
    bar = Bar(work, screen)
    for stage in stages[:2]:
        work.told("started", stage)
    stages[1].log.write_text("  30/100     3.1\n")

    def drawn():
        with screen.capture() as capture:
            screen.print(bar.get_renderable())
        return re.sub(r"\x1b\[[0-9;]*m", "", capture.get())

    clock.seconds += 12
    shown = drawn()
    assert re.search(r"12%.*about 105 s left", shown) or re.search(r"12%.*about 2 min left", shown), shown
    assert re.search(r"CE-0-sft +12 s", shown) and re.search(r"SED-0-sft +30/100, 12 s", shown)
    clock.seconds += 24
    stages[0].log.write_text("sampling:   6%|6    | 81/1320 [00:00<00:05]\rsampling:  12%|#    | 161/1320 [00:00<00:04]")
    assert re.search(r"22%", drawn()) and re.search(r"CE-0-sft +161/1320, 36 s", drawn())


def test_without_a_terminal_only_failures_and_scores_are_printed(stages):
    screen = Console(file=io.StringIO(), width=120)
    with progress(stages, COSTS, 2, screen) as told:
        told("started", stages[0], "")
        told("failed", stages[0], "ValueError: no luck")
    assert screen.file.getvalue().split() == ["CE-0-sft", "failed:", "ValueError:", "no", "luck"]
