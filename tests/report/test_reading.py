import random

import pytest

from manypaths.report.reading import VERDICTS, readings
from manypaths.report.summary import difference


def by_claim(results):
    return {reading.claim: reading for reading in readings(results)}


def shift(results, method, stage, key, delta, noise=0.0):
    """Set a score of a method to CE's plus delta, seed by seed, with scores as the only source."""
    runs = {(r["method"], r["stage"], r["seed"]): r["evaluation"]["scores"] for r in results["runs"]}
    for (own, at, seed), scores in runs.items():
        if (own, at) == (method, stage):
            jitter = noise * (-1) ** seed * (1 + seed)
            scores[key]["value"] = runs["ce", stage, seed][key]["value"] + delta + jitter


def test_all_claims_of_a_full_study_are_read(make_results):
    found = by_claim(make_results())
    assert list(found) == ["collapse", "narrowing", "rl-accuracy", "rl-coverage", "forgetting", "best-of-n"]
    for reading in found.values():
        assert reading.text.startswith(VERDICTS[reading.verdict])
        assert "3 seeds" in reading.basis


@pytest.mark.parametrize(
    ("delta", "noise", "verdict"),
    [(0.2, 0.001, "visible"), (-0.2, 0.001, "opposite"), (0.02, 0.1, "unclear")],
)
def test_the_verdict_follows_the_interval(make_results, delta, noise, verdict):
    results = make_results(methods=("ce", "gem"))
    shift(results, "gem", "sft", "side_tasks", delta, noise)
    reading = by_claim(results)["forgetting"]
    assert reading.verdict == verdict
    assert reading.text.startswith(VERDICTS[verdict])


def test_methods_that_differ_make_a_part_or_a_mixture(make_results):
    results = make_results(methods=("ce", "sed", "gem"))
    for sed, gem, verdict in [(0.1, 0.0, "partly"), (0.1, -0.1, "mixed"), (0.1, 0.1, "visible")]:
        shift(results, "sed", "rl", "pass@1", sed, 0.001)
        shift(results, "gem", "rl", "pass@1", gem, 0.001)
        assert by_claim(results)["rl-accuracy"].verdict == verdict


def test_nothing_is_claimed_that_an_interval_does_not_carry(make_results):
    draw = random.Random(0)
    results = make_results(methods=("ce", "gem"))
    for _ in range(60):
        shift(results, "gem", "sft", "side_tasks", draw.uniform(-0.1, 0.1), draw.uniform(0, 0.05))
        interval = difference(results, "gem", "sft", "side_tasks")
        verdict = by_claim(results)["forgetting"].verdict
        assert (verdict == "visible") == (interval.low > 0)
        assert (verdict == "opposite") == (interval.high < 0)


def test_the_matching_control_is_named(make_results):
    found = by_claim(make_results())
    assert "CE, stopped early" in found["collapse"].control and "CE, stopped early" in found["collapse"].plain
    assert "no SFT, sharpened" in found["narrowing"].control
    assert "CE, stopped early" in found["rl-accuracy"].control and "No SFT + RL ends at" in found["rl-accuracy"].control
    assert "CE, stopped early" in found["forgetting"].control
    assert "CE, sampled hotter" in found["best-of-n"].control


def test_a_control_that_wins_is_said_to_win(make_results):
    results = make_results(methods=("ce", "ce_early", "gem"))
    shift(results, "gem", "sft", "side_tasks", 0.1, 0.001)
    shift(results, "ce_early", "sft", "side_tasks", 0.3, 0.001)
    assert "against the control (CE, stopped early), GEM is below" in by_claim(results)["forgetting"].plain
    shift(results, "ce_early", "sft", "side_tasks", 0.1, 0.1)
    assert "GEM cannot be told apart" in by_claim(results)["forgetting"].plain


def test_collapse_needs_a_loss_against_the_base(make_results):
    results = make_results(methods=("base", "ce", "gem"))
    assert by_claim(results)["collapse"].verdict == "visible"
    for run in results["runs"]:
        if run["method"] == "base" and run["stage"] == "sft":
            run["evaluation"]["scores"]["distinct_correct"]["value"] = 0.0
    assert by_claim(results)["collapse"].verdict == "mixed"


def test_missing_methods_are_left_out(make_results):
    assert list(by_claim(make_results(methods=("ce", "dft")))) == ["narrowing"]
    assert readings(make_results(methods=("sed", "gem"))) == []
    assert readings(make_results(methods=("ce",))) == []
    found = by_claim(make_results(methods=("ce", "gem")))
    assert found["collapse"].title == "CE collapses answers; GEM keeps more"
    assert "SED" not in found["collapse"].text
    assert found["collapse"].control == "The matching control was not run: CE, stopped early."
    assert found["best-of-n"].control == "The matching control was not run: CE, sampled hotter."
    assert "rl-accuracy" not in by_claim(make_results(stages=("sft",)))


def test_one_seed_is_always_said(make_results):
    found = readings(make_results(seeds=1))
    assert len(found) == 6
    assert all("One seed; 95 % intervals over prompts" in reading.text for reading in found)
    assert all("Two seeds" in reading.text for reading in readings(make_results(seeds=2)))


def test_fewer_samples_is_only_said_below_one(make_results):
    results = make_results(methods=("ce", "gem", "ce_hot"))
    assert by_claim(results)["best-of-n"].verdict == "visible"
    for run in results["runs"]:
        if run["method"] == "gem":
            run["evaluation"]["per_prompt"]["num_correct"] = [0] * 200
            run["evaluation"]["scores"]["pass@64"]["value"] = 0.0
    reading = by_claim(results)["best-of-n"]
    assert reading.verdict == "opposite"
    assert "does not get there in 3 of 3 seeds" in reading.finding


def test_cold_start_claims(cold_results, make_results):
    found = by_claim(cold_results)
    assert found["rl-alone"].verdict == "visible" and "0 of 38,400 samples right" in found["rl-alone"].text
    assert found["dft-notation"].verdict == "visible"
    assert "stays below 1 % before RL and stays below 1 % after RL" in found["dft-notation"].plain
    assert found["narrowing"].verdict == "mixed"
    learned = make_results(methods=("base", "ce", "dft"), world="coldstart")
    assert by_claim(learned)["rl-alone"].verdict == "opposite"
    assert by_claim(learned)["dft-notation"].verdict == "opposite"
    assert "rl-alone" not in by_claim(make_results())
