"""The checks that `sft` and `grpo` make themselves before they start, each as a stage of the diagnosis."""

import os
from collections.abc import Generator, Iterator, Mapping
from pathlib import Path
from statistics import fmean
from types import SimpleNamespace
from typing import Any

from accelerate.utils import DistributedType
from datasets import IterableDataset
from huggingface_hub import try_to_load_from_cache
from transformers import AutoProcessor
from transformers.utils import is_flash_attn_2_available
from trl import ModelConfig

from ..data.config import TrainingDataConfig
from ..data.formats import PROMPT_FORMATS, Rows, check_tokenizer_fits, sft_formats
from ..generation.samples import Sample
from ..grading.graders import GOLD_COLUMNS, gold_answer, grade_samples, resolve_grader
from ..models.loading import check_model, load_config
from ..objectives import Objective, resolve
from ..training.config import GRPOConfig, RewardConfig, SFTConfig, check_installed, check_options
from ..training.run import check_tokenizer_and_head, data_warnings, load_data, run_folder
from ..training.sft import refuse_unsupported
from .checks import Check, judged
from .cost import Sharding
from .installation import existing

WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
GRADED = 32  # rows
Found = Generator[Check, None, Mapping[str, Any] | None]


def sft_options(data: TrainingDataConfig, config: SFTConfig, model: ModelConfig) -> Found:
    """Facts: the objective."""
    check_options(data, config, model)
    check_installed(config)
    objective = resolve(config.objective, **(config.objective_kwargs or {}))
    given = f" {objective.hyperparameters}" if objective.hyperparameters else ""
    yield Check("options", "ok", f"objective {objective.name}{given}")
    return {"objective": objective}


def grpo_options(data: TrainingDataConfig, config: GRPOConfig, model: ModelConfig, reward: RewardConfig) -> Found:
    check_options(data, config, model, reward)
    check_installed(config)
    yield Check("options", "ok", f"GRPO with the rewards {', '.join(reward.reward_funcs)}")


def model_files(config: Any, model: ModelConfig, gpu: str | None) -> Found:
    """Facts: the model's configuration."""
    name = model.model_name_or_path
    check_model(name, model.model_revision)
    adapter = Path(name, "adapter_config.json").is_file()
    facts = {"model_config": load_config(name)}
    attention = str(model.attn_implementation)
    yield judged(
        "attention",
        "the model's default" if model.attn_implementation is None else attention,
        attention.startswith("flash_attention_2") and not is_flash_attn_2_available(),
        "It cannot run here: pip install flash-attn on a machine with a GPU, or leave --attn_implementation out.",
        "fail" if gpu is None else "warn",
    )
    if adapter:
        yield Check(
            "model", "warn", f"{name} is an adapter", "What follows is of the model under it, which it is put on."
        )
        return facts
    folder = Path(name).is_dir()
    there = has_weights(name, model.model_revision)
    yield judged(
        "model",
        f"{name}, {facts['model_config'].model_type}" + ("" if there else ": no weights here yet"),
        not there,
        f"Save the weights into {name}." if folder else "They are downloaded when training starts.",
        "fail" if folder else "warn",
    )
    return facts


def has_weights(name: str, revision: str) -> bool:
    """In a folder, or in the cache of the hub; nothing is downloaded."""
    if Path(name).is_dir():
        return any(Path(name, file).is_file() for file in WEIGHTS)
    return any(isinstance(try_to_load_from_cache(name, file, revision=revision), str) for file in WEIGHTS)


def sft_folder(data: TrainingDataConfig, config: SFTConfig, model: ModelConfig) -> Found:
    run_folder("sft", config, data, model)
    yield from writable(config.output_dir)


def grpo_folder(data: TrainingDataConfig, config: GRPOConfig, model: ModelConfig, reward: RewardConfig) -> Found:
    run_folder("grpo", config, data, reward, model)
    yield from writable(config.output_dir)


def writable(output_dir: str) -> Iterator[Check]:
    place = existing(output_dir)
    yield judged(
        "output folder",
        output_dir,
        not os.access(place, os.W_OK),
        f"{place} cannot be written: choose another.",
        "fail",
    )


