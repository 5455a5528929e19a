"""The options of `sft` and `grpo`: TRL's, and what is added to them. No trainer is imported for them."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, fields
from typing import Any

import trl
from torch import nn
from transformers import TrainingArguments
from transformers.integrations import get_available_reporting_integrations
from transformers.utils import is_torch_bf16_gpu_available

from ..data.config import TrainingDataConfig
from ..generation.vllm_backend import check_version
from ..grading.graders import resolve_grader
from ..objectives import resolve
from ..run_folder import CACHE
from .calibration import check_fraction


@dataclass
class SFTConfig(trl.SFTConfig):
    """TRL's SFTConfig and the choice of objective.

    TRL's own losses are objectives here: `loss_type="dft"` becomes objective `dft`, and `label_smoothing_factor`
    becomes objective `label_smoothing`.

    Raises:
        ValueError: an objective that does not resolve, or two losses asked for at once.
    """

    objective: str = field(
        default="nll", metadata={"help": "Objective: a name from `manypaths objectives`, or module:function."}
    )
    objective_kwargs: dict[str, Any] | str | None = field(
        default=None, metadata={"help": "Hyper-parameters of the objective, as a mapping or JSON."}
    )
    calibration_fraction: float = field(
        default=0.3,
        metadata={"help": "Share of trained tokens below a threshold that is calibrated (SED-SFT's 1 - r)."},
    )
    calibration_sequences: int = field(
        default=100, metadata={"help": "Training sequences that a threshold is calibrated on."}
    )
    selection_scope: str = field(
        default="micro_batch",
        metadata={"help": "Tokens that eksft compares: micro_batch (of one rank), or step (all)."},
    )
    reference: str | None = field(
        default=None,
        metadata={"help": "Model that the KL compares with; or cache: the start, kept on disk."},
    )
    reference_cache: str | None = field(
        default=None,
        metadata={
            "help": "Folder of the cached reference, which runs of one model and data may share. If not given: "
            "_reference_cache in output_dir.",
        },
    )

    def __post_init__(self) -> None:
        if self.bf16 is None and not self.use_cpu and not is_torch_bf16_gpu_available():
            self.bf16 = False  # where TRL's default, True, stops; with use_cpu it trains in bf16, as TRL does
        super().__post_init__()
        if isinstance(self.objective_kwargs, str):
            try:
                self.objective_kwargs = json.loads(self.objective_kwargs)
            except json.JSONDecodeError as error:
                raise ValueError(f"objective_kwargs is not JSON: {error}. Example: '{{\"top_k\": 10}}'.") from error
        if not isinstance(self.objective_kwargs or {}, dict):
            raise ValueError(f"objective_kwargs must be a mapping, got {self.objective_kwargs!r}.")
        check_fraction(self.calibration_fraction)
        if self.calibration_sequences < 1:
            raise ValueError(f"calibration_sequences must be at least 1, got {self.calibration_sequences}.")
        self._take_over_trls_loss()
        objective = resolve(self.objective, **(self.objective_kwargs or {}))
        if self.reference is not None and not objective.needs_reference:
            raise ValueError(
                f"Objective {self.objective!r} compares with no reference; leave reference={self.reference!r} out."
            )
        if self.selection_scope not in ("micro_batch", "step"):
            raise ValueError(f"selection_scope must be micro_batch or step, got {self.selection_scope!r}.")
        if self.selection_scope == "step" and objective.row_local:
            raise ValueError(
                f"Objective {self.objective!r} judges every token alone; leave selection_scope='step' out."
            )
        if self.reference_cache is not None and self.reference != CACHE:
            raise ValueError(
                f"reference_cache={self.reference_cache!r} is for reference: cache; add it, or leave this out."
            )

    def _take_over_trls_loss(self) -> None:
        """The losses that TRL's options choose, by our names; TRL itself is left with `nll`."""
        if self.loss_type not in ("nll", "dft"):
            raise ValueError(f"loss_type must be 'nll' or 'dft', got {self.loss_type!r}; choose an objective instead.")
        asked = []
        if self.loss_type == "dft":
            asked.append(("loss_type='dft'", "dft", None))
        if self.label_smoothing_factor:
            smoothing = {"smoothing": self.label_smoothing_factor}
            asked.append((f"label_smoothing_factor={self.label_smoothing_factor}", "label_smoothing", smoothing))
        for option, objective, settings in asked:
            if (self.objective, self.objective_kwargs or None) not in (("nll", None), (objective, settings)):
                raise ValueError(f"{option} and objective={self.objective!r} are two losses; leave one of them out.")
            self.objective, self.objective_kwargs = objective, settings
        self.loss_type, self.label_smoothing_factor = "nll", 0.0


