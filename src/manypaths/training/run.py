"""SFT and GRPO from options to a saved model: checks first, nothing written before training starts.

The trainers are imported when the checks have passed, so that a mistake is told within seconds.
"""

import json
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from accelerate.utils import broadcast_object_list
from transformers import AutoConfig, AutoProcessor, AutoTokenizer, ProcessorMixin, TrainerCallback
from trl import ModelConfig, get_peft_config, get_quantization_config, get_training_chat_template

from ..config import json_mapping
from ..data.config import TrainingDataConfig
from ..data.formats import PROMPT_FORMATS, Rows, check_tokenizer_fits, load_training_data, sft_formats, share_of_others
from ..data.mixture import load_mixture
from ..data.sources import one_line
from ..generation.prompts import is_conversation, template_errors_told
from ..grading.graders import check_golds
from ..models.loading import check_model
from ..objectives import resolve
from ..run_folder import CACHE, RunFolder, settings_of
from .attachment import check_top_k
from .checkpoints import STATE, checkpoints, resumed_from, step_of
from .config import GRPOConfig, RewardConfig, SFTConfig, evaluates
from .interruptions import stopped_by_sigterm, told_when_full
from .log_lines import in_lines

if TYPE_CHECKING:
    from trl import GRPOTrainer

    from .sft import SFTTrainer

SPLIT_SEED = 0  # of held-out rows: every rank, every resumed run and every seed of an experiment has the same ones
LEAVES = ("*.safetensors", "*.bin", "checkpoint-*")


class Prepared(NamedTuple):
    """What the checks before a run bring to light."""

    folder: RunFolder
    train: Rows
    evaluation: Rows | None


def sft(data: TrainingDataConfig, config: SFTConfig, model: ModelConfig) -> "SFTTrainer":
    """Fine-tune, and save the model in `config.output_dir`; returns the trainer.

    Raises ValueError or FileNotFoundError before anything is written when the data, the model, the tokenizer,
    the objective or the output folder is not what it should be.
    """
    prepared = prepare_sft(data, config, model)
    with held(prepared.folder, config) as checkpoint, stopped_by_sigterm() as stop:
        trainer = sft_trainer(prepared, config, model, [RecordRun(prepared.folder), stop])
        in_lines(trainer)
        for warning in data_warnings(prepared.train, config, trainer.processing_class):
            trainer.accelerator.print(f"warning: {warning}")
        trainer.train(resume_from_checkpoint=checkpoint)
        stop.raise_if_stopped()
        save(trainer, data)
    return trainer


def prepare_sft(data: TrainingDataConfig, config: SFTConfig, model: ModelConfig) -> Prepared:
    """What `check_options` did not see, and needs no model in memory; raises as `sft` does."""
    check_model(model.model_name_or_path, model.model_revision)
    folder = run_folder("sft", config, data, model)
    prepared = Prepared(folder, *load_data(data, config, formats=sft_formats(config.dataset_text_field)))
    if config.reference not in (None, CACHE):
        check_model(config.reference)
    if not Path(model.model_name_or_path, "adapter_config.json").is_file():
        check_tokenizer_and_head(prepared.train, config, model)
    return prepared


def check_tokenizer_and_head(train: Rows, config: SFTConfig, model: ModelConfig) -> None:
    """What tokenizer and model config already tell, before weights are loaded and the data is tokenised."""
    where = {"revision": model.model_revision, "trust_remote_code": config.trust_remote_code}
    processor = AutoProcessor.from_pretrained(model.model_name_or_path, **where)
    model_config = AutoConfig.from_pretrained(model.model_name_or_path, **where)
    check_tokenizer_fits(model_config, getattr(processor, "tokenizer", processor))
    check_top_k(resolve(config.objective, **(config.objective_kwargs or {})), model_config.get_text_config().vocab_size)
    first = next(iter(train))
    if config.completion_only_loss and not {"prompt", "completion"} <= first.keys():
        raise ValueError(
            f"--completion_only_loss needs the columns prompt and completion; the data has {', '.join(first)}. For messages "
            "take --assistant_only_loss true, or --dataset_format last_answer."
        )
    if {"image", "images"} & set(first) and not isinstance(processor, ProcessorMixin):
        raise ValueError(
            f"The data has images and {model.model_name_or_path} reads text only. Take a vision-language model, or data "
            "without the column."
        )
    if any(is_conversation(first.get(name)) for name in ("messages", "prompt")):
        check_chat_template(processor, config)


