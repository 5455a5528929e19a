import pytest
from hypothesis import given
from hypothesis import strategies as st

from invented_results import make_result, reward_graded
from manypaths.evaluation.intervals import macro_paired_test, paired_test
from manypaths.report.evaluation_comparison import AVERAGE, compare, curve_benchmarks, holm, incomparable, matched
from manypaths.report.evaluation_summary import Entry, gather

GEM = Entry("gem", 0.7)


@pytest.fixture
def pair():
    return [make_result("ce", size=25), make_result("gem", size=25, skill=1.0)]


def accuracy(result, place):
    return result["evaluations"][place]["per_problem"]["accuracy"]


def test_every_benchmark_and_the_average_are_tested(pair):
    made, left_out = compare(gather(pair))
    assert set(made) == {(GEM, "aime24"), (GEM, "amc23"), (GEM, AVERAGE)} and left_out == []
    expected = paired_test(accuracy(pair[1], 1), accuracy(pair[0], 1))
    assert made[GEM, "amc23"].difference == expected.difference and made[GEM, "amc23"].p_value == expected.p_value
    groups = [dict(enumerate([accuracy(one, 0), accuracy(one, 1)])) for one in (pair[1], pair[0])]
    assert made[GEM, AVERAGE].difference == macro_paired_test(*groups).difference
    ordered = sorted(made.values(), key=lambda one: one.p_value)
    assert ordered[0].adjusted == pytest.approx(3 * ordered[0].p_value)


def test_problems_are_paired_by_id_not_by_place(pair):
    before = compare(gather(pair))[0][GEM, "amc23"]
    table = pair[1]["evaluations"][1]["per_problem"]
    for name in table:
        table[name] = table[name][::-1]
    after = compare(gather(pair))[0][GEM, "amc23"]
    assert after.difference.value == pytest.approx(before.difference.value)
    assert after.p_value == pytest.approx(before.p_value, abs=0.02)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"prompt_hash": "ffffffff00"}, "other prompts (hash 5d1f0005 against ffffffff)"),
        (
            {"grader": {"mode": "strict", "version": "1"}},
            "other grading rules (--regrade scores the stored samples again)",
        ),
        ({"metric": None}, "only one of the two was graded"),
    ],
)
def test_what_differs_is_left_out_with_its_reason(pair, change, reason):
    pair[0]["evaluations"][1].update(change)
    made, left_out = compare(gather(pair))
    assert set(made) == {(GEM, "aime24")}
    assert (GEM, "amc23", reason) in [(one.entry, one.benchmark, one.reason) for one in left_out]
    if change != {"metric": None}:  # else the average is over the other benchmark, that is, there is none
        assert [one.reason for one in left_out if one.benchmark == AVERAGE] == [
            "a benchmark in it could not be compared"
        ]


def test_other_problems_are_not_comparable(pair):
    small = make_result("gem", size=24)["evaluations"][0]
    assert incomparable(small, pair[0]["evaluations"][0]) == "other problems (24 against 25)"
    assert incomparable(None, small) == "only one of the two was evaluated on it"
    assert incomparable(small, small) is None


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]) == pytest.approx([1.0, 1.0]) and holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_lies_between_raw_and_bonferroni_and_keeps_the_order(p_values):
    adjusted = holm(p_values)
    for raw, own in zip(p_values, adjusted, strict=True):
        assert raw <= own <= min(1.0, len(p_values) * raw) + 1e-12
    order = sorted(range(len(p_values)), key=lambda index: p_values[index])
    assert [adjusted[index] for index in order] == sorted(adjusted)


def heated(label, temperatures=(0.6, 0.8, 1.0), **options):
    return make_result(label, temperatures=temperatures, size=40, **options)


def test_matched_comparison_tells_diversity_from_heat():
    """gem's texts differ by 10 more at every temperature; at equal accuracy that is what is left."""
    made, reasons = matched(gather([heated("ce"), heated("gem", diversity=10)]))
    by_kind = {(one.match, one.compare): one for one in made["gem"]}
    assert reasons == [] and set(by_kind) == {
        ("accuracy", "self_bleu_diversity"),
        ("accuracy", "distinct_answers"),
        ("entropy", "accuracy"),
        ("entropy", "self_bleu_diversity"),
    }
    found = by_kind["accuracy", "self_bleu_diversity"].difference
    assert found.low < 10 < found.high and found.n == 80


def test_matched_models_are_paired_by_problem():
    """The order of the problems in one file changes nothing, intervals included."""
    base, other = heated("ce"), heated("gem", diversity=10)
    before = matched(gather([base, other]))[0]["gem"]
    for evaluation in other["evaluations"]:
        evaluation["per_problem"] = {name: row[::-1] for name, row in evaluation["per_problem"].items()}
    after = matched(gather([base, other]))[0]["gem"]
    for one, two in zip(before, after, strict=True):
        assert one.difference.low == pytest.approx(two.difference.low)


def test_open_ended_prompts_are_matched_on_entropy():
    results = [
        make_result(label, benchmarks=(), open_ended=("poem",), temperatures=(0.6, 1.0), size=20, diversity=more)
        for label, more in (("ce", 0), ("gem", 5))
    ]
    made, _ = matched(gather(results))
    assert [(one.match, one.compare) for one in made["gem"]] == [("entropy", "self_bleu_diversity")]


def test_curves_average_over_what_is_graded_alike():
    three = ("aime24", "amc23", "mine")
    results = [reward_graded(heated(label, benchmarks=three, open_ended=("poem",)), "mine") for label in ("ce", "gem")]
    assert curve_benchmarks(gather(results)) == ["aime24", "amc23"]
    results[1]["evaluations"][0].update(metric=None)
    assert curve_benchmarks(gather(results)) == ["amc23"]
    alone = [
        reward_graded(heated(label, benchmarks=("mine",), open_ended=("poem",)), "mine") for label in ("ce", "gem")
    ]
    assert curve_benchmarks(gather(alone)) == ["mine"]


def test_what_cannot_be_matched_has_a_reason():
    base = heated("ce")
    one = heated("gem", temperatures=(0.6,))
    assert matched(gather([base, one])) == ({}, ["gem: fewer than two temperatures of one of the models"])
    other = heated("gem")
    other["evaluations"][2]["prompt_hash"] = "0000000000"
    assert matched(gather([base, other]))[1] == ["gem: aime24: other prompts (hash 00000000 against 5d1f0006)"]
    more = heated("gem")
    for evaluation in more["evaluations"]:
        evaluation["num_samples"] = 16
    assert matched(gather([base, more]))[1] == ["gem: aime24: 16 against 8 samples per problem"]


def test_a_temperature_that_the_first_model_lacks_is_a_reason():
    found = gather([make_result("ce", size=6), make_result("gem", temperatures=(1.0,), size=6)])
    made, left_out = compare(found)
    assert made == {}
    assert [(one.entry.label, one.benchmark, one.reason) for one in left_out] == [
        ("gem", name, "ce was only evaluated at T=0.7") for name in ("aime24", "amc23")
    ]


def test_what_neither_of_two_has_is_not_left_out(pair):
    third = make_result("sed", benchmarks=("aime24", "amc23", "gsm8k"), size=25)
    _, left_out = compare(gather([*pair, third]))
    assert [(one.entry.label, one.benchmark) for one in left_out] == [("sed", "gsm8k")]
