import copy

import pytest

from invented_results import make_grader, make_result, reward_graded
from manypaths.evaluation import results as stored
from manypaths.evaluation.intervals import mean_of_intervals, share_interval
from manypaths.report.evaluation_summary import (
    Entry,
    averages,
    drawn_entries,
    gather,
    headline,
    mixed_rules,
    rates,
    untrusted,
)
from manypaths.report.evaluation_tables import benchmark_table, curve_table


@pytest.fixture(scope="module")
def two():
    return [make_result(label, temperatures=(0.6, 1.0), size=12) for label in ("ce", "gem")]


def test_rows_stand_by_temperature_then_by_model(two):
    found = gather(two)
    assert found.entries == [Entry("ce", 0.6), Entry("gem", 0.6), Entry("ce", 1.0), Entry("gem", 1.0)]
    assert [found.name(entry) for entry in found.entries] == ["ce, T=0.6", "gem, T=0.6", "ce, T=1", "gem, T=1"]
    assert found.baseline(Entry("gem", 1.0)) == Entry("ce", 1.0) and found.baseline(Entry("ce", 1.0)) is None


def test_a_single_model_is_compared_with_its_first_temperature(two):
    found = gather(two[:1])
    assert found.baseline(Entry("ce", 1.0)) == Entry("ce", 0.6) and found.baseline(Entry("ce", 0.6)) is None


def test_default_temperatures_are_one_row_without_a_suffix():
    found = gather([make_result("ce", temperatures=(None,), size=5)])
    assert [found.name(entry) for entry in found.entries] == ["ce"]


def test_benchmarks_come_in_canonical_order_then_others():
    names = ("mine", "math500", "college_math", "aime24")
    found = gather([make_result("ce", benchmarks=names, size=5, open_ended=("poem",))])
    assert found.graded == ["aime24", "math500", "college_math", "mine"] and found.open_ended == ["poem"]


def test_the_average_is_over_what_all_rows_have():
    results = [make_result("ce", benchmarks=("aime24", "amc23", "gsm8k"), size=10), make_result("gem", size=10)]
    found = gather(results)
    means = averages(found)
    assert found.shared == ["aime24", "amc23"]
    for label in ("ce", "gem"):
        entry = Entry(label, 0.7)
        assert means[entry] == mean_of_intervals(headline(found.get(entry, name)) for name in found.shared)


def test_the_average_is_the_stored_one_and_that_of_single_samples():
    """Even where nobody solves a benchmark."""
    result = make_result("ce", benchmarks=("aime24", "amc23", "math500"), size=10)
    result["evaluations"][0]["per_problem"]["accuracy"] = [0.0] * 10
    for one in result["evaluations"]:
        shares = stored.as_score(share_interval(one["per_problem"]["accuracy"]))
        one["scores"] |= {"avg@8": shares, "pass@1": shares}
    result["macro"] = stored.macro(result["evaluations"])
    found = gather([result])
    (mean,) = averages(found).values()
    (own,) = result["macro"]
    assert {name: own[name] for name in ("value", "low", "high", "n")} == stored.as_score(mean)
    assert mean.low < mean.value < mean.high and mean.n == 3
    table, curves = benchmark_table(found, averages(found), {}), curve_table(found)
    assert table.columns[-1][0] == "Avg." and curves.columns[0][0] == "pass@1"
    assert table.rows[0].cells[-1] == curves.rows[0].cells[0]
    old = make_result("ce", size=10)
    old["macro"][0].update(value=0.9, low=0.8, high=1.0)
    found = gather([old])
    assert averages(found)[Entry("ce", 0.7)] == mean_of_intervals(
        headline(found.get(Entry("ce", 0.7), name)) for name in found.shared
    )


def test_one_benchmark_has_no_average():
    assert averages(gather([make_result("ce", benchmarks=("aime24",), size=5)])) == {}


def test_rewards_of_one_s_own_are_graded_but_not_averaged():
    three = ("aime24", "amc23", "mine")
    results = [reward_graded(make_result(label, benchmarks=three, size=10), "mine") for label in ("ce", "gem")]
    only = reward_graded(make_result("own", benchmarks=("mine",), size=10), "mine")
    found = gather([*results, only])
    assert found.graded == [*three] and found.rewarded == ["mine"] and found.shared == ["aime24", "amc23"]
    means = averages(found)
    assert set(means) == {Entry("ce", 0.7), Entry("gem", 0.7)}
    scores = [found.get(Entry("ce", 0.7), name)["scores"]["avg@8"]["value"] for name in found.shared]
    assert means[Entry("ce", 0.7)].value == pytest.approx(sum(scores) / 2)
    assert averages(gather([reward_graded(make_result("ce", size=10), "amc23")])) == {}
    assert found.alike(["mine", "aime24"]) == ["aime24"] and found.alike(["mine"]) == ["mine"]