def check_chat_template(processor: Any, config: SFTConfig) -> None:
    """That conversations can be rendered and, where asked, the assistant's part be told from the rest."""
    path = config.chat_template_path
    if path is not None and Path(path).is_file():
        processor.chat_template = Path(path).read_text(encoding="utf-8")
    elif path is not None:
        processor.chat_template = template_of_model(path)
    if processor.chat_template is None:
        raise ValueError(
            "The data holds conversations but the tokenizer has no chat template. Give one with "
            "--chat_template_path (a .jinja file, or a model that has one), or use plain prompts and completions."
        )
    if config.assistant_only_loss and not re.search(r"{%[-+]?\s*generation\b", str(processor.chat_template)):
        try:
            get_training_chat_template(processor)
        except ValueError as error:
            raise ValueError(
                "--assistant_only_loss: the chat template does not mark what the assistant says. Write it to a .jinja file, "
                "put {% generation %} and {% endgeneration %} around the assistant's message and its end token, and give "
                "the file as --chat_template_path; or take --dataset_format last_answer."
            ) from error


def template_of_model(path: str) -> str | None:
    """The chat template of another model; ValueError where `path` is neither a file nor a model."""
    try:
        return AutoTokenizer.from_pretrained(path).chat_template
    except (OSError, ValueError) as error:
        raise ValueError(
            f"--chat_template_path {path} is neither a file here nor a model: {one_line(error)}"
        ) from error


def data_warnings(train: Rows, config: SFTConfig, processor: Any) -> Iterator[str]:
    """What is trained on, or left out, otherwise than many expect."""
    first = next(iter(train))
    if "messages" in first and not config.assistant_only_loss:
        yield (
            f"every message carries loss, and {share_of_others(train):.0%} of their text is not the assistant's. For the "
            "assistant's alone add --assistant_only_loss true, for the last answer --dataset_format last_answer."
        )
    talk = first.get("messages") or first.get("prompt")
    if first.get("tools") and is_conversation(talk) and not isinstance(processor, ProcessorMixin):
        tools = json.loads(first["tools"]) if isinstance(first["tools"], str) else first["tools"]
        with_tools, without = (
            processor.apply_chat_template(talk, tools=given, tokenize=False) for given in (tools, None)
        )
        if with_tools == without:
            yield "the chat template leaves the column tools out of the text."


def sft_trainer(
    prepared: Prepared, config: SFTConfig, model: ModelConfig, callbacks: list[TrainerCallback]
) -> "SFTTrainer":
    from .sft import SFTTrainer

    config.model_init_kwargs = model_init_kwargs(config, model)
    try:
        with template_errors_told():
            return SFTTrainer(
                model.model_name_or_path,
                config,
                train_dataset=prepared.train,
                eval_dataset=prepared.evaluation,
                quantization_config=get_quantization_config(model),
                peft_config=get_peft_config(model),
                callbacks=callbacks,
            )
    except RuntimeError as error:  # TRL's for a chat template that marks no assistant tokens in some example
        if "assistant_only_loss" not in str(error):
            raise
        raise ValueError(str(error)) from error


def grpo(data: TrainingDataConfig, config: GRPOConfig, model: ModelConfig, reward: RewardConfig) -> "GRPOTrainer":
    """Train with GRPO after its preflight, and save the model in `config.output_dir`; returns the trainer.

    Raises as `sft` and `train_grpo` do.
    """
    from .grpo import train_grpo

    prepared = prepare_grpo(data, config, model, reward)
    config.model_init_kwargs = model_init_kwargs(config, model)
    with held(prepared.folder, config) as checkpoint, stopped_by_sigterm() as stop:
        trainer = train_grpo(
            model.model_name_or_path,
            prepared.train,
            reward.reward_funcs,
            config,
            eval_dataset=prepared.evaluation,
            quantization_config=get_quantization_config(model),
            peft_config=get_peft_config(model),
            callbacks=[RecordRun(prepared.folder), stop],
            resume_from_checkpoint=checkpoint,
        )
        stop.raise_if_stopped()
        save(trainer, data)
    return trainer


def prepare_grpo(data: TrainingDataConfig, config: GRPOConfig, model: ModelConfig, reward: RewardConfig) -> Prepared:
    """What `check_options` did not see, and needs no model in memory; raises as `grpo` does."""
    check_model(model.model_name_or_path, model.model_revision)
    folder = run_folder("grpo", config, data, reward, model)
    prepared = Prepared(folder, *load_data(data, config, formats=PROMPT_FORMATS, keep_all_columns=True))
    for name in reward.reward_funcs:
        check_golds(name, prepared.train, data.dataset_name or "the data")
    return prepared


