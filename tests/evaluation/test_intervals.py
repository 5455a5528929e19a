import math
import random
from functools import cache
from itertools import product

import numpy as np
import pytest

from manypaths.evaluation.intervals import (
    Interval,
    bootstrap_interval,
    macro_interval,
    macro_paired_test,
    mean_interval,
    mean_of_intervals,
    paired_interval,
    paired_test,
    share_interval,
    student_t_quantile,
)

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


def test_bootstrap_covers_as_often_as_it_says():
    """30 problems with shares of 8 samples, as of an AIME score, and only 6 of them."""
    draw = np.random.default_rng(0)
    for problems, runs, least in ((30, 1000, 0.93), (6, 1000, 0.90)):
        shares = draw.binomial(8, draw.beta(1, 1, size=(runs, problems))) / 8
        hits = sum(not bootstrap_interval(row, resamples=1000, seed=i).excludes(0.5) for i, row in enumerate(shares))
        assert least < hits / runs < 0.975


def test_bootstrap_is_near_the_t_interval_for_many_values_and_fixed_by_its_seed():
    values = np.random.default_rng(1).beta(2, 5, size=400)
    found, expected = bootstrap_interval(values), mean_interval(values)
    assert found.value == expected.value and found.n == 400
    half = expected.high - expected.value
    assert abs(found.low - expected.low) < 0.05 * half and abs(found.high - expected.high) < 0.05 * half
    assert bootstrap_interval(values) == found
    assert bootstrap_interval(values, seed=1) != found
    narrow = bootstrap_interval(values, confidence=0.5)
    assert found.low < narrow.low < narrow.high < found.high


def test_bootstrap_limits_equal_those_of_all_resamples_at_the_widened_level():
    values = [0.05, 0.3, 0.35, 0.55, 0.9, 1.0]
    means = [sum(drawn) / 6 for drawn in product(values, repeat=6)]
    t = student_t_quantile(0.5, 5)
    tail = 0.5 * math.erfc(math.sqrt(6 / 5) * t / math.sqrt(2))
    found = bootstrap_interval(values, confidence=0.5, resamples=200_000)
    assert [found.low, found.high] == pytest.approx(np.quantile(means, [tail, 1 - tail]), abs=2e-3)


def test_a_bootstrap_stays_in_the_range_of_the_values():
    found = bootstrap_interval([0.0, 1.0])
    assert (found.low, found.high) == (0.0, 1.0)
    equal = bootstrap_interval([0.25] * 5)
    assert (equal.value, equal.low, equal.high) == (0.25, 0.25, 0.25)


def test_one_problem_has_no_bootstrap_limits():
    found = bootstrap_interval([0.4])
    assert (found.value, found.low, found.high, found.n) == (0.4, None, None, 1)
    lonely = macro_interval({"a": [0.0, 1.0], "b": [0.5]})
    assert (lonely.value, lonely.low, lonely.high, lonely.n) == (0.5, None, None, 2)


def test_a_macro_mean_weighs_groups_alike_and_varies_within_them():
    draw = np.random.default_rng(2)
    groups = {"small": draw.normal(0.2, 0.1, 30), "large": draw.normal(0.8, 0.1, 3000)}
    found = macro_interval(groups)
    assert found.value == pytest.approx((groups["small"].mean() + groups["large"].mean()) / 2)
    assert found.n == 2
    spread = math.sqrt(sum(values.var(ddof=1) / len(values) for values in groups.values())) / 2
    assert (found.high - found.low) / 2 == pytest.approx(2.045 * spread, rel=0.05)  # the small group rules: t of 29
    assert macro_interval({"only": groups["small"]}).low == bootstrap_interval(groups["small"]).low


def test_coverage_of_the_macro_mean():
    draw = np.random.default_rng(3)
    hits = 0
    for run in range(500):
        groups = {"a": draw.exponential(1, 12), "b": draw.normal(3, 2, 40), "c": draw.binomial(1, 0.5, 100)}
        hits += not macro_interval(groups, resamples=1000, seed=run).excludes((1 + 3 + 0.5) / 3)
    assert 0.92 < hits / 500 < 0.98


