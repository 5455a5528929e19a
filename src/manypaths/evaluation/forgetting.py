"""Forgetting: what a tuned model lost on general tasks, against the base it was tuned from, through lm-eval.

Both models answer the same items with the same prompts, so differences are paired: the spread that items have in
common drops out, and a small loss can be told from noise with far fewer items than two separate scores need.
"""

import json
import math
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

import torch

from ..models.loading import free_memory
from .harness import (
    Model,
    filters_of,
    harness_model,
    harness_version,
    leaves,
    load_tasks,
    measure,
    model_name,
    tokenizer_of,
)
from .intervals import student_t_quantile
from .results import fingerprint, weights_fingerprint, write_whole


class SuiteTask(NamedTuple):
    """metric: "METRIC,FILTER" as lm-eval names it. shots: solved examples in the prompt."""

    metric: str
    shots: int


# The six tasks of the GEM paper (arXiv:2408.16673). Metrics and shots are those of the first Open LLM Leaderboard:
# the paper's own shots could not be checked. Of GSM8K's two filters we take the one that reads the last number:
# a tuned model that marks its answers in another way has not forgotten arithmetic.
SUITE = {
    "arc_challenge": SuiteTask("acc_norm,none", 25),
    "hellaswag": SuiteTask("acc_norm,none", 10),
    "mmlu": SuiteTask("acc,none", 5),
    "truthfulqa_mc2": SuiteTask("acc,none", 0),
    "winogrande": SuiteTask("acc,none", 5),
    "gsm8k": SuiteTask("exact_match,flexible-extract", 5),
}
METRICS = ("acc_norm", "acc", "exact_match")  # for other tasks, the first that exists
FILTERS = ("none", "flexible-extract", "strict-match")


class Spread(NamedTuple):
    """Variance of a mean, with its degrees of freedom."""

    variance: float
    degrees: int


def forgetting(
    base: Model,
    tuned: Model,
    *,
    tasks: str | Sequence[str] = "gem",
    task_dir: str | Path | None = None,
    shots: int | Mapping[str, int] | None = None,
    metrics: Mapping[str, str] | None = None,
    limit: int | None = None,
    apply_chat_template: bool = False,
    batch_size: int | str = 8,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype = "auto",
    seed: int = 1234,
    folder: str | Path | None = None,
) -> dict[str, Any]:
    """Base against tuned on general tasks: differences with paired standard errors, and their mean.

    base, tuned: hub id or folder, or a loaded (model, tokenizer). One of the two is in memory at a time, unless
      the caller loaded them.
    tasks: "gem", the six tasks of `SUITE` (at 25/10/5/0/5/5 shots, the first Open LLM Leaderboard's; the GEM
      paper's own are not known to us), or names of lm-eval tasks, groups and tags.
    task_dir: folder of local YAML tasks; the data files they name belong there too.
    shots: for all tasks, or by task; the rest have SUITE's, or what their YAML says (0 where it says nothing).
    metrics: {task: "METRIC,FILTER"}; the rest have SUITE's, or the first of acc_norm, acc and exact_match.
    limit: use the first `limit` items of each task (of each subtask of a group).
    apply_chat_template: wrap prompts in the tuned model's chat template, for both models.
    batch_size: number, or "auto". device: default is the accelerator, else the CPU.
    seed: picks the shots where a task draws them, and seeds the random generators of torch, numpy and Python.
    folder: keeps each finished (model, task), to be used again by a later call with the same settings, so that a
      killed run goes on where it was. Loaded models have no name to keep results under and are always run.

    Returns: {"tasks": {name: {"metric", "filter", "shots", "version", "base": {"value", "stderr", "n",
    "truncated"}, "tuned": the same, "difference": {"value": tuned - base, "low", "high", "stderr", "n"}}},
    "alignment_tax": {"value": mean over tasks of base - tuned, "low", "high", "stderr", "n": tasks},
    "chat_template", "limit", "seed", "versions", "base", "tuned"}. Values are in the metric's units, fractions
    for the suite. Limits are 95 %, over items; tasks are taken as given. A difference that cannot be paired has
    no limits and a "note" that says why. "truncated" counts items that did not fit the model's context.

    Raises ImportError without a supported lm-eval, and ValueError for unknown tasks, data that cannot be
    loaded, shots a task does not take, metrics that do not exist or fall when models get better, a missing chat
    template, and models that were not given the same items and prompts.
    """
    installed = harness_version()
    if limit is not None and limit < 1:
        raise ValueError(f"limit is {limit}; give the number of items per task, at least 1, or leave it out.")
    names = task_names(tasks)
    check_named(shots if isinstance(shots, Mapping) else {}, names, "shots")
    template = shared_template(tuned) if apply_chat_template else None
    manager, loaded = load_tasks(names, task_dir)
    check_named(
        metrics or {}, [*names, *(task.task_name for name in names for task in leaves(loaded[name]))], "metrics"
    )
    shots_of = {name: shots_for(name, shots) for name in names}
    for name in names:
        check_shots(name, loaded[name], shots_of[name])
        check_metrics(name, loaded[name], metrics or {})
    run = {"limit": limit, "apply_chat_template": apply_chat_template, "seed": seed}
    runs = {name: partial(measure, manager=manager, tasks=loaded[name], shots=shots_of[name], **run) for name in names}
    place = {"chat_template": template, "batch_size": batch_size, "device": device, "dtype": dtype}
    settings = {**run, "template": template, "dtype": str(dtype), "lm_eval": installed, "files": files_in(task_dir)}
    found = []
    for source in (base, tuned):
        keys = {name: {"task": name, "shots": shots_of[name], **settings} for name in names}
        found.append(evaluate_model(source, runs, place, kept_paths(source, keys, folder)))
    compared = {}
    for name in names:
        compared |= compare(name, found[0][name], found[1][name], metrics or {})
    return {
        "tasks": {name: entry for name, (entry, _) in compared.items()},
        "alignment_tax": alignment_tax(list(compared.values())),
        "chat_template": apply_chat_template,
        "limit": limit,
        "seed": seed,
        "versions": {"lm_eval": installed},
        "base": model_name(base),
        "tuned": model_name(tuned),
    }


