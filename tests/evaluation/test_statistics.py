import math
from itertools import product
from statistics import fmean

import numpy as np
import pytest
from scipy import stats

from manypaths.evaluation import statistics as subject
from manypaths.evaluation.statistics import (
    Difference,
    Estimate,
    best_of_n_share,
    bootstrap_estimate,
    detectable_difference,
    holm,
    item_means,
    macro_paired_difference,
    matching_temperature,
    mean_estimate,
    mean_of_estimates,
    over_seeds,
    paired_difference,
    paired_estimate,
    ratio_estimate,
    share_estimate,
    sign_flip_p_value,
    unpaired_difference,
    with_holm,
)


@pytest.fixture
def few_resamples(monkeypatch):
    monkeypatch.setattr(subject, "RESAMPLES", 1000)


def holds(estimate, truth):
    return estimate.low <= truth <= estimate.high


def test_sign_says_on_which_side_of_a_point_both_limits_lie():
    estimate = Estimate(0.5, 0.2, 0.7, 9, "items")
    assert [estimate.sign(point) for point in (0.1, 0.3, 0.8)] == [1, 0, -1]
    assert Estimate(0.5, None, None, 1, "items").sign() == 0


def test_a_monotone_function_of_an_estimate_keeps_its_limits_in_order():
    estimate = Estimate(1.0, 0.0, 3.0, 4, "texts")
    assert estimate.mapped(math.exp) == Estimate(math.e, 1.0, math.exp(3.0), 4, "texts")
    assert estimate.mapped(lambda value: -value) == Estimate(-1.0, -3.0, 0.0, 4, "texts")
    assert Estimate(1.0, None, None, 1, "texts").mapped(math.exp) == Estimate(math.e, None, None, 1, "texts")


def test_t_limits_are_scipys_and_need_three_values():
    values = [1.0, 2.5, 3.0, 4.0]
    expected = stats.ttest_1samp(values, 0.0).confidence_interval(0.95)
    found = mean_estimate(values, "seeds")
    assert (found.value, found.low, found.high) == pytest.approx((2.625, expected.low, expected.high))
    assert (found.n, found.over) == (4, "seeds")
    half = 4.302653 / math.sqrt(3)  # the printed t for two degrees of freedom
    assert mean_estimate([1.0, 2.0, 3.0], "rows").high == pytest.approx(2 + half, abs=1e-5)
    for values in ([0.4], [0.3, 0.5]):
        assert mean_estimate(values, "seeds") == Estimate(0.4, None, None, len(values), "seeds")


def test_t_limits_hold_the_mean_as_often_as_they_say():
    draws = np.random.default_rng(1).normal(3, 2, size=(2000, 4))
    assert 0.93 < fmean(holds(mean_estimate(row, "seeds"), 3) for row in draws) < 0.97


def test_a_ratio_of_rows_of_equal_size_is_their_mean():
    found, expected = ratio_estimate([2.0, 4.0, 6.0], [2, 2, 2], "texts"), mean_estimate([1.0, 2.0, 3.0], "texts")
    assert (found.value, found.low, found.high) == pytest.approx((expected.value, expected.low, expected.high))
    assert ratio_estimate([2.0], [4], "texts") == Estimate(0.5, None, None, 1, "texts")


def test_ratio_limits_hold_the_truth_for_rows_of_unequal_size():
    random = np.random.default_rng(0)
    hits = 0
    for _ in range(600):
        counts = random.integers(1, 30, 40)
        hits += holds(ratio_estimate(random.normal(size=40) * counts, counts, "texts"), 0)  # longer rows weigh more
    assert 0.91 <= hits / 600 <= 0.98


@pytest.mark.parametrize(("problems", "runs", "least"), [(30, 300, 0.92), (6, 500, 0.90)])
def test_the_bootstrap_holds_the_mean_as_often_as_it_says(few_resamples, problems, runs, least):
    """Shares of 8 samples, as of an AIME score."""
    random = np.random.default_rng(0)
    shares = random.binomial(8, random.beta(1, 1, size=(runs, problems))) / 8
    assert least < fmean(holds(bootstrap_estimate(row, "problems"), 0.5) for row in shares) < 0.98


