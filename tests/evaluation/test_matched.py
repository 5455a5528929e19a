import numpy as np
import pytest

from manypaths.evaluation.matched import Curve, matched_difference

HEAT = [0.6, 0.8, 1.0, 1.2]


def curve(temperatures, accuracy, diversity, problems=40, noise=0.0, seed=0):
    """Every problem has the given means, plus a shift of its own that averages to zero."""
    random = np.random.default_rng(seed)
    shift = random.normal(0, noise, problems) if noise else np.zeros(problems)
    shift -= shift.mean()

    def rows(means, size):
        return {"set": [[mean + size * one for one in shift] for mean in means]}

    return Curve(temperatures, {"accuracy": rows(accuracy, 1), "diversity": rows(diversity, 3)})


def test_a_model_that_only_runs_hotter_is_not_more_diverse():
    """The same curve, shifted in temperature: large differences at one temperature, none at matched accuracy."""
    one = curve(HEAT, [0.7, 0.6, 0.5, 0.4], [10, 20, 30, 40])
    hotter = curve([0.4, 0.6, 0.8, 1.0], [0.7, 0.6, 0.5, 0.4], [10, 20, 30, 40])
    found = matched_difference(hotter, one)
    assert found.difference.value == pytest.approx(0, abs=1e-9)
    assert np.subtract(found.temperatures_b, found.temperatures_a) == pytest.approx([0.2] * len(found.values))


def test_difference_at_matched_accuracy_by_hand():
    """b has diversity 60 - 50 a; a has 5 more everywhere, on other temperatures and a shorter range."""
    a = curve([0.5, 1.0], [0.65, 0.45], [5 + 60 - 50 * 0.65, 5 + 60 - 50 * 0.45])
    b = curve(HEAT, [0.7, 0.6, 0.5, 0.4], [25, 30, 35, 40])
    found = matched_difference(a, b)
    assert found.difference.value == pytest.approx(5) and found.differences == pytest.approx([5] * 9)
    assert min(found.values) > 0.45 and max(found.values) < 0.65
    assert found.temperatures_b[0] > found.temperatures_b[-1]  # higher accuracy, cooler
    back = matched_difference(b, a)
    assert back.difference.value == pytest.approx(-5)


def test_the_hottest_crossing_counts():
    """Accuracy rises, then falls through 0.5 again: the second passage counts, where diversity is higher."""
    bent = curve([0.2, 0.6, 1.0], [0.4, 0.6, 0.4], [0, 10, 20])
    other = curve([0.2, 1.0], [0.51, 0.49], [0, 0])
    found = matched_difference(bent, other)
    assert found.differences == pytest.approx([10 + 10 * (0.6 - value) / 0.2 for value in found.values])
    flat = curve([0.2, 1.0], [0.5, 0.5], [3, 7])
    assert matched_difference(flat, other).difference.value == pytest.approx(7)


def test_benchmarks_weigh_the_same_whatever_their_size():
    def two(level):
        scores = {"accuracy": {}, "diversity": {}}
        for group, size, diversity in (("small", 2, 10.0), ("large", 50, 0.0)):
            scores["accuracy"][group] = [[0.6] * size, [0.4] * size]
            scores["diversity"][group] = [[level * diversity] * size] * 2
        return Curve([0.6, 1.0], scores)

    found = matched_difference(two(1.0), two(0.0))
    assert found.difference.value == pytest.approx(5) and found.difference.n == 52


def test_no_common_range_has_a_reason():
    found = matched_difference(
        curve(HEAT, [0.9, 0.8, 0.75, 0.7], [1, 2, 3, 4]), curve(HEAT, [0.5, 0.4, 0.3, 0.2], [1, 2, 3, 4])
    )
    assert found.difference is None and found.values == []
    assert found.reason == "the models have no accuracy in common (0.7 to 0.9 against 0.2 to 0.5)"


def test_one_temperature_is_not_a_curve():
    found = matched_difference(curve([0.6], [0.9], [1]), curve(HEAT, [0.5, 0.4, 0.3, 0.2], [1, 2, 3, 4]))
    assert found.difference is None and "at least two temperatures" in found.reason


def test_ranges_that_hardly_overlap_get_no_interval():
    """The single models' accuracies vary with the problems drawn, independently, so many resamples share nothing."""
    a = curve([0.6, 1.0], [0.51, 0.40], [1, 2], problems=30, noise=0.3, seed=1)
    b = curve([0.6, 1.0], [0.60, 0.50], [1, 2], problems=30, noise=0.3, seed=2)
    found = matched_difference(a, b, resamples=300)
    assert found.difference.low is None and "resampled problem sets" in found.reason


def test_the_interval_covers_the_truth_and_is_reproducible():
    """Both models drawn from populations whose true difference at matched accuracy is 2."""
    hits, trials = 0, 60
    for trial in range(trials):
        random = np.random.default_rng(trial)
        ease = random.normal(0, 0.15, (1, 80))

        def model(extra, random=random, ease=ease):
            accuracy = np.array([[0.7], [0.6], [0.5], [0.4]]) + ease + random.normal(0, 0.05, (4, 80))
            diversity = np.array([[10.0], [20], [30], [40]]) + extra + random.normal(0, 6, (4, 80))
            return Curve(HEAT, {"accuracy": {"x": accuracy.tolist()}, "diversity": {"x": diversity.tolist()}})

        a, b = model(2.0), model(0.0)
        found = matched_difference(a, b, resamples=300)
        hits += found.difference.low <= 2.0 <= found.difference.high
    assert hits >= 0.85 * trials and hits < trials
    assert matched_difference(a, b, resamples=300) == found
    assert matched_difference(a, b, resamples=300, seed=1).difference.low != found.difference.low


def test_undefined_values_are_left_out_of_their_mean_only():
    a, b = curve(HEAT, [0.7, 0.6, 0.5, 0.4], [11, 21, 31, 41]), curve(HEAT, [0.7, 0.6, 0.5, 0.4], [10, 20, 30, 40])
    for row in a.scores["diversity"]["set"]:
        row[0] = None
    assert matched_difference(a, b, resamples=50).difference.value == pytest.approx(1)
    a.scores["diversity"]["set"][2][:] = [None] * 40
    found = matched_difference(a, b, resamples=50)
    assert found.difference is None and "undefined for every problem" in found.reason


def test_bad_curves_are_errors():
    good = curve(HEAT, [0.7, 0.6, 0.5, 0.4], [1, 2, 3, 4])
    with pytest.raises(ValueError, match="no score 'entropy'; it has accuracy, diversity"):
        matched_difference(good, good, match="entropy")
    with pytest.raises(ValueError, match=r"Temperatures must rise, got 1\.0, 0\.6"):
        matched_difference(curve([1.0, 0.6], [0.5, 0.4], [1, 2]), good)
    with pytest.raises(ValueError, match="the same benchmarks with the same problems"):
        matched_difference(curve(HEAT, [0.7, 0.6, 0.5, 0.4], [1, 2, 3, 4], problems=39), good)
    with pytest.raises(ValueError, match="one row of equal length"):
        matched_difference(Curve([0.6, 1.0], good.scores), good)
