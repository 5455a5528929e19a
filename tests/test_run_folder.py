import dataclasses
import json
import os
import subprocess
import sys

import pytest

from manypaths.run_folder import (
    RunFolder,
    content_fingerprint,
    nothing_left_on_failure,
    read_run,
    settings_of,
    write_whole,
)

SETTINGS = {"objective": "sed", "objective_kwargs": {"top_k": 10}, "learning_rate": 2e-5}


def claim(path, settings=SETTINGS, subcommand="sft", parts=None, **notes):
    with RunFolder(path, subcommand, settings, parts) as folder:
        folder.notes |= notes
        folder.record()


def test_a_fresh_folder_is_free_and_a_run_that_wrote_nothing_leaves_nothing(tmp_path):
    with RunFolder(tmp_path / "deep" / "run", "sft", SETTINGS):
        assert (tmp_path / "deep" / "run").is_dir()
    assert list(tmp_path.iterdir()) == []


def test_the_same_run_may_come_back_with_its_notes(tmp_path):
    claim(tmp_path, backend="transformers")
    with RunFolder(tmp_path, "sft", dict(reversed(SETTINGS.items()))) as folder:
        assert folder.notes == {"backend": "transformers"}
    assert read_run(tmp_path)["settings"] == SETTINGS
    assert read_run(tmp_path / "elsewhere") is None


def test_another_run_is_named_by_what_differs(tmp_path):
    claim(tmp_path)
    other = {**SETTINGS, "objective": "gem", "objective_kwargs": {"top_k": 2}}
    with pytest.raises(ValueError, match="another run") as caught, RunFolder(tmp_path, "sft", other):
        pass
    message = str(caught.value)
    assert "objective: there 'sed', now 'gem'" in message and "objective_kwargs.top_k: there 10, now 2" in message
    assert "learning_rate" not in message and "--output_dir" in message and "\n" not in message
    with pytest.raises(ValueError, match="subcommand: there 'sft', now 'eval'"), RunFolder(tmp_path, "eval", SETTINGS):
        pass


def test_parts_may_join_but_not_change(tmp_path):
    claim(tmp_path, parts={"gsm8k": {"seed": 0}})
    claim(tmp_path, parts={"math500": {"seed": 0}})
    assert set(read_run(tmp_path)["parts"]) == {"gsm8k", "math500"}
    with pytest.raises(ValueError, match=r"gsm8k\.seed: there 0, now 1"):
        claim(tmp_path, parts={"gsm8k": {"seed": 1}, "aime24": {"seed": 1}})
    assert set(read_run(tmp_path)["parts"]) == {"gsm8k", "math500"}


def test_files_without_a_record_and_a_damaged_record_are_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    folder = RunFolder(tmp_path, "sft", SETTINGS, leaves=("*.safetensors",))
    folder.check()
    (tmp_path / "model.safetensors").write_text("x")
    with pytest.raises(ValueError, match=r"already holds model\.safetensors"):
        folder.check()
    (tmp_path / "manypaths_run.json").write_text("{")
    with pytest.raises(ValueError, match="damaged"):
        folder.check()


def test_a_file_is_not_an_output_folder(tmp_path):
    (tmp_path / "run").write_text("x")
    with pytest.raises(ValueError, match="is a file"), RunFolder(tmp_path / "run", "sft", SETTINGS):
        pass


HOLDER = """
import sys, time
from manypaths.run_folder import RunFolder
with RunFolder(sys.argv[1], "sft", {}):
    print("held", flush=True)
    time.sleep(60)
"""


def test_two_runs_never_share_a_folder_and_a_killed_one_frees_it(tmp_path):
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path / "run")], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(ValueError, match="Another run is writing"), RunFolder(tmp_path / "run", "sft", {}):
            pass
    finally:
        holder.kill()
        holder.wait()
    with RunFolder(tmp_path / "run", "sft", {}):
        pass


def test_a_write_is_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "results.json"
    write_whole(path, "old")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="free some space"):
        write_whole(path, "new")
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