def test_the_bootstrap_is_near_t_for_many_values_and_always_the_same():
    values = np.random.default_rng(1).beta(2, 5, size=400)
    found, expected = bootstrap_estimate(values, "items"), mean_estimate(values, "items")
    assert (found.value, found.n) == (pytest.approx(expected.value), 400)
    assert (found.low, found.high) == pytest.approx(
        (expected.low, expected.high), abs=0.05 * (expected.high - found.value)
    )
    assert bootstrap_estimate(values, "items") == found


def test_bootstrap_limits_are_those_of_all_resamples_at_the_widened_level(monkeypatch):
    monkeypatch.setattr(subject, "RESAMPLES", 200_000)
    monkeypatch.setattr(subject, "CONFIDENCE", 0.5)
    values = [0.05, 0.3, 0.35, 0.55, 0.9, 1.0]
    means = [fmean(drawn) for drawn in product(values, repeat=6)]
    tail = stats.norm.cdf(-math.sqrt(6 / 5) * stats.t.ppf(0.75, 5))
    found = bootstrap_estimate(values, "problems")
    assert [found.low, found.high] == pytest.approx(np.quantile(means, [tail, 1 - tail]), abs=2e-3)


def test_a_bootstrap_stays_in_the_range_of_the_values():
    assert bootstrap_estimate([0.0, 1.0], "problems") == Estimate(0.5, 0.0, 1.0, 2, "problems")
    assert bootstrap_estimate([0.25] * 5, "problems") == Estimate(0.25, 0.25, 0.25, 5, "problems")
    assert bootstrap_estimate([0.4], "problems") == Estimate(0.4, None, None, 1, "problems")


def test_shares_that_all_agree_have_the_exact_binomial_width():
    none, every = share_estimate([0.0] * 30, "problems"), share_estimate([1.0] * 30, "problems")
    expected = stats.binomtest(0, 30).proportion_ci(method="exact")
    assert (none.value, none.low, none.high) == pytest.approx((0.0, expected.low, expected.high))
    assert (every.high, every.low) == pytest.approx((1.0, 1 - expected.high))
    assert share_estimate([0.0], "problems").high == pytest.approx(0.975)
    half = share_estimate([0.5] * 4, "problems")
    assert (half.low, half.high) == pytest.approx((0.5 * 0.025**0.25, 1 - 0.5 * 0.025**0.25))
    mixed = [0.0, 0.5, 1.0, 0.25]
    assert share_estimate(mixed, "problems") == bootstrap_estimate(mixed, "problems")


def test_the_mean_of_estimates_recovers_the_width_of_each():
    parts = [Estimate(0.5, 0.2, 0.6, 10, "problems"), Estimate(0.7, 0.3, 0.9, 10, "problems")]
    found = mean_of_estimates(parts)
    expected = (0.6, 0.6 - math.hypot(0.3, 0.4) / 2, 0.6 + math.hypot(0.1, 0.2) / 2)
    assert (found.value, found.low, found.high) == pytest.approx(expected)
    assert (found.n, found.over) == (2, "tasks")
    weighted = mean_of_estimates(parts, weights=[0.8, 0.2])
    assert (weighted.value, weighted.low) == pytest.approx((0.54, 0.54 - math.hypot(0.24, 0.08)))
    assert mean_of_estimates([*parts, Estimate(1, None, None, 1, "problems")]).low is None
    nobody = mean_of_estimates([share_estimate([0.0] * 30, "problems")] * 2)
    assert (nobody.value, nobody.low) == (0.0, 0.0) and nobody.high == pytest.approx(0.1157 / math.sqrt(2), abs=1e-4)


@pytest.mark.parametrize(("share", "least", "most"), [(0.03, 0.95, 1.0), (0.5, 0.92, 0.99)])
def test_coverage_of_an_average_over_two_small_benchmarks(few_resamples, share, least, most):
    counts = np.random.default_rng(9).binomial(30, share, size=(400, 2)).tolist()
    of_count = {right: share_estimate([1.0] * right + [0.0] * (30 - right), "problems") for right in range(31)}
    assert least < fmean(holds(mean_of_estimates([of_count[one] for one in row]), share) for row in counts) <= most


