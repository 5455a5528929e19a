"""From tasks to samples: prompts are checked before a model is loaded, and only what is missing is drawn."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ..data.formats import check_tokenizer_fits
from ..generation.prompts import encode_prompts, is_conversation
from ..generation.samples import Backend, Sample, SampleKey, check_context, requests_for
from ..generation.transformers_backend import transformers_backend
from ..models.loading import load_config, load_tokenizer
from ..run_folder import RunFolder, fingerprint
from .config import EvalConfig
from .log import SampleLog, write_problems
from .tasks import Task

BACKENDS = "backends"  # in the notes of the folder


@dataclass(frozen=True)
class Plan:
    """Tasks whose prompts have been checked and turned into token ids, [tasks][P][tokens]."""

    tasks: Sequence[Task]
    prompt_ids: Sequence[Sequence[Sequence[int]]]
    tokenizer: Any
    template: str

    def sampling(self, task: Task, backends: Sequence[str]) -> dict[str, Any]:
        """How a task's samples were drawn, for the results."""
        chat = any(map(is_conversation, task.prompts))
        return {
            "backend": ", ".join(backends),
            **asdict(task.sampling),
            "prompt_format": "chat" if chat else "text",
            "chat_template": self.template if chat else None,
        }

    def parts(self) -> dict[str, dict[str, Any]]:
        """What decides the samples of each task, apart from how many there are: more may be drawn later."""
        return {
            f"{task.name} at {task.sampled_at:g}": {
                **{name: getattr(task.sampling, name) for name in ("top_p", "top_k", "max_new_tokens", "seed")},
                "chat_template": self.sampling(task, ())["chat_template"],
            }
            for task in self.tasks
        }


def plan_generation(tasks: Sequence[Task], config: EvalConfig) -> Plan:
    """All that can be checked before a model is loaded or anything is written.

    Raises ValueError: conversations without a chat template, a tokenizer larger than the model, a prompt that does
    not fit with its answer, an adapter for vLLM.
    """
    model = config.model_name_or_path
    tokenizer = load_tokenizer(model, config.chat_template_path)
    model_config = load_config(model)
    check_tokenizer_fits(model_config, tokenizer)
    if config.backend == "vllm" and not (Path(model) / "config.json").is_file() and Path(model).is_dir():
        raise ValueError(f"{model} is an adapter, which vLLM is not given here: merge it into its model first.")
    if tokenizer.chat_template is None and any(is_conversation(prompt) for task in tasks for prompt in task.prompts):
        raise ValueError(
            f"The tokenizer of {model} has no chat template. Give one with --chat_template_path, or ask in plain text "
            "with --prompt_format text."
        )
    prompt_ids = [encode_prompts(tokenizer, task.prompts, config.chat_template_kwargs) for task in tasks]
    for task, ids in zip(tasks, prompt_ids, strict=True):
        names = [f"of problem {problem.id}" for problem in task.problems]
        check_context(model_config, requests_for(ids, replace(task.sampling, num_samples=1)), names)
    return Plan(tasks, prompt_ids, tokenizer, fingerprint([tokenizer.chat_template, config.chat_template_kwargs])[:12])


def generate(plan: Plan, log: SampleLog, folder: RunFolder, open_backend: Callable[[], Backend]) -> None:
    """Draw every sample that the log lacks; without gaps no model is loaded.

    The folder is claimed when the first sample is there: until then nothing is written.
    """
    keys = [task.keys(task.sampling.num_samples) for task in plan.tasks]
    total = sum(map(len, keys))
    done = sum(key in log.samples for group in keys for key in group)
    if done == total:
        write_problems(plan.tasks, folder.path)
        return
    backend = open_backend()
    folder.notes[BACKENDS] = list(dict.fromkeys([*folder.notes.get(BACKENDS, ()), backend.name]))

    def draws() -> Iterator[tuple[SampleKey, Sample]]:
        for task, ids, group in zip(plan.tasks, plan.prompt_ids, keys, strict=True):
            there = {place for place, key in enumerate(group) if key in log.samples}
            for place, sample in backend.draw(requests_for(ids, task.sampling), there):
                yield group[place], sample

    bar = tqdm(draws(), total=total, initial=done, desc="sampling", unit="sample", smoothing=0.05)
    for number, (key, sample) in enumerate(bar):
        if number == 0:
            folder.record()
            write_problems(plan.tasks, folder.path)
        log.add(key, sample)


def open_backend(config: EvalConfig, plan: Plan, load: Callable[[str, str], Any]) -> Backend:
    """The backend that was asked for; vLLM gets room for the longest prompt with its answer."""
    if config.backend == "transformers":
        model = load(config.model_name_or_path, config.dtype)
        return transformers_backend(model, plan.tokenizer, config.batch_size)
    from ..generation.vllm_backend import vllm_backend

    return vllm_backend(
        config.model_name_or_path,
        plan.tokenizer,
        server_base_url=config.vllm_server_base_url,
        tensor_parallel_size=config.vllm_tensor_parallel_size,
        gpu_memory_utilization=config.vllm_gpu_memory_utilization,
        max_model_length=max(
            max(map(len, ids)) + task.sampling.max_new_tokens
            for task, ids in zip(plan.tasks, plan.prompt_ids, strict=True)
        ),
        dtype=config.dtype,
    )