def test_pictures_show_all_temperatures_of_one_model_or_all_models_at_a_shared_one(two):
    assert drawn_entries(gather(two[:1])) == [Entry("ce", 0.6), Entry("ce", 1.0)]
    late = make_result("gem", temperatures=(1.0, 1.2), size=12)
    assert drawn_entries(gather([two[0], late])) == [Entry("ce", 1.0), Entry("gem", 1.0)]
    other = make_result("gem", temperatures=(1.2, 1.4), size=12)
    assert drawn_entries(gather([two[0], other])) == [Entry("ce", 0.6), Entry("gem", 1.2)]


def test_shares_above_five_percent_are_untrusted():
    result = make_result("ce", size=10, truncated=0.05)
    evaluation = result["evaluations"][1]
    evaluation["truncated"] = 0.051
    evaluation["grader"] = make_grader(10, 80, unparsed=0.1, timeout=0.075)
    entry = Entry("ce", 0.7)
    assert rates(evaluation) == {"truncated": 0.051, "timeout": 0.075, "unparsed": 0.1}
    assert untrusted(gather([result])) == {
        "truncated": [(entry, "amc23", 0.051)],
        "timeout": [(entry, "amc23", 0.075)],
        "unparsed": [(entry, "amc23", 0.1)],
    }


def broken(change):
    result = copy.deepcopy(make_result("ce", size=4))
    change(result)
    return [result]


@pytest.mark.parametrize(
    ("results", "message"),
    [
        ([], "There are no results to report"),
        ([3], "Result 1 is no dictionary"),
        ([{"world": "recall", "runs": [{}]}], "Result 1 holds training runs"),
        (broken(lambda one: one.update(schema=1)), "has schema 1, this version reads 2: run `manypaths eval` again"),
        (broken(lambda one: one.update(schema=3)), "has schema 3, this version reads 2: update manypaths"),
        (broken(lambda one: one.pop("label")), "Result 1 has no label"),
        (broken(lambda one: one.update(evaluations=[])), "holds no scores"),
        (broken(lambda one: one["evaluations"][1].pop("prompt_hash")), "evaluation 2 lacks prompt_hash"),
        (broken(lambda one: one["evaluations"][0]["scores"].pop("avg@8")), "evaluation 1 lacks scores.avg@8"),
        (broken(lambda one: one["evaluations"].append(one["evaluations"][0])), "two evaluations of aime24 at T=0.7"),
        (broken(lambda one: None) * 2, "Two results have the label 'ce'.*--regrade FOLDER --label NAME"),
    ],
)
def test_what_cannot_be_reported(results, message):
    with pytest.raises(ValueError, match=message):
        gather(results)


@pytest.mark.parametrize(
    "counts", [{"correct": 3, "wrong": 5}, {"correct": 3, "wrong": 5, "unparsed": 0, "timeout": 0}]
)
def test_a_reward_measures_neither_time_nor_readability(counts):
    evaluation = make_result("ce", size=1)["evaluations"][0]
    evaluation["grader"] = {"reward": "mine:score", "correct_at": 1.0, "counts": counts}
    assert rates(evaluation) == {"truncated": 0.01}
    evaluation["grader"] = {"mode": "lenient", "version": "1", "counts": {"correct": 3, "wrong": 5}}
    assert rates(evaluation) == {"truncated": 0.01}
    evaluation["grader"]["counts"] |= {"timeout": 8}
    assert rates(evaluation) == {"truncated": 0.01, "timeout": 0.5}


def test_rules_of_a_row_are_mixed_when_golds_were_graded_differently():
    result = reward_graded(make_result("ce", benchmarks=("aime24", "amc23", "mine"), size=4), "mine")
    entry = Entry("ce", 0.7)
    assert mixed_rules(gather([result]), entry) == {}
    result["evaluations"][1]["grader"]["version"] = "2"
    assert mixed_rules(gather([result]), entry) == {
        "mode lenient, version 1": ["aime24"], "mode lenient, version 2": ["amc23"]
    }  # fmt: skip


def test_a_row_of_texts_made_elsewhere_has_no_default_temperature():
    made, drawn = make_result("made", temperatures=(None,), size=4), make_result("drawn", temperatures=(0.6,), size=4)
    for one, name in zip(made["evaluations"], ("T partly not known", "T not known"), strict=True):
        one["temperature"] = None
        found = gather([made, drawn])
        assert found.name(Entry("made", None)) == f"made, {name}"
    for heats, name in (((0.7, 0.7), "T=0.7"), ((0.7, 1.0), "T by benchmark")):
        for one, heat in zip(made["evaluations"], heats, strict=True):
            one |= {"temperature": heat, "sampling": {"backend": "recorded", "temperature": heat}}
        found = gather([made, drawn])
        assert found.name(Entry("made", None)) == f"made, {name}"
