"""Runs with a cached reference are the runs with a live one; what would need a model that is gone is refused."""

import pytest
import torch
import trl
from datasets import Dataset, IterableDataset
from peft import LoraConfig, PromptTuningConfig

import manypaths
from batches import sequences
from manypaths.data.config import TrainingDataConfig
from manypaths.models import reference_cache
from manypaths.run_folder import settings_of
from manypaths.training import cached_reference
from manypaths.training.config import check_options
from runs import lively_llama, steps, trainer

SKIP = {"skip_prepare_dataset": True}
V, LENGTHS = 88, (9, 5, 12, 7, 8, 11, 6, 10, 9, 12)


def rows(count: int = 10, seed: int = 0) -> Dataset:
    pairs = sequences(V, LENGTHS[:count], seed=seed)
    return Dataset.from_list([{"input_ids": ids.tolist(), "labels": labels.tolist()} for ids, labels in pairs])


RUNS = (("live", None), ("cached", "cache"))
CASES = {
    "packing": {"packing": True, "max_length": 24},
    "documents split by packing": {"packing": True, "max_length": 10, "packing_strategy": "bfd_split"},
    "packing that cuts and joins documents": {"packing": True, "max_length": 16, "packing_strategy": "wrapped"},
    "no padding": {"padding_free": True, "max_length": None},
    "lora and a head that trains": {
        "peft_config": LoraConfig(task_type="CAUSAL_LM", r=4, target_modules=["q_proj"], modules_to_save=["lm_head"])
    },
    "lora that does not start at 0": {
        "peft_config": LoraConfig(task_type="CAUSAL_LM", r=4, target_modules=["q_proj"], init_lora_weights=False)
    },
    "prompt tuning": {"peft_config": PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3)},
    "asft in two micro-batches": {"objective": "asft", "gradient_accumulation_steps": 2},
    "evaluation": {"data": rows(), "evaluation": rows(3, seed=1), "eval_strategy": "epoch", "dataset_kwargs": SKIP},
    "bf16": {"bf16": True, "per_device_train_batch_size": 1},
}


def run(tokenizer, folder, reference=None, model=None, data=None, **options):
    options = {"objective": "eksft", "max_steps": -1, "num_train_epochs": 2, "learning_rate": 0.3, **options}
    options.setdefault("dataset_kwargs", SKIP)
    model = lively_llama(len(tokenizer)) if model is None else model
    return trainer(model, rows() if data is None else data, tokenizer, folder, reference=reference, **options)


def trained(*given, resume=None, **options):
    """What was logged at every step and in evaluations, after training."""
    torch.manual_seed(0)  # of adapters
    trainer = run(*given, **options)
    trainer.train(resume_from_checkpoint=resume)
    return logged(trainer)


def logged(trainer) -> list[float]:
    names = ("loss", "grad_norm", "eval_loss", "kl_policy_ref", "kl_ref_policy", "kept_share")
    values = [row[name] for row in trainer.state.log_history for name in names if name in row]
    assert len(values) > 4
    return values


def test_a_run_is_the_same(tokenizer, tmp_path):
    """Two epochs of shuffled, padded batches."""
    live, cached = (trained(tokenizer, tmp_path / name, how) for name, how in RUNS)
    assert cached == pytest.approx(live, rel=1e-6, abs=1e-6)
    folder = tmp_path / "cached" / cached_reference.FOLDER
    again = run(tokenizer, tmp_path / "again", "cache", reference_cache=str(folder), data=rows(5))
    assert again._cached.cache.complete and not again._cached.todo  # nor does the order of the data, or a part of it, matter


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Careful, disabling adapter", "ignore:Position ids are not supported")
@pytest.mark.parametrize("case", CASES)
def test_a_run_is_the_same_with(case, chats, tokenizer, tmp_path):
    """On prompts and completions as TRL prepares them."""
    options = {"data": chats, "dataset_kwargs": None, "num_train_epochs": 1, **CASES[case]}
    live, cached = (trained(tokenizer, tmp_path / name, how, **options) for name, how in RUNS)
    assert cached == pytest.approx(live, rel=1e-4, abs=1e-5)


def test_another_model_or_other_data_is_refused_before_the_first_step(tokenizer, tmp_path):
    run(tokenizer, tmp_path / "run", "cache").train()
    where = dict(reference="cache", reference_cache=str(tmp_path / "run" / cached_reference.FOLDER))
    with pytest.raises(ValueError, match=r"hidden states of another reference \(weights: there"):
        run(tokenizer, tmp_path / "other", model=lively_llama(len(tokenizer), seed=1), **where)
    with pytest.raises(ValueError, match="of other data: 10 of the 10 documents are not in it"):
        run(tokenizer, tmp_path / "other", data=rows(seed=2), **where)
    with pytest.raises(ValueError, match="of other data: 1 of the 11 documents are not in it"):
        run(tokenizer, tmp_path / "other", evaluation=rows(1, seed=2), eval_strategy="epoch", **where)
    with pytest.raises(ValueError, match="precision: there 'no', now 'bf16'"):
        run(tokenizer, tmp_path / "other", bf16=True, **where)
    assert not (tmp_path / "other").exists()


