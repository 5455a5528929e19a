"""Forgetting: what a tuned model lost on general tasks, against the base it was tuned from, through lm-eval.

Both models answer the same items with the same prompts, so differences are paired: the spread that items have in
common drops out, and a small loss can be told from noise with far fewer items than two separate scores need.
"""

import json
import math
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

import torch

from ..models.loading import free_memory
from ..run_folder import content_fingerprint, fingerprint, write_whole
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
from .statistics import Estimate, bootstrap_estimate, mean_of_estimates, paired_estimate, share_estimate

ALL = "lm-eval"  # the task that stands for all of them, and their group
MANY = 0.05  # share of items that did not fit the context, from which on scores are flagged


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


@dataclass(frozen=True)
class Forgetting:
    """Rows of the tables of scores and items, without method, stage, seed and temperature, and how tasks were run.

    scores: base_score, tuned_score and change (tuned - base, paired) of each task in the metric's units, shares for the
      suite, and alignment_tax of the task "lm-eval": the mean over tasks of base - tuned. Limits are over items; tasks
      are taken as given. A score that is not a mean over items has none, and its task a "note" that says why. The flag
      "truncated" marks scores of models whose context did not hold more than 5 % of the items.
    items: the same three per item, where lm-eval gives numbers per item; those of a group are named "task/item".
    tasks: {"task", "group", "num_problems", "num_samples", "metric", "filter", "shots", "version", "truncated": {"base":
      items, "tuned": items}, "limit", "chat_template", "seed", "base", "tuned", "note"}.
    """

    scores: list[dict[str, Any]]
    items: list[dict[str, Any]]
    tasks: list[dict[str, Any]]


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
    dtype: str | torch.dtype = "auto",
    seed: int = 1234,
    folder: str | Path | None = None,
) -> Forgetting:
    """Base against tuned on general tasks: their scores, paired differences, and the mean of these.

    base, tuned: hub id or folder, or a loaded (model, tokenizer). One of the two is in memory at a time, unless
      the caller loaded them.
    tasks: "gem", the six tasks of `SUITE` (at 25/10/5/0/5/5 shots, the first Open LLM Leaderboard's; the GEM
      paper's own are not known to us), or names of lm-eval tasks, groups and tags.
    task_dir: folder of local YAML tasks; the data files they name belong there too.
    shots: for all tasks, or by task; the rest have SUITE's, or what their YAML says (0 where it says nothing).
    metrics: {task: "METRIC,FILTER"}; the rest have SUITE's, or the first of acc_norm, acc and exact_match.
    limit: use the first `limit` items of each task (of each subtask of a group).
    apply_chat_template: wrap prompts in the tuned model's chat template, for both models.
    batch_size: number, or "auto".
    seed: picks the shots where a task draws them, and seeds the random generators of torch, numpy and Python.
    folder: keeps each finished (model, task), to be used again by a later call with the same settings, so that a
      killed run goes on where it was. Loaded models have no name to keep results under and are always run.

    Raises ImportError without a supported lm-eval, and ValueError for unknown tasks, data that cannot be
    loaded, shots a task does not take, metrics that do not exist or fall when models get better, a missing chat
    template, and models that were not given the same items and prompts.
    """
    installed = harness_version()
    names = task_names(tasks)
    metrics = metrics or {}
    check_named(shots if isinstance(shots, Mapping) else {}, names, "shots")
    template = shared_template(tuned) if apply_chat_template else None
    manager, loaded = load_tasks(names, task_dir)
    check_named(metrics, [*names, *(task.task_name for name in names for task in leaves(loaded[name]))], "metrics")
    shots_of = {name: shots_for(name, shots) for name in names}
    for name in names:
        check_shots(name, loaded[name], shots_of[name])
        check_metrics(name, loaded[name], metrics)
    how = {"limit": limit, "apply_chat_template": apply_chat_template, "seed": seed}
    files = None if task_dir is None else content_fingerprint(task_dir)
    settings = {**how, "template": template, "dtype": str(dtype), "lm_eval": installed, "files": files}

    def records_of(source: Model) -> dict[str, dict[str, Any]]:
        """{task: what `measure` returns}, read where it is kept; the weights are loaded when some task is not."""
        weights = None if folder is None or isinstance(source, tuple) else content_fingerprint(source)
        records, lm = {}, None
        for name in names:
            key = fingerprint([weights, {"task": name, "shots": shots_of[name], **settings}])[:16]
            path = None if weights is None else Path(folder) / f"{re.sub('[^A-Za-z0-9_.-]', '_', name)}-{key}.json"
            if path is not None and path.exists():
                records[name] = json.loads(path.read_text(encoding="utf-8"))
                continue
            lm = lm or harness_model(source, chat_template=template, batch_size=batch_size, dtype=dtype)
            records[name] = measure(lm, manager=manager, tasks=loaded[name], shots=shots_of[name], **how)
            if path is not None:
                path.parent.mkdir(parents=True, exist_ok=True)
                write_whole(path, json.dumps(records[name]) + "\n")
        del lm
        free_memory()
        return records

    before, after = records_of(base), records_of(tuned)
    parts = [part for name in names for part in compared(name, before[name], after[name], metrics)]
    losses = [part.change.mapped(lambda value: 0.0 - value) for part in parts]
    unit = "share" if all(part.unit == "share" for part in parts) else "score"
    facts = {"limit": limit, "chat_template": apply_chat_template, "seed": seed}
    facts |= {"base": model_name(base), "tuned": model_name(tuned)}
    return Forgetting(
        [
            *(row for part in parts for row in part.scores),
            score_row(ALL, "alignment_tax", mean_of_estimates(losses), unit, ""),
        ],
        [row for part in parts for row in part.items],
        [{**part.facts, **facts} for part in parts],
    )


