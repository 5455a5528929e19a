"""Numbers from repeated samples: pass@k, best-of-N efficiency, and their 95 % intervals.

Shapes: P prompts, n samples per prompt, c correct samples of one prompt. Scores are fractions in [0, 1].
Intervals are Student t intervals of a mean; the unit that is averaged (seeds or prompts) is the caller's choice.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache


@dataclass(frozen=True)
class Interval:
    """A mean with its confidence limits.

    `value` is the mean of `n` values. `low` and `high` are None when n = 1: one value says nothing about
    its own spread, and None (unlike NaN) survives JSON.
    """

    value: float
    low: float | None
    high: float | None
    n: int

    def excludes(self, point: float) -> bool:
        """True when the limits are known and `point` lies outside them."""
        if self.low is None or self.high is None:
            return False
        return point < self.low or point > self.high


def pass_at_k(num_samples: int, num_correct: int, k: int) -> float:
    """Chance that at least one of k samples is right, estimated from n samples of which c are right.

    The unbiased estimator 1 - C(n - c, k) / C(n, k) of arXiv:2107.03374: the mean over all subsets of size k.
    k = 1 is plain accuracy, k = n is "any sample right".

    Raises ValueError when 0 <= c <= n or 1 <= k <= n does not hold; k is never clipped.
    """
    if num_samples < 1:
        raise ValueError(f"num_samples is {num_samples}; pass@k needs at least one sample per prompt.")
    if not 0 <= num_correct <= num_samples:
        raise ValueError(f"num_correct is {num_correct}; it must lie between 0 and num_samples = {num_samples}.")
    if not 1 <= k <= num_samples:
        raise ValueError(f"k is {k}; it must lie between 1 and num_samples = {num_samples}: draw more samples.")
    if num_correct > num_samples - k:
        return 1.0
    return 1.0 - math.prod(1.0 - k / j for j in range(num_samples - num_correct + 1, num_samples + 1))


def pass_at_k_curve(num_correct: Sequence[int], num_samples: int, ks: Iterable[int]) -> dict[int, list[float]]:
    """pass@k of every prompt for every k: {k: [P values]}; the score is the mean of each list.

    Raises ValueError when there are no prompts, or as pass_at_k does.
    """
    if len(num_correct) == 0:
        raise ValueError("num_correct is empty; pass@k needs at least one prompt.")
    curve = {}
    for k in ks:
        by_count = {count: pass_at_k(num_samples, count, k) for count in set(num_correct)}
        curve[k] = [by_count[count] for count in num_correct]
    return curve


def samples_to_match(
    own_correct: Sequence[int], other_correct: Sequence[int], num_samples: int, n: int | None = None
) -> float | None:
    """Share of the samples one model needs to equal another's best of n: k* / n.

    k* is the smallest k, linear between whole numbers, at which the own mean pass@k reaches the other's mean
    pass@n. Below 1 the own model is the more sample-efficient one; the least value is 1 / n, because no model
    answers with less than one sample.

    own_correct, other_correct: correct samples per prompt, each of num_samples. n defaults to num_samples.
    Returns None when the own curve stays below the target up to k = num_samples.
    Raises ValueError as pass_at_k_curve does.
    """
    n = num_samples if n is None else n
    target = _mean(pass_at_k_curve(other_correct, num_samples, [n])[n])
    own = pass_at_k_curve(own_correct, num_samples, range(1, num_samples + 1))
    return match_share([_mean(own[k]) for k in range(1, num_samples + 1)], target, n)


def match_share(curve: Sequence[float], target: float, n: int) -> float | None:
    """k* / n at which a pass@k curve (k = 1, 2, ...) first reaches `target`; None when it never does."""
    tolerance = 1e-12
    if curve[0] >= target - tolerance:
        return 1.0 / n
    for k in range(2, len(curve) + 1):
        before, here = curve[k - 2], curve[k - 1]
        if here >= target - tolerance:
            return min(k, k - 1 + (target - before) / (here - before)) / n
    return None


def mean_interval(values: Sequence[float], confidence: float = 0.95) -> Interval:
    """Mean of the values with its t interval; the limits are None for a single value.

    Raises ValueError for no values, for a value that is not finite, or a confidence outside (0, 1).
    """
    values = [float(value) for value in values]
    if not values:
        raise ValueError("mean_interval got no values; pass at least one.")
    if not all(math.isfinite(value) for value in values):
        raise ValueError("mean_interval got a value that is not finite; drop or repair such values first.")
    mean = _mean(values)
    if len(values) == 1:
        return Interval(mean, None, None, 1)
    degrees = len(values) - 1
    variance = math.fsum((value - mean) ** 2 for value in values) / degrees
    half = student_t_quantile(confidence, degrees) * math.sqrt(variance / len(values))
    return Interval(mean, mean - half, mean + half, len(values))


def paired_interval(a: Sequence[float], b: Sequence[float], confidence: float = 0.95) -> Interval:
    """Mean of a - b with its t interval, where a[i] and b[i] share what varies (the seed, or the prompt).

    Raises ValueError when the lengths differ, or as mean_interval does.
    """
    if len(a) != len(b):
        raise ValueError(f"paired values must come in pairs; got {len(a)} and {len(b)}.")
    return mean_interval([x - y for x, y in zip(a, b, strict=True)], confidence)


@lru_cache(maxsize=4096)
def student_t_quantile(confidence: float, degrees: int) -> float:
    """The t with P(-t < T < t) = confidence for Student's T with a whole number of degrees of freedom.

    Raises ValueError for a confidence outside (0, 1) or fewer than one degree of freedom.
    """
    if not 0.0 < confidence < 1.0:
        raise ValueError(f"confidence is {confidence}; it must lie strictly between 0 and 1, for example 0.95.")
    if degrees < 1:
        raise ValueError(f"degrees is {degrees}; a t interval needs at least one degree of freedom (two values).")
    low, high = 0.0, math.pi / 2  # t = sqrt(degrees) * tan(angle) maps all t to a bounded search
    for _ in range(80):
        angle = (low + high) / 2
        if _central_t_probability(angle, degrees) < confidence:
            low = angle
        else:
            high = angle
    return math.sqrt(degrees) * math.tan((low + high) / 2)


def _central_t_probability(angle: float, degrees: int) -> float:
    """P(|T| < sqrt(degrees) tan(angle)): the finite trigonometric series that holds for whole degrees."""
    cosine, sine = math.cos(angle), math.sin(angle)
    odd = degrees % 2
    term = cosine if odd else 1.0
    total = term if degrees > 1 else 0.0
    for j in range(2 + odd, degrees - 1, 2):
        term *= cosine * cosine * (j - 1) / j
        total += term
    return (angle + sine * total) * 2 / math.pi if odd else sine * total


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)
