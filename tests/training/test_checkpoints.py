"""What may be resumed from: complete checkpoints only, the newest of them, and it says which."""

import json
import shutil
from types import SimpleNamespace

import pytest
import torch

from manypaths.run_folder import RunFolder
from manypaths.training.checkpoints import flaw, newest_checkpoint, resumed_from
from manypaths.training.run import held
from runs import checkpoint as write
from runs import lively_llama, trainer


def cut(file):
    file.write_bytes(file.read_bytes()[:-20])


def test_a_whole_checkpoint_has_no_flaw(tmp_path):
    assert flaw(write(tmp_path, 2)) is None and flaw(tmp_path / "checkpoint-2", 1) is None
    assert flaw(write(tmp_path, 4, ranks=2), 2) is None


@pytest.mark.parametrize(
    "name", ("trainer_state.json", "model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth")
)
def test_every_file_that_is_cut_or_missing_is_found(tmp_path, name):
    file = write(tmp_path, 2) / name
    cut(file)
    assert name in flaw(file.parent)
    file.write_bytes(b"")
    assert name in flaw(file.parent)
    file.unlink()
    assert ("missing" if name == "trainer_state.json" else "it lacks") in flaw(file.parent)


def test_every_process_needs_its_random_state(tmp_path):
    checkpoint = write(tmp_path, 2, ranks=2)
    assert flaw(checkpoint) is None
    assert "it lacks rng_state.pth and may come from another number of processes" in flaw(checkpoint, 1)
    assert "it lacks rng_state_2.pth" in flaw(checkpoint, 3)


def test_weights_alone_are_told_by_what_left_them(tmp_path):
    checkpoint = write(tmp_path, 2)
    for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth"):
        (checkpoint / name).unlink()
    assert flaw(checkpoint) == (
        "it lacks optimizer state, scheduler state, random state (save_only_model leaves them out)"
    )


def test_shards_that_an_index_names_are_there(tmp_path):
    checkpoint = write(tmp_path, 2)
    weights = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    (checkpoint / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weights}))
    (checkpoint / "model.safetensors").rename(checkpoint / "model-00001-of-00002.safetensors")
    assert flaw(checkpoint) == "it lacks model-00002-of-00002.safetensors"
    shutil.copy(checkpoint / "model-00001-of-00002.safetensors", checkpoint / "model-00002-of-00002.safetensors")
    assert flaw(checkpoint) is None


@pytest.mark.parametrize("kind", ("adapter", "adapters in folders", "FSDP full", "FSDP sharded", "DeepSpeed"))
def test_other_kinds_of_checkpoints_are_complete_too(tmp_path, kind):
    checkpoint = write(tmp_path, 2)
    weights, optimizer = checkpoint / "model.safetensors", checkpoint / "optimizer.pt"
    if kind == "adapter":
        weights.rename(checkpoint / "adapter_model.safetensors")
    elif kind == "adapters in folders":
        (checkpoint / "other").mkdir()
        weights.rename(checkpoint / "other" / "adapter_model.safetensors")
    elif kind == "FSDP full":
        optimizer.rename(checkpoint / "optimizer.bin")
        weights.unlink()
        torch.save({}, checkpoint / "pytorch_model_fsdp.bin")
    elif kind == "FSDP sharded":
        for file, name in ((weights, "pytorch_model_fsdp_0"), (optimizer, "optimizer_0")):
            file.unlink()
            (checkpoint / name).mkdir()
            (checkpoint / name / "__0_0.distcp").write_bytes(b"shard")
    else:
        for file in (weights, optimizer, checkpoint / "scheduler.pt"):
            file.unlink()
        (checkpoint / "global_step2").mkdir()
    assert flaw(checkpoint) is None


