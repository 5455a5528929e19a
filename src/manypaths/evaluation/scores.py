"""From samples and grades to rows of the two tables, task by task, and the averages over tasks.

A problem is what varies: every metric has one value per problem, its score is their mean, and limits are over problems.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from statistics import fmean
from typing import Any, NamedTuple

import pandas as pd

from ..generation.samples import Sample
from ..grading.graders import GRADERS
from ..run_folder import fingerprint
from .benchmarks import MAIN
from .diversity import TOKENIZERS, diversity_per_prompt
from .grades import Grades, unreliable_references
from .metrics import answer_entropy, best_of_n, distinct_answers, expected_max, pass_at_k
from .statistics import Estimate, bootstrap_estimate, mean_of_estimates, share_estimate
from .table import AVERAGE
from .tasks import Task
from .voting import SUBSETS, maj_at_k

FLAG_FROM = 0.05  # share of a task's samples that are cut off, timed out or not understood
UNITS = {
    "pass": "share", "maj": "share", "best_of": "share", "weighted_maj": "share", "expected_max": "score",
    "mean_reward": "score", "distinct_correct": "count", "distinct_answers": "count", "answer_entropy": "nats",
    "self_bleu": "bleu", "self_bleu_single_reference": "bleu", "distinct_n": "share", "words": "words",
    "embedding_diversity": "score", "vendi": "count", "length": "tokens", "sampled_entropy": "nats", "entropy": "nats",
    "kl_to_reference": "nats", "truncated": "share", "timed_out": "share", "unparsed": "share", "ce": "nats",
    "perplexity": "ratio", "text_entropy": "nats", "text_kl_to_reference": "nats", "top1": "share",
    "reference_ce": "nats", "ce_increase": "nats", "perplexity_ratio": "ratio", "worse": "share",
}  # fmt: skip
NOT_ITEMS = ("truncated", "timed_out", "unparsed")  # shares that are shown for a task as a whole


class Part(NamedTuple):
    """What was measured together: rows of scores and of items, and entries of "tasks", all without a method."""

    scores: list[dict[str, Any]]
    items: list[dict[str, Any]]
    tasks: list[dict[str, Any]]


def score_row(
    task: str, temperature: float | None, metric: str, estimate: Estimate, flags: Iterable[str] = ()
) -> dict[str, Any]:
    """A row of scores without a method."""
    unit = "share" if metric.startswith("p_label_") else UNITS[metric.partition("@")[0]]
    return {
        "task": task, "temperature": temperature, "metric": metric, **asdict(estimate), "unit": unit,
        "flags": ";".join(flags),
    }  # fmt: skip


def score_task(
    task: Task,
    samples: Sequence[Sequence[Sample]],
    grades: Grades | None,
    *,
    sampling: Mapping[str, Any],
    rewards: Sequence[Sequence[float]] | None = None,
    encoder: Any = None,
    reread: Mapping[str, Sequence[float]] | None = None,
) -> Part:
    """Everything measured of a task's samples [P][n].

    sampling: how they were drawn, for the results. rewards: [P][n] of a reward model, for best-of-N. encoder: for
    embedding diversity. reread: {metric: [P]} of the model's own completions read again.
    """
    number = len(samples[0])
    values = per_problem(task, samples, grades, encoder) | dict(reread or {})
    curves = {} if grades is None else answer_curves(grades, number)
    if rewards is not None:
        curves |= reward_curves(rewards, grades, number)
    flags = flags_of(task, values)
    rows = [
        score_row(task.name, task.temperature, metric, estimate_of(metric, column), flags)
        for metric, column in {**curves, **values}.items()
        if metric != "num_correct" and any(value is not None for value in column)
    ]
    items = [
        {"task": task.name, "temperature": task.temperature, "item": problem.id, "metric": metric, "value": value}
        for metric, column in values.items()
        if metric not in NOT_ITEMS
        for problem, value in zip(task.problems, column, strict=True)
        if value is not None
    ]
    stops = [str(sample.stop) for row in samples for sample in row]
    entry = {
        "temperature": task.temperature,
        "task": task.name,
        "group": task.group,
        "num_problems": len(samples),
        "num_samples": number,
        "prompt_hash": fingerprint(list(task.prompts)),
        "sampling": dict(sampling),
        "grader": None if grades is None else grades.grader,
        "answers": task.answers,
        "stops": {stop: stops.count(stop) for stop in dict.fromkeys(stops)},
        "excluded": list(task.excluded),
        "unreliable_reference": unreliable_references(task.problems),
        "tokenizers": TOKENIZERS,
        "votes": {"ties": "fair", "random_subsets": SUBSETS},
    }
    return Part(rows, items, [entry])


def per_problem(
    task: Task, samples: Sequence[Sequence[Sample]], grades: Grades | None, encoder: Any
) -> dict[str, list[float | None]]:
    """{metric: [P]}, None where a problem has no such value. A metric that needs what nobody knows is left out."""
    values: dict[str, list[float | None]] = {}
    flat = [sample for row in samples for sample in row]
    if grades is not None:
        pairs = list(zip(grades.classes, grades.correct, strict=True))
        values["num_correct"] = [sum(row) for row in grades.correct]
        values["distinct_correct"] = [
            len({name for name, right in zip(*pair, strict=True) if right and name is not None}) for pair in pairs
        ]
        values["distinct_answers"] = [distinct_answers(row) for row in grades.classes]
        values["answer_entropy"] = [answer_entropy(row) for row in grades.classes]
        if task.grader not in GRADERS:  # those give 0 or 1, and their mean is pass@1
            values["mean_reward"] = [fmean(row) for row in grades.values]
        if task.grader == "math":
            values["timed_out"] = [share_of(row, "timeout") for row in grades.statuses]
            values["unparsed"] = [share_of(row, "unparsed") for row in grades.statuses]
    if len(samples[0]) > 1:
        values |= diversity_per_prompt([[sample.text for sample in row] for row in samples], encoder)
    if all(sample.num_tokens is not None for sample in flat):
        values["length"] = [fmean(sample.num_tokens for sample in row) for row in samples]
    if all(sample.logprob is not None and sample.num_tokens for sample in flat):
        values["sampled_entropy"] = [
            -math.fsum(sample.logprob for sample in row) / sum(sample.num_tokens for sample in row) for row in samples
        ]
    if all(sample.stop is not None for sample in flat):
        values["truncated"] = [share_of([sample.stop for sample in row], "length") for row in samples]
    return values


def share_of(names: Sequence[str], name: str) -> float:
    return sum(one == name for one in names) / len(names)


def answer_curves(grades: Grades, number: int) -> dict[str, list[float]]:
    """pass@k and maj@k for k = 1, 2, 4, ... n; maj@1 would be pass@1."""
    counts = [sum(row) for row in grades.correct]
    curves = {f"pass@{k}": [pass_at_k(number, count, k) for count in counts] for k in ks(number)}
    pairs = list(zip(grades.classes, grades.correct, strict=True))
    return curves | {
        f"maj@{k}": [maj_at_k(classes, right, k).value for classes, right in pairs] for k in ks(number)[1:]
    }


def reward_curves(rewards: Sequence[Sequence[float]], grades: Grades | None, number: int) -> dict[str, list[float]]:
    """Per k, the mean best score of k samples and, with grades, how right the sample is that has it, and how right the
    answer is that wins a vote in which samples count by the softmax of their scores."""
    curves = {f"expected_max@{k}": [expected_max(row, k) for row in rewards] for k in ks(number)}
    if grades is not None:
        rows = list(zip(rewards, grades.classes, grades.correct, strict=True))
        for k in ks(number):
            curves[f"best_of@{k}"] = [best_of_n(row, right, k) for row, _, right in rows]
            curves[f"weighted_maj@{k}"] = [
                maj_at_k(classes, right, k, log_weights=row).value for row, classes, right in rows
            ]
    return curves


def ks(number: int) -> list[int]:
    """1, 2, 4, ... and the number itself."""
    return sorted({2**power for power in range(number.bit_length())} | {number})


def estimate_of(metric: str, column: Sequence[float | None]) -> Estimate:
    known = [float(value) for value in column if value is not None]
    share = UNITS[metric.partition("@")[0]] == "share"
    return (share_estimate if share else bootstrap_estimate)(known, "problems")


def flags_of(task: Task, values: Mapping[str, Sequence[float | None]]) -> list[str]:
    flags = [name for name in NOT_ITEMS if name in values and fmean(values[name]) > FLAG_FROM]
    return flags if task.group == MAIN else [*flags, "side"]


def averages(scores: pd.DataFrame, entries: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Rows for the plain mean over the graded tasks of each group and temperature, where there are two or more.

    Each metric that all of them have is averaged. The mean over the group "main" is called "average", that over another
    group as the group is. entries: of "tasks", one for each task of the scores.
    """
    groups: dict[tuple[str, float | None], list[str]] = {}
    for entry in entries:
        if entry.get("grader") is not None:
            groups.setdefault((entry["group"], entry["temperature"]), []).append(entry["task"])
    rows = []
    for (group, temperature), names in groups.items():
        asked = scores["temperature"].isna() if temperature is None else scores["temperature"] == temperature
        table = scores[asked & scores["task"].isin(names) & (scores["over"] == "problems")]
        for metric, members in table.groupby("metric", sort=False):
            if len(members) == len(names) > 1:
                estimate = mean_of_estimates([as_estimate(row) for row in members.to_dict("records")])
                flags = dict.fromkeys(flag for text in members["flags"] for flag in text.split(";") if flag)
                rows.append(score_row(AVERAGE if group == MAIN else group, temperature, metric, estimate, flags))
    return rows


def as_estimate(row: Mapping[str, Any]) -> Estimate:
    low, high = (None if math.isnan(row[name]) else row[name] for name in ("low", "high"))
    return Estimate(row["value"], low, high, int(row["n"]), row["over"])


def reward_model_scores(task: Task, samples: Sequence[Sequence[Sample]], scorer: Any) -> list[list[float]]:
    """A reward model's scores, [P][n]."""
    number = len(samples[0])
    prompts = [prompt for prompt in task.prompts for _ in range(number)]
    flat = list(scorer(prompts, [sample.text for row in samples for sample in row]))
    return [flat[start : start + number] for start in range(0, len(flat), number)]
