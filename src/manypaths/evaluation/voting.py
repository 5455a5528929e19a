"""Majority voting: which answers are equal, and how often the heaviest answer is right (maj@k).

Equality with tolerance is not transitive, and comparing by a computer algebra system is slow. So answers are first
put together by a canonical key, then different keys are compared in pairs, and classes are what hangs together.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations
from typing import Literal

import numpy as np

from .metrics import check_k
from .statistics import finite_values

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

    Raises ValueError when `same` does not return one verdict per pair.
    """
    return answer_classes_of_all([keys], same)[0]


def answer_classes_of_all(
    keys_per_problem: Sequence[Sequence[str | None]], same: Same | None = None
) -> list[list[int | None]]:
    """`answer_classes` of every problem with one call of `same` for all of them, so that its workers share the load."""
    distinct = [list(dict.fromkeys(key for key in keys if key is not None)) for keys in keys_per_problem]
    equal = _equal_pairs(distinct, same) if same is not None else set()
    return [_numbered(keys, _roots(own, equal)) for keys, own in zip(keys_per_problem, distinct, strict=True)]


def maj_at_k(
    classes: Sequence[int | None],
    grades: Sequence[float],
    k: int,
    *,
    weights: Sequence[float] | None = None,
    log_weights: Sequence[float] | None = None,
    ties: Literal["fair", "first"] = "fair",
    subsets: int = SUBSETS,
    seed: int = 0,
) -> Vote:
    """Credit of the heaviest answer among k samples of a problem, averaged over subsets of size k.

    classes: from `answer_classes`; a sample without an answer (None) never wins, yet takes one of the k places,
    and k of them give 0. weights: what each sample adds to its answer, 1 by default. log_weights instead: their
    logarithms (rewards, for votes weighted by the softmax of the reward), so that gaps of any size keep their meaning
    in every subset. The credit of an answer is the mean grade of its samples. A tie gives the mean credit of the tied
    answers ("fair"), or the credit of the one that appears first ("first"). All subsets are counted when there are
    at most `subsets`, else that many random ones, fixed by `seed`. k = 1 is the mean grade when None is graded 0.

    Raises ValueError for unequal lengths, both kinds of weights, k outside 1..n, a number that is not finite, an
    unknown `ties`, or subsets < 1.
    """
    if weights is not None and log_weights is not None:
        raise ValueError("Both weights and log_weights are given; pass one of them.")
    grades, numbers = _checked(classes, grades, weights if log_weights is None else log_weights)
    check_k(k, len(classes))
    if ties not in ("fair", "first"):
        raise ValueError(f"ties is {ties!r}; it must be 'fair' or 'first'.")
    chosen = _subsets(len(classes), k, subsets, seed)  # [M, n] of 0 and 1
    exact = counts_all_subsets(len(classes), k, subsets)
    names = list(dict.fromkeys(answer for answer in classes if answer is not None))
    if not names:
        return Vote(0.0, exact)
    member = np.array([[answer == name for name in names] for answer in classes], dtype=np.float64)  # [n, C]
    credit = grades @ member / member.sum(axis=0)
    votes = chosen * (numbers if log_weights is None else _shares_of_heaviest(numbers, chosen, member))  # [M, n]
    wins = _heaviest(votes, chosen, member)
    if ties == "first":
        wins = _first_only(wins, chosen, member)
    credits = wins @ credit / np.maximum(wins.sum(axis=1), 1)  # [M]; no winner, no credit
    return Vote(math.fsum(credits) / len(credits), exact)


def counts_all_subsets(num_samples: int, k: int, subsets: int = SUBSETS) -> bool:
    """True where maj_at_k counts every subset of size k, False where it draws `subsets` of them."""
    return math.comb(num_samples, k) <= subsets


