from statistics import fmean

import numpy as np
import pytest

from manypaths.evaluation import matched as subject
from manypaths.evaluation.matched import Curve, Matched

TEMPERATURES = [0.6, 0.8, 1.0, 1.2]


def matched_difference(a, b, match="pass@1", compare="diversity"):
    return subject.matched_difference(a, b, match=match, compare=compare)


def named(values):
    return {f"p{place}": value for place, value in enumerate(values)}


def curve(temperatures, accuracy, diversity, problems=40, noise=0.0, seed=0):
    """Every problem has the given means, plus a shift that averages to zero."""
    shift = np.random.default_rng(seed).normal(0, noise, problems) if noise else np.zeros(problems)
    shift -= shift.mean()

    def rows(means, size):
        return {"set": [named(mean + size * shift) for mean in means]}

    return Curve(temperatures, {"pass@1": rows(accuracy, 1), "diversity": rows(diversity, 3)})


@pytest.fixture
def straight():
    return curve(TEMPERATURES, [0.7, 0.6, 0.5, 0.4], [10, 20, 30, 40])


def test_a_model_that_is_only_flatter_is_not_more_diverse(straight):
    """The same curve, shifted in temperature: large differences at one temperature, none at matched accuracy."""
    flatter = curve([0.4, 0.6, 0.8, 1.0], [0.7, 0.6, 0.5, 0.4], [10, 20, 30, 40])
    assert matched_difference(flatter, straight).difference.value == pytest.approx(0, abs=1e-9)


def test_the_difference_at_matched_accuracy_by_hand():
    """b has diversity 60 - 50 a; a has 5 more everywhere, on other temperatures and a shorter range."""
    a = curve([0.5, 1.0], [0.65, 0.45], [5 + 60 - 50 * 0.65, 5 + 60 - 50 * 0.45])
    b = curve(TEMPERATURES, [0.7, 0.6, 0.5, 0.4], [25, 30, 35, 40])
    result = matched_difference(a, b)
    assert result.difference.value == pytest.approx(5)
    assert (result.difference.n, result.difference.over) == (40, "problems")
    assert matched_difference(b, a).difference.value == pytest.approx(-5)


def test_the_highest_temperature_of_several_counts():
    """Accuracy rises, then falls through 0.5 again: the second passage counts, where diversity is higher."""
    bent, other = curve([0.2, 0.6, 1.0], [0.4, 0.6, 0.4], [0, 10, 20]), curve([0.2, 1.0], [0.51, 0.49], [0, 0])
    assert matched_difference(bent, other).difference.value == pytest.approx(10 + 10 * (0.6 - 0.5) / 0.2)
    flat = curve([0.2, 1.0], [0.5, 0.5], [3, 7])
    assert matched_difference(flat, other).difference.value == pytest.approx(7)


def test_tasks_weigh_the_same_whatever_their_size():
    def two(level):
        scores = {"pass@1": {}, "diversity": {}}
        for task, size, diversity in (("small", 2, 10.0), ("large", 50, 0.0)):
            scores["pass@1"][task] = [named([0.6] * size), named([0.4] * size)]
            scores["diversity"][task] = [named([level * diversity] * size)] * 2
        return Curve([0.6, 1.0], scores)

    result = matched_difference(two(1.0), two(0.0))
    assert result.difference.value == pytest.approx(5) and result.difference.n == 52


def test_items_are_matched_by_name(straight):
    shuffled = Curve(
        TEMPERATURES,
        {name: {"set": [dict(reversed(row.items())) for row in rows["set"]]} for name, rows in straight.scores.items()},
    )
    assert matched_difference(shuffled, straight) == matched_difference(straight, straight)


def test_what_cannot_be_compared_has_a_reason(straight):
    apart = matched_difference(curve(TEMPERATURES, [0.9, 0.85, 0.8, 0.75], [1, 2, 3, 4]), straight)
    reason = "the models have no pass@1 in common (0.75 to 0.9 against 0.4 to 0.7)"
    assert apart == Matched("pass@1", "diversity", reason=reason)
    single = matched_difference(curve([0.6], [0.9], [1]), straight)
    assert single.difference is None and "at least two temperatures" in single.reason
    alone = matched_difference(*[curve([0.6, 1.0], [0.5, 0.4], [1, 2], problems=1)] * 2)
    assert alone.difference.low is None and "single problem" in alone.reason


def test_ranges_that_hardly_overlap_get_no_limits():
    """The models' accuracies vary with the problems drawn, each its own way, so many resamples share nothing."""
    a = curve([0.6, 1.0], [0.51, 0.40], [1, 2], problems=30, noise=0.3, seed=1)
    b = curve([0.6, 1.0], [0.60, 0.50], [1, 2], problems=30, noise=0.3, seed=2)
    result = matched_difference(a, b)
    assert result.difference.low is None and "resampled problem sets" in result.reason


def test_limits_hold_the_truth_and_are_reproducible(monkeypatch):
    """Both models drawn from populations whose true difference at matched accuracy is 2."""
    monkeypatch.setattr(subject, "RESAMPLES", 300)
    results = []
    for trial in range(60):
        random = np.random.default_rng(trial)
        ease = random.normal(0, 0.15, (1, 80))

        def model(extra, random=random, ease=ease):
            accuracy = np.array([[0.7], [0.6], [0.5], [0.4]]) + ease + random.normal(0, 0.05, (4, 80))
            diversity = np.array([[10.0], [20], [30], [40]]) + extra + random.normal(0, 6, (4, 80))
            return Curve(
                TEMPERATURES, {"pass@1": {"x": [*map(named, accuracy)]}, "diversity": {"x": [*map(named, diversity)]}}
            )

        a, b = model(2.0), model(0.0)
        results.append(matched_difference(a, b))
    assert 0.85 <= fmean(result.difference.low <= 2.0 <= result.difference.high for result in results) < 1.0
    assert matched_difference(a, b) == results[-1]


@pytest.mark.parametrize("missing", ["absent", "nan"])
def test_undefined_values_are_left_out_of_their_mean_only(straight, missing):
    a = curve(TEMPERATURES, [0.7, 0.6, 0.5, 0.4], [11, 21, 31, 41])
    for row in a.scores["diversity"]["set"]:
        row["p0"] = float("nan")
        if missing == "absent":
            del row["p0"]
    assert matched_difference(a, straight).difference.value == pytest.approx(1)
    a.scores["diversity"]["set"][2] = (
        {} if missing == "absent" else dict.fromkeys(straight.scores["pass@1"]["set"][0], float("nan"))
    )
    result = matched_difference(a, straight)
    assert result.difference is None and "undefined for every problem" in result.reason


def test_models_with_other_problems_are_not_compared(straight):
    with pytest.raises(ValueError, match="the same tasks with the same problems"):
        matched_difference(curve(TEMPERATURES, [0.7, 0.6, 0.5, 0.4], [1, 2, 3, 4], problems=39), straight)
