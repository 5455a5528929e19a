import math

import pytest

from manypaths.evaluation.intervals import mean_interval, paired_interval
from manypaths.evaluation.metrics import samples_to_match
from manypaths.report.summary import check_runs, difference, efficiency, estimate, summarize


def values(results, method, stage, key):
    runs = [run for run in results["runs"] if (run["method"], run["stage"]) == (method, stage)]
    return [run["evaluation"]["scores"][key]["value"] for run in sorted(runs, key=lambda run: run["seed"])]


def counts(results, method, stage, seed):
    (run,) = [r for r in results["runs"] if (r["method"], r["stage"], r["seed"]) == (method, stage, seed)]
    return run["evaluation"]["per_prompt"]["num_correct"]


def test_three_seeds_give_intervals_over_seeds(make_results):
    results = make_results()
    summary = summarize(results)
    score = summary["scores"]["sed"]["rl"]["pass@64"]
    expected = mean_interval(values(results, "sed", "rl", "pass@64"))
    assert score == {
        "mean": expected.value, "low": expected.low, "high": expected.high, "num_seeds": 3, "interval_over": "seeds",
    }  # fmt: skip
    assert "ce_hot" not in summary["paired"] or "rl" not in summary["paired"]["ce_hot"]
    assert [entry["method"] for entry in summary["methods"]][:4] == ["base", "base_sharp", "ce", "ce_early"]


def test_differences_pair_the_seeds(make_results):
    results = make_results()
    found = summarize(results)["paired"]["gem"]["sft"]["side_tasks"]
    expected = paired_interval(values(results, "gem", "sft", "side_tasks"), values(results, "ce", "sft", "side_tasks"))
    assert (found["mean"], found["low"], found["high"]) == (expected.value, expected.low, expected.high)
    assert found["interval_over"] == "seeds"


def test_one_seed_pairs_the_prompts(make_results):
    results = make_results(seeds=1, methods=("ce", "gem"))
    found = difference(results, "gem", "sft", "pass@1")
    a, b = (counts(results, method, "sft", 0) for method in ("gem", "ce"))
    expected = paired_interval([c / 64 for c in a], [c / 64 for c in b])
    assert (found.low, found.high) == (pytest.approx(expected.low), pytest.approx(expected.high))
    assert (found.num_seeds, found.interval_over) == (1, "prompts")


def test_one_seed_without_prompt_values_combines_two_intervals(make_results):
    results = make_results(seeds=1, methods=("ce", "gem"))
    found = difference(results, "gem", "sft", "side_tasks")
    assert found.interval_over == "prompts, unpaired"
    assert found.high - found.value == pytest.approx(math.hypot(0.04, 0.04))


def test_two_seeds_pool_prompts_for_means_and_seeds_for_differences(make_results):
    results = make_results(seeds=2, methods=("ce", "sed"))
    mean = estimate(results, "sed", "sft", "distinct_correct")
    assert (mean.interval_over, mean.num_seeds) == ("prompts", 2)
    assert mean.value == pytest.approx(sum(values(results, "sed", "sft", "distinct_correct")) / 2)
    assert difference(results, "sed", "sft", "distinct_correct").interval_over == "seeds"


def test_pooled_half_width_without_prompt_values_is_the_mean_one(make_results):
    found = estimate(make_results(seeds=2, methods=("ce",)), "ce", "sft", "entropy")
    assert found.high - found.low == pytest.approx(4 * 0.006)


def test_different_prompts_are_not_paired(make_results):
    results = make_results(seeds=1, methods=("ce", "gem"))
    results["runs"][0]["evaluation"]["prompt_hash"] = "other"
    assert difference(results, "gem", "sft", "pass@1").interval_over == "prompts, unpaired"
    assert efficiency(results, "gem", "sft") is None


def test_untrained_rows_have_no_seeds_to_vary(make_results):
    results = make_results()
    assert estimate(results, "base_sharp", "sft", "pass@1").interval_over == "prompts"
    assert estimate(results, "base_sharp", "rl", "pass@1").interval_over == "seeds"
    lone = difference(results, "base", "sft", "pass@1")  # the base was evaluated once, CE three times
    assert (lone.num_seeds, lone.interval_over) == (3, "seeds")


def test_efficiency_is_the_geometric_mean_over_seeds(make_results):
    results = make_results()
    shares = [
        samples_to_match(counts(results, "eksft", "sft", seed), counts(results, "ce", "sft", seed), 64)
        for seed in range(3)
    ]
    found = efficiency(results, "eksft", "sft")
    assert found.value == pytest.approx(math.prod(shares) ** (1 / 3))
    assert found.low < found.value < found.high
    assert (found.n, found.reached, found.interval_over) == (64, 1.0, "seeds")


def test_efficiency_out_of_reach_has_no_value(make_results):
    found = efficiency(make_results(), "dft", "sft")
    assert (found.value, found.low, found.high) == (None, None, None)
    assert found.reached == 0


def test_efficiency_of_one_seed_resamples_prompts(make_results):
    results = make_results(seeds=1, methods=("ce", "eksft"))
    found = efficiency(results, "eksft", "sft")
    assert found == efficiency(results, "eksft", "sft")
    assert found.interval_over == "prompts" and found.low < found.value < found.high
    same = make_results(seeds=1, methods=("ce", "sed"))
    same["runs"][1]["evaluation"] = same["runs"][0]["evaluation"]
    assert efficiency(same, "sed", "sft").value == pytest.approx(1.0)


def test_a_run_may_miss_a_stage(make_results):
    results = make_results(methods=("ce", "sed"))
    results["runs"] = [r for r in results["runs"] if (r["method"], r["stage"]) != ("sed", "rl") or r["seed"] == 0]
    summary = summarize(results)
    assert summary["scores"]["sed"]["rl"]["pass@1"]["num_seeds"] == 1
    assert summary["paired"]["sed"]["rl"]["pass@1"]["interval_over"] == "prompts"


def test_refuses_two_answers_for_one_run_and_no_runs(make_results):
    results = make_results(seeds=1, methods=("ce",))
    results["runs"].append(results["runs"][0])
    with pytest.raises(ValueError, match="two runs for method 'ce', stage 'sft', seed 0"):
        summarize(results)
    with pytest.raises(ValueError, match="no runs"):
        check_runs({"world": "recall", "runs": []})


def test_summary_is_plain_json(make_results):
    import json

    assert json.loads(json.dumps(summarize(make_results(seeds=1)), allow_nan=False))["world"] == "recall"
