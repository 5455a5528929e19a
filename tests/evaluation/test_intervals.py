import math
import random

import pytest

from manypaths.evaluation.intervals import mean_interval, paired_interval, student_t_quantile

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
