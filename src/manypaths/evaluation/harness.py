"""One model through lm-eval: tasks are loaded before any weights, and every item keeps its own score.

lm-eval is the optional extra `forgetting`; it is imported when it is used, and only through its public names.
"""

import copy
import difflib
from collections.abc import Iterable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from packaging.specifiers import SpecifierSet
from transformers import AutoModelForCausalLM

from ..models.loading import default_device, load_tokenizer

SUPPORTED = SpecifierSet(">=0.4.12,<0.5")  # the first release with TaskManager.load, up to the next change of API

Model = str | Path | tuple[Any, Any]  # hub id or folder, or a loaded (model, tokenizer)


def harness_version() -> str:
    """The installed version of lm-eval. ImportError when it is missing or outside the supported range."""
    try:
        installed = version("lm_eval")
    except PackageNotFoundError as error:
        raise ImportError("Forgetting needs lm-eval: pip install 'manypaths[forgetting]'.") from error
    if installed not in SUPPORTED:
        raise ImportError(
            f"lm-eval {installed} is installed, but versions {SUPPORTED} are supported: pip install 'manypaths[forgetting]'."
        )
    return installed


def load_tasks(names: Sequence[str], task_dir: str | Path | None = None) -> tuple[Any, dict[str, list[Any]]]:
    """lm-eval's task manager, and the task or group objects of each name, data included: {name: [objects]}.

    A tag gives several objects.

    task_dir: folder with YAML tasks, which win over built-in ones of the same name. When it holds
    all that is asked for, the index of the 14,000 built-in tasks is not read.

    Raises ValueError for a folder that is missing, an unknown name, or data that cannot be loaded.
    """
    if task_dir is not None and not Path(task_dir).is_dir():
        raise ValueError(f"There is no folder {task_dir}; task_dir must hold the YAML files of local tasks.")
    manager = task_manager(names, task_dir)
    for name in names:
        if name not in manager.task_index:
            raise ValueError(unknown_task(name, manager, task_dir))
    loaded = {}
    for name in names:
        try:
            objects = manager.load([name])
        except OSError as error:
            raise ValueError(data_missing(name, manager, task_dir, error)) from error
        groups = objects["groups"]
        loaded[name] = [groups[name]] if name in groups else list(objects["tasks"].values())
    return manager, loaded


def task_manager(names: Sequence[str], task_dir: str | Path | None) -> Any:
    from lm_eval.tasks import TaskManager

    if task_dir is None:
        return TaskManager()
    local = TaskManager(include_path=str(task_dir), include_defaults=False)

    def is_complete(name: Any) -> bool:
        if not isinstance(name, str) or name not in local.task_index:
            return False
        return name not in local.all_groups or all(map(is_complete, local.task_index[name].cfg["task"]))

    return local if all(is_complete(name) for name in names) else TaskManager(include_path=str(task_dir))


def unknown_task(name: str, manager: Any, task_dir: str | Path | None) -> str:
    near = difflib.get_close_matches(name, manager.all_tasks, n=3)
    hint = f" Near names: {', '.join(near)}." if near else ""
    place = "the folder given as task_dir" if task_dir is None else str(task_dir)
    return f"lm-eval knows no task {name!r}.{hint} A task of your own is a YAML file with `task: {name}` in {place}."


def data_missing(name: str, manager: Any, task_dir: str | Path | None, error: OSError) -> str:
    path = manager.task_index[name].yaml_path
    built_in = "the built-in YAML" if path is None else path
    place = "the folder given as task_dir" if task_dir is None else task_dir
    return (
        f"The data of task {name} could not be loaded ({type(error).__name__}: {error}). Without a network, put a "
        f"YAML file into {place} that says `task: {name}`, `include: {built_in}`, `dataset_path: json`, "
        "`dataset_name: null` and `dataset_kwargs: {data_files: {SPLIT: FILE.jsonl}}`; "
        "a group needs this for each of its tasks."
    )


def leaves(objects: Iterable[Any]) -> list[Any]:
    """The tasks themselves, of task and group objects."""
    return [task for item in objects for task in (item.get_all_tasks() if hasattr(item, "get_all_tasks") else [item])]


def filters_of(task: Any) -> list[str]:
    """The names lm-eval puts behind a task's metrics."""
    return [entry["name"] for entry in task.get_config("filter_list") or []] or ["none"]


def model_name(source: Model) -> str:
    """Hub id or folder; of a loaded model the name it was loaded from."""
    return (source[0].config._name_or_path or type(source[0]).__name__) if isinstance(source, tuple) else str(source)


def tokenizer_of(source: Model) -> Any:
    """A tokenizer of our own to change: loaded, or copied from the caller's."""
    return copy.deepcopy(source[1]) if isinstance(source, tuple) else load_tokenizer(str(source))


