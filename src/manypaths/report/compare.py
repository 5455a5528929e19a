"""What is compared with what: results as rows, each row's values over seeds, and differences between rows.

Every number and every test comes from `evaluation/statistics.py`; here is chosen which of them fits.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache, wraps
from typing import Any

import numpy as np

from ..evaluation import statistics
from ..evaluation.matched import Curve, Matched, matched_difference
from ..evaluation.metrics import pass_at_k
from ..evaluation.statistics import Difference, Estimate
from ..evaluation.table import AVERAGE, Results

MAIN = "main"
STAGES = ("", "sft", "rl")
MATCHES = (  # a metric at equal values of another, over temperature
    ("pass@1", "self_bleu"), ("pass@1", "distinct_answers"), ("entropy", "pass@1"), ("entropy", "self_bleu"),
    ("sampled_entropy", "pass@1"), ("sampled_entropy", "self_bleu"),
)  # fmt: skip


@dataclass(frozen=True)
class Row:
    """A line of the tables: a method, and its temperature where it was sampled at several."""

    method: str
    temperature: float | None = None

    @property
    def label(self) -> str:
        return self.method if self.temperature is None else f"{self.method}, T={self.temperature:g}"


Key = tuple[Row, str, str, str]  # row, stage, task, metric
BySeed = dict[float | None, Any]


def cached(method: Callable[..., Any]) -> Callable[..., Any]:
    """The method with its answers kept in `self.known`."""

    @wraps(method)
    def answer(self: "Study", *key: Any) -> Any:
        place = (method.__name__, key)
        if place not in self.known:
            self.known[place] = method(self, *key)
        return self.known[place]

    return answer


class Study:
    """Results arranged for reading. Rows: the baseline, then methods, then controls, as they were run."""

    def __init__(self, results: Results) -> None:
        if results.scores.empty:
            raise ValueError("There is nothing to report: these results hold no scores.")
        self.results = results = staged(results)
        self.known: dict[tuple[Any, ...], Any] = {}
        self.runs = {(run["method"], run["stage"], run["seed"]): run for run in results.runs}
        methods = list(dict.fromkeys([*(run["method"] for run in results.runs), *results.scores["method"]]))
        self.controls = {
            run["method"]: run.get("control") or "" for run in results.runs if run.get("role") == "control"
        }
        self.baseline = (results.experiment or {}).get("baseline") or methods[0]
        methods.sort(key=lambda method: (method in self.controls, method != self.baseline))
        self.stages = [stage for stage in STAGES if stage in set(results.scores["stage"])]
        heats = results.scores.groupby(["method", "stage", "seed", "task"], dropna=False)["temperature"].nunique(
            dropna=False
        )
        self.heated = {key[0] for key, count in heats.items() if count > 1}
        self.values: dict[Key, BySeed] = {}
        for score in results.scores.to_dict("records"):
            key = (self.row(score), score["stage"], score["task"], score["metric"])
            self.values.setdefault(key, {})[or_none(score["seed"])] = score
        self.rows = sorted(
            {key[0] for key in self.values}, key=lambda row: (methods.index(row.method), row.temperature or -1.0)
        )
        self.methods = len({row.method for row in self.rows})
        self.groups = {AVERAGE: MAIN} | {task["task"]: task["group"] for task in results.tasks}
        self.facts = {(self.row(task), task["stage"], task["seed"], task["task"]): task for task in results.tasks}

    def row(self, entry: Mapping[str, Any]) -> Row:
        return Row(entry["method"], or_none(entry["temperature"]) if entry["method"] in self.heated else None)

    @cached_property
    def items(self) -> dict[Key, dict[float | None, dict[str, float]]]:
        """{key: {seed: {item: value}}}, items in order of their names so that lists of them can be paired."""
        gathered: dict[Key, dict[float | None, dict[str, float]]] = {}
        table = self.results.items.sort_values("item")
        columns = ["method", "temperature", "stage", "task", "metric", "seed"]
        for (method, temperature, stage, task, metric, seed), rows in table.groupby(columns, dropna=False, sort=False):
            row = self.row({"method": method, "temperature": temperature})
            values = dict(zip(rows["item"], rows["value"], strict=True))
            gathered.setdefault((row, stage, task, metric), {})[or_none(seed)] = values
        return gathered

    @cached_property
    def setting(self) -> float | None:
        """The temperature at which most methods were sampled: the one that claims are about."""
        settings = [row.temperature for row in self.rows]
        return max(dict.fromkeys(settings), key=settings.count)

    @cached_property
    def main_rows(self) -> list[Row]:
        """One row a method, at the common temperature where it has that; all rows of a lone method."""
        by_method: dict[str, list[Row]] = {}
        for row in self.rows:
            by_method.setdefault(row.method, []).append(row)
        if len(by_method) == 1:
            return self.rows
        return [next((row for row in rows if row.temperature == self.setting), rows[0]) for rows in by_method.values()]

    def name(self, row: Row) -> str:
        """The row as a series of figures and in sentences: its method, or its temperature of a lone method."""
        return row.label if self.main_rows == self.rows else row.method

    @cached_property
    def baseline_name(self) -> str:
        """What differences are taken to, in words."""
        return self.name(next(row for row in self.main_rows if row.method == self.baseline))

    def is_control(self, row: Row) -> bool:
        return row.method in self.controls

    def baseline_of(self, row: Row) -> Row | None:
        """The row to compare with: the baseline at the same temperature, else at the common one."""
        if row.method == self.baseline:
            return None if row == self.rows[0] or len(self.main_rows) != len(self.rows) else self.rows[0]
        same = Row(self.baseline, row.temperature)
        return same if same in self.rows else next(row for row in self.main_rows if row.method == self.baseline)

    def members(self, task: str) -> list[str]:
        """The tasks behind an average: all graded ones of its group."""
        group = MAIN if task == AVERAGE else task
        graded = {key[2] for key in self.values if key[3] == "pass@1"}
        return [
            name for name, its_group in self.groups.items() if its_group == group and name in graded and name != AVERAGE
        ]

    def tasks(self, group: str, metric: str = "pass@1") -> list[str]:
        """Tasks of a group that have the metric, in the order in which they were evaluated."""
        present = {key[2] for key in self.values if key[3] == metric}
        return [
            name
            for name, its_group in self.groups.items()
            if its_group == group and name in present and name != AVERAGE
        ]

    @cached_property
    def headline(self) -> str | None:
        """The task by which rows are compared: the average over benchmarks, or the only one."""
        tasks = self.tasks(MAIN)
        shared = [name for name in tasks if all(self.has(row, name, "pass@1") for row in self.main_rows)]
        return AVERAGE if len(shared) > 1 and shared == tasks else (shared or tasks or [None])[0]

    @cached_property
    def side_groups(self) -> list[str]:
        return list(dict.fromkeys(group for group in self.groups.values() if group != MAIN and self.members(group)))

    def has(self, row: Row, task: str, metric: str) -> bool:
        return any(self.scores(row, stage, task, metric) for stage in self.stages)

    def ks(self, task: str, family: str = "pass") -> list[int]:
        """Every k of pass@k (or another family) of a task, or of all tasks behind an average."""
        of_task = [
            {int(key[3].partition("@")[2]) for key in self.values if key[2] == name and key[3].startswith(f"{family}@")}
            for name in (self.members(task) if task == AVERAGE or task in self.side_groups else [task])
        ]
        return sorted(set.intersection(*of_task)) if of_task else []

    def unit(self, metric: str) -> str:
        return next((next(iter(seeds.values()))["unit"] for key, seeds in self.values.items() if key[3] == metric), "")

    def scores(self, row: Row, stage: str, task: str, metric: str) -> dict[float | None, float]:
        """{seed: value}; an average that was not stored is made of its tasks, for seeds that have them all."""
        stored = self.values.get((row, stage, task, metric))
        if stored is not None:
            return {
                seed: float(score["value"]) for seed, score in stored.items() if or_none(score["value"]) is not None
            }
        if task != AVERAGE and task not in self.side_groups:
            return {}
        parts = [self.scores(row, stage, name, metric) for name in self.members(task)]
        seeds = set.intersection(*map(set, parts)) if parts else set()
        return {seed: math.fsum(part[seed] for part in parts) / len(parts) for seed in sorted(seeds, key=str)}

    @cached
    def item_values(self, row: Row, stage: str, task: str, metric: str) -> dict[float | None, dict[str, float]]:
        """{seed: {item: value}}; pass@k from the number of right samples."""
        if not metric.startswith("pass@"):
            return self.items.get((row, stage, task, metric), {})
        k, counts = int(metric.removeprefix("pass@")), self.items.get((row, stage, task, "num_correct"), {})
        size = {seed: self.facts[row, stage, seed, task]["num_samples"] for seed in counts}
        return {
            seed: {item: pass_at_k(size[seed], int(count), k) for item, count in of_seed.items()}
            for seed, of_seed in counts.items()
            if size[seed] >= k
        }

    def is_trained(self, row: Row, stage: str) -> bool:
        """False where several seeds evaluate the same weights: then they say nothing about training."""
        weights = [
            run["weights"]
            for (method, run_stage, _), run in self.runs.items()
            if (method, run_stage) == (row.method, stage)
        ]
        return len(weights) < 2 or None in weights or len(set(weights)) > 1

    @cached
    def estimate(self, row: Row, stage: str, task: str, metric: str) -> Estimate | None:
        """The mean over seeds with its limits: over seeds where they are three or more, else over problems."""
        scores = self.scores(row, stage, task, metric)
        if not scores:
            return None
        value, stored = math.fsum(scores.values()) / len(scores), self.values.get((row, stage, task, metric))
        trained = self.is_trained(row, stage)
        if len(scores) == 1 or not trained:
            if stored is None:
                return statistics.mean_of_estimates(
                    [self.estimate(row, stage, member, metric) for member in self.members(task)]
                )
            first = next(iter(stored.values()))
            if len(scores) == 1 or not self.item_values(row, stage, task, metric):
                return Estimate(
                    value, or_none(first["low"]), or_none(first["high"]), int(or_none(first["n"]) or 1), first["over"]
                )
        of_items = self.item_values(row, stage, task, metric)
        method = statistics.share_estimate if self.unit(metric) == "share" else statistics.bootstrap_estimate
        if not trained:
            return replace(
                method(list(statistics.item_means(list(of_items.values())).values()), "problems"), value=value
            )
        return statistics.over_seeds(scores, of_items if set(of_items) == set(scores) else None, estimate=method)

    @cached
    def pairs(self, row: Row, other: Row, stage: str, task: str, metric: str) -> tuple[dict, dict, str] | None:
        """The values to compare, side by side, and over what: {"": one per seed}, or {task: one per problem}."""
        a, b = (self.scores(side, stage, task, metric) for side in (row, other))
        seeds = [*zip(a, b, strict=True)] if len(a) == len(b) == 1 else [(seed, seed) for seed in a if seed in b]
        if len(seeds) >= statistics.LEAST_FOR_T and (self.is_trained(row, stage) or self.is_trained(other, stage)):
            return {"": [a[seed] for seed, _ in seeds]}, {"": [b[seed] for _, seed in seeds]}, "seeds"
        sides: tuple[dict, dict] = ({}, {})
        for name in self.members(task) if task == AVERAGE or task in self.side_groups else [task]:
            of_items = [self.item_values(each, stage, name, metric) for each in (row, other)]
            if not seeds or any(pair[side] not in of_items[side] for pair in seeds for side in (0, 1)):
                return None
            runs = [[of_items[side][pair[side]] for pair in seeds] for side in (0, 1)]
            if any(run.keys() != runs[0][0].keys() for side in runs for run in side):
                return None
            for side in (0, 1):
                sides[side][name] = [math.fsum(run[item] for run in runs[side]) / len(seeds) for item in runs[0][0]]
        return *sides, "problems"

    @cached
    def difference(self, row: Row, other: Row, stage: str, task: str, metric: str) -> Difference | None:
        """`row` minus `other`: paired by seed from three on, else by problem, else unpaired. None where they do not
        both have the metric, or were not given the same task."""
        a, b = (self.estimate(side, stage, task, metric) for side in (row, other))
        if a is None or b is None or self.obstacle(row, other, stage, task):
            return None
        pairs = self.pairs(row, other, stage, task, metric)
        if pairs is None:
            return statistics.unpaired_difference(a, b)
        left, right, over = pairs
        if len(left) > 1:
            return statistics.macro_paired_difference(left, right)
        return statistics.paired_difference(*left.values(), *right.values(), over)

    def detectable(self, row: Row, other: Row, stage: str, task: str, metric: str, family: int) -> float | None:
        """The smallest true difference that would have been seen with 80 % power in a family of this size."""
        pairs = self.pairs(row, other, stage, task, metric)
        if pairs is None or len(pairs[0]) > 1:
            return None
        (a,), (b,) = pairs[0].values(), pairs[1].values()
        return statistics.detectable_difference(np.subtract(a, b), level=0.05 / family)

    def samples_needed(self, row: Row, other: Row, stage: str, task: str, n: int) -> Estimate | None:
        """The share of the other's n samples with which the row has the same chance that one is right."""
        tables = [self.pass_tables(side, stage, task, n) for side in (row, other)]
        seeds = [seed for seed in tables[0] if seed in tables[1]]
        if not seeds or self.obstacle(row, other, stage, task):
            return None
        return statistics.best_of_n_share(*([table[seed] for seed in seeds] for table in tables))

    def pass_tables(self, row: Row, stage: str, task: str, n: int) -> dict[float | None, np.ndarray]:
        """{seed: pass@k of every problem for k = 1 ... n, [P, n]}."""
        counts = self.items.get((row, stage, task, "num_correct"), {})
        size = {seed: self.facts[row, stage, seed, task]["num_samples"] for seed in counts}
        return {
            seed: np.array([pass_curve(size[seed], int(count), n) for count in of_seed.values()])
            for seed, of_seed in counts.items()
            if size[seed] >= n
        }

    def obstacle(self, row: Row, other: Row, stage: str, task: str) -> str | None:
        """Why two rows cannot be compared on a task; None when they can."""
        for name in self.members(task) if task == AVERAGE or task in self.side_groups else [task]:
            a, b = ([fact for key, fact in self.facts.items() if key[:2] == (side, stage) and key[3] == name]
                    for side in (row, other))  # fmt: skip
            if {fact.get("prompt_hash") for fact in a} != {fact.get("prompt_hash") for fact in b}:
                return "other prompts" if a and b else None
            if a and b and rules(a) != rules(b):
                return "other grading rules (--rescore scores the stored samples again)"
        return None

    def curves(self) -> tuple[list[str], dict[str, Curve]]:
        """Benchmarks that were sampled several times at several temperatures, and each method's curve over them."""
        stage = self.stages[-1]
        by_method = {
            method: [row for row in self.rows if row.method == method and row.temperature is not None]
            for method in dict.fromkeys(row.method for row in self.rows)
        }
        by_method = {method: rows for method, rows in by_method.items() if len(rows) > 1}
        rows = [row for at_temperatures in by_method.values() for row in at_temperatures]
        names = [
            name
            for name in self.tasks(MAIN, "self_bleu")
            if all(self.item_values(row, stage, name, "self_bleu") for row in rows)
        ]
        graded = [name for name in names if all(self.item_values(row, stage, name, "pass@1") for row in rows)]
        return graded or names, {
            method: Curve(
                [row.temperature for row in at_temperatures], self.curve_scores(at_temperatures, stage, graded or names)
            )
            for method, at_temperatures in by_method.items()
        }

    def curve_scores(self, rows: Sequence[Row], stage: str, tasks: Sequence[str]) -> dict[str, dict[str, list]]:
        """{metric: {task: {item: value} of each row}}, for metrics that all rows have."""
        scores: dict[str, dict[str, list]] = {}
        for metric in ("pass@1", "self_bleu", "distinct_answers", "entropy", "sampled_entropy"):
            by_task = {name: [self.item_values(row, stage, name, metric) for row in rows] for name in tasks}
            if all(runs for of_rows in by_task.values() for runs in of_rows):
                scores[metric] = {
                    name: [statistics.item_means(list(runs.values())) for runs in of_rows]
                    for name, of_rows in by_task.items()
                }
        return scores

    def matched(self) -> dict[str, list[Matched]]:
        """Each method against the baseline at equal accuracy and at equal entropy, over temperature."""
        tasks, curves = self.curves()
        first = curves.get(self.baseline)
        if not tasks or first is None:
            return {}
        comparisons: dict[str, list[Matched]] = {}
        for method, curve in curves.items():
            if method == self.baseline:
                continue
            for match, compared in MATCHES:
                if all({match, compared} <= each.scores.keys() for each in (curve, first)):
                    comparisons.setdefault(method, []).append(
                        matched_difference(curve, first, match=match, compare=compared)
                    )
        return comparisons


def staged(results: Results) -> Results:
    """The same with stages that can be compared: where each method was evaluated in one, it plays no part; else an
    unknown stage is that before RL."""
    both = results.experiment or results.scores.groupby("method")["stage"].nunique().max() > 1
    names = {"": "sft", "sft": "sft", "rl": "rl"} if both else dict.fromkeys(STAGES, "")
    return replace(
        results,
        scores=results.scores.assign(stage=results.scores["stage"].map(names)),
        items=results.items.assign(stage=results.items["stage"].map(names)),
        runs=[{**run, "stage": names[run["stage"]]} for run in results.runs],
        tasks=[{**task, "stage": names[task["stage"]]} for task in results.tasks],
    )


def or_none(value: Any) -> Any:
    """None for NaN."""
    return None if value is None or value != value else float(value)


def rules(facts: Sequence[Mapping[str, Any]]) -> list[Any]:
    """How answers were graded, without the outcome."""
    return sorted({str({**(fact.get("grader") or {}), "counts": None}) for fact in facts})


@lru_cache(maxsize=4096)
def pass_curve(num_samples: int, num_correct: int, n: int) -> tuple[float, ...]:
    return tuple(pass_at_k(num_samples, num_correct, k) for k in range(1, n + 1))