@dataclasses.dataclass
class Options:
    dataset_name: str | None = None
    temperature: float = 1.0
    reward_weights: list[float] | None = None
    loss_type: str = "dapo"
    max_steps: int = 10
    output_dir: str = "out"
    logging_steps: int = 1
    report_to: str = "none"
    hub_model_id: str | None = None


def test_everything_but_output_logging_and_hub_makes_the_run(tmp_path):
    data = tmp_path / "data.jsonl"
    data.write_text("1")
    settings = settings_of(Options(str(data)))
    assert set(settings) == {"dataset_name", "temperature", "loss_type", "max_steps"}
    assert settings_of(Options(str(data), output_dir="there", logging_steps=5, hub_model_id="me/it")) == settings
    for change in ({"temperature": 0.7}, {"reward_weights": [1.0]}, {"loss_type": "grpo"}, {"max_steps": 20}):
        assert settings_of(Options(str(data), **change)) != settings
    data.write_text("2")
    assert settings_of(Options(str(data)))["dataset_name"] != settings["dataset_name"]
    json.dumps(settings)


def test_files_and_models_are_known_by_content_not_by_place(tmp_path):
    for name, text in (("a", "1"), ("b", "1"), ("c", "2")):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "data.jsonl").write_text(text)
        (folder / "model").mkdir()
        (folder / "model" / "config.json").write_text("{}")
        (folder / "model" / "model.safetensors").write_bytes(text.encode() * (9 << 20))
    for path in ("data.jsonl", "model", "."):
        same, moved, other = (content_fingerprint(tmp_path / name / path) for name in "abc")
        assert same == moved != other, path
    assert content_fingerprint("org/name") == "org/name"
    before = content_fingerprint(tmp_path / "a" / "model")
    for name in ("trainer_state.json", "results.json", "manypaths_run.json", "log.txt.part", "report.html"):
        (tmp_path / "a" / "model" / name).write_text("written later")
    assert content_fingerprint(tmp_path / "a" / "model") == before


def test_the_model_under_an_adapter_counts(tmp_path):
    base, adapter = tmp_path / "base", tmp_path / "adapter"
    base.mkdir(), adapter.mkdir()
    (base / "config.json").write_text("{}")
    (adapter / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(base)}))
    before = content_fingerprint(adapter)
    (base / "model.safetensors").write_text("other weights")
    assert content_fingerprint(adapter) != before


def test_a_failure_takes_back_the_folders_it_made_and_no_others(tmp_path):
    (tmp_path / "mine").mkdir()
    with pytest.raises(RuntimeError), nothing_left_on_failure(tmp_path / "mine" / "deep" / "run"):
        (tmp_path / "mine" / "deep" / "run").mkdir(parents=True)
        raise RuntimeError
    assert list(tmp_path.iterdir()) == [tmp_path / "mine"] and not list((tmp_path / "mine").iterdir())
    with pytest.raises(RuntimeError), nothing_left_on_failure(tmp_path / "run"):
        (tmp_path / "run").mkdir()
        (tmp_path / "run" / "kept").write_text("x")
        raise RuntimeError
    assert (tmp_path / "run" / "kept").exists()


HAMMER = """
import os, sys, time
from manypaths.run_folder import RunFolder
folder, marker, got = sys.argv[1], sys.argv[2], 0
print("ready", flush=True)
sys.stdin.readline()
for _ in range(4000):
    try:
        with RunFolder(folder, "sft", {}):
            os.close(os.open(marker, os.O_CREAT | os.O_EXCL))  # fails where another one is inside
            os.unlink(marker)
            got += 1
    except ValueError:
        pass
print(got)
"""


@pytest.mark.slow
def test_a_folder_that_comes_and_goes_is_never_held_twice(tmp_path):
    command = [sys.executable, "-c", HAMMER, str(tmp_path / "deep" / "run"), str(tmp_path / "marker")]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    runs = [subprocess.Popen(command, **pipes) for _ in range(3)]
    assert all(run.stdout.readline() == "ready\n" for run in runs)
    for run in runs:
        run.stdin.write("\n"), run.stdin.flush()
    for run in runs:
        out, error = run.communicate(timeout=60)
        assert run.returncode == 0 and int(out) > 0, error
