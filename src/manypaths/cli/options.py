"""The options of the verbs, as dataclasses; those of trainers and models are TRL's and stand beside these."""

from dataclasses import dataclass, field
from typing import Any, Literal

FORMATS = "chat: plain prompts become messages. last_answer: only the last message of `messages` carries loss."


def helped(default: Any, text: str, **metadata: Any) -> Any:
    """A dataclass field with its help text."""
    return field(default=default, metadata={"help": text, **metadata})


@dataclass
class QuickstartArguments:
    """The whole experiment on a built-in world, on a CPU."""

    world: Literal["recall", "coldstart"] = helped("recall", "The base already answers, or must first learn how.")
    objectives: str | None = helped(None, "Names separated by commas; the seed papers' objectives if not given.")
    seeds: int = helped(1, "Repetitions per objective; intervals need at least 2.")
    seed: int = helped(0, "The first seed.")
    rl_steps: int = helped(100, "GRPO steps after SFT; 0 for none.")
    output_dir: str = helped("quickstart", "Where models, results and the report go; an interrupted run goes on there.")
    workers: int = helped(2, "Processes that work at the same time.")


@dataclass
class DataArguments:
    """Where the rows come from; the names are TRL's."""

    dataset_name: str | None = field(
        default=None,
        metadata={"help": "A .json, .jsonl or .parquet file, a folder, or a hub id.", "aliases": ["--data"]},
    )
    dataset_config: str | None = helped(None, "Configuration of a hub dataset.")
    dataset_train_split: str = helped("train", "Split to train on, or a slice of it: train[:20000].")
    dataset_test_split: str = helped("test", "Split to evaluate on, or a slice: train[20000:21000].")
    eval_dataset_name: str | None = helped(None, "Evaluation data, if not a split of dataset_name.")
    dataset_columns: dict[str, str] | str | None = field(
        default=None,
        metadata={"help": 'Accepted column -> column in the data, as JSON: {"prompt": "question"}.'},
    )
    dataset_format: Literal["as_is", "chat", "last_answer"] = helped("as_is", FORMATS)
    system_prompt: str | None = helped(None, "System message for conversations that have none.")


@dataclass
class RewardArguments:
    """What GRPO is rewarded for."""

    reward_funcs: list[str] | None = field(
        default=None,
        metadata={"help": "Rewards, added up: countdown, math, or module:function.", "aliases": ["--reward"]},
    )


@dataclass
class EvalArguments:
    """A model, and what to judge it on; any of data, benchmarks, prompts and forgetting together, or a world."""

    model: str | None = helped(None, "Model folder or hub id.", aliases=["--model_name_or_path"])
    label: str | None = helped(None, "Name in tables; the last part of the model's name if not given.")
    benchmarks: list[str] | None = field(
        default=None, metadata={"help": "all, names such as gsm8k math500, or YAML files of your own."}
    )
    data_dir: str | None = helped(None, "Folder with the benchmarks as NAME.jsonl of id, problem, answer.")
    prompts: list[str] | None = field(
        default=None, metadata={"help": "Files of open-ended prompts, for diversity only."}
    )
    samples: str | None = helped(None, "Score texts made elsewhere, a JSONL file, instead of a model's.")
    regrade: str | None = helped(None, "Folder of a finished evaluation: grade its stored samples again.")
    grader: Literal["lenient", "strict"] | None = helped(
        None, "strict wants the final answer in a box; lenient if not given."
    )
    reward_model: str | None = helped(None, "For best-of-N: a sequence classifier, or module:function.")
    embedding_model: str | None = helped(None, "For diversity by meaning: a sentence-transformers model.")
    data: str | None = helped(None, "A .json, .jsonl or .parquet file, a folder, or a hub id.")
    world: str | None = helped(None, "A built-in world instead of data: recall or coldstart.")
    reference: str | None = helped(None, "Base model: KL to it, perplexity beside it, what was forgotten.")
    forgetting: list[str] | None = field(
        default=None, metadata={"help": "gem (six tasks) or lm-eval tasks, on the model and on --reference."}
    )
    task_dir: str | None = helped(None, "Folder of local lm-eval tasks (YAML).")
    reward: str | None = helped(None, "Grades samples of --data: countdown, math, or module:function.")
    correct_at: float = helped(1.0, "Reward from which an answer counts as right.")
    num_prompts: int | None = helped(None, "Use the first rows, problems or task items only.")
    max_length: int = helped(4096, "Longest text for the token scores.")
    assistant_only_loss: bool = helped(False, "Token scores of the assistant's messages only.")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = helped("auto", "Of the weights.")
    split: str = helped("train", "Split or slice of the data.")
    data_config: str | None = helped(None, "Configuration of a hub dataset.")
    data_columns: dict[str, str] | str | None = field(
        default=None, metadata={"help": "Accepted column -> column in the data, as JSON."}
    )
    data_format: Literal["as_is", "chat", "last_answer"] = helped("as_is", FORMATS)
    output_dir: str | None = helped(None, "Where results and samples go; a killed run goes on there. evaluation/")


@dataclass
class SamplingArguments:
    """How answers are drawn; what is not given is the benchmark's own default."""

    num_samples: int | None = helped(
        None, "Samples per prompt; 8 with a reward or several temperatures, 64 in a world."
    )
    temperature: float | None = helped(None, "Sampling temperature; 0 is greedy; 1 for data and worlds.")
    temperatures: str | None = helped(None, "Several, separated by commas: quality against diversity.")
    top_p: float | None = helped(None, "Nucleus to sample from; 1 for data.")
    top_k: int | None = helped(None, "Likeliest tokens to sample from; 0 for all.")
    max_new_tokens: int | None = helped(None, "Longest answer; 512 for data.")
    seed: int = helped(0, "Of the sampling.")
    batch_size: int = helped(64, "Answers generated at a time.")
    prompt_format: Literal["chat", "text"] = helped("chat", "Benchmarks through the chat template, or as plain text.")
    chat_template_path: str | None = helped(None, "A Jinja file instead of the tokenizer's own template.")
    chat_template_kwargs: dict[str, Any] | str | None = field(
        default=None, metadata={"help": 'Passed to the chat template, as JSON: {"enable_thinking": false}.'}
    )
    system_prompt: str | None = helped(None, "System message for conversations that have none.")
    backend: Literal["transformers", "vllm"] = helped("transformers", "What generates.")
    vllm_server_base_url: str | None = helped(None, "A running vLLM server, http://host:8000, instead of one here.")
    vllm_tensor_parallel_size: int = helped(1, "GPUs that share the model.")
    vllm_gpu_memory_utilization: float = helped(0.9, "Share of each GPU's memory.")


@dataclass
class ReportArguments:
    """Several evaluations side by side, the first as the one to compare with."""

    results: list[str] | None = field(
        default=None, metadata={"help": "Folders of evaluations, or their results.json files; one per model."}
    )
    output_dir: str = helped("report", "Where report.html, report.md and the plots go.")


@dataclass
class LaunchArguments:
    """Several processes or machines, through accelerate."""

    accelerate_config: str | None = helped(None, "A name such as multi_gpu, fsdp2 or zero2, or a file.")
    num_processes: int | None = helped(None, "Processes, usually one per GPU; all visible GPUs if not given.")
    num_machines: int | None = helped(None, "Machines.")
    machine_rank: int | None = helped(None, "Rank of this machine.")
    main_process_ip: str | None = helped(None, "Address of machine 0.")
    main_process_port: int | None = helped(None, "Port on machine 0.")
