"""GRPO in several processes: the one that starts them reads the options as they will."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import tiny_llama
from manypaths.cli.launch import processes_to_come
from manypaths.cli.main import main
from manypaths.training.config import GRPOConfig, of_processes


def batch(*argv, **options):
    with of_processes(processes_to_come(["--use_cpu", "true", *argv])):
        return GRPOConfig("x", use_cpu=True, **options).generation_batch_size


def test_a_rollout_is_that_of_all_processes(tmp_path):
    one = {"per_device_train_batch_size": 1}
    assert batch("--num_processes", "8", **one) == 8
    assert batch("--num-processes=8", **one) == 8
    (tmp_path / "run.yaml").write_text("num_processes: 16\n")
    assert batch("--config", str(tmp_path / "run.yaml"), **one) == 16
    assert batch("--config", str(tmp_path / "run.yaml"), "--num_processes", "8", **one) == 8
    with pytest.raises(ValueError, match=r"generation_batch_size \(1\) must be divisible by num_generations \(8\)"):
        batch(**one)


def test_an_experiment_plans_with_the_processes_of_a_stage(tmp_path, tokenizer, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    tiny_llama(len(tokenizer)).save_pretrained("tiny")
    tokenizer.save_pretrained("tiny")
    Path("rows.jsonl").write_text(json.dumps({"prompt": "one", "completion": " two", "answer": "x"}) + "\n")
    Path("plan.yaml").write_text(
        "model_name_or_path: tiny\nbaseline: CE\nseeds: [0]\ncompute: {num_processes: 8}\n"
        "sft: {dataset_name: rows.jsonl}\neval: {benchmarks: [math500]}\nmethods: {CE: {objective: nll}}\n"
        "grpo: {dataset_name: rows.jsonl, reward: exact, max_steps: 2, per_device_train_batch_size: 1}\n"
    )
    assert main(["experiment", "plan.yaml", "--dry_run"]) == 0, capsys.readouterr().err


def test_in_a_launched_process_it_is_that_process_which_knows(monkeypatch):
    monkeypatch.setenv("MANYPATHS_LAUNCHED", "1")
    assert batch("--num_processes", "8", per_device_train_batch_size=8) == 8  # one process here


RUN = """grpo --model tiny --data prompts.jsonl --reward exact --num_processes 2 --per_device_train_batch_size 4
    --max_completion_length 4 --max_steps 1 --save_steps 1 --preflight_prompts 0 --report_to none --output_dir out"""


@pytest.mark.slow
@pytest.mark.heavy
def test_a_run_of_two_processes_goes_on_with_the_same_command(tmp_path, tokenizer, monkeypatch, capsys):
    """Whole groups are in both processes together only, and the folder remembers the rollout of both."""
    monkeypatch.chdir(tmp_path)
    tiny_llama(len(tokenizer)).save_pretrained("tiny")
    tokenizer.save_pretrained("tiny")
    rows = [{"prompt": f"one {word} is", "answer": "x"} for word in ("four", "five", "six", "seven")]
    Path("prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = subprocess.run(
        [sys.executable, "-m", "manypaths", *RUN.split()], capture_output=True, text=True, timeout=500
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads(Path("out/manypaths_run.json").read_text())["settings"]["generation_batch_size"] == 8
    started = []
    monkeypatch.setattr("manypaths.cli.launch.start", lambda *given: started.append(given))
    assert main([*RUN.split(), "--resume_from_checkpoint", "auto"]) == 0, capsys.readouterr().err
    assert len(started) == 1