def task_names(tasks: str | Sequence[str]) -> list[str]:
    """Each task once, "gem" standing for the six of `SUITE`; ValueError for none."""
    given = [tasks] if isinstance(tasks, str) else tasks
    names = list(dict.fromkeys(name for one in given for name in (SUITE if one == "gem" else [one])))
    if not names:
        raise ValueError('No task is given; name lm-eval tasks, or "gem" for the six of the GEM paper.')
    return names


def check_named(values: Mapping[str, Any], names: Sequence[str], option: str) -> None:
    strange = [name for name in values if name not in names]
    if strange:
        raise ValueError(f"{option} names {', '.join(strange)}, which is not evaluated; tasks: {', '.join(names)}.")


def shots_for(name: str, shots: int | Mapping[str, int] | None) -> int | None:
    """None leaves the number to the task's YAML."""
    if isinstance(shots, int):
        return shots
    if name in (shots or {}):
        return shots[name]
    return SUITE[name].shots if name in SUITE else None


def check_shots(name: str, objects: Sequence[Any], shots: int | None) -> None:
    """lm-eval leaves a task that is fixed at 0 shots at 0, whatever is asked; we refuse instead."""
    if shots is not None and shots < 0:
        raise ValueError(f"shots of {name} is {shots}; give 0 or more.")
    fixed = [task.task_name for task in leaves(objects) if task.get_config("num_fewshot") == 0]
    if shots and fixed:
        raise ValueError(f"{fixed[0]} is fixed at 0 shots by its YAML, not {shots}: give shots by task, 0 for {name}.")


def check_metrics(name: str, objects: Sequence[Any], metrics: Mapping[str, str]) -> None:
    """That each task declares a metric we can take, before hours are spent on it."""
    for task in leaves(objects):
        declared = [f"{metric},{chosen}" for metric in task.aggregation() for chosen in filters_of(task)]
        key = metric_key(task.task_name, wanted_metric(task.task_name, name, metrics), declared)
        if task.higher_is_better().get(key.partition(",")[0]) is False:
            raise ValueError(f"{key} of {name} is better when lower; choose a metric that grows: {listed(declared)}.")


def wanted_metric(task: str, name: str, metrics: Mapping[str, str]) -> str | None:
    """What is asked of a task that was named itself or came with its group or tag `name`."""
    return metrics.get(task, metrics.get(name, SUITE[name].metric if name in SUITE else None))


