"""The options of `manypaths augment`: prompts, a model, a verifier, and which of its right answers to keep."""

from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal

from ..config import helped, json_mapping
from ..data.config import DataConfig
from ..evaluation.config import EXAMPLE, EvalConfig

DISTINCT = ("text", "expression", "chain")


@dataclass
class AugmentConfig:
    """A model that answers, a verifier, and which right answers to keep."""

    model_name_or_path: str | None = helped(None, "Model folder or hub id; often the data's own SFT model.")
    reward: list[str] | None = field(
        default=None, metadata={"help": "The verifier: math, exact, countdown, chain, or module:function."}
    )
    num_answers: int = helped(4, "Most answers to add to a prompt, over all rounds together.")
    distinct: str = helped("text", "Answers differ by text, expression, chain (of equations), or module:function.")
    num_samples: int = helped(32, "Samples per prompt.")
    temperature: float = helped(1.0, "Sampling temperature.")
    top_p: float = helped(1.0, "Nucleus to sample from.")
    top_k: int = helped(0, "Likeliest tokens to sample from; 0 for all.")
    max_new_tokens: int = helped(512, "Longest answer; what is cut off is not kept.")
    seed: int = helped(0, "Of the sampling.")
    grader: Literal["strict", "lenient", "last_number"] = helped(
        "strict", "For math: strict wants a box, as the reward does; lenient takes usual phrases."
    )
    correct_at: float = helped(1.0, "Reward from which an answer counts as right.")
    preflight_samples: int = helped(100, "First samples that model and verifier are tried on. 0: skip.")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = helped("auto", "Of the weights.")
    batch_size: int | None = helped(None, "Answers generated at a time; 64 to 1024, by the model's size, if not given.")
    chat_template_path: str | None = helped(None, "A Jinja file instead of the tokenizer's own template.")
    chat_template_kwargs: dict[str, Any] | str | None = field(
        default=None, metadata={"help": f"Passed to the chat template, as JSON: {EXAMPLE}."}
    )
    backend: Literal["transformers", "vllm"] = helped("transformers", "What generates.")
    vllm_server_base_url: str | None = helped(None, "A running vLLM server, http://host:8000, instead of one here.")
    vllm_tensor_parallel_size: int = helped(1, "GPUs that share the model.")
    vllm_gpu_memory_utilization: float = helped(0.9, "Share of each GPU's memory.")
    output_dir: str = helped("augmented", "Where sft.jsonl and the samples go; a killed run goes on there.")

    def __post_init__(self) -> None:
        self.chat_template_kwargs = json_mapping(self.chat_template_kwargs, "chat_template_kwargs", EXAMPLE)
        self.reward = [self.reward] if isinstance(self.reward, str) else self.reward


AUGMENT_OPTIONS = (DataConfig, AugmentConfig)
LEAST = {"num_answers": 1, "num_samples": 1, "max_new_tokens": 1, "batch_size": 1, "preflight_samples": 0}


def check_options(data: DataConfig, config: AugmentConfig) -> None:
    """ValueError for what is missing, does not go together, or is out of range."""
    if data.dataset_name is None:
        raise ValueError("--data is missing: a file of demonstrations or prompts, a folder, or a hub id.")
    if config.model_name_or_path is None:
        raise ValueError("--model is missing: a model folder or hub id.")
    if not config.reward:
        raise ValueError("--reward is missing, the verifier: math, exact, countdown, chain, or module:function.")
    if len(config.reward) > 1:
        raise ValueError(
            f"--reward names {len(config.reward)} verifiers ({', '.join(config.reward)}), and what is kept has to be right by "
            "one: augment the data of each by itself, or give a module:function that asks them all."
        )
    if config.grader != "strict" and config.reward != ["math"]:
        raise ValueError(f"--grader {config.grader} is for --reward math; leave it out.")
    if config.distinct not in DISTINCT and ":" not in config.distinct:
        raise ValueError(f"--distinct is {', '.join(DISTINCT)} or module:function, got {config.distinct!r}.")
    for name, least in LEAST.items():
        value = getattr(config, name)
        if value is not None and value < least:
            raise ValueError(f"--{name} must be at least {least}, got {value}.")
    if data.dataset_test_split != DataConfig().dataset_test_split or data.eval_dataset_name is not None:
        raise ValueError("augment reads --data and --dataset_train_split; leave the options of evaluation data out.")
    defaults = asdict(AugmentConfig())
    for name, default in defaults.items():
        if name.startswith("vllm_") and config.backend != "vllm" and getattr(config, name) != default:
            raise ValueError(f"--{name} is for --backend vllm; give that too, or leave it out.")


def as_evaluation(config: AugmentConfig) -> EvalConfig:
    """The options of an evaluation that draws and grades these samples."""
    shared = {option.name for option in fields(EvalConfig)} - {"reward"}
    given = {name: value for name, value in vars(config).items() if name in shared}
    return EvalConfig(**given, reward=config.reward[0])
