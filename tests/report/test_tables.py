from manypaths.report.summary import difference, estimate
from manypaths.report.tables import difference_table, facts, score_table, tables_of


def row_of(table, method):
    (row,) = [row for row in table.rows if row.key == method]
    return dict(zip([heading for heading, _ in table.columns], row.cells, strict=True))


def test_scores_show_value_spread_and_what_they_range_over(make_results):
    results = make_results()
    table = score_table(results, "sft")
    found = estimate(results, "sed", "sft", "pass@64")
    cell = row_of(table, "sed")["pass@64"]
    assert cell.value == f"{100 * found.value:.1f}"
    assert cell.spread == f"\u00b1 {100 * (found.high - found.low) / 2:.1f}"
    assert cell.mark == "" and row_of(table, "base")["pass@64"].mark == "\u2020"
    assert "over training seeds" in table.note and "\u2020 95 % intervals over the test prompts" in table.note
    assert [row.kind for row in table.rows][:3] == ["control", "control", "baseline"]


def test_one_kind_of_interval_needs_no_dagger(make_results):
    table = score_table(make_results(seeds=1), "rl")
    assert {cell.mark for row in table.rows for cell in row.cells} == {""}
    assert "test prompts" in table.note and "training seeds" not in table.note


def test_differences_are_bold_when_the_interval_leaves_out_zero(make_results):
    results = make_results()
    table = difference_table(results, "rl")
    for method in ("sed", "gem", "dft", "eksft"):
        for key in ("pass@1", "pass@64"):
            assert row_of(table, method)[key].strong == (difference(results, method, "rl", key).sign() != 0)
    assert "no correction for many comparisons" in table.note
    assert "ce" not in [row.key for row in table.rows]


def test_best_of_n_column(make_results):
    table = difference_table(make_results(), "sft")
    assert row_of(table, "eksft")["k*/64"].strong
    assert row_of(table, "dft")["k*/64"].value == "not reached 3/3"


def test_tables_that_cannot_be_filled_are_left_out(make_results):
    assert [table.title for table in tables_of(make_results(methods=("sed",), stages=("sft",)))] == ["Scores before RL"]
    assert len(tables_of(make_results())) == 4
    table = score_table(make_results(), "rl")
    assert "ce_hot" not in [row.key for row in table.rows]


def test_facts_name_settings_hardware_versions_and_time(make_results):
    results = make_results(seeds=1, methods=("ce",))
    results["left_out"] = [{"method": "base_sharp", "label": "no SFT, sharpened", "seed": 0, "reason": "never right"}]
    found = dict(facts(results))
    assert found["left out: no SFT, sharpened, seed 0"] == "never right"
    assert found["settings.evaluation.num_samples"] == "64"
    assert found["hardware.cpu"] == "AMD EPYC" and "hardware.gpu" not in found
    assert found["versions.trl"] == "1.16.0"
    assert found["training time"] == "0.9 min, summed over 2 runs"
