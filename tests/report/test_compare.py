"""Rows, estimates and differences of a recorded study against numbers computed here from its table."""

import numpy as np
import pytest
from scipy import stats

from manypaths.report.compare import Row, Study
from recorded_results import kept


def by_seed(results, method, stage, metric, task="countdown"):
    table = results.scores
    keys = {"method": method, "stage": stage, "metric": metric, "task": task}
    rows = table[np.logical_and.reduce([table[name] == value for name, value in keys.items()])]
    return rows.sort_values("seed")["value"].to_numpy()


def test_rows_are_the_baseline_then_methods_then_controls(recall):
    study = Study(recall)
    assert [row.method for row in study.rows] == [
        "CE", "SED", "GEM", "DFT", "EKSFT", "CE, stopped early", "CE, matched temperature", "no SFT", "no SFT, sharpened",
    ]  # fmt: skip
    assert study.headline == "countdown" and study.side_groups == ["side tasks"]
    assert all(row.temperature is None for row in study.rows), "a control at another temperature is one row"


@pytest.mark.parametrize("metric", ["pass@1", "pass@64", "distinct_correct"])
@pytest.mark.parametrize("stage", ["sft", "rl"])
def test_estimates_over_seeds_are_t_intervals(recall, metric, stage):
    values = by_seed(recall, "GEM", stage, metric)
    estimate = Study(recall).estimate(Row("GEM"), stage, "countdown", metric)
    low, high = stats.t.interval(0.95, len(values) - 1, values.mean(), stats.sem(values))
    assert (estimate.value, estimate.low, estimate.high) == pytest.approx((values.mean(), low, high))
    assert (estimate.n, estimate.over) == (6, "seeds")


def test_an_untrained_model_says_nothing_about_training_seeds(recall):
    estimate = Study(recall).estimate(Row("no SFT"), "sft", "countdown", "pass@1")
    assert estimate.over == "problems" and estimate.n == 200
    assert estimate.value == pytest.approx(by_seed(recall, "no SFT", "sft", "pass@1").mean())


def test_differences_are_paired_by_seed(recall):
    a, b = (by_seed(recall, method, "rl", "pass@1") for method in ("EKSFT", "CE"))
    found = Study(recall).difference(Row("EKSFT"), Row("CE"), "rl", "countdown", "pass@1")
    assert found.estimate.value == pytest.approx((a - b).mean())
    assert found.p_value == pytest.approx(stats.ttest_rel(a, b).pvalue)
    assert found.estimate.over == "seeds"


def test_one_seed_is_compared_problem_by_problem(recall):
    study = Study(kept(recall, seed=[0]))
    found = study.difference(Row("GEM"), Row("CE"), "sft", "countdown", "pass@1")
    assert found.estimate.over == "problems" and found.estimate.n == 200
    values = [by_seed(kept(recall, seed=[0]), method, "sft", "pass@1")[0] for method in ("GEM", "CE")]
    assert found.estimate.value == pytest.approx(values[0] - values[1], abs=1e-5)


def test_a_metric_without_items_is_compared_unpaired(recall):
    found = Study(kept(recall, seed=[0])).difference(Row("GEM"), Row("CE"), "sft", "countdown", "self_bleu")
    assert "unpaired" in found.estimate.over


def test_other_prompts_are_not_compared(recall):
    for task in recall.tasks:
        assert task["task"] != "countdown" or task["prompt_hash"]
    tasks = [{**task, "prompt_hash": "other"} if task["method"] == "SED" else task for task in recall.tasks]
    study = Study(type(recall)(**{**vars(recall), "tasks": tasks}))
    assert study.difference(Row("SED"), Row("CE"), "rl", "countdown", "pass@1") is None
    assert study.obstacle(Row("SED"), Row("CE"), "rl", "countdown") == "other prompts"


def test_temperatures_are_rows_and_each_has_its_baseline(evaluations):
    study = Study(evaluations)
    assert [row.label for row in study.rows] == [
        f"{method}, T={temperature}" for method in ("base", "CE") for temperature in (0.6, 1, 1.4)
    ]
    assert study.baseline_of(Row("CE", 1.4)) == Row("base", 1.4)
    assert {row.method for row in study.main_rows} == {"base", "CE"} and len(study.main_rows) == 2
    tasks, curves = study.curves()
    assert tasks == ["countdown"] and list(curves["CE"].temperatures) == [0.6, 1.0, 1.4]
    assert {(one.match, one.compare) for one in study.matched()["CE"]} >= {("pass@1", "self_bleu")}


def test_samples_needed(recall):
    """By hand on one seed: the smallest k with at least CE's pass@64, as a share of 64."""
    results = kept(recall, seed=[0], stage=["sft"])
    study = Study(results)
    share = study.samples_needed(Row("GEM"), Row("CE"), "sft", "countdown", 64)
    target = by_seed(results, "CE", "sft", "pass@64")[0]
    below = max(k for k in (1, 2, 4, 8, 16, 32, 64) if by_seed(results, "GEM", "sft", f"pass@{k}")[0] < target)
    assert below < share.value * 64 <= 2 * below


def test_nothing_to_report(recall):
    with pytest.raises(ValueError, match="no scores"):
        Study(kept(recall, method=["nobody"]))
