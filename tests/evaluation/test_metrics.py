import math
import random
from itertools import combinations

import pytest

from manypaths.evaluation.metrics import pass_at_k, pass_at_k_curve, samples_to_match


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