def harness_model(
    source: Model,
    *,
    chat_template: Any = None,
    batch_size: int | str = 8,
    dtype: str | torch.dtype = "auto",
) -> Any:
    """The model as lm-eval takes it; a loaded one stays as it is.

    chat_template: set on the tokenizer when given, in place of its own.
    """
    from lm_eval.models.huggingface import HFLM

    tokenizer = tokenizer_of(source)
    if chat_template is not None:
        tokenizer.chat_template = chat_template
    if isinstance(source, tuple):
        model = source[0]
    else:
        model = AutoModelForCausalLM.from_pretrained(source, dtype=dtype).to(default_device())
    return HFLM(pretrained=model, tokenizer=tokenizer, batch_size=batch_size)


def measure(
    lm: Any,
    manager: Any,
    tasks: Sequence[Any],
    *,
    shots: int | None = None,
    limit: int | None = None,
    apply_chat_template: bool = False,
    seed: int = 1234,
) -> dict[str, Any]:
    """What lm-eval finds for the objects of one name, as `load_tasks` gives them; ready for JSON.

    Returns: {"entries": {task or group: {"METRIC,FILTER": score}}, "tasks": {task: {"shots", "version", "truncated":
    items longer than the model's context, "doc_id", "doc_hash", "prompt_hash": [items], "values": {"METRIC,FILTER":
    [items]}}}}. A group that lm-eval gives no score of its own has an entry for each of its tasks.

    Raises ValueError in a process that lm-eval takes for one of several.
    """
    from lm_eval import simple_evaluate

    results = simple_evaluate(
        model=lm,
        tasks=list(tasks),
        task_manager=manager,
        num_fewshot=shots,
        limit=limit,
        bootstrap_iters=0,  # limits come from the values of the items
        apply_chat_template=apply_chat_template,
        fewshot_as_multiturn=apply_chat_template,
        random_seed=seed,
        numpy_random_seed=seed,
        torch_random_seed=seed,
        fewshot_random_seed=seed,
    )
    if results is None:
        raise ValueError("Forgetting runs in a single process; start it without torchrun or accelerate launch.")
    top = tasks[0].name if hasattr(tasks[0], "get_all_tasks") else None
    entries = {top: scores_of(results["results"][top])} if top is not None else {}
    if not entries.get(top):
        entries = {name: scores_of(results["results"][name]) for name in results["samples"]}
    return {
        "entries": entries,
        "tasks": {
            name: {"shots": results["n-shot"][name], "version": results["versions"][name], **items_of(lm, samples)}
            for name, samples in results["samples"].items()
        },
    }


def scores_of(row: dict[str, Any]) -> dict[str, float]:
    """{"METRIC,FILTER": score} from a row of lm-eval's results."""
    return {
        key: float(value)
        for key, value in row.items()
        if "," in key and not key.partition(",")[0].endswith("_stderr") and is_number(value)
    }


def items_of(lm: Any, samples: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What identifies each item and what it scored, in the order of the documents."""
    by_filter: dict[str, dict[int, dict[str, Any]]] = {}
    for sample in samples:
        by_filter.setdefault(sample["filter"], {})[sample["doc_id"]] = sample
    items = dict(sorted(next(iter(by_filter.values())).items()))
    values = {}
    for chosen, filtered in by_filter.items():
        for metric in filtered[next(iter(items))]["metrics"]:
            column = [filtered[doc].get(metric) for doc in items]
            if all(is_number(value) for value in column):
                values[f"{metric},{chosen}"] = [float(value) for value in column]
    return {
        "truncated": sum(is_truncated(lm, sample["arguments"]) for sample in items.values()),
        "doc_id": list(items),
        "doc_hash": [sample["doc_hash"][:16] for sample in items.values()],
        "prompt_hash": [sample["prompt_hash"][:16] for sample in items.values()],
        "values": values,
    }


def is_truncated(lm: Any, requests: Sequence[Sequence[Any]]) -> bool:
    """Whether lm-eval had to cut the longest request of an item, from the left, to fit the model's context."""
    pairs = [request for request in requests if len(request) == 2]
    if not pairs:
        return False
    if isinstance(pairs[0][1], dict):  # a prompt and how to generate; the answer needs room too
        text, settings = pairs[0]
        room = lm.max_length - settings.get("max_gen_toks", lm.max_gen_toks)
    else:  # a prompt and a continuation, whose last token is only predicted
        text = max((context + continuation for context, continuation in pairs), key=len)
        room = lm.max_length + 1
    # a token covers at least a byte, so most texts need no tokenizer
    return len(text.encode()) > room and len(lm.tok_encode(text)) > room


def is_number(value: Any) -> bool:
    return isinstance(value, (int, float, np.number, np.bool_))