def sft_data(data: TrainingDataConfig, config: SFTConfig) -> Found:
    """Facts: the training data."""
    train, evaluation = load_data(data, config, formats=sft_formats(config.dataset_text_field))
    yield described(train, evaluation)
    return {"train": train}


def grpo_data(data: TrainingDataConfig, config: GRPOConfig) -> Found:
    """Facts: the training data."""
    train, evaluation = load_data(data, config, formats=PROMPT_FORMATS, keep_all_columns=True)
    yield described(train, evaluation)
    return {"train": train}


def described(train: Rows, evaluation: Rows | None) -> Check:
    rows, held_out = (
        "a stream" if isinstance(one, IterableDataset) else f"{len(one)} rows" for one in (train, evaluation or [])
    )
    columns = ", ".join(next(iter(train)))
    return Check("data", "ok", f"{rows} of {columns}" + ("" if evaluation is None else f"; {held_out} to evaluate on"))


def tokenizer_and_template(train: Rows, config: SFTConfig, model: ModelConfig, model_config: Any) -> Found:
    """Facts: the processor, which for most models is the tokenizer."""
    if not Path(model.model_name_or_path, "adapter_config.json").is_file():
        check_tokenizer_and_head(train, config, model)
    facts = yield from processor(config, model, model_config)
    for text in data_warnings(train, config, facts["processor"]):
        yield Check("data", "warn", text)
    return facts


def grpo_tokenizer(config: GRPOConfig, model: ModelConfig, model_config: Any) -> Found:
    """Facts: the processor."""
    return (yield from processor(config, model, model_config))


def processor(config: Any, model: ModelConfig, model_config: Any) -> Found:
    how = {"revision": model.model_revision, "trust_remote_code": config.trust_remote_code}
    loaded = AutoProcessor.from_pretrained(model.model_name_or_path, **how)
    tokenizer = getattr(loaded, "tokenizer", loaded)
    check_tokenizer_fits(model_config, tokenizer)
    rows = model_config.get_text_config().vocab_size
    yield Check(
        "tokenizer", "ok", f"{len(tokenizer)} tokens, {rows} rows in the embedding; ends with {tokenizer.eos_token}"
    )
    return {"processor": loaded}


def parallelism(objective: Objective, sharding: Sharding) -> Iterator[Check]:
    """What the trainer refuses, asked with the accelerator that it would have."""
    plugin = SimpleNamespace(zero_stage=sharding.stage) if sharding.deepspeed else None
    fsdp = sharding.name.startswith("FSDP")
    accelerator = SimpleNamespace(
        parallelism_config=None,
        state=SimpleNamespace(deepspeed_plugin=plugin),
        distributed_type=DistributedType.FSDP if fsdp else DistributedType.NO,
        is_fsdp2=sharding.name == "FSDP2",
    )
    refuse_unsupported(accelerator, objective.needs_reference)
    yield Check("parallelism", "ok", sharding.name)


def rewards(train: Rows, reward: RewardConfig) -> Iterator[Check]:
    """The rewards of right answers, where the data has them, and of none."""
    rows = list(train.select(range(min(len(train), GRADED))))
    gold = next((name for name in GOLD_COLUMNS if name in train.column_names), None)
    for name in reward.reward_funcs:
        texts = {"no answer": ["I do not know." for _ in rows]}
        if gold is not None:
            texts["the data's own answer"] = [f"\\boxed{{{gold_answer(row[gold])}}}" for row in rows]
        means = {}
        for what, answers in texts.items():
            groups = [[Sample(answer, [], "eos")] for answer in answers]
            values = grade_samples(resolve_grader(name), rows, [row["prompt"] for row in rows], groups)
            means[what] = fmean(value or 0.0 for (value,) in values)
        yield judged(
            f"reward {name}",
            ", ".join(f"{what} gets {value:.2f}" for what, value in means.items()) + f" in {len(rows)} rows",
            len(means) == 2 and means["the data's own answer"] <= means["no answer"],
            f"It tells a right answer from none in no row: look at the column {gold!r}, or at the reward.",
        )