def exact_p(differences):
    observed = abs(sum(differences))
    patterns = product((1, -1), repeat=len(differences))
    sums = [abs(sum(s * d for s, d in zip(signs, differences, strict=True))) for signs in patterns]
    return sum(value >= observed - 1e-9 for value in sums) / len(sums)


def test_the_p_value_equals_the_count_over_all_sign_patterns():
    draw = random.Random(4)
    for _ in range(60):
        n = draw.randint(1, 9)
        a, b = ([draw.randint(0, 8) / 8 for _ in range(n)] for _ in range(2))
        expected = exact_p([x - y for x, y in zip(a, b, strict=True)])
        assert paired_test(a, b, resamples=1000).p_value == pytest.approx(expected, abs=1e-12)


def test_sums_that_differ_by_rounding_count_as_equal():
    assert paired_test([0.3, 0.0, 0.0], [0.0, 0.1, 0.2]).p_value == 1.0


def test_a_drawn_p_value_is_near_the_exact_one_and_never_zero():
    draw = random.Random(5)
    differences = [draw.gauss(0.4, 1) for _ in range(12)]
    zeros = [0.0] * 12
    assert paired_test(differences, zeros, resamples=4000).p_value == pytest.approx(exact_p(differences), abs=0.02)
    far = paired_test([1.0 + 0.01 * i for i in range(40)], [0.0] * 40, resamples=999)
    assert far.p_value == 1 / 1000
    assert far.difference.excludes(0.0)


def test_runs_that_are_alike_differ_rarely():
    draw = np.random.default_rng(6)
    values = [paired_test(*draw.normal(size=(2, 20)), resamples=400, seed=i).p_value for i in range(600)]
    assert 0.03 < np.mean(np.array(values) <= 0.05) < 0.075
    assert paired_test([0.5, 1.0], [0.5, 1.0]).p_value == 1.0


def test_pairing_is_by_problem():
    draw = random.Random(7)
    b = [draw.random() for _ in range(50)]
    a = [value + 0.02 + draw.gauss(0, 0.01) for value in b]
    found = paired_test(a, b)
    assert found.p_value < 0.001 and found.difference.low > 0
    assert found.difference == bootstrap_interval([x - y for x, y in zip(a, b, strict=True)])
    mirrored = paired_test(b, a)
    assert mirrored.p_value == found.p_value and mirrored.difference.value == pytest.approx(-found.difference.value)


def test_equal_problems_do_not_stand_in_the_way_of_the_exact_count():
    a = [0.5] * 25 + [0.6, 0.7, 0.8, 0.9, 1.0]
    assert paired_test(a, [0.5] * 30).p_value == 2 / 2**5