def _equal_pairs(distinct: Sequence[Sequence[str]], same: Same) -> set[tuple[str, str]]:
    pairs = sorted({(min(pair), max(pair)) for keys in distinct for pair in combinations(keys, 2)})
    verdicts = list(same(pairs)) if pairs else []
    if len(verdicts) != len(pairs):
        raise ValueError(f"`same` got {len(pairs)} pairs but returned {len(verdicts)} verdicts.")
    return {pair for pair, verdict in zip(pairs, verdicts, strict=True) if verdict}


def _roots(keys: Sequence[str], equal: set[tuple[str, str]]) -> dict[str, str]:
    """The key that stands for each key's class, by union-find."""
    parent = {key: key for key in keys}

    def root(key: str) -> str:
        while parent[key] != key:
            parent[key] = parent[parent[key]]
            key = parent[key]
        return key

    for one, other in combinations(keys, 2) if equal else ():
        if (min(one, other), max(one, other)) in equal:
            parent[root(other)] = root(one)
    return {key: root(key) for key in keys}


def _numbered(keys: Sequence[str | None], roots: dict[str, str]) -> list[int | None]:
    numbers: dict[str, int] = {}
    return [None if key is None else numbers.setdefault(roots[key], len(numbers)) for key in keys]


def _checked(
    classes: Sequence[int | None], grades: Sequence[float], weights: Sequence[float] | None
) -> tuple[np.ndarray, np.ndarray]:
    if weights is None:
        weights = [1.0] * len(classes)
    if not len(classes) == len(grades) == len(weights):
        raise ValueError(
            f"A problem has {len(classes)} classes, {len(grades)} grades and {len(weights)} weights; "
            "every sample needs one of each."
        )
    return finite_values(grades, "the grades"), finite_values(weights, "the weights")


def _shares_of_heaviest(log_weights: np.ndarray, chosen: np.ndarray, member: np.ndarray) -> np.ndarray:
    """[M, n] weights as shares of the heaviest sample with an answer in each subset; what is not in it has any."""
    answered = (chosen > 0) & (member.sum(axis=1) > 0)
    top = np.where(answered, log_weights, -math.inf).max(axis=1, keepdims=True)
    return np.exp(np.where(answered, log_weights - top, 0.0))


def _heaviest(votes: np.ndarray, chosen: np.ndarray, member: np.ndarray) -> np.ndarray:
    """[M, C] which answers win in which subset; sums that differ by rounding only are tied.

    votes: [M, n] what each sample adds to its answer. The tolerance is a share of what was added up for the two
    answers that are compared, so that a heavy sample elsewhere cannot make a tie.
    """
    total, size = votes @ member, np.abs(votes) @ member
    total[chosen @ member == 0] = -math.inf
    top = total.argmax(axis=1)[:, None]
    tolerance = ROUNDING * (size + np.take_along_axis(size, top, axis=1))
    return (total >= np.take_along_axis(total, top, axis=1) - tolerance) & (total > -math.inf)


@lru_cache(maxsize=64)
def _subsets(num_samples: int, k: int, subsets: int, seed: int) -> np.ndarray:
    """[M, n] of 0 and 1: every subset of size k, or `subsets` random ones; the same for every problem."""
    if subsets < 1:
        raise ValueError(f"subsets is {subsets}; draw at least one, 200 as a rule.")
    if counts_all_subsets(num_samples, k, subsets):
        chosen = np.array(list(combinations(range(num_samples), k)))
    else:
        random = np.random.default_rng([seed, num_samples, k])
        chosen = np.argsort(random.random((subsets, num_samples)), axis=1)[:, :k]
    rows = np.zeros((len(chosen), num_samples))
    np.put_along_axis(rows, chosen, 1.0, axis=1)
    return rows


def _first_only(wins: np.ndarray, chosen: np.ndarray, member: np.ndarray) -> np.ndarray:
    """Of each subset's tied winners [M, C], the one whose first chosen sample comes first."""
    first = np.argmax(chosen[:, :, None] * member[None], axis=1)  # [M, C]; wrong only where a class has no sample
    best = np.argmin(np.where(wins, first, len(member)), axis=1)
    return wins & (np.arange(wins.shape[1]) == best[:, None])
