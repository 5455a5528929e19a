"""Diversity is not heat: two models compared at equal accuracy, or at equal entropy, over sampling temperature.

Any model becomes more diverse when it is sampled hotter, and usually less accurate. So one temperature cannot tell
a more diverse model from a hotter one. Here each model is a curve over its temperatures: the mean accuracy a(T),
diversity d(T) and entropy h(T), linear between the temperatures that were sampled, never continued beyond them.
Two curves are compared where they share a value of the matched score.

A curve may pass a value more than once, above all where noise bends it. Then the hottest temperature counts, for
both models alike: the question is how diverse a model can be before its accuracy (or entropy) leaves that value.
"""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from .intervals import Interval

POINTS = 9  # values of the matched score at which two curves are compared
RESAMPLES = 2000
CELLS = 2_000_000  # counts held at a time
ALLOWED_MISSES = 0.05  # share of resamples that may have no value in common before an interval is refused
Means = list[np.ndarray]


@dataclass(frozen=True)
class Curve:
    """One model over m temperatures (rising): scores[name][benchmark][i][p] is problem p at temperatures[i].

    A score that is not defined for a problem is None or NaN; means leave it out.
    """

    temperatures: Sequence[float]
    scores: Mapping[str, Mapping[str, Sequence[Sequence[float | None]]]]


@dataclass(frozen=True)
class Matched:
    """Model a minus model b in `compare`, where both have the same `match`.

    `values` are the evenly spaced values of `match` at which they were compared; `temperatures_a`,
    `temperatures_b` and `differences` belong to them one by one. `difference` is the mean over them with its
    interval over problems (n = problems). Where nothing can be compared the lists are empty, `difference` is
    None and `reason` says why; an interval that cannot be trusted has limits None and a reason, too.
    """

    match: str
    compare: str
    values: list[float]
    temperatures_a: list[float]
    temperatures_b: list[float]
    differences: list[float]
    difference: Interval | None
    reason: str | None = None


