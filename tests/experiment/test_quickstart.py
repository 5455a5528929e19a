"""The whole main job on a small budget: killed, continued, and compared with an undisturbed run."""

import importlib
import json
import linecache
import os
import signal
import subprocess
import sys
import time

import pytest

from manypaths.experiment.quickstart import EARLY, chosen_methods, plan, quickstart


def start(folder):
    command = [sys.executable, "-m", "manypaths", "quickstart", "--objectives", "dft", "--rl_steps", "2"]
    return subprocess.Popen(
        [*command, "--output_dir", str(folder)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def scores(folder):
    results = json.loads((folder / "results.json").read_text())
    return {(run["method"], run["stage"], run["seed"]): run["evaluation"]["scores"] for run in results["runs"]}


def test_killed_and_started_again_it_continues_with_the_same_numbers(tmp_path):
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    first = start(killed)
    while len(list((killed / "stages").glob("*-sft-*/result.json"))) < 2:
        assert first.poll() is None, first.stdout.read()
        time.sleep(0.1)
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    kept = {path: path.stat().st_mtime_ns for path in (killed / "stages").glob("*/result.json")}
    output = {}
    for folder in (killed, whole):
        process = start(folder)
        output[folder] = process.communicate(timeout=900)[0]
        assert process.returncode == 0, output[folder]
    assert kept and all(path.stat().st_mtime_ns == before for path, before in kept.items())
    assert scores(killed) == scores(whole)
    methods = {method for method, _, _ in scores(whole)}
    assert methods == {"ce", "ce_early", "ce_hot", "base", "base_sharp", "dft"}
    assert {stage for _, stage, _ in scores(whole)} == {"sft", "rl"}
    for name in ("report.md", "report.html"):
        assert (whole / name).stat().st_size > 1000
    assert "http" not in (whole / "report.html").read_text().replace("http://www.w3.org", "").split("arxiv")[0]
    assert "CE, stopped early" in output[whole]


def test_another_run_in_the_folder_is_refused_and_nothing_is_written(tmp_path):
    (tmp_path / "manypaths_run.json").write_text(json.dumps({"world": "recall", "seeds": [7]}))
    with pytest.raises(ValueError, match="holds another run"):
        quickstart(output_dir=tmp_path, rl_steps=1)
    assert [path.name for path in tmp_path.iterdir()] == ["manypaths_run.json"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"world": "countdwn"}, "Unknown world 'countdwn'"),
        ({"objectives": ["gme"]}, "Unknown objective 'gme'. Did you mean gem"),
        ({"seeds": 0}, "at least 1"),
        ({"rl_steps": -1}, "at least 0"),
    ],
)
def test_bad_arguments_are_refused_before_anything_is_written(arguments, message, tmp_path):
    folder = tmp_path / "out"
    with pytest.raises(ValueError, match=message):
        quickstart(output_dir=folder, **arguments)
    assert not folder.exists()


def test_every_comparison_has_its_controls():
    methods = chosen_methods(["sed"])
    assert [method.key for method in methods] == ["ce", "ce_early", "sed"]
    assert EARLY.epochs < methods[0].epochs
    runs = plan("recall", methods, [3, 4], 10)
    assert [run.method for run in runs] == 2 * ["ce", "ce_early", "sed", "ce_hot", "base", "base_sharp"]
    hot = next(run for run in runs if run.method == "ce_hot")
    assert hot.temperature == pytest.approx(1 / 0.7, abs=1e-3) and hot.rl is None
    assert hot.model.key == runs[0].model.key
    assert len({run.model.key for run in runs if run.method == "base"}) == 1


def test_an_edited_objective_is_not_answered_from_an_older_run(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))

    def key(source):
        (tmp_path / "edited.py").write_text(source)
        sys.modules.pop("edited", None)
        importlib.invalidate_caches()
        linecache.clearcache()
        (run,) = (run for run in plan("recall", chosen_methods(["edited:mine"]), [0], 0) if run.method == "edited:mine")
        return run.model.key

    first = "def mine(logprob):\n    return -logprob\n"
    assert key(first) == key(first) != key("def mine(logprob):\n    return -2.000 * logprob\n")
