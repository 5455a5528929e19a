"""The model under evaluation: checked, loaded only when a sample is missing, and asked for just those."""

import json
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from .cli.options import SamplingArguments
from .data.formats import check_tokenizer_fits
from .data.sources import one_line, read_text
from .evaluation.results import fingerprint, weights_fingerprint
from .evaluation.run import draw_missing, task_settings
from .evaluation.store import SAMPLES, SETTINGS, SampleStore
from .evaluation.tasks import Task
from .generation.prompts import encode_prompts, is_conversation
from .generation.samples import Backend, check_context, requests_for
from .generation.transformers_backend import transformers_backend
from .models.device import default_device


def load_model(path: str, dtype: str) -> Any:
    """A causal language model on the accelerator, or the CPU, in evaluation mode."""
    return AutoModelForCausalLM.from_pretrained(path, dtype=dtype).to(default_device()).eval()


def load_config(path: str) -> Any:
    """The model's configuration; for a folder with an adapter, that of the model under it."""
    adapter = Path(path) / "adapter_config.json"
    if adapter.is_file() and not (Path(path) / "config.json").is_file():
        path = json.loads(read_text(adapter))["base_model_name_or_path"]
    return AutoConfig.from_pretrained(path)


def load_tokenizer(path: str, chat_template_path: str | None = None) -> Any:
    """The model's tokenizer, with another chat template where one is given."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(path)
    except (OSError, ValueError, ImportError) as error:
        raise ValueError(
            f"Cannot load a tokenizer from {path}: {one_line(error)} Save the model's tokenizer beside it."
        ) from error
    if chat_template_path is not None:
        template = Path(chat_template_path)
        if not template.is_file():
            raise FileNotFoundError(f"No chat template at {template}.")
        tokenizer.chat_template = read_text(template)
    return tokenizer


@dataclass(frozen=True)
class Plan:
    """Tasks whose prompts have been checked and turned into token ids, [tasks][P][tokens]."""

    model: str
    dtype: str
    tasks: Sequence[Task]
    prompt_ids: Sequence[Sequence[Sequence[int]]]
    tokenizer: Any
    options: SamplingArguments

    def sampling(self, task: Task, drawn_with: Sequence[str]) -> dict[str, Any]:
        """How a task's samples were drawn, for the results."""
        chat = any(map(is_conversation, task.prompts))
        template = fingerprint([self.tokenizer.chat_template, self.options.chat_template_kwargs])[:12]
        return {
            "backend": ", ".join(drawn_with),
            **asdict(task.sampling),
            "prompt_format": "chat" if chat else "text",
            "chat_template": template if chat else None,
        }


def plan_draws(model: str, dtype: str, tasks: Sequence[Task], tokenizer: Any, options: SamplingArguments) -> Plan:
    """All that can be checked before a model is loaded or anything is written.

    Raises ValueError: conversations without a chat template, a tokenizer larger than the model, a prompt that does
    not fit with its answer, an adapter for vLLM.
    """
    config = load_config(model)
    check_tokenizer_fits(config, tokenizer)
    if options.backend == "vllm" and not (Path(model) / "config.json").is_file() and Path(model).is_dir():
        raise ValueError(f"{model} is an adapter, which vLLM is not given here: merge it into its model first.")
    if tokenizer.chat_template is None and any(is_conversation(prompt) for task in tasks for prompt in task.prompts):
        raise ValueError(
            f"The tokenizer of {model} has no chat template. Give one with --chat_template_path, or ask in plain text "
            "with --prompt_format text."
        )
    prompt_ids = [encode_prompts(tokenizer, task.prompts, options.chat_template_kwargs) for task in tasks]
    for task, ids in zip(tasks, prompt_ids, strict=True):
        names = [f"of problem {problem.id}" for problem in task.problems]
        check_context(config, requests_for(ids, replace(task.sampling, num_samples=1)), names)
    return Plan(model, dtype, tasks, prompt_ids, tokenizer, options)


def draw(plan: Plan, folder: Path, held: ExitStack) -> SampleStore:
    """Fill the folder's samples.jsonl with what the plan asks for; the store stays open, and locked, in `held`.

    Raises ValueError for samples of other settings in the folder. New files go again when nothing was drawn.
    """
    settings = {
        "model weights": weights_fingerprint(plan.model),
        "dtype": plan.dtype,
        "backend": plan.options.backend,
    }
    by_task = {
        f"{task.benchmark} at {task.sampling.temperature:g}": task_settings(task, ids)
        for task, ids in zip(plan.tasks, plan.prompt_ids, strict=True)
    }
    is_new = not (folder / SAMPLES).exists()
    store = held.enter_context(SampleStore(folder, settings, by_task))
    try:
        draw_missing(plan.tasks, plan.prompt_ids, store, lambda: open_backend(plan))
    except BaseException:
        if is_new and not store.samples:
            (folder / SAMPLES).unlink()
            (folder / SETTINGS).unlink()
        raise
    return store


def open_backend(plan: Plan) -> Backend:
    """The backend that was asked for; vLLM gets room for the longest prompt with its answer."""
    model, tokenizer, options = plan.model, plan.tokenizer, plan.options
    if options.backend == "transformers":
        return transformers_backend(load_model(model, plan.dtype), tokenizer, options.batch_size)
    from .generation.vllm_backend import vllm_backend

    return vllm_backend(
        model,
        tokenizer,
        server_base_url=options.vllm_server_base_url,
        tensor_parallel_size=options.vllm_tensor_parallel_size,
        gpu_memory_utilization=options.vllm_gpu_memory_utilization,
        max_model_length=max(
            max(map(len, ids)) + task.sampling.max_new_tokens
            for task, ids in zip(plan.tasks, plan.prompt_ids, strict=True)
        ),
        dtype=plan.dtype,
    )
