"""Diversity is not temperature: two models compared at equal accuracy, or at equal entropy, over sampling temperature.

Any model becomes more diverse at a higher temperature, and usually less accurate. So one temperature cannot tell a more
diverse model from one whose distribution is merely flatter. Here each model is a curve over its temperatures: its mean
accuracy, diversity, entropy, ..., linear between the temperatures that were sampled, never continued beyond them. Two
curves are compared where they share a value of the matched metric.

A curve may pass a value more than once, above all where noise bends it. Then the highest temperature counts, for both
models alike: the question is how diverse a model can be before its accuracy (or entropy) leaves that value.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from .statistics import Estimate, expanded_tail, last_crossing

POINTS = 9  # values of the matched metric at which two curves are compared
RESAMPLES = 2000
ALLOWED_MISSES = 0.05  # share of resamples that may have no value in common before limits are refused

Tables = Mapping[str, np.ndarray]  # {task: a value per problem}, [temperatures, problems], NaN where undefined


@dataclass(frozen=True)
class Curve:
    """One model over m temperatures (rising): scores[metric][task][i] is {item: value} at temperatures[i].

    An item without a value of a metric (absent, or NaN) is left out of that metric's mean.
    """

    temperatures: Sequence[float]
    scores: Mapping[str, Mapping[str, Sequence[Mapping[str, float]]]]


@dataclass(frozen=True)
class Matched:
    """Model a minus model b in the metric `compare`, where both have the same `match`.

    Where nothing can be compared `difference` is None and `reason` says why; one without limits has a reason, too.
    """

    match: str
    compare: str
    difference: Estimate | None = None
    reason: str | None = None


def matched_difference(a: Curve, b: Curve, *, match: str, compare: str) -> Matched:
    """The difference a - b in the metric `compare` at equal values of the metric `match`.

    The values are spread evenly over the range that both curves reach, and the differences averaged. Tasks weigh the
    same. Limits are percentiles over problems drawn again within each task, the same ones for both models and all
    temperatures; every resample has its own curves and its own common range.

    Raises ValueError when the models were not given the same problems.
    """
    if min(len(a.temperatures), len(b.temperatures)) < 2:
        return Matched(match, compare, reason="needs at least two temperatures of both models")
    problems = problems_of(a, match, compare)
    if problems != problems_of(b, match, compare):
        raise ValueError("Both models need the same tasks with the same problems: evaluate them on the same files.")
    tables = [aligned(curve.scores[metric], problems) for curve in (a, b) for metric in (match, compare)]
    sizes = {task: len(items) for task, items in problems.items()}

    means = mean_curves(tables, {task: np.ones((1, size)) for task, size in sizes.items()})
    if not all(np.isfinite(mean).all() for mean in means):
        return Matched(
            match, compare, reason=f"{match} or {compare} is undefined for every problem at some temperature"
        )
    difference, shared = difference_at_equal(means)
    if not shared[0]:
        ranges = " against ".join(f"{mean.min():.3g} to {mean.max():.3g}" for mean in (means[0], means[2]))
        return Matched(match, compare, reason=f"the models have no {match} in common ({ranges})")
    value, total = difference.item(), sum(sizes.values())

    random = np.random.default_rng(0)
    drawn = {task: random.multinomial(size, np.full(size, 1.0 / size), RESAMPLES) for task, size in sizes.items()}
    resampled, shared = difference_at_equal(mean_curves(tables, drawn))
    misses = 1.0 - float(shared.mean())
    reason = None
    if min(sizes.values()) < 2:
        reason = "no limits: a task has a single problem"
    elif misses > ALLOWED_MISSES:
        reason = f"no limits: {100 * misses:.0f} % of the resampled problem sets have no {match} in common"
    low = high = None
    if reason is None:
        tail = expanded_tail(total)
        low, high = np.quantile(resampled[shared], [tail, 1.0 - tail]).tolist()
        low, high = min(low, value), max(high, value)
    return Matched(match, compare, Estimate(value, low, high, total, "problems"), reason)


def problems_of(curve: Curve, *metrics: str) -> dict[str, list[str]]:
    """{task: its problems}, those with a value of one of the metrics at some temperature; in order of their names."""
    tasks = sorted({task for metric in metrics for task in curve.scores[metric]})
    return {
        task: sorted({item for metric in metrics for row in curve.scores[metric].get(task, ()) for item in row})
        for task in tasks
    }


def aligned(scores: Mapping[str, Sequence[Mapping[str, float]]], problems: Mapping[str, Sequence[str]]) -> Tables:
    return {
        task: np.array([[row.get(item, np.nan) for item in items] for row in scores[task]], dtype=np.float64)
        for task, items in problems.items()
    }


def mean_curves(tables: Sequence[Tables], counts: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    """[rows, temperatures] for each table: the mean over tasks of the means over problems.

    counts: {task: how often each problem counts}, [rows, problems].
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        return [
            sum(
                counts[task] @ np.nan_to_num(values).T / (counts[task] @ (~np.isnan(values)).T.astype(np.float64))
                for task, values in table.items()
            )
            / len(table)
            for table in tables
        ]


def difference_at_equal(means: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """The mean difference in the compared metric at POINTS values of the matched one, and whether there are any; [rows].

    means: matched and compared metric of a, then of b, [rows, temperatures].
    """
    low = np.maximum(means[0].min(axis=1), means[2].min(axis=1))
    high = np.minimum(means[0].max(axis=1), means[2].max(axis=1))
    values = low[:, None] + (np.arange(POINTS) + 0.5) / POINTS * (high - low)[:, None]
    rows, sides = np.arange(len(values))[:, None], []
    for matched, compared in zip(means[::2], means[1::2], strict=True):
        start, part = last_crossing(values, matched)
        sides.append(compared[rows, start] + part * (compared[rows, start + 1] - compared[rows, start]))
    defined = np.all([np.isfinite(mean).all(axis=1) for mean in means], axis=0)
    return (sides[0] - sides[1]).mean(axis=1), (low <= high) & defined
