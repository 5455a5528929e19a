"""A run that is told to stop, or finds no room, says so in one line, and the same command goes on to the same weights."""

import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from conftest import tiny_llama
from manypaths.cli.main import main
from manypaths.training.checkpoints import flaw, newest_checkpoint

pytestmark = pytest.mark.slow

OBJECTIVE = """
import os, signal

def loss(logprob):
    if os.path.exists("stop"):
        os.unlink("stop")
        os.kill(os.getpid(), signal.SIGTERM)
    return -logprob
"""


@pytest.fixture
def start(tmp_path, tokenizer, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr(sys, "path", list(sys.path))
    tiny_llama(len(tokenizer), attention_dropout=0.1).save_pretrained("start")
    tokenizer.save_pretrained("start")
    rows = [{"prompt": f"one {word} is", "completion": " two three"} for word in ["four", "five", "six", "seven"]]
    Path("chats.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    Path("stopping.py").write_text(OBJECTIVE)
    return tmp_path


def options(folder, *extra):
    given = {
        "model_name_or_path": "start", "dataset_name": "chats.jsonl", "output_dir": folder, "max_steps": 4, "save_steps": 2,
        "per_device_train_batch_size": 1, "learning_rate": 1e-2, "use_cpu": "true", "report_to": "none",
        "disable_tqdm": "true", "gradient_checkpointing": "false", "objective": "stopping:loss",
        "resume_from_checkpoint": "auto",
    }  # fmt: skip
    return ["sft", *(f"--{name}={value}" for name, value in given.items()), *extra]


def complaint(capsys):
    error = capsys.readouterr().err
    (line,) = [line for line in error.splitlines() if line.startswith("manypaths ")]
    assert "Traceback" not in error
    return line


def weights(folder):
    return Path(folder, "model.safetensors").read_bytes()


def test_sigterm_saves_after_the_running_step_and_the_same_command_goes_on(start, capsys):
    assert main(options("whole")) == 0
    before = signal.getsignal(signal.SIGTERM)
    Path("stop").touch()
    capsys.readouterr()
    assert main(options("out", "--save_strategy=no", "--save_only_model")) == 2  # nothing that `auto` could go on from
    assert "leave out --save_only_model" in complaint(capsys)
    assert main(options("out")) == 143 and signal.getsignal(signal.SIGTERM) is before
    line = complaint(capsys)
    assert "stopped by SIGTERM; out/checkpoint-1 is saved" in line and "--resume_from_checkpoint auto goes on" in line
    assert flaw(Path("out/checkpoint-1"), 1) is None and not Path("out/model.safetensors").exists()
    assert main(options("out")) == 0
    assert "resuming from out/checkpoint-1" in capsys.readouterr().out
    assert weights("out") == weights("whole")

    Path("stop").touch()
    assert main(options("out", "--resume_from_checkpoint=false")) == 143
    capsys.readouterr()
    assert main(options("out")) == 0  # not from checkpoint-4, which is of the start before
    assert "resuming from out/checkpoint-1; passed over checkpoint-4" in capsys.readouterr().out
    assert weights("out") == weights("whole")

    for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth"):
        Path("out/checkpoint-4", name).unlink()
    assert main(options("out", "--resume_from_checkpoint=out/checkpoint-4")) == 2
    assert "checkpoint-4 cannot be resumed from: it lacks optimizer state" in complaint(capsys)


@pytest.mark.parametrize("name", ("optimizer.pt", "scheduler.pt"))
def test_a_full_disk_leaves_the_last_complete_checkpoint(start, capsys, monkeypatch, name):
    assert main(options("whole")) == 0
    save, size, handler = torch.save, 600, signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    def full(value, file, *args, **kwargs):
        if not str(file).endswith(f"checkpoint-4/{name}"):
            return save(value, file, *args, **kwargs)
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
        try:
            return save(value, file, *args, **kwargs)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    capsys.readouterr()
    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", full)
        try:
            assert main(options("out")) == 2
        finally:
            signal.signal(signal.SIGXFSZ, handler)
    line = complaint(capsys)
    assert "No room to write to; free some space" in line and "--resume_from_checkpoint auto goes on" in line
    assert newest_checkpoint("out").name == "checkpoint-2"
    assert main(options("out")) == 0
    out = capsys.readouterr().out
    assert "resuming from out/checkpoint-2; passed over checkpoint-4: its trainer_state.json" in out
    assert weights("out") == weights("whole")


@pytest.mark.heavy
def test_sigterm_stops_several_processes_after_the_same_step(start):
    command = [sys.executable, "-m", "manypaths", *options("out", "--num_processes=2", "--max_steps=5000")]
    launcher = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                env={**os.environ, "CUDA_VISIBLE_DEVICES": ""})  # fmt: skip
    try:
        end = time.monotonic() + 120
        while not Path("out/manypaths_run.json").exists():  # which the first step leaves
            assert launcher.poll() is None and time.monotonic() < end
            time.sleep(0.1)
        launcher.terminate()
        error = launcher.communicate(timeout=60)[1]
    finally:
        launcher.kill()
    lines = [line for line in error.splitlines() if line.startswith("manypaths ")]
    assert launcher.returncode == 143 and len(lines) == 1 and "stopped by SIGTERM" in lines[0], error
    assert "Traceback" not in error
    assert flaw(newest_checkpoint("out"), 2) is None
