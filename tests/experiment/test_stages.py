import importlib
import json
import linecache
import multiprocessing
import os
import signal
import sys
import time
from pathlib import Path

import pytest

import runs
from manypaths.experiment.executors import Compute, open_executor
from manypaths.experiment.stages import Chosen, ModelOf, NotPossible, Stage, chain_costs, run_stages
from manypaths.experiment.worker import make_ready, printing_to, run_in_own_process

FUNCTIONS = "experiment.stage_functions"


def stage(root, name, function="add", **options):
    return Stage(name, f"{FUNCTIONS}:{function}", options, Path(root))


def run(stages, compute=None, expendable=frozenset()):
    """What is missing, and what was told."""
    events = []
    with open_executor(compute or Compute()) as executor:
        costs = {stage.key: 1.0 for stage in stages}
        missing = run_stages(
            stages, executor, costs, expendable, lambda event, stage, _: events.append((event, stage.name))
        )
    return missing, events


def value(stage):
    return int((stage.output / "value.txt").read_text())


def total(outputs, factor):
    return factor * sum(int((output / "value.txt").read_text()) for output in outputs)


def impossible(outputs):
    raise NotPossible("there is no such temperature")


def test_values_flow_from_stage_to_stage_and_nothing_runs_twice(tmp_path):
    counter = tmp_path / "counter"
    first = stage(tmp_path / "stages", "first", value=1, counter=str(counter))
    second = stage(tmp_path / "stages", "second", value=2, counter=str(counter))
    last = stage(tmp_path / "stages", "last", first=ModelOf(first), second=ModelOf(second), value=10)
    chosen = stage(tmp_path / "stages", "chosen", value=Chosen(total, (first, last), {"factor": 2}, 0))
    stages = [first, second, last, chosen]
    missing, events = run(stages)
    assert missing == {} and value(last) == 13 and value(chosen) == 28
    assert [name for event, name in events if event == "finished"][-1] == "chosen"
    assert "value: 28" in (chosen.folder / "config.yaml").read_text() and "added 28" in chosen.log.read_text()
    assert run(stages) == ({}, [("kept", name) for name in ("first", "second", "last", "chosen")])
    assert counter.read_text() == "xx"


def test_the_key_is_what_decides_the_result(tmp_path):
    data = tmp_path / "data.jsonl"
    data.write_text("1")
    plain = stage(tmp_path, "a", value=1, dataset_name=str(data), logging_steps=1, output_dir="x")
    assert plain.key == stage(tmp_path, "b", value=1, dataset_name=str(data), logging_steps=5).key
    assert plain.key != stage(tmp_path, "a", value=2, dataset_name=str(data)).key
    assert plain.key != Stage("a", plain.subcommand, plain.options, tmp_path, {"num_processes": 2}).key
    data.write_text("2")
    other = stage(tmp_path, "a", value=1, dataset_name=str(data))
    assert plain.key != other.key
    assert stage(tmp_path, "c", first=ModelOf(plain)).key != stage(tmp_path, "c", first=ModelOf(other)).key
    assert stage(tmp_path, "c", first=ModelOf(plain)).key != stage(tmp_path, "c", first=ModelOf(plain, 0.5)).key
    chosen = [Chosen(total, (plain,), {"factor": factor}, 1) for factor in (1, 2)]
    assert stage(tmp_path, "c", value=chosen[0]).key != stage(tmp_path, "c", value=chosen[1]).key


