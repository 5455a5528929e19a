"""Every number with limits, and every test of a difference. Nothing else in the package computes one.

Limits are 95 % limits. What they hold for is said by `over`:

- "seeds" (also "rows", "texts"): Student's t, from three values on; two values cannot tell their own spread.
- "problems", "items": the bootstrap over problems. A problem is the cluster: its samples are not independent and enter
  as their one mean. Where all problems agree, resampling sees no spread although the next problem may differ; the exact
  binomial limits do (`share_estimate`, `paired_estimate`).

Values are finite numbers. Resampling draws the same numbers every time, so results are reproducible.
"""

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
from scipy import optimize, stats

CONFIDENCE = 0.95
RESAMPLES = 10_000
CELLS = 1_000_000  # resampled values held at a time
LEAST_FOR_T = 3
ROUNDING = 1e-12  # values are equal when they differ by less than this share of the largest

Values = Sequence[float] | np.ndarray
Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True)
class Estimate:
    """A value of `n` seeds, items, ... (`over`) with its 95 % limits, which are None where the spread is unknown."""

    value: float
    low: float | None
    high: float | None
    n: int
    over: str

    def sign(self, point: float = 0.0) -> int:
        """+1 or -1 when both limits lie above or below `point`; 0 when they do not, or are unknown."""
        if self.low is None or self.high is None:
            return 0
        return int(self.low > point) - int(self.high < point)

    def mapped(self, function: Callable[[float], float]) -> "Estimate":
        """A monotone function of the value and its limits: exp of a cross-entropy is a perplexity."""
        value = function(self.value)
        if self.low is None or self.high is None:
            return replace(self, value=value)
        low, high = sorted((function(self.low), function(self.high)))
        return replace(self, value=value, low=low, high=high)


@dataclass(frozen=True)
class Difference:
    """A difference, the two-sided p-value of "there is none", and that p-value within its family (`with_holm`).

    The p-value is None where nothing could be tested: fewer than three seeds, or values without limits.
    """

    estimate: Estimate
    p_value: float | None
    adjusted: float | None = None


def mean_estimate(values: Values, over: str) -> Estimate:
    """Mean with Student's t limits, mean +- t(n - 1) s / sqrt(n); without limits for fewer than three values."""
    column = np.asarray(values, dtype=np.float64)
    stderr = float(column.std(ddof=1)) / math.sqrt(len(column)) if len(column) > 1 else 0.0
    return t_estimate(float(column.mean()), stderr, len(column), over)


def ratio_estimate(sums: Values, counts: Values, over: str) -> Estimate:
    """sum(sums) / sum(counts), such as a mean per token of texts of unequal length; one sum and one count for each.

    t limits of a ratio of means: with residuals e = sum - ratio * count, the variance is n / (n - 1) sum(e^2) /
    sum(counts)^2 (Cochran, Sampling Techniques, 1977, chapter 6). Without limits for fewer than three.
    """
    totals, sizes = np.asarray(sums, dtype=np.float64), np.asarray(counts, dtype=np.float64)
    value, n = float(totals.sum() / sizes.sum()), len(totals)
    residuals = float(np.square(totals - value * sizes).sum())
    return t_estimate(value, math.sqrt(residuals * n / max(n - 1, 1)) / float(sizes.sum()), n, over)


def t_estimate(value: float, stderr: float, n: int, over: str) -> Estimate:
    if n < LEAST_FOR_T:
        return Estimate(value, None, None, n, over)
    half = float(stats.t.ppf((1.0 + CONFIDENCE) / 2.0, n - 1)) * stderr
    return Estimate(value, value - half, value + half, n, over)


