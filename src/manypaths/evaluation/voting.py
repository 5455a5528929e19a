"""Majority voting: which answers are equal, and how often the heaviest answer is right (maj@k).

Equality with tolerance is not transitive, and comparing by a computer algebra system is slow. So answers are first
put together by a canonical key, then different keys are compared in pairs, and classes are what hangs together.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations

import numpy as np

from .metrics import check_k

SUBSETS = 200
ROUNDING = 1e-12  # totals that differ by less of what was added up are tied

Same = Callable[[list[tuple[str, str]]], Sequence[bool]]


@dataclass(frozen=True)
class Vote:
    """Mean credit of the winning answer; `exact` when all subsets of size k were counted, not a random part."""

    value: float
    exact: bool


def answer_classes(keys: Sequence[str | None], same: Same | None = None) -> list[int | None]:
    """Number of each sample's answer class, 0, 1, ... in order of appearance; None stays None (no answer).

    keys: a canonical key per sample of one problem. `same` says of pairs of different keys whether they are equal
    answers; it is called once, with every pair, and equal pairs are chained into one class. Without it only equal
    keys are equal answers.
    """
    return answer_classes_of_all([keys], same)[0]


def answer_classes_of_all(
    keys_per_problem: Sequence[Sequence[str | None]], same: Same | None = None
) -> list[list[int | None]]:
    """`answer_classes` of every problem with one call of `same` for all of them, so that its workers share the load."""
    distinct = [list(dict.fromkeys(key for key in keys if key is not None)) for keys in keys_per_problem]
    pairs = sorted({(min(pair), max(pair)) for keys in distinct for pair in combinations(keys, 2)}) if same else []
    equal = {pair for pair, verdict in zip(pairs, same(pairs), strict=True) if verdict} if pairs else set()
    return [_numbered(keys, own, equal) for keys, own in zip(keys_per_problem, distinct, strict=True)]


def _numbered(keys: Sequence[str | None], distinct: Sequence[str], equal: set[tuple[str, str]]) -> list[int | None]:
    """Classes of one problem; those of two equal keys become one."""
    root = {key: key for key in distinct}
    for one, other in combinations(distinct, 2) if equal else ():
        if (min(one, other), max(one, other)) in equal and root[one] != root[other]:
            joined = root[other]
            root = {key: root[one] if name == joined else name for key, name in root.items()}
    numbers: dict[str, int] = {}
    return [None if key is None else numbers.setdefault(root[key], len(numbers)) for key in keys]


def maj_at_k(
    classes: Sequence[int | None],
    grades: Sequence[float],
    k: int,
    *,
    log_weights: Sequence[float] | None = None,
    subsets: int = SUBSETS,
) -> Vote:
    """Credit of the heaviest answer among k samples of a problem, averaged over subsets of size k.

    classes: from `answer_classes`; a sample without an answer (None) never wins, yet takes one of the k places,
    and k of them give 0. log_weights: logarithms of what each sample adds to its answer, 0 by default (rewards, for votes
    weighted by the softmax of the reward); gaps of any size keep their meaning in every subset. The credit of an answer
    is the mean grade of its samples; a tie gives the mean credit of the tied answers. All subsets are counted when there
    are at most `subsets`, else that many random ones, always the same. k = 1 is the mean grade when None is graded 0.

    Raises ValueError for k outside 1..n.
    """
    check_k(k, len(classes))
    chosen = _subsets(len(classes), k, subsets)  # [M, n] of 0 and 1
    exact = len(chosen) == math.comb(len(classes), k)
    names = list(dict.fromkeys(answer for answer in classes if answer is not None))
    if not names:
        return Vote(0.0, exact)
    member = np.array([[answer == name for name in names] for answer in classes], dtype=np.float64)  # [n, C]
    credit = np.asarray(grades, dtype=np.float64) @ member / member.sum(axis=0)
    votes = chosen if log_weights is None else chosen * _shares_of_heaviest(log_weights, chosen, member)  # [M, n]
    total = votes @ member
    top = total.max(axis=1, keepdims=True)
    wins = (total >= top - ROUNDING * (total + top)) & (chosen @ member > 0)  # [M, C]
    credits = wins @ credit / np.maximum(wins.sum(axis=1), 1)  # [M]; no winner, no credit
    return Vote(math.fsum(credits) / len(credits), exact)


def _shares_of_heaviest(log_weights: Sequence[float], chosen: np.ndarray, member: np.ndarray) -> np.ndarray:
    """[M, n] weights as shares of the heaviest sample with an answer in each subset; what is not in it has any."""
    answered = (chosen > 0) & (member.sum(axis=1) > 0)
    logs = np.asarray(log_weights, dtype=np.float64)
    top = np.where(answered, logs, -math.inf).max(axis=1, keepdims=True)
    return np.exp(np.where(answered, logs - top, 0.0))


@lru_cache(maxsize=64)
def _subsets(num_samples: int, k: int, subsets: int) -> np.ndarray:
    """[M, n] of 0 and 1: every subset of size k, or `subsets` random ones; the same for every problem."""
    if math.comb(num_samples, k) <= subsets:
        chosen = np.array(list(combinations(range(num_samples), k)))
    else:
        random = np.random.default_rng([0, num_samples, k])
        chosen = np.argsort(random.random((subsets, num_samples)), axis=1)[:, :k]
    rows = np.zeros((len(chosen), num_samples))
    np.put_along_axis(rows, chosen, 1.0, axis=1)
    return rows
