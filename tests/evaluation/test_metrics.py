import math
import random
from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manypaths.evaluation.metrics import (
    answer_entropy,
    best_of_n,
    distinct_answers,
    expected_max,
    pass_at_k,
)


def test_pass_at_k_equals_the_mean_over_all_subsets():
    for n in range(1, 9):
        for c in range(n + 1):
            grades = [1] * c + [0] * (n - c)
            for k in range(1, n + 1):
                subsets = list(combinations(grades, k))
                expected = sum(any(subset) for subset in subsets) / len(subsets)
                assert pass_at_k(n, c, k) == pytest.approx(expected, abs=1e-12)


def test_pass_at_k_equals_the_binomial_ratio_for_many_samples():
    draw = random.Random(0)
    for _ in range(500):
        n = draw.randint(1, 256)
        c, k = draw.randint(0, n), draw.randint(1, n)
        expected = 1 - math.comb(n - c, k) / math.comb(n, k)
        assert pass_at_k(n, c, k) == pytest.approx(expected, abs=1e-11)


def test_pass_at_one_is_accuracy_and_pass_at_n_is_any():
    assert pass_at_k(64, 16, 1) == pytest.approx(0.25)
    assert pass_at_k(64, 0, 64) == 0.0
    assert pass_at_k(64, 1, 64) == 1.0


@pytest.mark.parametrize(
    ("n", "c", "k", "message"),
    [
        (4, 1, 5, "draw more samples"),
        (4, 1, 0, "k is 0"),
        (4, 5, 1, "num_correct is 5"),
    ],
)
def test_pass_at_k_refuses_impossible_counts(n, c, k, message):
    with pytest.raises(ValueError, match=message):
        pass_at_k(n, c, k)


def test_pass_at_k_never_falls_with_k():
    for c in range(9):
        curve = [pass_at_k(8, c, k) for k in range(1, 9)]
        assert curve == sorted(curve)


def winners_of_subsets(scores, grades, n):
    credits = []
    for subset in combinations(range(len(scores)), n):
        top = max(scores[i] for i in subset)
        credits.append([grades[i] for i in subset if scores[i] == top])
    return credits


# Few different scores, so that ties are common; grades are rewards, not only 0 and 1.
SAMPLES = st.lists(st.tuples(st.integers(-2, 2), st.sampled_from([0.0, 0.25, 1.0])), min_size=1, max_size=8)


@settings(max_examples=150, deadline=None)
@given(SAMPLES)
def test_best_of_n_equals_the_mean_over_all_subsets_with_fair_ties(samples):
    """In each subset the samples that share the highest score win equally often."""
    scores, grades = zip(*samples, strict=True)
    for n in range(1, len(scores) + 1):
        subsets = winners_of_subsets(scores, grades, n)
        expected = sum(sum(tied) / len(tied) for tied in subsets) / len(subsets)
        assert best_of_n(scores, grades, n) == pytest.approx(expected, abs=1e-12)
        highest = [max(subset) for subset in combinations(scores, n)]
        assert expected_max(scores, n) == pytest.approx(sum(highest) / len(highest), abs=1e-12)


def test_best_of_n_of_many_samples_equals_the_binomial_ratio():
    draw = random.Random(0)
    scores = [draw.randint(0, 30) for _ in range(200)]
    grades = [draw.randint(0, 1) for _ in range(200)]
    for n in (1, 2, 17, 100, 199, 200):
        expected, above = 0.0, 0
        for score in sorted(set(scores), reverse=True):
            group = [grade for own, grade in zip(scores, grades, strict=True) if own == score]
            ways = math.comb(200 - above, n) - math.comb(200 - above - len(group), n)
            expected += ways / math.comb(200, n) * sum(group) / len(group)
            above += len(group)
        assert best_of_n(scores, grades, n) == pytest.approx(expected, abs=1e-12)


def test_best_of_n_at_its_ends():
    scores, grades = [0.3, -1.0, 2.0, 0.5], [1, 1, 0, 0]
    assert best_of_n(scores, grades, 1) == pytest.approx(0.5)  # any sample
    assert best_of_n(scores, grades, 4) == 0.0  # the highest score
    assert best_of_n([7.0] * 4, grades, 3) == pytest.approx(0.5)  # a score that says nothing
    for n in range(1, 5):
        assert best_of_n(grades, grades, n) == pytest.approx(pass_at_k(4, 2, n))  # a score that knows
    assert best_of_n([0.1, 0.2, 0.3], [1.0, 1.0, 1.0], 2) == 1.0


def test_answers_are_counted_and_missing_ones_are_none():
    assert distinct_answers([0, 1, None, 0, 2]) == 3
    assert distinct_answers([None, None]) == 0
    assert answer_entropy([0, 1, None]) == pytest.approx(math.log(2))
    assert answer_entropy([0, 0, 0, 1]) == pytest.approx(0.25 * math.log(4) + 0.75 * math.log(4 / 3))
    assert answer_entropy([3, 3, None]) == 0.0
    assert answer_entropy([]) == 0.0


def test_more_samples_than_there_are_cannot_be_chosen_from():
    with pytest.raises(ValueError, match=r"k is 3; .* draw more samples"):
        best_of_n([1.0, 2.0], [0, 1], 3)
