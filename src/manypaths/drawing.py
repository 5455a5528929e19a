"""The model under evaluation: checked, loaded only when a sample is missing, and asked for just those."""

import json
import shutil
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from .evaluation.prompts import encode_prompts, is_conversation
from .evaluation.results import weights_fingerprint
from .evaluation.run import draw_missing, task_settings
from .evaluation.samples import Backend, check_context, requests_for
from .evaluation.sampling import transformers_backend
from .evaluation.store import SampleStore
from .evaluation.tasks import Task
from .options import SamplingArguments
from .sources import read_text
from .training.data import check_tokenizer_fits


def load_model(path: str, dtype: str) -> Any:
    """A causal language model on the accelerator, or the CPU, in evaluation mode."""
    device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else torch.device("cpu")
    return AutoModelForCausalLM.from_pretrained(path, dtype=dtype).to(device).eval()


def load_config(path: str) -> Any:
    """The model's configuration; for a folder with an adapter, that of the model under it."""
    adapter = Path(path) / "adapter_config.json"
    if adapter.is_file() and not (Path(path) / "config.json").is_file():
        path = json.loads(read_text(adapter))["base_model_name_or_path"]
    return AutoConfig.from_pretrained(path)


def load_tokenizer(path: str, chat_template_path: str | None = None) -> Any:
    """The model's tokenizer, with another chat template where one is given."""
    tokenizer = AutoTokenizer.from_pretrained(path)
    if chat_template_path is not None:
        template = Path(chat_template_path)
        if not template.is_file():
            raise FileNotFoundError(f"No chat template at {template}.")
        tokenizer.chat_template = read_text(template)
    return tokenizer


def draw_answers(
    model: str, dtype: str, tasks: Sequence[Task], tokenizer: Any, options: SamplingArguments, folder: Path
) -> str:
    """Fill the folder's samples.jsonl with what the tasks ask for; returns the backend's name.

    Raises ValueError before anything is written: conversations without a chat template, a tokenizer larger than the
    model, a prompt that does not fit, samples of other settings in the folder.
    """
    config = load_config(model)
    check_tokenizer_fits(config, tokenizer)
    if tokenizer.chat_template is None and any(is_conversation(prompt) for task in tasks for prompt in task.prompts):
        raise ValueError(
            f"The tokenizer of {model} has no chat template. Give one with --chat_template_path, or ask in plain text "
            "with --prompt_format text."
        )
    kwargs = options.chat_template_kwargs
    prompt_ids = [encode_prompts(tokenizer, task.prompts, kwargs) for task in tasks]
    for task, ids in zip(tasks, prompt_ids, strict=True):
        names = [f"of problem {problem.id}" for problem in task.problems for _ in range(task.sampling.num_samples)]
        check_context(config, requests_for(ids, task.sampling), names)
    longest = max(
        max(map(len, ids)) + task.sampling.max_new_tokens for task, ids in zip(tasks, prompt_ids, strict=True)
    )
    settings = {
        "model weights": weights_fingerprint(model),
        "dtype": dtype,
        "backend": options.backend,
        "batch_size": options.batch_size,
    }
    by_task = {
        f"{task.benchmark} at {task.sampling.temperature:g}": task_settings(task, ids)
        for task, ids in zip(tasks, prompt_ids, strict=True)
    }
    is_new = not folder.exists()
    with SampleStore(folder, settings, by_task) as store:
        try:
            name = draw_missing(
                tasks, prompt_ids, store, lambda: open_backend(model, dtype, tokenizer, options, longest)
            )
        except BaseException:
            if is_new and not store.samples:
                shutil.rmtree(folder)
            raise
    return name or (f"transformers {version('transformers')}" if options.backend == "transformers" else "vllm")


def open_backend(model: str, dtype: str, tokenizer: Any, options: SamplingArguments, longest: int) -> Backend:
    """The backend that was asked for; `longest` is the most tokens that prompt and answer have together."""
    if options.backend == "transformers":
        return transformers_backend(load_model(model, dtype), tokenizer, options.batch_size)
    from .evaluation.vllm_sampling import vllm_backend

    return vllm_backend(
        model,
        tokenizer,
        server_base_url=options.vllm_server_base_url,
        tensor_parallel_size=options.vllm_tensor_parallel_size,
        gpu_memory_utilization=options.vllm_gpu_memory_utilization,
        max_model_length=longest,
        dtype=dtype,
    )