def test_means_over_seeds_use_t_from_three_seeds_on_and_else_the_items():
    values = {0: 0.5, 1: 0.7, 2: 0.9}
    items = {0: {"a": 0.4, "b": 0.6}, 1: {"b": 0.9, "a": 0.5}}
    assert over_seeds(values, items) == mean_estimate([0.5, 0.7, 0.9], "seeds")
    two = over_seeds({0: 0.5, 1: 0.7}, items)
    assert two == bootstrap_estimate([0.45, 0.75], "problems")
    assert over_seeds({0: 0.5, 1: 0.7}) == Estimate(0.6, None, None, 2, "seeds")
    assert item_means(list(items.values())) == {"a": 0.45, "b": 0.75}


def test_seeds_that_agree_exactly_leave_the_spread_to_the_items():
    items = {seed: dict.fromkeys(range(100), 1.0) for seed in range(3)}
    found = over_seeds(dict.fromkeys(range(3), 1.0), items, estimate=share_estimate)
    assert found == share_estimate([1.0] * 100, "problems") and found.low < 1.0


def exact_p(differences):
    observed = abs(sum(differences))
    sums = [abs(np.dot(signs, differences)) for signs in product((1, -1), repeat=len(differences))]
    return fmean(value >= observed - 1e-9 for value in sums)


def test_the_sign_flip_p_value_equals_the_count_over_all_patterns():
    random = np.random.default_rng(4)
    for n in [*range(1, 10)] * 4:
        differences = random.integers(-8, 9, n) / 8
        assert sign_flip_p_value(differences) == pytest.approx(exact_p(differences), abs=1e-12)
    assert sign_flip_p_value([0.3, -0.1, -0.2]) == 1.0  # sums that differ by rounding are equal
    assert sign_flip_p_value([0.0] * 25 + [0.1, 0.2, 0.3, 0.4, 0.5]) == 2 / 2**5  # zeros have no sign


def test_a_drawn_p_value_is_near_the_exact_one_and_never_zero(monkeypatch):
    differences = np.random.default_rng(5).normal(0.4, 1, 12)
    expected = sign_flip_p_value(differences)
    monkeypatch.setattr(subject, "RESAMPLES", 4000)
    assert expected == pytest.approx(exact_p(differences))
    assert (
        sign_flip_p_value(differences) == pytest.approx(expected, abs=0.02)
        and sign_flip_p_value(differences) != expected
    )
    assert sign_flip_p_value(1.0 + 0.01 * np.arange(40)) == 1 / 4001


def test_runs_that_are_alike_differ_rarely(monkeypatch):
    monkeypatch.setattr(subject, "RESAMPLES", 400)
    random = np.random.default_rng(6)
    assert 0.03 < fmean(sign_flip_p_value(random.normal(size=20)) <= 0.05 for _ in range(600)) < 0.075


def test_pairing_is_by_problem():
    random = np.random.default_rng(7)
    b = random.random(50)
    a = b + 0.02 + random.normal(0, 0.01, 50)
    found, mirrored = paired_difference(a, b, "problems"), paired_difference(b, a, "problems")
    assert found.p_value < 0.001 and found.estimate.sign() == 1
    assert found.estimate == bootstrap_estimate(a - b, "problems") == paired_estimate(a, b, "problems")
    assert (mirrored.p_value, mirrored.estimate.value) == (found.p_value, pytest.approx(-found.estimate.value))


def test_seeds_are_paired_by_t_from_three_on():
    a, b = [0.5, 0.7, 0.65], [0.4, 0.5, 0.6]
    found, expected = paired_difference(a, b, "seeds"), stats.ttest_rel(a, b)
    limits = expected.confidence_interval(0.95)
    assert (found.p_value, found.estimate.low, found.estimate.high) == pytest.approx((expected.pvalue, *limits))
    assert paired_difference(a[:2], b[:2], "seeds") == Difference(
        Estimate(pytest.approx(0.15), None, None, 2, "seeds"), None
    )


