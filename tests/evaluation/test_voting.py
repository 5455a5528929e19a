import math
import random
from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manypaths.evaluation.metrics import pass_at_k
from manypaths.evaluation.voting import (
    Vote,
    answer_classes,
    answer_classes_of_all,
    maj_at_k,
)


def test_equal_keys_are_one_class_in_order_of_appearance():
    assert answer_classes(["4", None, "7", "4", None, "1"]) == [0, None, 1, 0, None, 2]
    assert answer_classes([None, None]) == [None, None]
    assert answer_classes([]) == []


def test_different_keys_are_merged_by_pairs_and_chained():
    """1.00 ~ 1.04 and 1.04 ~ 1.08 within 0.05, but not 1.00 ~ 1.08: still one class."""
    calls = []

    def near(pairs):
        calls.append(pairs)
        return [abs(float(a) - float(b)) < 0.05 for a, b in pairs]

    assert answer_classes(["1.08", "3", None, "1.00", "1.04", "3", "2"], near) == [0, 1, None, 0, 0, 1, 2]
    assert len(calls) == 1
    assert len(calls[0]) == math.comb(5, 2) == len({frozenset(pair) for pair in calls[0]})


def test_classes_do_not_depend_on_the_order_of_samples():
    def near(pairs):
        return [abs(int(a) - int(b)) == 1 for a, b in pairs]

    draw = random.Random(0)
    keys = [str(draw.randint(0, 20)) for _ in range(12)]
    parts = set()
    for _ in range(20):
        draw.shuffle(keys)
        classes = answer_classes(keys, near)
        groups = {frozenset(k for k, c in zip(keys, classes, strict=True) if c == own) for own in classes}
        parts.add(frozenset(groups))
    assert len(parts) == 1


def test_all_problems_are_compared_in_one_call_and_each_pair_once():
    calls = []

    def by_value(pairs):
        calls.append(pairs)
        return [float(a) == float(b) for a, b in pairs]

    keys = [["1", "1.0", "2"], ["1.0", None, "1"], ["5", "5"]]
    assert answer_classes_of_all(keys, by_value) == [[0, 0, 1], [0, None, 0], [0, 0]]
    assert len(calls) == 1 and len(calls[0]) == 3
    assert answer_classes_of_all([["5"], []], by_value) == [[0], []]
    assert len(calls) == 1  # nothing to compare


def test_pairs_equal_in_one_problem_chain_only_there():
    def same(pairs):
        return [set(pair) in ({"a", "b"}, {"b", "c"}) for pair in pairs]

    assert answer_classes_of_all([["a", "b", "c"], ["a", "c"]], same) == [[0, 0, 0], [0, 1]]


def brute_maj_at_k(classes, grades, k, weights):
    credit = {
        own: sum(g for c, g in zip(classes, grades, strict=True) if c == own) / classes.count(own)
        for own in set(classes)
    }
    values = []
    for subset in combinations(range(len(classes)), k):
        totals = {}
        for i in subset:
            if classes[i] is not None:
                totals[classes[i]] = totals.get(classes[i], 0) + weights[i]
        winners = [own for own, total in totals.items() if total == max(totals.values())]
        values.append(sum(credit[own] for own in winners) / max(len(winners), 1))
    return sum(values) / len(values)


# Whole logarithms to base 2: sums of weights are exact, so that ties are real; grades differ within a class on purpose.
SAMPLES = st.lists(
    st.tuples(st.sampled_from([None, 0, 1, 2]), st.sampled_from([0.0, 0.5, 1.0]), st.integers(-1, 2)),
    min_size=1, max_size=8,
)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(SAMPLES, st.floats(-900, 900))
def test_maj_at_k_equals_the_mean_over_all_subsets_whatever_is_added_to_log_weights(samples, shift):
    classes, grades, logs = map(list, zip(*samples, strict=True))
    log_weights = [own * math.log(2.0) + shift for own in logs]
    for k in range(1, len(classes) + 1):
        plain = brute_maj_at_k(classes, grades, k, [1] * len(classes))
        assert maj_at_k(classes, grades, k) == Vote(pytest.approx(plain, abs=1e-12), True)
        weighted = brute_maj_at_k(classes, grades, k, [2.0**own for own in logs])
        found = maj_at_k(classes, grades, k, log_weights=log_weights)
        assert found == Vote(pytest.approx(weighted, abs=1e-12), True)


def test_one_vote_is_the_mean_grade_and_all_of_them_one_election():
    classes, grades = [0, 1, 1, None, 2, 1], [0, 1, 1, 0, 0, 1]
    assert maj_at_k(classes, grades, 1).value == pytest.approx(0.5)
    assert maj_at_k(classes, grades, 6).value == 1.0
    assert maj_at_k([0, 0], [1, 1], 2).value == pytest.approx(pass_at_k(2, 2, 2))


def test_ties_are_fair():
    assert maj_at_k([0, 1], [0, 1], 2).value == 0.5
    # of three tied answers with credits 1, 0, 0 the mean, in any order
    assert maj_at_k([5, 3, 4], [0, 1, 0], 3).value == pytest.approx(1 / 3)


def test_a_heavy_sample_elsewhere_makes_no_tie():
    """Six pairs of four answers; the second wins the two pairs without the first, however far apart the scores are."""
    scores = [100.0, 60.0, 20.0, 10.0]
    assert maj_at_k([0, 1, 2, 3], [0, 1, 0, 0], 2, log_weights=scores).value == pytest.approx(1 / 3)
    assert maj_at_k([0, 1, 2], [0, 1, 0], 2, log_weights=[1e5, -1e5, -2e5]).value == pytest.approx(1 / 3)
    assert maj_at_k([None, 1, 2], [0, 1, 0], 3, log_weights=[5000.0, 2.0, 1.0]).value == 1.0


def test_samples_without_an_answer_never_win_yet_count():
    assert maj_at_k([None, None, None, 0], [0, 0, 0, 1], 4).value == 1.0
    assert maj_at_k([None, None, None, 0], [0, 0, 0, 1], 1).value == 0.25
    assert maj_at_k([None, None], [1, 1], 2) == Vote(0.0, True)


def test_many_subsets_are_drawn_near_the_exact_value_and_always_the_same():
    draw = random.Random(1)
    classes = [draw.choice([0, 0, 1, 2, None]) for _ in range(14)]
    grades = [float(c == 0) for c in classes]
    exact = maj_at_k(classes, grades, 5, subsets=math.comb(14, 5))
    drawn = maj_at_k(classes, grades, 5, subsets=1500)
    assert exact.exact and not drawn.exact
    assert exact.value == pytest.approx(brute_maj_at_k(classes, grades, 5, [1] * 14))
    assert drawn.value == pytest.approx(exact.value, abs=0.04)
    assert drawn.value != exact.value
    assert maj_at_k(classes, grades, 5, subsets=1500) == drawn


def test_the_switch_from_all_subsets_to_random_ones():
    assert maj_at_k([0] * 10, [1] * 10, 3, subsets=120) == Vote(1.0, True)
    assert maj_at_k([0] * 10, [1] * 10, 3, subsets=119) == Vote(1.0, False)
    assert maj_at_k([0] * 64, [1] * 64, 32) == Vote(1.0, False)


def test_more_samples_than_there_are_cannot_vote():
    with pytest.raises(ValueError, match=r"k is 3; .* draw more samples"):
        maj_at_k([0, 1], [1, 0], 3)