def end(trainer: Any) -> None:
    """Close trackers and process groups; the last thing a program does with a trainer.

    DDP goes before its process group. Where it goes after it, as at the end of the interpreter, it is the last owner: then
    the group's destructor joins gloo's threads while this thread holds the GIL, which such a thread needs to let go of a
    tensor, and both wait for ever. Python's own handle of a group, which now goes last, releases the GIL first.
    """
    trainer.accelerator.wait_for_everyone()
    trainer.model_wrapped = trainer.model
    trainer.accelerator.free_memory()
    trainer.accelerator.end_training()


def run_folder(subcommand: str, config: Any, *options: Any) -> RunFolder:
    """The output folder, which belongs to a run of exactly these options; checked, with the checkpoint it goes on from."""
    folder = RunFolder(config.output_dir, subcommand, settings_of(config, *options), leaves=LEAVES)
    folder.check()
    checkpoint_of(folder, config, None, silent)
    return folder


@contextmanager
def held(folder: RunFolder, config: Any) -> Iterator[str | None]:
    """The folder for this run alone, and the checkpoint to go on from; the first of several processes sees to both."""
    first = os.environ.get("RANK", "0") == "0"
    with folder if first else nullcontext():
        chosen = [checkpoint_of(folder, config, config.world_size, print) if first else None]
        with told_when_full(folder.path):
            yield (broadcast_object_list(chosen) if config.world_size > 1 else chosen)[0]


def silent(_: str) -> None:
    """For checks before those that count."""


def checkpoint_of(folder: RunFolder, config: Any, processes: int | None, say: Callable[[str], None]) -> str | None:
    """The checkpoint that `resume_from_checkpoint` means; ValueError where it is not given and checkpoints are there."""
    asked = config.resume_from_checkpoint
    if asked is None and (there := checkpoints(folder.path)):
        raise ValueError(
            f"{there[0]} is there from an earlier start of this run. Add --resume_from_checkpoint auto to go on from it, or "
            "false to start over and replace it."
        )
    if asked == "auto" and config.save_only_model:
        raise ValueError("--resume_from_checkpoint auto needs whole checkpoints; leave out --save_only_model.")
    return resumed_from(asked, folder.path, processes, say)


class RecordRun(TrainerCallback):
    """Claims the output folder when the first step is done: a run that fails at once claims nothing.

    Checkpoints of steps still to come are left from an earlier start; from now on none of them can be resumed from, nor can
    one that is half replaced.
    """

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder

    def on_step_end(self, args, state, control, **kwargs):
        if state.is_world_process_zero and not self.folder.recorded:
            self.folder.record()
            for checkpoint in checkpoints(self.folder.path):
                if step_of(checkpoint) >= state.global_step:
                    (checkpoint / STATE).unlink(missing_ok=True)


def load_data(data: TrainingDataConfig, config: Any, **how: Any) -> tuple[Rows, Rows | None]:
    """Training and, when `eval_strategy` asks for it, evaluation data."""
    how |= {
        "columns": column_map(data.dataset_columns),
        "layout": data.dataset_format,
        "system_prompt": data.system_prompt,
        "streaming": data.dataset_streaming,
    }
    if data.datasets is not None:
        train = load_mixture(data.datasets, **how)
    else:
        how["name"] = data.dataset_config
        train = load_training_data(data.dataset_name, split=data.dataset_train_split, **how)
    held_out = None
    if data.test_split_size is not None:
        size = data.test_split_size
        parts = train.train_test_split(size if size < 1 else int(size), seed=SPLIT_SEED)
        train, held_out = parts["train"], parts["test"]
    if not evaluates(config):
        return train, None
    if data.eval_dataset_name is not None:
        split = "train" if Path(data.eval_dataset_name).is_file() else data.dataset_test_split
        return train, load_training_data(data.eval_dataset_name, split=split, **how)
    if held_out is not None:
        return train, held_out
    return train, load_training_data(data.dataset_name, split=data.dataset_test_split, **how)


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


def save(trainer: Any, data: TrainingDataConfig) -> None:
    trainer.save_model(trainer.args.output_dir)
    trainer.save_state()  # with the curves that reports draw
    trainer.accelerator.print(f"model saved to {trainer.args.output_dir}")
    if trainer.args.push_to_hub:
        trainer.push_to_hub(dataset_name=data.dataset_name)
