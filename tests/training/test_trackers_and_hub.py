"""What a run tells others, without a network: curves in trackers that are installed, and the folder that would be uploaded."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import transformers

from conftest import tiny_llama
from manypaths.cli.main import main

CURVES = ("loss", "ce", "entropy", "mean_token_accuracy", "mask_rate")


@pytest.fixture
def sed(tmp_path, tokenizer, monkeypatch):
    """`manypaths sft` with SED for two steps, and more options."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    tiny_llama(len(tokenizer)).save_pretrained("start")
    tokenizer.save_pretrained("start")
    rows = [{"prompt": f"one {word} is", "completion": " two three"} for word in ("four", "five", "six", "seven")]
    Path("chats.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    argv = ["sft", "--model", "start", "--data", "chats.jsonl", "--objective", "sed", "--output_dir", "out"]
    argv += ["--max_steps", "2", "--per_device_train_batch_size", "2", "--logging_steps", "1", "--disable_tqdm", "true"]
    return lambda *more: main([*argv, "--gradient_checkpointing", "false", *more])


@pytest.mark.slow
def test_the_folder_that_would_be_uploaded_is_the_model_with_our_card(sed, monkeypatch, capsys):
    uploaded = []

    class Hub:
        """Of `transformers.trainer.hf_api()`, what an upload calls."""

        def create_repo(self, name, **_):
            return SimpleNamespace(repo_id=name)

        def upload_folder(self, *, repo_id, folder_path, commit_message, **_):
            files = {file.name: file.read_bytes() for file in Path(folder_path).iterdir() if file.is_file()}
            uploaded.append((repo_id, commit_message, files))
            return SimpleNamespace(is_done=lambda: True, done=lambda: True)

    monkeypatch.setattr(transformers.trainer, "hf_api", Hub)
    hub = ["--push_to_hub", "true", "--hub_model_id", "me/sed", "--hub_strategy", "end"]
    assert sed(*hub, "--report_to", "none") == 0, capsys.readouterr().err
    name, message, files = uploaded[-1]
    assert (name, message) == ("me/sed", "End of training") and "model.safetensors" in files
    card = files["README.md"].decode()
    calibrated = json.loads(Path("out/calibration.json").read_text())["threshold"]
    assert "- objective: `sed`" in card and "arXiv:2602.07464" in card and str(calibrated)[:6] in card
    assert card == Path("out/README.md").read_text()


@pytest.mark.slow
def test_tensorboard_has_the_curves_of_the_objective(sed):
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    pytest.importorskip("torch.utils.tensorboard")
    assert sed("--report_to", "tensorboard") == 0
    (folder,) = {file.parent for file in Path("out").rglob("events.out.tfevents.*")}
    found = events.EventAccumulator(str(folder)).Reload()
    for name in CURVES:
        assert len(found.Scalars(f"train/{name}")) == 2, found.Tags()["scalars"]


@pytest.mark.slow
def test_wandb_offline_has_the_curves_of_the_objective(sed, monkeypatch):
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    logged = {}
    before = wandb.sdk.wandb_run.Run.log
    monkeypatch.setattr(
        wandb.sdk.wandb_run.Run, "log", lambda run, data, **how: (logged.update(data), before(run, data, **how))
    )
    assert sed("--report_to", "wandb") == 0
    assert {f"train/{name}" for name in CURVES} <= set(logged)
    assert list(Path("wandb").glob("offline-run-*"))