def matched_difference(
    curve_a: Curve,
    curve_b: Curve,
    *,
    match: str = "accuracy",
    compare: str = "diversity",
    confidence: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Matched:
    """Difference a - b in the score `compare` at equal values of the score `match`.

    The values are spread evenly over the range that both curves reach, and the differences averaged. The interval
    resamples problems within each benchmark, the same ones for both models and all temperatures; every resample
    has its own curves and its own common range. Percentile limits.

    Raises ValueError when a score is missing, temperatures do not rise, or the models were not given the same
    problems.
    """
    for curve in (curve_a, curve_b):
        _check(curve, match, compare)
    groups = _groups(curve_a, curve_b, match, compare)
    if min(len(curve_a.temperatures), len(curve_b.temperatures)) < 2:
        return _nothing(match, compare, "needs at least two temperatures of both models")
    names = [(curve, name) for curve in (curve_a, curve_b) for name in (match, compare)]
    whole = _means(names, groups, {group: np.ones((1, size)) for group, size in groups.items()})
    if not all(np.isfinite(part).all() for part in whole):
        return _nothing(match, compare, f"{match} or {compare} is undefined for every problem at some temperature")
    low, high = _common_range(whole)
    if low[0] > high[0]:
        return _nothing(match, compare, f"the models have no {match} in common ({_ranges(whole)})")
    values, found_a, found_b = _compare(whole, curve_a, curve_b)
    differences = found_a[1] - found_b[1]
    mean = float(differences.mean())
    resampled = np.concatenate(
        [
            _mean_difference(_means(names, groups, counts), curve_a, curve_b)
            for counts in _draws(groups, resamples, seed)
        ]
    )
    num_problems = sum(groups.values())
    lists = [[float(x) for x in part[0]] for part in (values, found_a[0], found_b[0], differences)]
    misses = float(np.mean(np.isnan(resampled)))
    if misses > ALLOWED_MISSES or min(groups.values()) < 2:
        reason = "too few problems for an interval"
        if misses > ALLOWED_MISSES:
            reason = f"no interval: {100 * misses:.0f} % of the resampled problem sets have no {match} in common"
        return Matched(match, compare, *lists, Interval(mean, None, None, num_problems), reason)
    tail = (1.0 - confidence) / 2.0
    limits = np.nanquantile(resampled, [tail, 1.0 - tail])
    interval = Interval(mean, min(float(limits[0]), mean), max(float(limits[1]), mean), num_problems)
    return Matched(match, compare, *lists, interval)


def _nothing(match: str, compare: str, reason: str) -> Matched:
    return Matched(match, compare, [], [], [], [], None, reason)


def _check(curve: Curve, *names: str) -> None:
    temperatures = list(curve.temperatures)
    if any(not later > earlier for earlier, later in itertools.pairwise(temperatures)):
        raise ValueError(f"Temperatures must rise, got {', '.join(map(str, temperatures))}.")
    for name in names:
        if not curve.scores.get(name):
            raise ValueError(f"A curve has no score {name!r}; it has {', '.join(curve.scores) or 'none'}.")
        for group, rows in curve.scores[name].items():
            if len(rows) != len(temperatures) or len({len(row) for row in rows}) > 1:
                raise ValueError(f"{name} of {group} needs one row of equal length for each temperature.")


def _groups(curve_a: Curve, curve_b: Curve, *names: str) -> dict[str, int]:
    """{benchmark: number of problems}, the same in both curves and scores."""
    sizes = [
        {group: len(rows[0]) if len(rows) else 0 for group, rows in curve.scores[name].items()}
        for curve in (curve_a, curve_b)
        for name in names
    ]
    if any(one != sizes[0] for one in sizes) or 0 in sizes[0].values():
        raise ValueError("Both curves need the same benchmarks with the same problems, at least one each.")
    return sizes[0]


def _draws(groups: Mapping[str, int], resamples: int, seed: int) -> Iterator[dict[str, np.ndarray]]:
    """Chunks of {benchmark: [rows, problems] how often each problem was drawn}."""
    random = np.random.default_rng(seed)
    step = max(1, CELLS // max(groups.values()))
    for start in range(0, resamples, step):
        rows = min(step, resamples - start)
        yield {group: _counts(random, rows, size) for group, size in groups.items()}


def _counts(random: np.random.Generator, rows: int, size: int) -> np.ndarray:
    drawn = random.integers(size, size=(rows, size)) + size * np.arange(rows)[:, None]
    return np.bincount(drawn.ravel(), minlength=rows * size).reshape(rows, size).astype(np.float64)


def _means(names: Sequence[tuple[Curve, str]], groups: Mapping[str, int], counts: Mapping[str, np.ndarray]) -> Means:
    """[rows, temperatures] means over benchmarks of the weighted means over problems, one array a name."""
    found = []
    for curve, name in names:
        parts = []
        for group in groups:
            values = np.array(curve.scores[name][group], dtype=np.float64).T
            known = ~np.isnan(values)
            weights = counts[group] @ known
            with np.errstate(invalid="ignore", divide="ignore"):
                parts.append(counts[group] @ np.where(known, values, 0.0) / weights)
        found.append(sum(parts) / len(parts))
    return found


def _common_range(means: Means) -> tuple[np.ndarray, np.ndarray]:
    """[rows] lowest and highest value of the matched score that both curves reach; low > high: none."""
    low = np.maximum(means[0].min(axis=1), means[2].min(axis=1))
    high = np.minimum(means[0].max(axis=1), means[2].max(axis=1))
    return low, high


def _ranges(means: Means) -> str:
    one, other = (f"{part.min():.3g} to {part.max():.3g}" for part in (means[0], means[2]))
    return f"{one} against {other}"


def _compare(means: Means, curve_a: Curve, curve_b: Curve) -> tuple[np.ndarray, tuple, tuple]:
    """Values [rows, POINTS] of the matched score, and each model's (temperature, compared score) there."""
    low, high = _common_range(means)
    shares = (np.arange(POINTS) + 0.5) / POINTS
    values = low[:, None] + shares * (high - low)[:, None]
    found_a = _at(values, means[0], np.asarray(curve_a.temperatures, dtype=np.float64), means[1])
    found_b = _at(values, means[2], np.asarray(curve_b.temperatures, dtype=np.float64), means[3])
    return values, found_a, found_b


def _mean_difference(means: Means, curve_a: Curve, curve_b: Curve) -> np.ndarray:
    """[rows] mean difference; NaN where the curves share nothing."""
    _, found_a, found_b = _compare(means, curve_a, curve_b)
    low, high = _common_range(means)
    return np.where(low <= high, (found_a[1] - found_b[1]).mean(axis=1), math.nan)


def _at(
    values: np.ndarray, matched: np.ndarray, temperatures: np.ndarray, compared: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Temperature and compared score [rows, points] where the piecewise-linear `matched` last takes each value.

    values: [rows, points]; matched, compared: [rows, temperatures].
    """
    start, end = matched[:, None, :-1], matched[:, None, 1:]
    tolerance = 1e-12 * np.abs(matched).max(axis=1)[:, None, None]
    wanted = values[:, :, None]
    inside = (np.minimum(start, end) - tolerance <= wanted) & (wanted <= np.maximum(start, end) + tolerance)
    last = inside.shape[2] - 1 - np.argmax(inside[:, :, ::-1], axis=2)
    rows = np.arange(len(values))[:, None]
    before, after = matched[rows, last], matched[rows, last + 1]
    flat = np.abs(after - before) <= tolerance[:, :, 0]
    share = np.where(flat, 1.0, (values - before) / np.where(flat, 1.0, after - before)).clip(0.0, 1.0)
    score = compared[rows, last] + share * (compared[rows, last + 1] - compared[rows, last])
    return temperatures[last] + share * (temperatures[last + 1] - temperatures[last]), score