def config_of(args: TrainingArguments | None, model: str | nn.Module) -> SFTConfig:
    """`args` as an SFTConfig of this module, made as TRL makes its own.

    Raises:
        ValueError: options that SFTConfig does not have.
    """
    if args is None:
        path = model if isinstance(model, str) else model.config.name_or_path
        return SFTConfig(f"{path.split('/')[-1]}-SFT")
    if isinstance(args, SFTConfig):
        return args
    kind = f"{type(args).__module__}.{type(args).__name__}"
    if not isinstance(args, TrainingArguments):
        raise ValueError(f"args must be a manypaths.SFTConfig, trl.SFTConfig or TrainingArguments, got a {kind}.")
    given = {option.name: getattr(args, option.name) for option in fields(args) if option.init}
    known = {option.name for option in fields(SFTConfig)}
    config = SFTConfig(**{name: value for name, value in given.items() if name in known})
    if lost := sorted((given.keys() - known) | {name for name in vars(args) if not hasattr(config, name)}):
        raise ValueError(f"{', '.join(lost)} of {kind} would be lost in a manypaths.SFTConfig; pass one of those.")
    return config


@dataclass
class RewardConfig:
    """What GRPO is rewarded for."""

    reward_funcs: list[str] | None = field(
        default=None,
        metadata={
            "help": "Added up: math, exact, countdown, chain, or module:function; --reward for short.",
        },
    )


PROCESSES_TO_COME: ContextVar[int | None] = ContextVar("processes_to_come", default=None)


@contextmanager
def of_processes(count: int | None) -> Iterator[None]:
    """Options that are read in here are those of so many processes, which are still to be started; None: of this one."""
    token = PROCESSES_TO_COME.set(count)
    try:
        yield
    finally:
        PROCESSES_TO_COME.reset(token)