def test_the_macro_test_weighs_groups_alike():
    draw = random.Random(8)
    sizes = {"x": 1, "y": 3, "z": 5}
    for _ in range(20):
        a, b = ({name: [draw.random() for _ in range(size)] for name, size in sizes.items()} for _ in range(2))
        shares = [(p - q) / size for name, size in sizes.items() for p, q in zip(a[name], b[name], strict=True)]
        found = macro_paired_test(a, dict(reversed(b.items())))
        assert found.difference.value == pytest.approx(sum(shares) / 3)
        assert found.p_value == pytest.approx(exact_p(shares))
    only = macro_paired_test({"z": a["z"]}, {"z": b["z"]})
    assert only == macro_paired_test({"z": a["z"]}, {"z": b["z"]}, seed=0)
    assert only.p_value == paired_test(a["z"], b["z"]).p_value


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: bootstrap_interval([]), "at least one"),
        (lambda: bootstrap_interval([0.1, float("nan")]), "Value 2 is nan"),
        (lambda: bootstrap_interval([0.1, None]), "Value 2 is nan"),
        (lambda: bootstrap_interval([float("inf")]), "Value 1 is inf"),
        (lambda: bootstrap_interval([[0.1], [0.2]]), r"shape \(2, 1\)"),
        (lambda: bootstrap_interval([0.1, 0.2], resamples=0), "resamples is 0"),
        (lambda: bootstrap_interval([0.1, 0.2], confidence=1.0), "confidence is 1"),
        (lambda: macro_interval({}), "no group"),
        (lambda: macro_interval({"aime24": []}), "of aime24"),
        (lambda: macro_interval({"aime24": [0.1, float("nan")]}), "Value 2 of aime24 is nan"),
        (lambda: paired_test([0.1], [0.1, 0.2]), "1 and 2"),
        (lambda: paired_test([0.1, float("inf")], [0.1, float("inf")]), "Value 2 of the runs is inf"),
        (lambda: macro_paired_test({"a": [1.0]}, {"b": [1.0]}), "only one of them has a, b"),
        (lambda: macro_paired_test({"a": [1.0]}, {"a": [1.0, 2.0]}), "a have 1 and 2"),
        (lambda: macro_paired_test({}, {}), "no group"),
    ],
)
def test_resampling_refuses_what_has_no_meaning(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_shares_that_are_all_alike_at_an_end_still_have_width():
    none, every = share_interval([0.0] * 30), share_interval([1.0] * 30)
    assert (none.value, none.low) == (0.0, 0.0) and none.high == pytest.approx(0.1157, abs=1e-4)  # 0 of 30
    assert (every.value, every.high) == (1.0, 1.0) and every.low == pytest.approx(1 - none.high)
    assert share_interval([0.0]).high == pytest.approx(0.975)
    half = share_interval([0.5] * 4)
    assert half.value == 0.5 and half.high - 0.5 == pytest.approx(0.5 - half.low) and half.low == pytest.approx(0.5 * 0.025**0.25)
    mixed = [0.0, 0.5, 1.0, 0.25]
    assert share_interval(mixed) == bootstrap_interval(mixed)
    with pytest.raises(ValueError, match="shares lie between 0 and 1"):
        share_interval([0.0, 1.5])


def test_the_mean_of_scores_recovers_each_one_s_own_width():
    parts = [Interval(0.5, 0.2, 0.6, 10), Interval(0.7, 0.3, 0.9, 10)]
    found = mean_of_intervals(parts)
    assert (found.value, found.n) == (pytest.approx(0.6), 2)
    assert found.low == pytest.approx(0.6 - math.hypot(0.3, 0.4) / 2)
    assert found.high == pytest.approx(0.6 + math.hypot(0.1, 0.2) / 2)
    assert mean_of_intervals([*parts, None]) is None and mean_of_intervals([]) is None
    assert mean_of_intervals([*parts, Interval(1, None, None, 1)]).low is None
    assert mean_of_intervals(iter(parts[:1])) == Interval(0.5, 0.2, pytest.approx(0.6), 1)


def test_an_average_over_benchmarks_nobody_solves_has_width():
    found = mean_of_intervals([share_interval([0.0] * 30)] * 2)
    assert (found.value, found.low) == (0.0, 0.0) and found.high == pytest.approx(0.1157 / math.sqrt(2), abs=1e-4)


@pytest.mark.parametrize(("share", "least", "most"), [(0.03, 0.96, 1.0), (0.5, 0.93, 0.98)])
def test_coverage_of_an_average_over_two_small_benchmarks(share, least, most):
    draw = np.random.default_rng(9)
    hits = 0
    for _ in range(400):
        sets = draw.binomial(1, share, size=(2, 30))
        hits += not mean_of_intervals([_interval_of_count(int(values.sum()), 30) for values in sets]).excludes(share)
    assert least < hits / 400 <= most


@cache
def _interval_of_count(right, problems):
    return share_interval([1.0] * right + [0.0] * (problems - right))