def shared_template(tuned: Model) -> Any:
    template = tokenizer_of(tuned).chat_template
    if template is None:
        raise ValueError(f"The tokenizer of {model_name(tuned)} has no chat template; leave apply_chat_template out.")
    return template


def files_in(task_dir: str | Path | None) -> list[tuple[str, int, int]]:
    """Name, size and time of every file, so that results kept for other tasks or data are not used."""
    if task_dir is None:
        return []
    paths = sorted(path for path in Path(task_dir).rglob("*") if path.is_file() and path.suffix != ".pyc")
    return [(str(path.relative_to(task_dir)), path.stat().st_size, path.stat().st_mtime_ns) for path in paths]


def kept_paths(source: Model, keys: Mapping[str, Any], folder: str | Path | None) -> dict[str, Path]:
    """{task: file of its results}; empty when nothing can be kept."""
    if folder is None or isinstance(source, tuple):
        return {}
    weights = [str(source), weights_fingerprint(str(source))]
    return {
        name: Path(folder) / f"{re.sub('[^A-Za-z0-9_.-]', '_', name)}-{fingerprint([weights, key])[:16]}.json"
        for name, key in keys.items()
    }


def evaluate_model(
    source: Model,
    runs: Mapping[str, Callable[[Any], dict[str, Any]]],
    place: Mapping[str, Any],
    paths: Mapping[str, Path],
) -> dict[str, dict[str, Any]]:
    """{task: what `measure` returns}, read where it is kept; the weights are loaded when some task is not."""
    records, lm = {}, None
    for name, run in runs.items():
        path = paths.get(name)
        if path is not None and path.exists():
            records[name] = json.loads(path.read_text(encoding="utf-8"))
            continue
        lm = harness_model(source, **place) if lm is None else lm
        records[name] = run(lm)
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(path, json.dumps(records[name]) + "\n")
    del lm
    free_memory()
    return records


def compare(
    name: str, base: Mapping[str, Any], tuned: Mapping[str, Any], metrics: Mapping[str, str]
) -> dict[str, tuple[dict[str, Any], Spread | None]]:
    """{task or group: (its part of the result, the difference's spread)} from both models' records of one name."""
    check_same_items(name, base["tasks"], tuned["tasks"])
    compared = {}
    for entry, scores in base["entries"].items():
        members = [entry] if entry in base["tasks"] else list(base["tasks"])
        key = metric_key(entry, wanted_metric(entry, name, metrics), scores)
        metric, _, chosen = key.partition(",")
        shots = sorted({base["tasks"][member]["shots"] for member in members})
        versions = sorted({str(base["tasks"][member]["version"]) for member in members})
        sides = [(one["entries"][entry][key], {m: one["tasks"][m] for m in members}) for one in (base, tuned)]
        difference, spread = paired_difference(key, sides)
        part = {
            "metric": metric,
            "filter": chosen,
            "shots": shots[0] if len(shots) == 1 else shots,
            "version": versions[0] if len(versions) == 1 else versions,
        }
        for side, (score, items) in zip(("base", "tuned"), sides, strict=True):
            truncated = sum(one["truncated"] for one in items.values())
            part[side] = {**score, "n": difference["n"], "truncated": truncated}
        compared[entry] = ({**part, "difference": difference}, spread)
    return compared


def check_same_items(name: str, base: Mapping[str, Any], tuned: Mapping[str, Any]) -> None:
    again = "Evaluate both anew, in an empty folder."
    for member in {**base, **tuned}:
        one, other = base.get(member), tuned.get(member)
        if one is None or other is None or any(one[part] != other[part] for part in ("doc_id", "doc_hash")):
            raise ValueError(f"Base and tuned were evaluated on different items of {name} ({member}). {again}")
        if one["prompt_hash"] != other["prompt_hash"]:
            raise ValueError(f"Base and tuned were given different prompts in {name} ({member}). {again}")