@pytest.mark.parametrize("over", ["problems", "seeds"])
@pytest.mark.parametrize("shift", [0.0, 0.25])
def test_differences_that_all_agree_have_width(over, shift):
    b = [0.1, 0.3, 0.5, 0.7]
    found = paired_difference([value + shift for value in b], b, over)
    room = stats.binomtest(0, 4).proportion_ci(method="exact").high
    estimate = found.estimate
    limits = (shift - room * (1 + shift), shift + room * (1 - shift))
    assert (estimate.value, estimate.low, estimate.high) == pytest.approx((shift, *limits))
    assert found.p_value == (1.0 if shift == 0.0 else 2 / 2**4)
    assert paired_estimate([40.0] * 4, [40.0] * 4, over).high == pytest.approx(40 * room)  # in the metric's own units


def test_paired_limits_hold_the_difference_as_often_as_they_say(few_resamples):
    """Two models on 40 problems with 4 samples each: most differences are 0 where problems are easy."""
    random, hits = np.random.default_rng(8), 0
    for _ in range(300):
        ease = random.beta(0.5, 0.5, 40)
        a, b = (random.binomial(4, p) / 4 for p in (0.9 * ease + 0.1, ease))
        hits += holds(paired_estimate(a, b, "problems"), 0.1 - 0.1 * 0.5)
    assert 0.91 < hits / 300 < 0.98


def test_the_macro_difference_weighs_groups_alike():
    random = np.random.default_rng(8)
    sizes = {"x": 1, "y": 3, "z": 5}
    for _ in range(5):
        a, b = ({name: random.random(size) for name, size in sizes.items()} for _ in range(2))
        shares = np.concatenate([(a[name] - b[name]) / sizes[name] for name in sizes])
        found = macro_paired_difference(a, dict(reversed(b.items())))
        assert found.estimate.value == pytest.approx(shares.sum() / 3)
        assert (found.p_value, found.estimate.n) == (pytest.approx(exact_p(shares)), 3)
    parts = [paired_estimate(a[name], b[name], name) for name in sizes]
    assert found.estimate == mean_of_estimates(parts)
    alone = macro_paired_difference({"z": a["z"]}, {"z": b["z"]})
    assert alone.p_value == paired_difference(a["z"], b["z"], "problems").p_value


@pytest.mark.slow
def test_coverage_of_the_macro_difference(few_resamples):
    random, hits = np.random.default_rng(3), 0
    for _ in range(200):
        groups = {"a": random.exponential(1, 12), "b": random.normal(3, 2, 40), "c": random.binomial(1, 0.5, 100)}
        nothing = {name: np.zeros(len(values)) for name, values in groups.items()}
        parts = [paired_estimate(groups[name], nothing[name], name) for name in groups]
        hits += holds(mean_of_estimates(parts), (1 + 3 + 0.5) / 3)
    assert 0.92 < hits / 200 < 0.99


def test_an_unpaired_difference_combines_both_widths_and_its_p_value_fits():
    a, b = Estimate(0.6, 0.5, 0.8, 40, "problems"), Estimate(0.4, 0.2, 0.5, 30, "problems")
    found = unpaired_difference(a, b)
    below, above = math.hypot(0.1, 0.1), math.hypot(0.2, 0.2)
    assert (found.estimate.low, found.estimate.high) == pytest.approx((0.2 - below, 0.2 + above))
    assert (found.estimate.n, found.estimate.over) == (30, "problems, unpaired")
    assert found.p_value == pytest.approx(2 * stats.norm.sf(0.2 / below * 1.959964), abs=1e-6)
    touching = unpaired_difference(Estimate(0.6, 0.5, 0.7, 9, ""), Estimate(0.5, 0.5, 0.5, 9, ""))
    assert touching.p_value == pytest.approx(0.05) and unpaired_difference(a, a).p_value == 1.0
    assert unpaired_difference(a, Estimate(0.4, None, None, 1, "seeds")) == Difference(
        Estimate(pytest.approx(0.2), None, None, 1, "problems, unpaired"), None
    )


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]) == [1.0, 1.0] and holm([]) == []


