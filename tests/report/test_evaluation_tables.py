import pytest

from invented_results import make_ledger, make_result, make_tokens, reward_graded
from manypaths.report.evaluation_comparison import AVERAGE, compare, matched
from manypaths.report.evaluation_summary import Entry, averages, gather
from manypaths.report.evaluation_tables import (
    all_scores,
    benchmark_table,
    curve_table,
    difference_table,
    diversity_table,
    ledger_table,
    left_out_notes,
    matched_table,
    other_tables,
    p_value_table,
)


@pytest.fixture(scope="module")
def found():
    results = [make_result("ce", size=60), make_result("gem", size=60, skill=1.5), make_result("sed", size=60)]
    return gather(results)


@pytest.fixture(scope="module")
def compared(found):
    return compare(found)


def cells(table, label):
    (row,) = [row for row in table.rows if row.label == label]
    return dict(zip([heading for heading, _ in table.columns], row.cells, strict=True))


def test_headline_in_percent_with_half_its_interval(found, compared):
    table = benchmark_table(found, averages(found), compared[0])
    score = found.get(Entry("gem", 0.7), "aime24")["scores"]["avg@8"]
    cell = cells(table, "gem")["AIME 2024"]
    assert cell.value == f"{100 * score['value']:.1f}"
    assert cell.spread == f"\u00b1 {50 * (score['high'] - score['low']):.1f}"
    assert [heading for heading, _ in table.columns] == ["AIME 2024", "AMC 2023", "Avg."]
    assert table.columns[0][1] == "avg@8: % right, mean over 8 samples"
    assert [row.kind for row in table.rows] == ["baseline", "method", "method"]


def test_marks_and_bold_are_backed_by_corrected_tests(found, compared):
    made, _ = compared
    table = benchmark_table(found, averages(found), made)
    assert "over all 6 comparisons of this table with the ce row" in table.note
    for name, heading in (("aime24", "AIME 2024"), ("amc23", "AMC 2023"), (AVERAGE, "Avg.")):
        for label in ("gem", "sed"):
            marked = "*" in cells(table, label)[heading].mark
            assert marked == (made[Entry(label, 0.7), name].adjusted < 0.05)
        assert cells(table, "gem")[heading].mark == "*" and cells(table, "gem")[heading].strong
        assert not cells(table, "sed")[heading].strong and not cells(table, "ce")[heading].strong


def test_the_highest_is_not_bold_when_it_may_be_chance():
    found = gather([make_result("ce", size=30), make_result("gem", size=30, skill=0.1)])
    made, _ = compare(found)
    table = benchmark_table(found, averages(found), made)
    assert not any(one.distinguishable for one in made.values())
    assert not any(cell.strong or cell.mark for row in table.rows for cell in row.cells)


def test_the_first_row_is_bold_only_when_all_others_fall_behind():
    low = {"size": 60, "skill": -2.0}
    results = [make_result("ce", size=60), make_result("gem", **low), make_result("sed", **low)]
    found = gather(results)
    table = benchmark_table(found, averages(found), compare(found)[0])
    assert cells(table, "ce")["AMC 2023"].strong
    found = gather([*results[:2], make_result("sed", size=60, skill=-0.02)])
    table = benchmark_table(found, averages(found), compare(found)[0])
    assert not cells(table, "ce")["AMC 2023"].strong


def test_rewards_of_one_s_own_have_a_column_but_no_part_in_the_average():
    three = ("aime24", "amc23", "mine")
    results = [reward_graded(make_result(label, benchmarks=three, size=20), "mine") for label in ("ce", "gem")]
    found = gather(results)
    made, left_out = compare(found)
    table = benchmark_table(found, averages(found), made)
    assert [heading for heading, _ in table.columns] == ["AIME 2024", "AMC 2023", "mine", "Avg."]
    assert table.columns[-1][1] == "plain mean of 2 benchmarks: aime24, amc23"
    assert "Avg. is over what every row has and gold answers grade: aime24, amc23." in table.note
    own = [found.get(Entry("ce", 0.7), name)["scores"]["avg@8"]["value"] for name in three[:2]]
    assert cells(table, "ce")["Avg."].value == f"{50 * sum(own):.1f}"
    parts = [made[Entry("gem", 0.7), name].difference.value for name in three[:2]]
    assert made[Entry("gem", 0.7), AVERAGE].difference.value == pytest.approx(sum(parts) / 2) and left_out == []
    assert curve_table(found).note == "Mean over AIME 2024, AMC 2023."
    alone = gather([reward_graded(make_result("ce", benchmarks=("mine",), size=20), "mine")])
    assert curve_table(alone).note == "On mine."
    assert [heading for heading, _ in benchmark_table(alone, averages(alone), {}).columns] == ["mine"]
    mixed = gather([*results, reward_graded(make_result("own", benchmarks=("mine",), size=20), "mine")])
    assert cells(benchmark_table(mixed, averages(mixed), {}), "own")["Avg."].value == ""


def test_untrusted_numbers_carry_a_dagger():
    found = gather([make_result("ce", size=10, truncated=0.06)])
    table = benchmark_table(found, averages(found), {})
    assert cells(table, "ce")["AIME 2024"].mark == "\u2020" and "more than 5%" in table.note
    assert cells(table, "ce")["Avg."].mark == "\u2020"


