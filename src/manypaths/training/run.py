"""SFT and GRPO from options to a saved model: checks first, nothing written before training starts."""

from pathlib import Path
from typing import Any, NamedTuple

from datasets import Dataset
from transformers import AutoConfig, AutoTokenizer
from transformers.utils import cached_file
from trl import GRPOTrainer, ModelConfig, get_peft_config, get_quantization_config

from ..cli.options import DataArguments, RewardArguments
from ..config import json_mapping
from ..data.formats import (
    PROMPT_FORMATS,
    SFT_FORMATS,
    check_tokenizer_fits,
    load_training_data,
)
from ..data.sources import one_line
from ..generation.prompts import is_conversation
from ..objectives import resolve
from ..run_folder import RecordRun, check_output_dir, data_fingerprint, nothing_left_on_failure
from .attachment import check_top_k
from .grpo import GRPOConfig, train_grpo
from .rewards import resolve_reward
from .sft import SFTConfig, SFTTrainer

FINGERPRINT = (
    "objective",
    "objective_kwargs",
    "calibration_fraction",
    "reference",
    "learning_rate",
    "lr_scheduler_type",
    "seed",
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
    "optim",
    "adam_beta1",
    "adam_beta2",
    "weight_decay",
    "max_grad_norm",
    "warmup_steps",
    "neftune_noise_alpha",
    "calibration_sequences",
    "chat_template_path",
    "max_length",
    "packing",
    "completion_only_loss",
    "assistant_only_loss",
    "num_generations",
    "max_completion_length",
    "beta",
)


class Prepared(NamedTuple):
    """What the checks before a run bring to light."""

    fingerprint: dict[str, Any]
    resume: str | None
    train: Dataset
    evaluation: Dataset | None


def sft(data: DataArguments, config: SFTConfig, model: ModelConfig) -> SFTTrainer:
    """Fine-tune, and save the model in `config.output_dir`; returns the trainer.

    Raises ValueError or FileNotFoundError before anything is written when the data, the model, the tokenizer,
    the objective or the output folder is not what it should be.
    """
    prepared = prepare_sft(data, config, model)
    with nothing_left_on_failure(config.output_dir):
        trainer = sft_trainer(prepared, config, model)
        trainer.train(resume_from_checkpoint=prepared.resume)
    save(trainer, data)
    return trainer


def prepare_sft(data: DataArguments, config: SFTConfig, model: ModelConfig) -> Prepared:
    """All that can be checked without a model in memory; raises as `sft` does."""
    check_names(data, model)
    fingerprint = run_fingerprint("sft", data, config, model)
    resume = resumed_from(config, fingerprint)
    formats = (*SFT_FORMATS[:-1], (config.dataset_text_field,))
    prepared = Prepared(fingerprint, resume, *load_data(data, config, formats=formats))
    if config.reference is not None:
        check_model(config.reference)
    if not Path(model.model_name_or_path, "adapter_config.json").is_file():
        check_tokenizer_and_head(prepared.train, config, model)
    return prepared


def check_tokenizer_and_head(train: Dataset, config: SFTConfig, model: ModelConfig) -> None:
    """What tokenizer and model config already tell, before weights are loaded and the data is tokenised."""
    where = {"revision": model.model_revision, "trust_remote_code": config.trust_remote_code}
    tokenizer = AutoTokenizer.from_pretrained(model.model_name_or_path, **where)
    model_config = AutoConfig.from_pretrained(model.model_name_or_path, **where)
    check_tokenizer_fits(model_config, tokenizer)
    check_top_k(resolve(config.objective, **(config.objective_kwargs or {})), model_config.get_text_config().vocab_size)
    first = next(iter(train))
    talk = any(is_conversation(first.get(name)) for name in ("messages", "prompt"))
    if talk and tokenizer.chat_template is None and config.chat_template_path is None:
        raise ValueError(
            "The data holds conversations but the tokenizer has no chat template. Give one with "
            "--chat_template_path (a .jinja file, or a model that has one), or use plain prompts and completions."
        )


def sft_trainer(prepared: Prepared, config: SFTConfig, model: ModelConfig) -> SFTTrainer:
    config.model_init_kwargs = model_init_kwargs(config, model)
    try:
        return SFTTrainer(
            model.model_name_or_path,
            config,
            train_dataset=prepared.train,
            eval_dataset=prepared.evaluation,
            quantization_config=get_quantization_config(model),
            peft_config=get_peft_config(model),
            callbacks=[RecordRun(prepared.fingerprint)],
        )
    except RuntimeError as error:  # TRL's for a chat template that marks no assistant tokens in some example
        if "assistant_only_loss" not in str(error):
            raise
        raise ValueError(str(error)) from error


def grpo(data: DataArguments, reward: RewardArguments, config: GRPOConfig, model: ModelConfig) -> GRPOTrainer:
    """Train with GRPO after its preflight, and save the model in `config.output_dir`; returns the trainer.

    Raises as `sft` and `train_grpo` do.
    """
    prepared = prepare_grpo(data, reward, config, model)
    config.model_init_kwargs = model_init_kwargs(config, model)
    with nothing_left_on_failure(config.output_dir):
        trainer = train_grpo(
            model.model_name_or_path,
            prepared.train,
            reward.reward_funcs,
            config,
            eval_dataset=prepared.evaluation,
            quantization_config=get_quantization_config(model),
            peft_config=get_peft_config(model),
            callbacks=[RecordRun(prepared.fingerprint)],
            resume_from_checkpoint=prepared.resume,
        )
    save(trainer, data)
    return trainer