def test_a_family_is_made_of_what_could_be_tested():
    estimate = Estimate(0.0, None, None, 2, "seeds")
    family = {"a": Difference(estimate, 0.02), "b": Difference(estimate, None), "c": Difference(estimate, 0.03)}
    assert {key: one.adjusted for key, one in with_holm(family).items()} == pytest.approx(
        {"a": 0.04, "b": None, "c": 0.04}
    )


def test_a_detectable_difference_is_seen_with_the_power_it_names():
    random = np.random.default_rng(0)
    for n in (3, 30):
        sample = random.normal(0, 2, n)
        sample = (sample - sample.mean()) / sample.std(ddof=1) * 2  # a spread of 2 exactly
        difference = detectable_difference(sample)
        draws = random.normal(difference, 2, size=(4000, n))
        assert fmean(stats.ttest_1samp(draws, 0.0, axis=1).pvalue < 0.05) == pytest.approx(0.8, abs=0.025)
        assert detectable_difference(sample, power=0.9) > difference
        assert detectable_difference(sample, level=0.05 / 6) > difference
    normal = (stats.norm.ppf(0.975) + stats.norm.ppf(0.8)) / math.sqrt(10_000)
    assert detectable_difference(np.tile([1.0, -1.0], 5000)) == pytest.approx(normal, rel=1e-3)
    assert detectable_difference([0.2]) is None and detectable_difference([0.2, 0.2, 0.2]) is None


def rising(*rows):
    return np.array(rows, dtype=np.float64)


def test_the_share_of_samples_that_suffices():
    """a reaches 0.6 halfway between its second and third sample of four."""
    a, b = rising([0.2, 0.5, 0.7, 0.9]), rising([0.1, 0.3, 0.5, 0.6])
    assert best_of_n_share([a], [b]) == Estimate(pytest.approx(2.5 / 4), None, None, 1, "problems")
    assert best_of_n_share([b], [a]).value == math.inf
    assert (
        best_of_n_share([b], [rising([0.0, 0.0, 0.0, 0.05])]).value == 1 / 4
    )  # no model answers with less than a sample
    assert best_of_n_share([a], [a]).value == 1.0


def test_the_share_over_seeds_is_a_geometric_mean():
    a = [rising([low, 0.6, 0.8, 1.0]) for low in (0.2, 0.4, 0.3)]
    b = [rising([0, 0, 0, target]) for target in (0.4, 0.5, 0.7)]
    found = best_of_n_share(a, b)
    expected = mean_estimate(np.log([1.5 / 4, 1.5 / 4, 2.5 / 4]), "seeds").mapped(math.exp)
    assert (found.value, found.low, found.high) == pytest.approx((expected.value, expected.low, expected.high))
    b[1][0, -1] = 1.1
    assert best_of_n_share(a, b) == Estimate(math.inf, None, None, 3, "seeds")


def test_the_share_of_few_seeds_resamples_the_problems():
    random = np.random.default_rng(2)
    a, b = (1 - (1 - random.beta(*shape, size=(40, 1))) ** np.arange(1, 9) for shape in ((2, 3), (1, 3)))
    found = best_of_n_share([a, a], [b, b])
    assert found == best_of_n_share([a], [b]) and found.over == "problems"
    assert found.low < found.value < found.high
    hopeless = best_of_n_share([b], [a])
    assert hopeless.value == hopeless.high == math.inf


def test_the_temperature_that_matches_an_accuracy():
    curve = [(1.0, 0.4), (0.6, 0.7), (0.8, 0.6)]
    assert matching_temperature(curve, 0.5) == pytest.approx(0.9)
    assert matching_temperature(curve, 0.7) == pytest.approx(0.6)
    assert matching_temperature([(0.2, 0.4), (0.6, 0.6), (1.0, 0.4)], 0.5) == pytest.approx(0.8)  # the highest counts
    with pytest.raises(ValueError, match=r"from 0\.6 to 1 gives 0\.9: .* reaches 0\.4 to 0\.7\. .* lower temperatures"):
        matching_temperature(curve, 0.9)
    with pytest.raises(ValueError, match="higher temperatures"):
        matching_temperature(curve, 0.1)
