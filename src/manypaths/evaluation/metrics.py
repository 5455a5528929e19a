"""Numbers from repeated samples: pass@k, best-of-N, and the answers they hold.

n samples of ONE problem, c of them right. k above n is always an error: the number of samples is never clipped.
"""

import math
from collections import Counter
from collections.abc import Hashable, Sequence
from functools import lru_cache
from statistics import fmean


@lru_cache(maxsize=4096)
def pass_at_k(num_samples: int, num_correct: int, k: int) -> float:
    """Chance that at least one of k samples is right, estimated from n samples of which c are right.

    The unbiased estimator 1 - C(n - c, k) / C(n, k) of arXiv:2107.03374: the mean over all subsets of size k.
    k = 1 is plain accuracy, k = n is "any sample right".

    Raises ValueError when 0 <= c <= n or 1 <= k <= n does not hold.
    """
    if not 0 <= num_correct <= num_samples:
        raise ValueError(f"num_correct is {num_correct}; it must lie between 0 and num_samples = {num_samples}.")
    check_k(k, num_samples)
    if num_correct > num_samples - k:
        return 1.0
    return 1.0 - math.prod(1.0 - k / j for j in range(num_samples - num_correct + 1, num_samples + 1))


def best_of_n(scores: Sequence[float], grades: Sequence[float], n: int) -> float:
    """Grade of the best-scored of n samples: the exact mean over all subsets of that size.

    Samples with equal scores win equally often. n = 1 is the mean grade; n = all gives the grade of the highest
    score; scores that rise with the grade give pass@n, the upper bound.

    Raises ValueError for unequal lengths, or n outside 1..samples.
    """
    check_k(n, len(scores))
    by_score: dict[float, list[float]] = {}
    for score, grade in zip(scores, grades, strict=True):
        by_score.setdefault(score, []).append(grade)
    by_rank = [fmean(by_score[score]) for score in sorted(by_score, reverse=True) for _ in by_score[score]]
    mean = math.fsum(chance * grade for chance, grade in zip(_rank_chances(len(scores), n), by_rank, strict=False))
    return min(max(mean, min(by_rank)), max(by_rank))  # rounding never leaves the range of the grades


def expected_max(scores: Sequence[float], n: int) -> float:
    """Mean over all subsets of n samples of their highest score, such as a reward, in the units of the score.

    Raises ValueError as best_of_n does.
    """
    return best_of_n(scores, scores, n)


def distinct_answers(classes: Sequence[Hashable | None]) -> int:
    """How many different answers the samples of a problem hold; None, a sample without an answer, is none of them."""
    return len(set(classes) - {None})


def answer_entropy(classes: Sequence[Hashable | None]) -> float:
    """Entropy in nats of the shares of the different answers; samples without an answer (None) are left out.

    0 when all answers are equal or there is none; at most ln(number of answers).
    """
    counts = Counter(answer for answer in classes if answer is not None)
    total = sum(counts.values())
    return math.fsum(count / total * math.log(total / count) for count in counts.values())


def check_k(k: int, num_samples: int) -> None:
    """ValueError unless 1 <= k <= num_samples."""
    if not 1 <= k <= num_samples:
        raise ValueError(f"k is {k}; it must lie between 1 and num_samples = {num_samples}: draw more samples.")


@lru_cache(maxsize=4096)
def _rank_chances(num_samples: int, n: int) -> list[float]:
    """Chance that rank r = 0, 1, ... is the best of a random subset: C(num_samples - 1 - r, n - 1) / C(num_samples, n)."""
    chances = [n / num_samples]
    for rank in range(num_samples - n):
        chances.append(chances[-1] * (num_samples - n - rank) / (num_samples - 1 - rank))
    return chances