def metric_key(name: str, wanted: str | None, scores: Collection[str]) -> str:
    """ "METRIC,FILTER" among the scores; ValueError with what was found when there is no such metric."""
    if wanted is None:
        order = [f"{metric},{chosen}" for metric in METRICS for chosen in FILTERS]
        order += sorted(key for key in scores if key.partition(",")[0] in METRICS)
        wanted = next((key for key in order if key in scores), None)
    if wanted is None:
        raise ValueError(f"Task {name} has none of {', '.join(METRICS)}; choose by metrics among {listed(scores)}.")
    if wanted not in scores:
        raise ValueError(f"Task {name} has no metric {wanted!r}; choose by metrics among {listed(scores)}.")
    return wanted


def listed(scores: Collection[str]) -> str:
    return ", ".join(repr(key) for key in sorted(scores))


def paired_difference(
    key: str, sides: Sequence[tuple[Mapping[str, float], Mapping[str, Any]]]
) -> tuple[dict[str, Any], Spread | None]:
    """tuned - base of one metric, from (score, {task: items}) of base and tuned.

    The subtasks of a group are strata: items vary within them, the subtasks are given. Each has the weight it has
    in lm-eval's own score, by its number of items or equal for all.
    """
    (base, base_items), (tuned, tuned_items) = sides
    count = sum(len(one["doc_id"]) for one in base_items.values())
    value = tuned["value"] - base["value"]
    part = {"value": value, "low": None, "high": None, "stderr": None, "n": count}
    if not all(key in one["values"] for items in (base_items, tuned_items) for one in items.values()):
        return {**part, "note": f"lm-eval gives no number per item for {key}, so the difference is not paired"}, None
    columns = [[one["values"][key] for one in items.values()] for items in (base_items, tuned_items)]
    weights = next(
        (
            candidate
            for candidate in ([len(column) / count for column in columns[0]], [1 / len(base_items)] * len(base_items))
            if all(is_mean(score, side, candidate) for score, side in zip((base, tuned), columns, strict=True))
        ),
        None,
    )
    if weights is None:
        return {**part, "note": f"{key} is not a mean over items, so the difference is not paired"}, None
    strata = [[t - b for b, t in zip(*pair, strict=True)] for pair in zip(*columns, strict=True)]
    if min(len(stratum) for stratum in strata) < 2:
        return {**part, "note": "a single item (of a subtask) says nothing about the spread"}, None
    spread = stratified_spread(strata, weights)
    return part | limits(value, spread), spread


def is_mean(score: Mapping[str, float], columns: Sequence[Sequence[float]], weights: Sequence[float]) -> bool:
    mean = math.fsum(weight * fmean(column) for weight, column in zip(weights, columns, strict=True))
    return math.isclose(mean, score["value"], rel_tol=1e-9, abs_tol=1e-12)


def stratified_spread(strata: Sequence[Sequence[float]], weights: Sequence[float]) -> Spread:
    """Spread of sum_s w_s mean(stratum s), for at least two values in each stratum."""
    spreads = []
    for values, weight in zip(strata, weights, strict=True):
        mean = fmean(values)
        degrees = len(values) - 1
        squares = math.fsum((value - mean) ** 2 for value in values)
        spreads.append(Spread(weight**2 * squares / degrees / len(values), degrees))
    return combined(spreads)


def combined(spreads: Sequence[Spread]) -> Spread:
    """Spread of a sum of independent parts, with Welch's degrees of freedom, rounded down."""
    variance = math.fsum(one.variance for one in spreads)
    if variance == 0.0:
        return Spread(0.0, sum(one.degrees for one in spreads))
    welch = variance**2 / math.fsum(one.variance**2 / one.degrees for one in spreads)
    return Spread(variance, max(1, math.floor(welch + 1e-9)))


def limits(value: float, spread: Spread) -> dict[str, float]:
    stderr = math.sqrt(spread.variance)
    half = student_t_quantile(0.95, spread.degrees) * stderr
    return {"low": value - half, "high": value + half, "stderr": stderr}


def alignment_tax(compared: Sequence[tuple[Mapping[str, Any], Spread | None]]) -> dict[str, Any]:
    """Mean over tasks of base - tuned; its limits hold for other items of these tasks."""
    number = len(compared)
    value = -fmean(entry["difference"]["value"] for entry, _ in compared) + 0.0  # no -0.0
    part = {"value": value, "low": None, "high": None, "stderr": None, "n": number}
    spreads = [spread for _, spread in compared]
    if None in spreads:
        return part
    return part | limits(value, combined([Spread(one.variance / number**2, one.degrees) for one in spreads]))