@pytest.fixture
def edit(tmp_path, monkeypatch):
    """Writes a user's module, as one that was never imported."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def written(module, source):
        (tmp_path / f"{module}.py").write_text(source)
        sys.modules.pop(module, None)
        importlib.invalidate_caches()
        linecache.clearcache()

    return written


def test_problems_and_graders_of_a_benchmark_count(tmp_path, edit):
    (tmp_path / "test.yaml").write_text("name: test\nsource: test.jsonl\ngrader: my_grader:grade\n")

    def key(problems, reward):
        (tmp_path / "test.jsonl").write_text(problems)
        edit("my_grader", f"def grade(completions, **_):\n    return [{reward} for _ in completions]\n")
        return stage(tmp_path, "a", benchmarks=[str(tmp_path / "test.yaml")]).key

    assert key("1", "1.0") == key("1", "1.0")
    assert len({key("1", "1.0"), key("2", "1.0"), key("1", "0.000")}) == 3


def test_an_edited_objective_is_another_stage(tmp_path, edit):
    def key(factor):
        edit("edited", f"def mine(logprob):\n    return {factor} * logprob\n")
        return stage(tmp_path, "a", objective="edited:mine").key

    assert key("-1.0") == key("-1.0") != key("-2.000")


def test_a_stage_that_ran_under_another_name_is_kept(tmp_path):
    first = stage(tmp_path, "first", value=1)
    run([first])
    assert run([stage(tmp_path, "renamed", value=1)])[1] == [("kept", "renamed")]


def test_a_failure_stops_only_what_builds_on_it(tmp_path):
    bad, good = stage(tmp_path, "bad", "fail"), stage(tmp_path, "good", value=1)
    child = stage(tmp_path, "child", first=ModelOf(bad))
    grandchild = stage(tmp_path, "grandchild", first=ModelOf(child))
    other = stage(tmp_path, "other", first=ModelOf(good))
    choosing = stage(tmp_path, "choosing", value=Chosen(impossible, (good,), {}, 1))
    missing, events = run([bad, good, child, grandchild, other, choosing])
    assert value(other) == 1 and set(missing) == {bad.key, child.key, grandchild.key, choosing.key}
    for stopped in (child, grandchild):
        assert missing[stopped.key].cause is bad and missing[stopped.key].log == bad.log
    assert missing[bad.key].reason == "ValueError: no luck" and "no luck" in bad.log.read_text()
    assert missing[choosing.key].reason == "there is no such temperature" and missing[choosing.key].log is None
    assert ("failed", "bad") in events and ("left out", "grandchild") in events
    assert not (bad.folder / "stage.json").exists()


def test_a_worker_that_is_killed_fails_its_stage_and_the_next_gets_a_new_one(tmp_path):
    dead, next_one = stage(tmp_path, "dead", "die"), stage(tmp_path, "next", value=4)
    missing, _ = run([dead, next_one], Compute(workers=1))
    assert set(missing) == {dead.key} and "signal 9" in missing[dead.key].reason and value(next_one) == 4


def test_a_worker_is_warm_has_one_thread_and_no_gpu_of_others(tmp_path):
    stages = [stage(tmp_path, name, "cores", value=place) for place, name in enumerate("abc")]
    run(stages, Compute(workers=1))
    texts = [(stage.output / "value.txt").read_text() for stage in stages]
    assert texts[0].split(" ")[:3] == ["1", "", str(Path.cwd())]
    assert texts[0] == texts[1] == texts[2]  # one process did them all


def test_models_go_when_nothing_builds_on_them_and_come_back_when_needed(tmp_path):
    first = stage(tmp_path, "first", value=1)
    second = stage(tmp_path, "second", first=ModelOf(first))
    missing, _ = run([first, second], expendable=frozenset({first.key}))
    weights = first.output / "model.safetensors"
    assert missing == {} and not weights.exists() and (second.output / "model.safetensors").exists()
    assert [event for event, _ in run([first, second])[1]] == ["kept", "kept"]
    third = stage(tmp_path, "third", first=ModelOf(first), value=5)
    missing, events = run([first, second, third])
    assert missing == {} and ("finished", "first") in events and ("kept", "second") in events and value(third) == 6


def run_slow(root, started):
    run([stage(root, "first", value=1), stage(root, "slow", "slow", started=str(started))], Compute(workers=1))


@pytest.mark.slow
def test_a_killed_run_leaves_no_worker_behind_and_goes_on(tmp_path):
    started, root = tmp_path / "started", tmp_path / "stages"
    parent = multiprocessing.get_context("spawn").Process(target=run_slow, args=(root, started))
    parent.start()
    while not (started.exists() and started.read_text()):
        assert parent.is_alive()
        time.sleep(0.05)
    os.kill(parent.pid, signal.SIGKILL)
    parent.join()
    worker = Path(f"/proc/{started.read_text()}/cmdline")
    deadline = time.monotonic() + 20
    while worker.exists() and worker.read_text():
        assert time.monotonic() < deadline, "the worker outlived its parent"
        time.sleep(0.05)
    first, slow = stage(root, "first", value=1), stage(root, "slow", "slow", started=str(started))
    assert first.record["seconds"] >= 0 and slow.record is None and (slow.output / "half.txt").exists()
    assert run([first])[1] == [("kept", "first")]


def test_an_interrupted_stage_starts_over_in_a_clean_folder(tmp_path):
    first = stage(tmp_path, "first", value=1)
    first.output.mkdir(parents=True)
    (first.output / "half.txt").write_text("half")
    run([first])
    assert value(first) == 1 and not (first.output / "half.txt").exists()


@pytest.mark.slow
def test_the_mistake_that_a_process_of_its_own_tells_is_the_reason(tmp_path):
    log = tmp_path / "log.txt"
    log.write_text("manypaths average: an older mistake\n")
    with printing_to(log), pytest.raises(ValueError, match=r"^--base and --tuned are needed"):
        run_in_own_process({"subcommand": "average", "folder": str(tmp_path), "launch": {}}, [])


def test_training_goes_on_from_a_complete_checkpoint_only(tmp_path):
    checkpoint = runs.checkpoint(tmp_path / "output", 5)
    assert make_ready(tmp_path / "output", "sft", {}) is True and checkpoint.exists()
    assert make_ready(tmp_path / "output", "eval", {}) is False and checkpoint.exists()
    (checkpoint / "trainer_state.json").write_text('{"global')
    assert make_ready(tmp_path / "output", "grpo", {}) is False and not checkpoint.exists()


def test_long_chains_go_first(tmp_path):
    short, head = stage(tmp_path, "short", value=1), stage(tmp_path, "head", value=2)
    tail = stage(tmp_path, "tail", first=ModelOf(head))
    chains = chain_costs([short, head, tail], {short.key: 2.0, head.key: 1.0, tail.key: 5.0})
    assert chains == {short.key: 2.0, head.key: 6.0, tail.key: 5.0}


def test_a_checkpoint_is_the_one_nearest_to_the_share(tmp_path):
    trained = stage(tmp_path, "trained", value=1)
    for step in (10, 20, 30):
        (trained.output / f"checkpoint-{step}").mkdir(parents=True)
    (trained.output / "trainer_state.json").write_text(json.dumps({"global_step": 30}))
    assert ModelOf(trained, 0.4).value().endswith("checkpoint-10")
    assert ModelOf(trained, 0.6).value().endswith("checkpoint-20")


@pytest.mark.slow
def test_on_ray_a_stage_whose_worker_is_killed_runs_again(tmp_path):
    pytest.importorskip("ray")
    killed = stage(tmp_path / "stages", "killed", "die_once", mark=str(tmp_path / "mark"))
    child = stage(tmp_path / "stages", "child", first=ModelOf(killed), value=1)
    bad = stage(tmp_path / "stages", "bad", "fail")
    missing, _ = run([killed, child, bad], Compute(executor="ray"))
    assert (tmp_path / "mark").exists() and killed.log.read_text().count("== killed") == 2
    assert value(child) == 8 and set(missing) == {bad.key} and missing[bad.key].reason == "ValueError: no luck"
