import math
import random
from itertools import combinations

import pytest

from manypaths.evaluation.metrics import (
    mean_interval,
    paired_interval,
    pass_at_k,
    pass_at_k_curve,
    samples_to_match,
    student_t_quantile,
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
        (0, 0, 1, "num_samples is 0"),
    ],
)
def test_pass_at_k_refuses_impossible_counts(n, c, k, message):
    with pytest.raises(ValueError, match=message):
        pass_at_k(n, c, k)


def test_curve_is_per_prompt_and_never_falls_with_k():
    counts = [0, 1, 3, 8]
    curve = pass_at_k_curve(counts, 8, [1, 2, 4, 8])
    assert list(curve) == [1, 2, 4, 8]
    assert curve[1] == pytest.approx([0, 1 / 8, 3 / 8, 1])
    assert curve[2] == [pass_at_k(8, c, 2) for c in counts]
    for smaller, larger in [(1, 2), (2, 4), (4, 8)]:
        assert all(a <= b for a, b in zip(curve[smaller], curve[larger], strict=True))
    with pytest.raises(ValueError, match="empty"):
        pass_at_k_curve([], 8, [1])


# Two-sided 95 % and 99 % points of Student's t as printed in statistical tables.
TABLE = [
    (0.95, 1, 12.7062), (0.95, 2, 4.30265), (0.95, 3, 3.18245), (0.95, 4, 2.77645), (0.95, 5, 2.57058),
    (0.95, 10, 2.22814), (0.95, 29, 2.04523), (0.95, 30, 2.04227), (0.95, 120, 1.97993),
    (0.99, 1, 63.6567), (0.99, 2, 9.92484), (0.99, 5, 4.03214), (0.99, 30, 2.75000),
    (0.90, 3, 2.35336), (0.50, 1, 1.00000),
]  # fmt: skip


@pytest.mark.parametrize(("confidence", "degrees", "expected"), TABLE)
def test_t_quantile_matches_the_tables(confidence, degrees, expected):
    assert student_t_quantile(confidence, degrees) == pytest.approx(expected, rel=5e-6)


def test_t_quantile_tends_to_the_normal_one():
    assert student_t_quantile(0.95, 20001) == pytest.approx(1.959964, abs=2e-4)
    assert student_t_quantile(0.95, 20000) == pytest.approx(1.959964, abs=2e-4)


def test_t_quantile_refuses_nonsense():
    with pytest.raises(ValueError, match=r"confidence is 1\.0"):
        student_t_quantile(1.0, 3)
    with pytest.raises(ValueError, match="degrees is 0"):
        student_t_quantile(0.95, 0)


def test_mean_interval_by_hand():
    interval = mean_interval([1.0, 2.0, 3.0])
    half = 4.302653 / math.sqrt(3)
    assert interval.value == pytest.approx(2.0)
    assert (interval.low, interval.high) == (
        pytest.approx(2 - half, abs=1e-5),
        pytest.approx(2 + half, abs=1e-5),
    )
    assert interval.n == 3
    assert not interval.excludes(0.0) and interval.excludes(5.0)


def test_mean_interval_covers_as_often_as_it_says():
    draw = random.Random(1)
    hits = sum(not mean_interval([draw.gauss(3, 2) for _ in range(4)]).excludes(3) for _ in range(4000))
    assert 0.935 < hits / 4000 < 0.965


def test_one_value_has_no_limits():
    interval = mean_interval([0.4])
    assert (interval.value, interval.low, interval.high, interval.n) == (0.4, None, None, 1)
    assert not interval.excludes(0.0)


@pytest.mark.parametrize("values", [[], [1.0, float("nan")], [float("inf")]])
def test_mean_interval_refuses_missing_values(values):
    with pytest.raises(ValueError):
        mean_interval(values)


def test_pairing_removes_what_is_shared():
    draw = random.Random(2)
    shared = [draw.gauss(0, 10) for _ in range(6)]
    a = [value + 1 + draw.gauss(0, 0.01) for value in shared]
    interval = paired_interval(a, shared)
    assert interval.value == pytest.approx(1, abs=0.02)
    assert interval.high - interval.low < 0.05
    with pytest.raises(ValueError, match="3 and 2"):
        paired_interval([1, 2, 3], [1, 2])


def test_a_model_needs_all_samples_to_match_itself():
    counts = [0, 1, 2, 5]
    assert samples_to_match(counts, counts, 8) == pytest.approx(1.0)
    assert samples_to_match(counts, counts, 8, n=4) == pytest.approx(1.0)


def test_samples_to_match_is_interpolated_and_ordered():
    weak, strong = [1] * 10, [2] * 10
    share = samples_to_match(strong, weak, 8, n=4)  # the weak pass@4 is 1/2; the strong pass@k is 1/4, 13/28, 9/14
    assert share == pytest.approx((2 + (0.5 - 13 / 28) / (9 / 14 - 13 / 28)) / 4)
    assert samples_to_match(weak, strong, 8, n=4) > 1
    assert samples_to_match([8] * 10, weak, 8) == pytest.approx(1 / 8)


def test_samples_to_match_is_none_when_out_of_reach():
    assert samples_to_match([0, 0, 4], [4, 4, 4], 8) is None