def bootstrap_estimate(values: Values, over: str) -> Estimate:
    """Mean of one value per problem; its limits are percentiles of the means of problems drawn again.

    Limits never leave the range of the values. A bootstrap spread is too small by sqrt((n - 1) / n) and knows nothing
    of t, so percentiles are taken further out by both (the expanded percentile interval of arXiv:1411.5279). Equal
    values give limits without width, for shares use `share_estimate`; a single value has none.
    """
    column = np.asarray(values, dtype=np.float64)
    n, value = len(column), float(column.mean())
    if n == 1:
        return Estimate(value, None, None, 1, over)
    level = 1.0 - 2.0 * expanded_tail(n)
    low, high = stats.bootstrap(
        (column,), np.mean, n_resamples=RESAMPLES, batch=max(1, CELLS // n), vectorized=True, method="percentile",
        confidence_level=level, rng=np.random.default_rng(0),
    ).confidence_interval  # fmt: skip
    return Estimate(value, min(float(low), value), max(float(high), value), n, over)


def share_estimate(values: Values, over: str) -> Estimate:
    """`bootstrap_estimate` of shares in [0, 1], with the exact binomial limits where all problems agree."""
    column = np.asarray(values, dtype=np.float64)
    if column.max() - column.min() > ROUNDING:
        return bootstrap_estimate(column, over)
    return agreeing(float(column[0]), 0.0, 1.0, len(column), over)


def mean_of_estimates(
    parts: Sequence[Estimate], over: str = "tasks", weights: Sequence[float] | None = None
) -> Estimate:
    """Weighted mean of independent estimates, such as the average over benchmarks; `n` is their number.

    weights: sum to 1; all the same when not given. Each limit lies away from the mean by the root of the summed squares
    of the parts' weighted distances on that side (variance recovery: Zou and Donner, Statistics in Medicine 27, 2008,
    1693-1702), so a benchmark that nobody solves keeps its width, and shares stay within [0, 1]. Without limits when a
    part has none.

    Simulated with `share_estimate`, two sets of 30 problems with one sample each: the limits hold the true mean in 98.8 %
    of the runs at a true accuracy of 3 %, and in 95.2 % at 50 %.
    """
    weights = [1.0 / len(parts)] * len(parts) if weights is None else weights
    value = math.fsum(weight * part.value for weight, part in zip(weights, parts, strict=True))
    if any(part.low is None or part.high is None for part in parts):
        return Estimate(value, None, None, len(parts), over)
    below = math.hypot(*(weight * (part.value - part.low) for weight, part in zip(weights, parts, strict=True)))
    above = math.hypot(*(weight * (part.high - part.value) for weight, part in zip(weights, parts, strict=True)))
    return Estimate(value, value - below, value + above, len(parts), over)


def over_seeds(
    values: Mapping[Any, float],
    items: Mapping[Any, Mapping[Any, float]] | None = None,
    estimate: Callable[[Values, str], Estimate] = bootstrap_estimate,
) -> Estimate:
    """The mean of one value per training seed: t over seeds from three on, else over the items behind the values.

    items: {seed: {item: value}}; an item's values are averaged over the seeds first. Seeds that agree exactly (three
    times 100 %) tell nothing of the spread either, so items speak there, too. `estimate` is how: `bootstrap_estimate`,
    or `share_estimate` for shares. Without items fewer than three seeds have no limits.
    """
    column = np.array(list(values.values()), dtype=np.float64)
    if items and (len(column) < LEAST_FOR_T or np.ptp(column) <= ROUNDING * max(1.0, np.abs(column).max())):
        by_item = estimate(list(item_means(list(items.values())).values()), "problems")
        return replace(by_item, value=float(column.mean()))
    return mean_estimate(column, "seeds")


def item_means(runs: Sequence[Mapping[Key, float]]) -> dict[Key, float]:
    """{item: its mean over the runs that have it}, from one {item: value} a run; in the order in which items are met."""
    gathered: dict[Key, list[float]] = {}
    for run in runs:
        for item, value in run.items():
            gathered.setdefault(item, []).append(value)
    return {item: math.fsum(values) / len(values) for item, values in gathered.items()}


def paired_difference(a: Values, b: Values, over: str) -> Difference:
    """`paired_estimate` of a - b, with the p-value: over "seeds" the paired t test's, else the sign-flip test's.

    Seeds that all differ by the same amount have no spread for t, so signs are flipped there, too.
    """
    estimate, (differences, span) = paired_estimate(a, b, over), paired(a, b)
    if over != "seeds" or np.ptp(differences) <= ROUNDING * span:
        return Difference(estimate, None if estimate.low is None else sign_flip_p_value(differences))
    enough = len(differences) >= LEAST_FOR_T
    return Difference(estimate, float(stats.ttest_1samp(differences, 0.0).pvalue) if enough else None)


def paired_estimate(a: Values, b: Values, over: str) -> Estimate:
    """Mean of a - b, where a[i] and b[i] share the seed, or the problem.

    Over "seeds" with t limits, from three on, over problems with those of the bootstrap. Where all n differences agree,
    neither sees a spread. Then up to 1 - 0.025^(1 / n) of all problems may differ otherwise (exact binomial), by as much
    as the largest value seen, at least 1; the limits leave room for that.
    """
    differences, span = paired(a, b)
    n, value = len(differences), float(differences.mean())
    if over == "seeds" and n < LEAST_FOR_T:
        return Estimate(value, None, None, n, over)
    if np.ptp(differences) <= ROUNDING * span:
        return agreeing(value, -span, span, n, over)
    return mean_estimate(differences, over) if over == "seeds" else bootstrap_estimate(differences, over)


def paired(a: Values, b: Values) -> tuple[np.ndarray, float]:
    """The differences, and the largest value of either side, at least 1."""
    first, second = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    return first - second, max(1.0, float(np.abs(first).max()), float(np.abs(second).max()))


def macro_paired_difference(groups_a: Mapping[str, Values], groups_b: Mapping[str, Values]) -> Difference:
    """The difference of means of group means, such as averages over benchmarks.

    groups: {benchmark: one value per problem}, the same benchmarks and problems on both sides. Problems vary within their
    group, the groups are given: limits are those of `mean_of_estimates` of the groups' paired differences, the p-value is
    the sign-flip test's over all.
    """
    parts = [paired_estimate(groups_a[name], groups_b[name], name) for name in groups_a]
    differences = [paired(groups_a[name], groups_b[name])[0] for name in groups_a]
    shares = [column / (len(column) * len(groups_a)) for column in differences]
    return Difference(mean_of_estimates(parts), sign_flip_p_value(np.concatenate(shares)))


def unpaired_difference(a: Estimate, b: Estimate) -> Difference:
    """a - b of two separate estimates, their limits combined by variance recovery; the p-value fits these limits.

    For values that cannot be paired. Without limits and p-value when a side has none.
    """
    value, n, over = a.value - b.value, min(a.n, b.n), f"{a.over}, unpaired"
    if None in (a.low, a.high, b.low, b.high):
        return Difference(Estimate(value, None, None, n, over), None)
    below, above = math.hypot(a.value - a.low, b.high - b.value), math.hypot(a.high - a.value, b.value - b.low)
    towards_zero = below if value > 0.0 else above
    ratio = abs(value) / towards_zero if towards_zero else math.inf if value else 0.0
    p_value = 2.0 * float(stats.norm.sf(ratio * stats.norm.ppf((1.0 + CONFIDENCE) / 2.0)))
    return Difference(Estimate(value, value - below, value + above, n, over), p_value)


def sign_flip_p_value(differences: Values) -> float:
    """Share of sign patterns whose sum is at least as far from 0 as the observed one, counted on both sides.

    If two runs are alike, each difference could as well have had the other sign. All patterns are counted where there
    are no more than RESAMPLES of them; otherwise that many are drawn and the observed one is counted with them, so that
    p is never 0. Zeros have no sign and are left out.
    """
    signed = np.asarray(differences, dtype=np.float64)
    signed = signed[signed != 0.0]
    n = len(signed)
    if n < 2:
        return 1.0  # one difference and its opposite are equally far from 0
    if 2**n <= RESAMPLES:
        test = stats.permutation_test(
            (signed,), np.sum, permutation_type="samples", n_resamples=RESAMPLES, vectorized=True
        )
        return float(test.pvalue)
    observed = abs(signed.sum()) - ROUNDING * np.abs(signed).sum()  # equal sums in another order of adding are equal
    random, step, extreme = np.random.default_rng(0), max(1, CELLS // n), 0
    for start in range(0, RESAMPLES, step):  # tens of times as fast as permutation_test for hundreds of problems
        signs = 2.0 * random.integers(2, size=(min(step, RESAMPLES - start), n), dtype=np.int8) - 1.0
        extreme += int(np.sum(np.abs(signs @ signed) >= observed))
    return (1 + extreme) / (1 + RESAMPLES)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down p-values: below 0.05, the chance of even one false finding in the family is below 5 %."""
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p, kind="stable")
    adjusted = np.empty_like(p)
    adjusted[order] = np.maximum.accumulate((len(p) - np.arange(len(p))) * p[order]).clip(max=1.0)
    return adjusted.tolist()


def with_holm(family: Mapping[Key, Difference]) -> dict[Key, Difference]:
    """The same differences with `adjusted` filled in; those that could not be tested are no part of the family."""
    tested = {key: difference.p_value for key, difference in family.items() if difference.p_value is not None}
    adjusted = dict(zip(tested, holm(list(tested.values())), strict=True))
    return {key: replace(difference, adjusted=adjusted.get(key)) for key, difference in family.items()}


def detectable_difference(differences: Values, power: float = 0.8, level: float = 0.05) -> float | None:
    """The smallest true mean difference that a study of this size and spread would have seen with this power.

    differences: paired ones, over seeds or over items. Solves P(|T| > t(1 - level / 2)) = power for T of the noncentral
    t distribution with n - 1 degrees of freedom and noncentrality difference * sqrt(n) / s. In the units of the
    differences. Compare it with the difference that would matter: where it is larger, "no difference was seen" says
    little. For a family, divide `level` by its size. None where differences have no spread to go by.
    """
    column = np.asarray(differences, dtype=np.float64)
    n = len(column)
    stderr = float(column.std(ddof=1)) / math.sqrt(n) if n > 1 else 0.0
    if stderr <= ROUNDING * float(np.abs(column).max()):
        return None
    critical = stats.t.ppf(1.0 - level / 2.0, n - 1)

    def excess(noncentrality: float) -> float:
        below = stats.nct.cdf(-critical, n - 1, noncentrality)  # NaN where scipy cannot resolve so small a tail
        seen = stats.nct.sf(critical, n - 1, noncentrality) + np.nan_to_num(below)
        return float(seen) - power

    highest = 2.0
    while excess(highest) < 0.0:
        highest *= 2.0
    return float(optimize.brentq(excess, 0.0, highest)) * stderr


def best_of_n_share(tables_a: Sequence[np.ndarray], tables_b: Sequence[np.ndarray]) -> Estimate:
    """The share k* / n of its samples that suffices for a to equal b's pass@n.

    tables: per paired seed, pass@k of every problem for k = 1 ... n, shape [P, n], the same problems in both. k* is the
    smallest k, linear between whole numbers, at which a's mean pass@k reaches b's mean pass@n. The least share is 1 / n;
    it is infinite where all n samples do not suffice, as a limit may be.

    From three seeds on the geometric mean over seeds with t limits of the logarithms (none when a seed is infinite);
    else percentile limits over problems drawn again, the same ones for both models.
    """
    if len(tables_a) >= LEAST_FOR_T:
        means = [(a.mean(axis=0)[None], b[:, -1].mean()[None]) for a, b in zip(tables_a, tables_b, strict=True)]
        shares = [float(shares_to_match(curve, target)[0]) for curve, target in means]
        if math.inf in shares:
            return Estimate(math.inf, None, None, len(shares), "seeds")
        return mean_estimate(np.log(shares), "seeds").mapped(math.exp)
    curves, last = np.mean(tables_a, axis=0), np.mean(tables_b, axis=0)[:, -1]
    problems = len(curves)
    value = float(shares_to_match(curves.mean(axis=0)[None], last.mean()[None])[0])
    if problems == 1:
        return Estimate(value, None, None, 1, "problems")
    drawn = np.random.default_rng(0).multinomial(problems, np.full(problems, 1.0 / problems), RESAMPLES) / problems
    tail = expanded_tail(problems)
    resampled = shares_to_match(drawn @ curves, drawn @ last)
    low, high = np.quantile(resampled, [tail, 1.0 - tail], method="inverted_cdf")  # it does not interpolate to infinity
    return Estimate(value, min(float(low), value), max(float(high), value), problems, "problems")


def shares_to_match(curves: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """k* / n at which each rising curve [R, n] of pass@k, k = 1 ... n, first reaches its target [R]; else infinity."""
    n = curves.shape[1]
    reached = curves >= targets[:, None] - ROUNDING
    here = reached.argmax(axis=1)
    rows, before = np.arange(len(curves)), np.maximum(here - 1, 0)
    rise = curves[rows, here] - curves[rows, before]
    part = np.divide(targets - curves[rows, before], rise, out=np.ones_like(rise), where=rise > 0.0)
    k = np.where(here == 0, 1.0, here + part.clip(0.0, 1.0))
    return np.where(reached.any(axis=1), k / n, math.inf)


def matching_temperature(curve: Sequence[tuple[float, float]], target: float) -> float:
    """The temperature at which a model reaches the accuracy `target`, linear between the measured temperatures.

    curve: (temperature, accuracy) of at least two temperatures. Where the curve passes the target more than once, the
    highest temperature counts, as in `matched`. Raises ValueError for a target that the curve does not reach.
    """
    temperatures, accuracies = np.array(sorted(curve), dtype=np.float64).T
    low, high = float(accuracies.min()), float(accuracies.max())
    if not low <= target <= high:
        raise ValueError(
            f"No temperature from {temperatures[0]:g} to {temperatures[-1]:g} gives {target:.4g}: there the model reaches "
            f"{low:.4g} to {high:.4g}. Measure it at {'lower' if target > high else 'higher'} temperatures, too."
        )
    start, part = last_crossing(np.array([[target]]), accuracies[None])
    return (temperatures[start] + part * (temperatures[start + 1] - temperatures[start])).item()


def last_crossing(values: np.ndarray, curves: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where each piecewise-linear curve [rows, m] last takes each of its values [rows, points].

    Returns the segment's first index and the share of the way to its end, both [rows, points].
    """
    start, end, wanted = curves[:, None, :-1], curves[:, None, 1:], values[:, :, None]
    tolerance = ROUNDING * np.abs(curves).max(axis=1)[:, None, None]
    inside = (np.minimum(start, end) - tolerance <= wanted) & (wanted <= np.maximum(start, end) + tolerance)
    last = inside.shape[2] - 1 - np.argmax(inside[:, :, ::-1], axis=2)
    rows = np.arange(len(values))[:, None]
    before, after = curves[rows, last], curves[rows, last + 1]
    flat = np.abs(after - before) <= tolerance[:, :, 0]
    part = np.where(flat, 1.0, (values - before) / np.where(flat, 1.0, after - before)).clip(0.0, 1.0)
    return last, part


def expanded_tail(n: int) -> float:
    """The share of resampled means of n values beyond each limit (arXiv:1411.5279)."""
    return float(stats.norm.cdf(-math.sqrt(n / (n - 1)) * stats.t.ppf((1.0 + CONFIDENCE) / 2.0, n - 1)))


def agreeing(value: float, least: float, most: float, n: int, over: str) -> Estimate:
    """Limits where n of n agree: the share that may not (Clopper and Pearson 1934) may lie at `least`, or at `most`."""
    room = 1.0 - float(stats.binomtest(n, n).proportion_ci(CONFIDENCE, method="exact").low)
    return Estimate(value, value - room * (value - least), value + room * (most - value), n, over)
