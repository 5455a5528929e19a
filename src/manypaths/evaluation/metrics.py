"""Numbers from repeated samples: pass@k, best-of-N, the answers they hold, and best-of-N efficiency.

Shapes: P problems, n samples of one problem, c of them right. Grades are fractions in [0, 1]. A function takes
the samples of ONE problem; pass_at_k_curve takes all problems and returns {k: [P values]}, whose means are the
scores. k above n is always an error: the number of samples is never clipped.
"""

import math
from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from functools import lru_cache

from .intervals import finite_values


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
    check_k(k, num_samples)
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


def avg_at_k(grades: Sequence[float], k: int) -> float:
    """Mean grade of the first k samples of a problem: avg@k.

    Raises ValueError for k outside 1..n or a grade that is not finite.
    """
    checked = finite_values(grades, "the grades")
    check_k(k, len(checked))
    return math.fsum(checked[:k]) / k


def best_of_n(scores: Sequence[float], grades: Sequence[float], n: int) -> float:
    """Grade of the best-scored of n samples: the exact mean over all subsets of that size.

    Samples with equal scores win equally often. n = 1 is the mean grade; n = all gives the grade of the highest
    score; scores that rise with the grade give pass@n, the upper bound.

    Raises ValueError for unequal lengths, n outside 1..samples, or a number that is not finite.
    """
    return _expected(_grades_by_rank(scores, grades), n)


def expected_max(scores: Sequence[float], n: int) -> float:
    """Mean over all subsets of n samples of their highest score, such as a reward, in the units of the score.

    Raises ValueError as best_of_n does.
    """
    return best_of_n(scores, scores, n)


def distinct_answers(classes: Sequence[Hashable | None]) -> int:
    """How many different answers the samples of a problem hold; None, a sample without an answer, is none of them."""
    return len({one for one in classes if one is not None})


def answer_entropy(classes: Sequence[Hashable | None]) -> float:
    """Entropy in nats of the shares of the different answers; samples without an answer (None) are left out.

    0 when all answers are equal or there is none; at most ln(number of answers).
    """
    counts = Counter(one for one in classes if one is not None)
    total = sum(counts.values())
    return math.fsum(count / total * math.log(total / count) for count in counts.values())


def check_k(k: int, num_samples: int) -> None:
    """ValueError unless 1 <= k <= num_samples."""
    if not 1 <= k <= num_samples:
        raise ValueError(f"k is {k}; it must lie between 1 and num_samples = {num_samples}: draw more samples.")


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


def _grades_by_rank(scores: Sequence[float], grades: Sequence[float]) -> list[float]:
    """Grades from the highest score to the lowest; equal scores share the mean of their grades."""
    if len(scores) != len(grades):
        raise ValueError(f"A problem has {len(scores)} scores but {len(grades)} grades; every sample needs both.")
    checked_scores, checked_grades = finite_values(scores, "the scores"), finite_values(grades, "the grades")
    by_score: dict[float, list[float]] = {}
    for score, grade in zip(checked_scores.tolist(), checked_grades.tolist(), strict=True):
        by_score.setdefault(score, []).append(grade)
    return [_mean(by_score[score]) for score in sorted(by_score, reverse=True) for _ in by_score[score]]


def _expected(grades_by_rank: list[float], n: int) -> float:
    check_k(n, len(grades_by_rank))
    chances = _rank_chances(len(grades_by_rank), n)
    mean = math.fsum(chance * grade for chance, grade in zip(chances, grades_by_rank, strict=False))
    return min(max(mean, min(grades_by_rank)), max(grades_by_rank))  # rounding never leaves the range of the grades


@lru_cache(maxsize=4096)
def _rank_chances(num_samples: int, n: int) -> list[float]:
    """Chance that rank r = 0, 1, ... is the best of a random subset: C(num_samples - 1 - r, n - 1) / C(num_samples, n)."""
    chances = [n / num_samples]
    for rank in range(num_samples - n):
        chances.append(chances[-1] * (num_samples - n - rank) / (num_samples - 1 - rank))
    return chances


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)