@dataclass
class GRPOConfig(trl.GRPOConfig):
    """TRL's GRPOConfig and the size of the preflight."""

    preflight_prompts: int = field(
        default=8,
        metadata={"help": "Prompts sampled before training; a run without signal is refused. 0: skip."},
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.preflight_prompts < 0:
            raise ValueError(f"preflight_prompts must be 0 (no preflight) or more, got {self.preflight_prompts}.")

    @property
    def world_size(self) -> int:
        """Processes of the run: also in the one that will start them, where TRL checks and sets the size of a rollout."""
        return PROCESSES_TO_COME.get() or super().world_size


@dataclass
class ExportConfig:
    """The run for another program."""

    export: list[str] | None = field(
        default=None,
        metadata={"help": "verl DIR: write the run as a folder that verl starts on Ray, and do not train."},
    )

    def __post_init__(self) -> None:
        if self.export is not None and (len(self.export) != 2 or self.export[0] != "verl"):
            raise ValueError(f"--export is `verl` and a folder, such as --export verl out-verl; got {self.export}.")


LEAST = {
    "per_device_train_batch_size": 1, "per_device_eval_batch_size": 1, "gradient_accumulation_steps": 1, "max_length": 2,
    "max_completion_length": 1, "num_iterations": 1, "steps_per_generation": 1, "learning_rate": 0, "weight_decay": 0,
    "max_grad_norm": 0, "beta": 0, "epsilon": 0, "dataloader_num_workers": 0,
}  # fmt: skip
SFT_OPTIONS = (TrainingDataConfig, SFTConfig, trl.ModelConfig)
GRPO_OPTIONS = (TrainingDataConfig, GRPOConfig, trl.ModelConfig, RewardConfig)


def check_options(
    data: TrainingDataConfig, config: SFTConfig | GRPOConfig, model: trl.ModelConfig, reward: RewardConfig | None = None
) -> None:
    """ValueError for what is missing, not known, or does not go together."""
    if data.dataset_name is None and data.datasets is None:
        raise ValueError("--dataset_name is missing: a .json, .jsonl or .parquet file, a folder, or a hub id.")
    if model.model_name_or_path is None:
        raise ValueError("--model_name_or_path is missing: a model folder or hub id.")
    if data.datasets is not None and data.dataset_name is not None:
        raise ValueError("datasets and dataset_name are both given; TRL would read the mixture alone. Leave one out.")
    if data.dataset_streaming and reward is not None:
        raise ValueError("TRL's GRPO cannot train on a stream; leave --dataset_streaming out.")
    if data.dataset_streaming and data.test_split_size is not None:
        raise ValueError("A stream cannot be split; give --eval_dataset_name instead of --test_split_size.")
    if data.dataset_streaming and config.max_steps <= 0:
        raise ValueError("A stream does not know its length: say how long to train with --max_steps.")
    if data.dataset_streaming and getattr(config, "reference", None) == CACHE:
        raise ValueError("A stream cannot be read before training, so it has no cached reference; load the data whole.")
    if data.eval_dataset_name is not None and not evaluates(config):
        raise ValueError("eval_dataset_name is given but eval_strategy is no; add --eval_strategy epoch or steps.")
    for name, least in LEAST.items():
        value = getattr(config, name, None)
        if value is not None and value < least:
            raise ValueError(f"--{name} must be at least {least}, got {value}.")
    if config.max_steps != -1 and config.max_steps < 1:
        raise ValueError(f"--max_steps must be at least 1, or -1 for --num_train_epochs; got {config.max_steps}.")
    if config.max_steps == -1 and config.num_train_epochs <= 0:
        raise ValueError(f"--num_train_epochs must be above 0, got {config.num_train_epochs}.")
    if config.fp16 and config.use_cpu:
        raise ValueError("--fp16 needs a GPU; on a CPU leave it out, or take --bf16 true.")
    changed = [name for name, value in vars(model).items() if value != getattr(trl.ModelConfig(), name)]
    for name in changed:
        if name.startswith("lora_") and not model.use_peft:
            raise ValueError(f"--{name} is for LoRA: add --use_peft true, or leave it out to train all weights.")
    elsewhere = data.eval_dataset_name is not None or data.test_split_size is not None
    if evaluates(config) and data.datasets is not None and not elsewhere:
        raise ValueError("A mixture has no test split: give --test_split_size or --eval_dataset_name.")
    if reward is not None:
        if not reward.reward_funcs:
            raise ValueError("--reward is missing: math, exact, countdown, chain, or module:function.")
        for name in reward.reward_funcs:
            resolve_grader(name)


def check_installed(config: SFTConfig | GRPOConfig) -> None:
    """ValueError or ImportError for a tracker or a vLLM that the run would miss on this machine."""
    if missing := sorted({*config.report_to} - {*get_available_reporting_integrations()}):
        raise ValueError(
            f"--report_to {missing[0]}: it is not installed, or not known. Install it, or use --report_to none."
        )
    if isinstance(config, GRPOConfig) and config.use_vllm:
        check_version()


def evaluates(config: TrainingArguments) -> bool:
    """Whether training stops for evaluations."""
    return str(getattr(config.eval_strategy, "value", config.eval_strategy)) != "no"