def test_differences_name_what_was_left_out(found, compared):
    table = difference_table(found, *compared)
    one = compared[0][Entry("gem", 0.7), "amc23"].difference
    assert cells(table, "gem")["AMC 2023"].value == f"{100 * one.value:+.1f}"
    assert "after Holm's correction over 6 comparisons" in table.note and table.title == "Differences to ce"
    alone = make_result("sed", benchmarks=("aime24", "amc23", "gsm8k"), size=60)
    other = gather([make_result("ce", size=60), alone])
    assert (
        "Left out: sed, GSM8K: only one of the two was evaluated on it."
        in difference_table(other, *compare(other)).note
    )


def test_p_values_raw_and_corrected(found, compared):
    one = compared[0][Entry("sed", 0.7), "amc23"]
    cell = cells(p_value_table(found, compared[0]), "sed")["AMC 2023"]
    assert cell.value == f"{one.p_value:.2f}" and cell.spread == f"\u2192 {one.adjusted:.2f}"
    assert p_value_table(found, {}) is None


def test_diversity_is_averaged_over_benchmarks(found):
    table = diversity_table(found, found.graded, "Diversity")
    scores = [found.get(Entry("ce", 0.7), name)["scores"]["self_bleu"]["value"] for name in found.graded]
    assert cells(table, "ce")["Self-BLEU"].value == f"{sum(scores) / 2:.1f}"
    assert "Mean over AIME 2024, AMC 2023." in table.note
    assert diversity_table(found, [], "none") is None


def test_a_score_that_some_benchmarks_lack_says_so():
    result = make_result("ce", size=8)
    del result["evaluations"][0]["scores"]["distinct_n"]
    table = diversity_table(gather([result]), ["aime24", "amc23"], "Diversity")
    assert "distinct-n only over AMC 2023." in table.note


def test_many_samples(found):
    table = curve_table(found)
    assert [heading for heading, _ in table.columns][:4] == ["pass@1", "pass@2", "pass@4", "pass@8"]
    values = [found.get(Entry("ce", 0.7), name)["scores"]["pass@8"]["value"] for name in found.graded]
    assert cells(table, "ce")["pass@8"].value == f"{50 * sum(values):.1f}"
    result = make_result("ce", size=8, best_of=True)
    values = [one["scores"]["weighted_maj@4"]["value"] for one in result["evaluations"]]
    assert cells(curve_table(gather([result])), "ce")["weighted-maj@4"].value == f"{50 * sum(values):.1f}"


def test_matched_differences_name_range_and_reason():
    results = [
        make_result(label, temperatures=(0.6, 1.0), size=30, diversity=more) for label, more in (("ce", 0), ("gem", 9))
    ]
    found = gather(results)
    made, _ = matched(found)
    table = matched_table(found, made)
    assert "text diversity at equal accuracy" in cells(table, "gem")
    assert cells(table, "gem")["text diversity at equal accuracy"].strong
    assert "gem: accuracy " in table.note and "Over AIME 2024, AMC 2023." in table.note
    far = gather([results[0], make_result("gem", temperatures=(0.6, 1.0), size=30, skill=6)])
    table = matched_table(far, matched(far)[0])
    assert cells(table, "gem")["text diversity at equal accuracy"].value == "not comparable"
    assert "gem: the models have no accuracy in common" in table.note
    assert matched_table(found, {}) is None


def test_the_ledger_shows_base_and_tuned():
    found = gather([make_result("ce", size=4, ledger=make_ledger()), make_result("gem", size=4)])
    assert cells(ledger_table(found), "ce")["base perplexity"].value == "8.10"


def test_tokens_only():
    found = gather([{"schema": 2, "label": "ce", "tokens": make_tokens()}])
    (table,) = other_tables(found)
    assert cells(table, "ce")["top-1"].value == "60.0" and benchmark_table(found, {}, {}) is None


def test_all_scores_has_a_table_for_every_benchmark(found):
    tables = all_scores(found)
    assert [table.title for table in tables] == ["AIME 2024", "AMC 2023"]
    assert set(cells(tables[0], "ce")) >= {"avg@8", "pass@8", "maj@4", "Self-BLEU", "length"}


def test_nothing_comparable_has_no_table_of_differences():
    results = [make_result("ce", size=6), make_result("gem", size=6)]
    for one in results[1]["evaluations"]:
        one["prompt_hash"] = "0000000000"
    found = gather(results)
    made, left_out = compare(found)
    assert made == {} and difference_table(found, made, left_out) is None and p_value_table(found, made) is None
    assert left_out_notes(found, left_out)[0] == (
        "Left out: gem, AIME 2024: other prompts (hash 00000000 against 5d1f0006)."
    )


def test_one_comparison_is_no_several():
    found = gather([make_result(label, benchmarks=("amc23",), size=6) for label in ("ce", "gem")])
    made, left_out = compare(found)
    assert "over 1 comparison." in difference_table(found, made, left_out).note
    assert "over 1 comparison." in p_value_table(found, made).note


def test_an_average_over_different_rules_says_so():
    results = [make_result("ce", size=6), make_result("gem", size=6)]
    found = gather(results)
    assert "mixes" not in benchmark_table(found, averages(found), {}).note
    results[1]["evaluations"][0]["grader"]["mode"] = "strict"
    found = gather(results)
    note = benchmark_table(found, averages(found), {}).note
    assert "Avg. of gem mixes grading rules: mode strict, version 1; mode lenient, version 1." in note
