import multiprocessing
import os
import signal
import time

import pytest

from manypaths.experiment.stages import Stage, StageFailed, chain_costs, run_stages

FUNCTIONS = "experiment.stage_functions"


def stage(name, function="add", after=(), cost=1.0, **parameters):
    return Stage(name, f"{FUNCTIONS}:{function}", parameters, after, cost)


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    """Spawned workers import the stage functions by name."""
    monkeypatch.setenv("PYTHONPATH", os.path.dirname(os.path.dirname(os.path.abspath(__file__))), prepend=os.pathsep)


def run(stages, root, workers=2):
    seen = []
    run_stages(stages, root, workers, lambda one, result, cached: seen.append((one.name, result, cached)))
    return seen


def test_results_flow_from_stage_to_stage_and_are_kept(tmp_path):
    first, second = stage("first", value=1), stage("second", value=2)
    last = stage("last", after=(first, second), value=10)
    reader = stage("reader", "read_parent", after=(second,))
    stages = [first, second, last, reader]
    fresh = run(stages, tmp_path)
    assert {name for name, _, cached in fresh if not cached} == {"first", "second", "last", "reader"}
    assert last.result(tmp_path)["value"] == 13
    assert reader.result(tmp_path)["text"] == "2"
    again = run(stages, tmp_path)
    assert all(cached for _, _, cached in again)
    assert {name: result for name, result, _ in again} == {name: result for name, result, _ in fresh}


def test_a_finished_stage_never_runs_again_and_a_changed_one_does(tmp_path):
    counter = tmp_path / "counter"
    counted = stage("counted", "count_runs", counter=str(counter))
    for _ in range(3):
        run([counted], tmp_path / "stages", workers=1)
    assert counter.read_text() == "x"


def test_the_key_follows_parameters_environment_and_ancestors():
    plain = stage("a", value=1)
    assert plain.key == stage("b", value=1, cost=9.0).key
    assert plain.key != stage("a", value=2).key
    assert plain.key != Stage("a", f"{FUNCTIONS}:add", {"value": 1}, environment={"torch": "other"}).key
    assert stage("c", value=3, after=(plain,)).key != stage("c", value=3, after=(stage("a", value=2),)).key


def test_a_failure_names_the_stage_keeps_the_finished_and_leaves_nothing_half_written(tmp_path):
    good = stage("good", value=1)
    with pytest.raises(StageFailed, match=r"bad failed: ValueError: no luck.*worker\.log"):
        run([good, stage("bad", "fail", after=(good,))], tmp_path, workers=1)
    assert good.result(tmp_path) == {"value": 1, "seconds": good.result(tmp_path)["seconds"]}
    assert not [path for path in tmp_path.iterdir() if path.name.startswith("bad")]
    assert not (tmp_path / "bad").exists()


def run_and_be_killed(stages, root):
    run(stages, root, workers=1)


def test_a_killed_run_leaves_no_worker_behind_and_continues(tmp_path):
    started = tmp_path / "started"
    first, second = stage("first", value=1), stage("slow", "slow", started=str(started))
    root = tmp_path / "stages"
    parent = multiprocessing.get_context("spawn").Process(target=run_and_be_killed, args=([first, second], root))
    parent.start()
    while not started.exists():
        assert parent.is_alive()
        time.sleep(0.05)
    (partial,) = root.glob(".partial-slow-*")
    worker = int(partial.name.rsplit("-", 1)[1])
    os.kill(parent.pid, signal.SIGKILL)
    parent.join()
    for _ in range(200):
        if not os.path.exists(f"/proc/{worker}"):
            break
        time.sleep(0.05)
    else:
        pytest.fail("the worker outlived its parent")
    assert not second.folder(root).exists()
    run([first], root)
    assert not list(root.glob(".partial-*"))


def test_long_chains_go_first():
    short, head = stage("short", value=1, cost=2.0), stage("head", value=2, cost=1.0)
    tail = stage("tail", value=3, after=(head,), cost=5.0)
    costs = chain_costs([short, head, tail])
    assert costs[head.key] == 6.0 and costs[short.key] == 2.0 and costs[tail.key] == 5.0


def test_the_unfinished_stage_of_a_living_run_is_left_alone(tmp_path):
    living, dead = tmp_path / f".partial-x-{os.getpid()}", tmp_path / ".partial-y-999999999"
    living.mkdir()
    dead.mkdir()
    run([], tmp_path)
    assert living.exists() and not dead.exists()
