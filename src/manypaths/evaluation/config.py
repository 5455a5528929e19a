"""The options of `manypaths eval`: what to measure, and how to sample."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from ..config import helped, json_mapping
from ..data.config import DataConfig

EXAMPLE = '{"enable_thinking": false}'
REREAD = 16  # completions per problem that are read again when a reference is given


@dataclass
class EvalConfig:
    """A model and what to judge it by: any of benchmarks, prompts, data and forgetting."""

    model_name_or_path: str | None = helped(None, "Model folder or hub id.")
    label: str | None = helped(None, "Name in tables (the method); the last part of the model's name if not given.")
    stage: str | None = helped(None, "sft or rl (after RL); what the model's folder remembers if not given.")
    train_seed: int | None = helped(None, "Seed of the training; what the model's folder remembers if not given.")
    benchmarks: list[str] | None = field(
        default=None, metadata={"help": "all, names such as gsm8k math500, or YAML files of your own."}
    )
    data_dir: str | None = helped(None, "Folder with the benchmarks as NAME.jsonl of id, problem, answer.")
    prompts: list[str] | None = field(
        default=None, metadata={"help": "Files of open-ended prompts, for diversity only."}
    )
    completions: str | None = helped(None, "Score completions made elsewhere, a JSONL file, instead of a model's.")
    rescore: str | None = helped(None, "Folder of an evaluation: grade and score its stored samples again.")
    grader: Literal["lenient", "strict", "last_number"] | None = helped(
        None, "lenient (as if not given), strict: answers in a box only, last_number: any number."
    )
    reward: str | None = helped(None, "Grades samples of --data: math, exact, countdown, chain, or module:function.")
    correct_at: float = helped(1.0, "Reward from which an answer counts as right.")
    reward_model: str | None = helped(None, "For best-of-N: a sequence classifier, or module:function.")
    embedding_model: str | None = helped(None, "For diversity by meaning: a sentence-transformers model.")
    reference: str | None = helped(None, "Base model: KL to it, perplexity beside it, what was forgotten.")
    reread_samples: int | None = helped(
        None, f"Completions a problem read again for exact entropy and KL; {REREAD} with a reference."
    )
    forgetting: list[str] | None = field(
        default=None, metadata={"help": "gem (six tasks) or lm-eval tasks, on the model and on --reference."}
    )
    task_dir: str | None = helped(None, "Folder of local lm-eval tasks (YAML).")
    num_prompts: int | None = helped(None, "Use the first rows, problems or task items only.")
    max_length: int = helped(4096, "Longest text for the token scores.")
    assistant_only_loss: bool = helped(False, "Token scores of the assistant's messages only.")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = helped("auto", "Of the weights.")
    num_samples: int | None = helped(None, "Samples per prompt; 8 with a reward or several temperatures.")
    temperature: float | None = helped(None, "Sampling temperature; 0 is greedy; 1 for data.")
    temperatures: str | None = helped(None, "Several, separated by commas: quality against diversity.")
    top_p: float | None = helped(None, "Nucleus to sample from; 1 for data.")
    top_k: int | None = helped(None, "Likeliest tokens to sample from; 0 for all.")
    max_new_tokens: int | None = helped(None, "Longest answer; 512 for data.")
    seed: int = helped(0, "Of the sampling.")
    batch_size: int | None = helped(None, "Answers generated at a time; 64 to 1024, by the model's size, if not given.")
    prompt_format: Literal["chat", "text"] = helped("chat", "Benchmarks through the chat template, or as plain text.")
    chat_template_path: str | None = helped(None, "A Jinja file instead of the tokenizer's own template.")
    chat_template_kwargs: dict[str, Any] | str | None = field(
        default=None, metadata={"help": f"Passed to the chat template, as JSON: {EXAMPLE}."}
    )
    backend: Literal["transformers", "vllm"] = helped("transformers", "What generates.")
    vllm_server_base_url: str | None = helped(None, "A running vLLM server, http://host:8000, instead of one here.")
    vllm_tensor_parallel_size: int = helped(1, "GPUs that share the model.")
    vllm_gpu_memory_utilization: float = helped(0.9, "Share of each GPU's memory.")
    output_dir: str = helped("evaluation", "Where results and samples go; a killed run goes on there.")

    def __post_init__(self) -> None:
        self.chat_template_kwargs = json_mapping(self.chat_template_kwargs, "chat_template_kwargs", EXAMPLE)
        if self.reread_samples is None:
            self.reread_samples = 0 if self.reference is None else REREAD


EVAL_OPTIONS = (DataConfig, EvalConfig)
MEASURED = ("dataset_name", "benchmarks", "prompts", "forgetting")
NAMES = ("label", "stage", "train_seed")
JUDGES = ("grader", "correct_at", "reward_model", "embedding_model")
READ_BY = {  # the options that count where no model is asked
    "rescore": ("rescore", *NAMES, *JUDGES),
    "completions": (
        *NAMES, *JUDGES, "output_dir", "completions", "benchmarks", "prompts", "data_dir", "num_prompts", "prompt_format",
        "reward", *(option.name for option in fields(DataConfig)),
    ),
}  # fmt: skip
LEAST = {
    "num_samples": 1, "batch_size": 1, "max_new_tokens": 1, "num_prompts": 1, "reread_samples": 0, "max_length": 2,
}  # fmt: skip


def check_options(data: DataConfig, config: EvalConfig) -> None:
    """ValueError for what is missing, does not go together, or is out of range."""
    given = given_options(data, config)
    for way, read in READ_BY.items():
        unread = [f"--{name}" for name in given if name not in read]
        if getattr(config, way) is not None and unread:
            raise ValueError(f"--{way} does not go with {', '.join(unread)}: leave that out.")
    if config.rescore is not None:
        return
    asked = [name for name in MEASURED if getattr(data, name, None) or getattr(config, name, None)]
    if config.model_name_or_path is None and config.completions is None:
        raise ValueError("--model is missing: a model folder or hub id (or --completions FILE, made elsewhere).")
    if not asked:
        raise ValueError("Nothing to measure: give --benchmarks, --prompts, --data or --forgetting.")
    if config.reward is not None and data.dataset_name is None:
        raise ValueError("--reward grades the samples of --data; benchmarks are graded by their answers.")
    sampling = [name for name in ("temperature", "temperatures", "top_p", "top_k", "max_new_tokens") if name in given]
    if asked == ["dataset_name"] and config.reward is None and config.num_samples is None and sampling:
        raise ValueError(f"--{sampling[0]} is for sampling: give a --reward or --num_samples too.")
    if config.forgetting and config.reference is None:
        raise ValueError("--forgetting needs --reference, the base model to compare with.")
    if config.temperature is not None and config.temperatures is not None:
        raise ValueError("Give --temperature or --temperatures, not both.")
    for name in given:
        if config.backend != "vllm" and name.startswith("vllm_"):
            raise ValueError(f"--{name} is for --backend vllm; give that too, or leave it out.")
    for name, least in LEAST.items():
        value = getattr(config, name)
        if value is not None and value < least:
            raise ValueError(f"--{name} must be at least {least}, got {value}.")


def given_options(data: DataConfig, config: EvalConfig) -> list[str]:
    """Options that differ from their defaults."""
    defaults = asdict(DataConfig()) | asdict(EvalConfig())
    return [name for name, value in (asdict(data) | asdict(config)).items() if value != defaults[name]]


def read_temperatures(text: str | Sequence[float] | None) -> list[float]:
    """Numbers separated by commas, or a list of them, each once.

    Raises ValueError for what is not a number, is negative, or comes twice.
    """
    if text is None:
        return []
    try:
        values = [float(part) for part in (text.split(",") if isinstance(text, str) else text)]
    except (TypeError, ValueError) as error:
        raise ValueError(f"--temperatures must be numbers separated by commas, got {text!r}.") from error
    for value in values:
        if not 0 <= value < float("inf") or values.count(value) > 1:
            raise ValueError(f"--temperatures has {value:g}; give each temperature once, 0 or above.")
    return values


def short_name(model: str) -> str:
    """The last part of a model's or file's name."""
    path = Path(model)
    return path.stem if path.suffix in (".json", ".jsonl", ".parquet") else path.name or path.resolve().name


def origin(config: EvalConfig, run: Mapping[str, Any] | None) -> dict[str, Any]:
    """Method, stage and seed of what is evaluated: as given, else what the model's folder remembers of its training."""
    run = run if run and run["subcommand"] in ("sft", "grpo") else {"subcommand": "", "settings": {}}
    stage = {"sft": "sft", "grpo": "rl", "": ""}[run["subcommand"]]
    return {
        "method": config.label or short_name(config.model_name_or_path or config.completions),
        "stage": stage if config.stage is None else config.stage,
        "seed": run["settings"].get("seed") if config.train_seed is None else config.train_seed,
        "objective": run["settings"].get("objective"),
        "objective_kwargs": run["settings"].get("objective_kwargs"),
    }
