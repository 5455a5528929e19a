"""A whole experiment on a small budget: killed and continued, on Ray, with a method that fails."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time

import pytest
import yaml

from manypaths.cli.main import main
from manypaths.evaluation import load_results, load_scores

ELSEWHERE = "ray" if importlib.util.find_spec("ray") else "local"
TRAINING = {"logging_steps": 1, "gradient_checkpointing": False, "bf16": False, "use_cpu": True}
RECIPE = {
    "world": "recall",
    "model_name_or_path": "world/{seed}/model",
    "sft": {
        "dataset_name": "world/{seed}/sft.jsonl",
        "num_train_epochs": 2,
        "per_device_train_batch_size": 32,
        "learning_rate": 5e-4,
        "save_strategy": "epoch",
        **TRAINING,
    },
    "grpo": {
        "dataset_name": "world/{seed}/rl.jsonl",
        "reward": "countdown",
        "max_steps": 2,
        "per_device_train_batch_size": 32,
        "num_generations": 8,
        "max_completion_length": 8,
        "learning_rate": 3e-4,
        "beta": 0.0,
        "preflight_prompts": 0,
        "save_steps": 1,
        **TRAINING,
    },
    "eval": {"benchmarks": ["world/{seed}/test.yaml", "world/{seed}/sort.yaml"], "num_prompts": 20, "num_samples": 4},
    "methods": {
        "CE": {"objective": "nll"},
        "SED": {"objective": "sed", "objective_kwargs": {"top_k": 10}},
        "broken": {"objective": "nll", "dataset_columns": {"prompt": "nowhere"}},
    },
    "controls": {
        "no_sft": False,
        "no_sft_sharpened": {"temperatures": [0.1, 0.5, 1.0], "num_samples": 4},
        "stopped_early": {"fraction": 0.5, "from": "checkpoint"},
        "matched_temperature": False,
    },
}


def written(folder, name, **changes):
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump({**RECIPE, "output_dir": str(folder / name), **changes}))
    return path


def start(recipe):
    command, pipe = [sys.executable, "-m", "manypaths", "experiment", str(recipe)], subprocess.PIPE
    return subprocess.Popen(command, stdout=pipe, stderr=subprocess.STDOUT, text=True, start_new_session=True)


def finish(recipe, code=0):
    process = start(recipe)
    output = process.communicate(timeout=900)[0]
    assert process.returncode == code, output
    return output


def table(folder):
    scores = load_scores(folder)
    return scores.sort_values(list(scores.columns)).reset_index(drop=True)


@pytest.mark.slow
@pytest.mark.heavy
def test_killed_and_continued_here_it_gives_the_numbers_of_an_undisturbed_run_on_ray(tmp_path):
    """One method of it fails in both, and the others are reported."""
    here, elsewhere = written(tmp_path, "here"), written(tmp_path, "elsewhere", compute={"executor": ELSEWHERE})
    stages = tmp_path / "here" / "stages"
    process = start(here)
    while not list(stages.glob("*-grpo-*/output/checkpoint-*")):
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    time.sleep(1.0)  # until the workers have seen it
    kept = {path: path.stat().st_mtime_ns for path in stages.glob("*/stage.json")}
    output = finish(here, code=1)
    assert "broken-0-sft failed" in output and "log.txt" in output and "report:" in output
    assert kept and all(path.stat().st_mtime_ns == before for path, before in kept.items())
    assert any(json.loads(path.read_text())["resumed"] for path in stages.glob("*/stage.json"))
    finish(elsewhere, code=1)
    assert table(tmp_path / "here").equals(table(tmp_path / "elsewhere"))
    results = load_results(tmp_path / "here")
    names = {"CE", "SED", "no SFT, sharpened", "CE, stopped early", "CE, averaged with the base"}
    assert set(results.scores["method"]) == names and set(results.scores["stage"]) == {"sft", "rl"}
    lost = {entry["method"]: entry for entry in results.left_out}
    assert lost["no SFT"]["reason"] == "not asked for"
    assert "broken-0-sft" in lost["broken"]["reason"] and os.path.isfile(lost["broken"]["log"])
    runs = {(run["method"], run["stage"]): run for run in results.runs}
    assert runs["CE", "sft"]["role"] == "baseline" and len(runs["CE", "sft"]["training"]["ce"]) == 14
    assert len(runs["SED", "rl"]["training"]["reward"]) == 2
    assert "threshold" in runs["SED", "sft"]["training"]["calibration"]
    assert 0.1 <= results.experiment["matched"]["no_sft_sharpened"]["0"] <= 1.0
    assert (tmp_path / "here" / "report.html").stat().st_size > 1000


def test_a_wrong_option_and_a_folder_of_another_experiment_leave_nothing(tmp_path, capsys):
    wrong = written(tmp_path, "wrong", methods={"CE": {"objective": "nll", "learning_rat": 1}})
    assert main(["experiment", str(wrong)]) == 2
    assert "CE-0-sft (sft): unknown option 'learning_rat'; did you mean learning_rate" in capsys.readouterr().err
    assert not (tmp_path / "wrong" / "stages").exists() and not (tmp_path / "wrong" / "manypaths_run.json").exists()
    (tmp_path / "other").mkdir()
    run = {"subcommand": "experiment", "settings": {"baseline": "DFT"}, "parts": {}, "notes": {}}
    (tmp_path / "other" / "manypaths_run.json").write_text(json.dumps(run))
    assert main(["experiment", str(written(tmp_path, "other"))]) == 2
    assert "holds another run (baseline: there 'DFT', now 'CE'" in capsys.readouterr().err


def test_the_plan_can_be_seen_without_running_anything(tmp_path, capsys):
    assert main(["experiment", str(written(tmp_path, "out")), "--dry_run", "--workers", "3"]) == 0
    shown = capsys.readouterr().out
    for part in ("manypaths sft --report_to none", "SED-0-eval-rl", "with 3 at a time (roughly"):
        assert part in shown
    assert "<temperature_of_target: no-SFT-sharpened-0-sweep, CE-0-eval-sft>" in shown
    assert not (tmp_path / "out" / "stages").exists() and not (tmp_path / "out" / "manypaths_run.json").exists()