def task_names(tasks: str | Sequence[str]) -> list[str]:
    """Each task once, "gem" standing for the six of `SUITE`; ValueError for none."""
    given = [tasks] if isinstance(tasks, str) else tasks
    names = list(dict.fromkeys(name for task in given for name in (SUITE if task == "gem" else [task])))
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


class Part(NamedTuple):
    """What one task or group adds to the result."""

    scores: list[dict[str, Any]]
    items: list[dict[str, Any]]
    facts: dict[str, Any]
    change: Estimate
    unit: str


def compared(name: str, base: Mapping[str, Any], tuned: Mapping[str, Any], metrics: Mapping[str, str]) -> list[Part]:
    """The task or group, or each task of a tag, from both models' records of one name."""
    check_same_items(name, base["tasks"], tuned["tasks"])
    parts = []
    for entry, scores in base["entries"].items():
        key = metric_key(entry, wanted_metric(entry, name, metrics), scores)
        members = [entry] if entry in base["tasks"] else list(base["tasks"])
        sides = [{member: record["tasks"][member] for member in members} for record in (base, tuned)]
        parts.append(part_of(entry, key, [record["entries"][entry][key] for record in (base, tuned)], sides))
    return parts


def part_of(entry: str, key: str, values: Sequence[float], sides: Sequence[Mapping[str, Any]]) -> Part:
    """values: lm-eval's score of base and of tuned. sides: {task: its items} of both."""
    columns = [[task["values"].get(key) for task in side.values()] for side in sides]
    docs = [
        f"{member}/{doc}" if len(sides[0]) > 1 else str(doc)
        for member in sides[0]
        for doc in sides[0][member]["doc_id"]
    ]
    truncated = [sum(task["truncated"] for task in side.values()) for side in sides]
    flags = ["truncated" if count > MANY * len(docs) else "" for count in truncated]
    facts = {"task": entry, "group": ALL, "num_problems": len(docs), "num_samples": 1}
    facts |= dict(zip(("metric", "filter"), key.split(","), strict=True))
    for fact in ("shots", "version"):
        kinds = sorted({task[fact] for task in sides[0].values()}, key=str)
        facts[fact] = kinds[0] if len(kinds) == 1 else kinds
    facts["truncated"] = dict(zip(("base", "tuned"), truncated, strict=True))

    per_item = all(column is not None for side in columns for column in side)
    weights = weights_of(values, columns) if per_item else None
    unit = (
        "share"
        if per_item and all(0.0 <= min(task) <= max(task) <= 1.0 for side in columns for task in side)
        else "score"
    )
    if weights is None:
        why = f"{key} is not a mean over items" if per_item else f"lm-eval gives no number per item for {key}"
        facts["note"] = f"{why}, so the difference is not paired"
        estimates = [Estimate(value, None, None, len(docs), "items") for value in (*values, values[1] - values[0])]
    else:
        mean = share_estimate if unit == "share" else bootstrap_estimate
        strata = [[mean(task, "items") for task in side] for side in columns]
        strata.append([paired_estimate(after, before, "items") for before, after in zip(*columns, strict=True)])
        estimates = [replace(mean_of_estimates(parts, "items", weights), n=len(docs)) for parts in strata]
    names = ("base_score", "tuned_score", "change")
    flags.append(max(flags))
    rows = [score_row(entry, *row) for row in zip(names, estimates, [unit] * 3, flags, strict=True)]
    items = []
    if per_item:
        flat = [[value for task in side for value in task] for side in columns]
        flat.append([after - before for before, after in zip(*flat, strict=True)])
        items = [
            {"task": entry, "item": doc, "metric": metric, "value": value}
            for metric, column in zip(names, flat, strict=True)
            for doc, value in zip(docs, column, strict=True)
        ]
    return Part(rows, items, facts, estimates[2], unit)


def weights_of(values: Sequence[float], columns: Sequence[Sequence[Sequence[float]]]) -> list[float] | None:
    """The weights of the subtasks in lm-eval's own score: by number of items, or all the same; None for neither.

    The subtasks of a group are strata: items vary within them, the subtasks are given.
    """
    sizes = [len(task) for task in columns[0]]
    for weights in ([size / sum(sizes) for size in sizes], [1 / len(sizes)] * len(sizes)):
        means = [
            math.fsum(weight * fmean(task) for weight, task in zip(weights, side, strict=True)) for side in columns
        ]
        if all(math.isclose(*pair, rel_tol=1e-9, abs_tol=1e-12) for pair in zip(means, values, strict=True)):
            return weights
    return None


def score_row(task: str, metric: str, estimate: Estimate, unit: str, flags: str) -> dict[str, Any]:
    return {"task": task, "metric": metric, **asdict(estimate), "unit": unit, "flags": flags}


def check_same_items(name: str, base: Mapping[str, Any], tuned: Mapping[str, Any]) -> None:
    again = "Evaluate both anew, in an empty folder."
    for member in {**base, **tuned}:
        before, after = base.get(member), tuned.get(member)
        if before is None or after is None or any(before[part] != after[part] for part in ("doc_id", "doc_hash")):
            raise ValueError(f"Base and tuned were evaluated on different items of {name} ({member}). {again}")
        if before["prompt_hash"] != after["prompt_hash"]:
            raise ValueError(f"Base and tuned were given different prompts in {name} ({member}). {again}")


def metric_key(name: str, wanted: str | None, scores: Collection[str]) -> str:
    """ "METRIC,FILTER" among the scores; ValueError with those there are when there is no such metric."""
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