@pytest.mark.slow
def test_a_killed_pass_goes_on(tokenizer, tmp_path, monkeypatch):
    """What was stored before the kill is not computed again, and the run is the one without it."""
    monkeypatch.setattr(reference_cache, "FILE_BYTES", 1)
    computed, starting_rows = [], cached_reference.starting_rows

    def killed(*given):
        if len(computed) == 2:
            raise KeyboardInterrupt
        computed.append(given)
        return starting_rows(*given)

    monkeypatch.setattr(cached_reference, "starting_rows", killed)
    with pytest.raises(KeyboardInterrupt):
        run(tokenizer, tmp_path / "run", "cache").train()
    folder = tmp_path / "run" / cached_reference.FOLDER
    assert len(list(folder.glob(reference_cache.ROWS))) == 2
    (folder / "rows-cut.safetensors.part").write_bytes(b"half a file")
    with pytest.raises(ValueError, match=r"the beginning of a reference of other data \(documents: there 10, now 4; "):
        run(tokenizer, tmp_path / "run", "cache", data=rows(4))
    monkeypatch.setattr(cached_reference, "starting_rows", lambda *given: computed.append(given) or starting_rows(*given))
    undisturbed = trained(tokenizer, tmp_path / "live", max_steps=2)
    assert trained(tokenizer, tmp_path / "run", "cache", max_steps=2) == pytest.approx(undisturbed, rel=1e-6, abs=1e-6)
    assert len(computed) == 3  # batches of 4, 4 and 2


@pytest.mark.slow
def test_a_checkpoint_is_no_starting_model(tokenizer, tmp_path):
    """Resumed from a checkpoint the run ends as if undisturbed; without the cache it was begun with it is refused."""
    options = dict(max_steps=4, save_strategy="steps", save_steps=2)
    whole = trained(tokenizer, tmp_path / "run", "cache", **options)
    checkpoint, folder = str(tmp_path / "run" / "checkpoint-2"), tmp_path / "run" / cached_reference.FOLDER
    resumed = trained(tokenizer, tmp_path / "resumed", "cache", reference_cache=str(folder), resume=checkpoint, **options)
    assert resumed == whole
    with pytest.raises(ValueError, match=r"does not hold the whole reference, and the model of .*checkpoint-2 is no longer"):
        run(tokenizer, tmp_path / "elsewhere", "cache", **options).train(resume_from_checkpoint=checkpoint)


def test_a_full_disk_is_told_before_the_pass(tokenizer, tmp_path, monkeypatch):
    monkeypatch.setattr(cached_reference.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 10}))
    with pytest.raises(ValueError, match=r"has room for 1e-08 GB and the reference needs 8\.83e-06 GB"):
        run(tokenizer, tmp_path, "cache").train()


def test_under_mixed_precision_the_policy_starts_at_its_live_reference(tokenizer, tmp_path):
    """A reference in float32 beside a policy in bfloat16 had a KL of 3e-3 where there is none, and eksft selected by it."""
    live = run(tokenizer, tmp_path, bf16=True, max_steps=1)
    live.train()
    (step,) = steps(live)
    assert step["kl_policy_ref"] == 0 and step["kept_share"] > 0.8


def test_options_that_do_not_go_together_are_refused(tokenizer, tmp_path):
    for options, message in (
        (dict(objective="sed", reference="cache"), "compares with no reference"),
        (dict(objective="eksft", reference_cache="somewhere"), "reference_cache='somewhere' is for reference: cache"),
    ):
        with pytest.raises(ValueError, match=message):
            manypaths.SFTConfig(str(tmp_path), bf16=False, **options)
    config = manypaths.SFTConfig(str(tmp_path), bf16=False, objective="asft", reference="cache", max_steps=2)
    data = TrainingDataConfig(dataset_name="rows.jsonl", dataset_streaming=True)
    with pytest.raises(ValueError, match="A stream cannot be read before training"):
        check_options(data, config, trl.ModelConfig("a-model"))
    stream = IterableDataset.from_generator(lambda: iter(rows()))
    with pytest.raises(ValueError, match="needs text that is tokenised before training"):
        run(tokenizer, tmp_path, "cache", data=stream, max_steps=2)


def test_where_the_cache_lies_does_not_make_another_run(tmp_path, monkeypatch):
    """Nor does a folder that happens to be called as the option's value."""
    monkeypatch.chdir(tmp_path)
    options = dict(bf16=False, objective="asft", reference="cache")
    before = settings_of(manypaths.SFTConfig("out", **options))
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "file").write_text("of something else")
    assert settings_of(manypaths.SFTConfig("out", reference_cache="elsewhere", **options)) == before
    assert before["reference"] == "cache"