def test_true_and_auto_take_the_newest_complete_one_and_say_what_they_pass_over(tmp_path):
    for step in (2, 10, 12):
        write(tmp_path, step)
    (tmp_path / "checkpoint-12" / "trainer_state.json").unlink()
    cut(tmp_path / "checkpoint-10" / "optimizer.pt")
    for word in (True, "true", "auto"):
        said = []
        assert resumed_from(word, tmp_path, 1, said.append) == str(tmp_path / "checkpoint-2")
        (line,) = said
        assert line.startswith(
            f"resuming from {tmp_path / 'checkpoint-2'}; passed over checkpoint-12: its trainer_state"
        )
        assert line.endswith("passed over checkpoint-10: cut off: optimizer.pt")
    assert newest_checkpoint(tmp_path).name == "checkpoint-2"


def test_without_a_complete_one_auto_starts_and_true_is_refused(tmp_path):
    (tmp_path / "checkpoint-4").mkdir()
    said = []
    assert resumed_from("auto", tmp_path, 1, said.append) is None
    assert said[0].startswith(f"starting: {tmp_path} holds no complete checkpoint; passed over checkpoint-4")
    with pytest.raises(ValueError, match=r"no complete checkpoint to resume from; passed over checkpoint-4.*start over"):
        resumed_from("true", tmp_path, 1, said.append)
    said.clear()
    assert resumed_from("auto", tmp_path / "new", 1, said.append) is None and not said


def test_auto_never_starts_over_what_another_number_of_processes_could_go_on_with(tmp_path):
    write(tmp_path, 4, ranks=2)
    for word in ("auto", "true"):
        with pytest.raises(ValueError, match=r"checkpoint-4: it lacks rng_state\.pth and may come from another number"):
            resumed_from(word, tmp_path, 1, pytest.fail)


def test_a_named_one_is_taken_or_refused_and_never_replaced(tmp_path):
    good, bad = write(tmp_path, 2), write(tmp_path, 4)
    (bad / "rng_state.pth").unlink()
    assert resumed_from(str(good), tmp_path, 1, pytest.fail) == str(good)
    with pytest.raises(ValueError, match="checkpoint-4 cannot be resumed from: it lacks random state"):
        resumed_from(str(bad), tmp_path, 1, pytest.fail)
    with pytest.raises(FileNotFoundError):
        resumed_from(str(tmp_path / "none"), tmp_path, 1, pytest.fail)
    assert resumed_from(None, tmp_path, 1, pytest.fail) is None is resumed_from("false", tmp_path, 1, pytest.fail)


def test_the_checkpoint_is_chosen_while_the_folder_is_held(tmp_path, capsys):
    folder = RunFolder(tmp_path, "sft", {})
    config = SimpleNamespace(resume_from_checkpoint="auto", save_only_model=False, world_size=1)
    with held(folder, config) as checkpoint:
        assert checkpoint is None
    saved = write(tmp_path, 2)  # by another run, between the checks and now
    with held(folder, config) as checkpoint:
        assert checkpoint == str(saved)
    assert f"resuming from {saved}" in capsys.readouterr().out
    config.resume_from_checkpoint = None
    with pytest.raises(ValueError, match="is there from an earlier start"), held(folder, config):
        pass


def test_the_trainer_passes_over_what_is_cut_and_refuses_what_lacks_its_states(tmp_path, chats, tokenizer, capsys):
    def run(resume=None):
        made = trainer(lively_llama(len(tokenizer)), chats, tokenizer, tmp_path, save_strategy="steps", save_steps=1)
        made.train(resume_from_checkpoint=resume)
        return made.model.state_dict()

    expected = run()
    (tmp_path / "checkpoint-2" / "trainer_state.json").unlink()
    capsys.readouterr()
    resumed = run(True)
    assert f"resuming from {tmp_path / 'checkpoint-1'}; passed over checkpoint-2" in capsys.readouterr().out
    assert all(torch.equal(resumed[name], values) for name, values in expected.items())
    (tmp_path / "checkpoint-1" / "optimizer.pt").unlink()
    with pytest.raises(ValueError, match="checkpoint-1 cannot be resumed from: it lacks optimizer state"):
        run(str(tmp_path / "checkpoint-1"))