def prepare_grpo(data: DataArguments, reward: RewardArguments, config: GRPOConfig, model: ModelConfig) -> Prepared:
    """All that can be checked without a model in memory; raises as `grpo` does."""
    check_names(data, model)
    if not reward.reward_funcs:
        raise ValueError("--reward is missing: countdown, math, or module:function.")
    for name in reward.reward_funcs:
        resolve_reward(name)
    fingerprint = run_fingerprint("grpo", data, config, model) | {"rewards": reward.reward_funcs}
    resume = resumed_from(config, fingerprint)
    return Prepared(fingerprint, resume, *load_data(data, config, formats=PROMPT_FORMATS, keep_all_columns=True))


def end(trainer: Any) -> None:
    """Close trackers and process groups; the last thing a program does with a trainer."""
    if hasattr(trainer, "end"):  # transformers >= 5.18
        trainer.end()


def check_names(data: DataArguments, model: ModelConfig) -> None:
    if data.dataset_name is None:
        raise ValueError("--dataset_name is missing: a .json, .jsonl or .parquet file, a folder, or a hub id.")
    name = model.model_name_or_path
    if name is None:
        raise ValueError("--model_name_or_path is missing: a model folder or hub id.")
    check_model(name, model.model_revision)


def check_model(name: str, revision: str = "main") -> None:
    """FileNotFoundError for a folder without a model, ValueError for a hub id that gives none."""
    folder = Path(name)
    if folder.is_dir() or name.startswith((".", "/", "~")) or name.count("/") > 1:
        if not (folder / "config.json").is_file() and not (folder / "adapter_config.json").is_file():
            raise FileNotFoundError(f"There is no model in {name}: no config.json in {folder.absolute()}.")
        return
    try:
        cached_file(name, "config.json", revision=revision)
    except OSError as error:
        raise ValueError(f"{name!r} is no folder here and no model of the hub: {one_line(error)}") from error


def run_fingerprint(stage: str, data: DataArguments, config: Any, model: ModelConfig) -> dict[str, Any]:
    """What makes two runs different runs: model, data, objective and the settings that shape the result."""
    name = model.model_name_or_path
    settings = {key: getattr(config, key) for key in FINGERPRINT if hasattr(config, key)}
    adapter = {key: value for key, value in vars(model).items() if key.startswith(("lora_", "use_", "load_in_"))}
    return {
        "stage": stage,
        "model": str(Path(name).resolve()) if Path(name).is_dir() else name,
        "model_revision": model.model_revision,
        "data": data_fingerprint(data.dataset_name),
        "data_config": data.dataset_config,
        "data_split": data.dataset_train_split,
        "data_format": [data.dataset_columns, data.dataset_format, data.system_prompt],
        **{key: str(value) if key in ("lr_scheduler_type", "optim") else value for key, value in settings.items()},
        "adapter": adapter if model.use_peft else None,
    }


def resumed_from(config: Any, fingerprint: dict[str, Any]) -> str | None:
    """The checkpoint to go on from, None to start; checks the output folder and says what it holds."""
    newest = check_output_dir(config.output_dir, fingerprint)
    asked = config.resume_from_checkpoint
    if asked is None and newest is not None:
        raise ValueError(
            f"{newest} is there from an earlier start of this run. Add --resume_from_checkpoint true to go on from it, or "
            "false to start over and replace it."
        )
    if asked is None or str(asked).lower() == "false":
        return None
    if str(asked).lower() == "true":
        if newest is None:
            raise ValueError(
                f"{config.output_dir} holds no checkpoint to resume from; leave out --resume_from_checkpoint."
            )
        return str(newest)
    if not Path(asked).is_dir():
        raise FileNotFoundError(f"There is no checkpoint folder {asked} to resume from.")
    return str(asked)


def load_data(data: DataArguments, config: Any, **how: Any) -> tuple[Dataset, Dataset | None]:
    """Training and, when `eval_strategy` asks for it, evaluation data."""
    how |= {
        "name": data.dataset_config,
        "columns": column_map(data.dataset_columns),
        "layout": data.dataset_format,
        "system_prompt": data.system_prompt,
    }
    train = load_training_data(data.dataset_name, split=data.dataset_train_split, **how)
    wanted = str(getattr(config.eval_strategy, "value", config.eval_strategy)) != "no"
    if data.eval_dataset_name is not None and not wanted:
        raise ValueError("eval_dataset_name is given but eval_strategy is no; add --eval_strategy epoch or steps.")
    if not wanted:
        return train, None
    if data.eval_dataset_name is None:
        return train, load_training_data(data.dataset_name, split=data.dataset_test_split, **how)
    split = "train" if Path(data.eval_dataset_name).is_file() else data.dataset_test_split
    return train, load_training_data(data.eval_dataset_name, split=split, **how)


def column_map(columns: dict[str, str] | str | None) -> dict[str, str] | None:
    return json_mapping(columns, "dataset_columns", '{"prompt": "question"}')


def model_init_kwargs(config: Any, model: ModelConfig) -> dict[str, Any]:
    """TRL's model options; those in `config.model_init_kwargs` win."""
    return {
        "revision": model.model_revision,
        "attn_implementation": model.attn_implementation,
        "dtype": model.dtype,
        **(config.model_init_kwargs or {}),
    }


def save(trainer: Any, data: DataArguments) -> None:
    trainer.save_model(trainer.args.output_dir)
    trainer.accelerator.print(f"model saved to {trainer.args.output_dir}")
    if trainer.args.push_to_hub:
        trainer.push_to_hub(dataset_name=data.dataset_name)
