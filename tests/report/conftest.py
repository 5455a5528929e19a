"""Made-up results in the layout of results.json: nine methods, three seeds, before and after RL."""

import random

import pytest

from manypaths.evaluation.intervals import mean_interval
from manypaths.evaluation.metrics import pass_at_k_curve

# method: (label, mean pass@1, share of prompts out of reach, distinct, Self-BLEU, entropy, KL, side tasks)
SFT = {
    "base": ("no SFT", 0.28, 0.02, 5.50, 70.6, 0.544, 0.0, 0.98),
    "base_sharp": ("no SFT, sharpened to CE's pass@1", 0.44, 0.02, 5.20, 78.0, 0.33, 0.05, 0.98),
    "ce": ("CE", 0.444, 0.10, 1.68, 93.4, 0.188, 0.378, 0.515),
    "ce_early": ("CE, stopped early (10 epochs)", 0.419, 0.015, 3.15, 85.3, 0.309, 0.223, 0.919),
    "ce_hot": ("CE, sampled at T=1.43", 0.334, 0.0, 2.43, 81.6, 0.40, 0.31, 0.515),
    "sed": ("SED", 0.407, 0.07, 2.05, 90.0, 0.249, 0.364, 0.664),
    "gem": ("GEM", 0.407, 0.05, 2.26, 87.7, 0.274, 0.366, 0.817),
    "dft": ("DFT", 0.480, 0.145, 1.47, 95.1, 0.136, 0.385, 0.367),
    "eksft": ("EKSFT", 0.476, 0.04, 2.40, 90.9, 0.232, 0.272, 0.841),
}
RL = {
    "base": ("no SFT", 0.52, 0.05, 3.90, 84.0, 0.262, 0.15, 0.924),
    "base_sharp": ("no SFT, sharpened to CE's pass@1", 0.535, 0.07, 3.30, 86.0, 0.23, 0.17, 0.94),
    "ce": ("CE", 0.515, 0.154, 1.71, 93.0, 0.129, 0.42, 0.570),
    "ce_early": ("CE, stopped early (10 epochs)", 0.536, 0.074, 2.50, 90.0, 0.174, 0.29, 0.887),
    "sed": ("SED", 0.523, 0.104, 2.04, 91.5, 0.145, 0.40, 0.699),
    "gem": ("GEM", 0.529, 0.09, 2.17, 91.0, 0.153, 0.41, 0.813),
    "dft": ("DFT", 0.530, 0.19, 1.53, 95.0, 0.104, 0.43, 0.415),
    "eksft": ("EKSFT", 0.552, 0.112, 2.10, 92.0, 0.149, 0.33, 0.797),
}
NUM_PROMPTS, NUM_SAMPLES = 200, 64
KS = [1, 2, 4, 8, 16, 32, 64]


def make_run(stage, method, seed, row):
    label, accuracy, dead, distinct, bleu, entropy, kl, side = row
    draw = random.Random(f"{stage}/{method}/{seed}")
    prompt_draw = random.Random(7)
    correct, found = [], []
    for _ in range(NUM_PROMPTS):
        ease = prompt_draw.random()
        reachable = prompt_draw.random() + draw.gauss(0, 0.01) > dead
        mean = min(max(accuracy / (1 - dead), 0.01), 0.95)
        chance = (0.9 * ease + 0.1 * draw.random()) ** (1 / mean - 1)
        count = sum(draw.random() < chance for _ in range(NUM_SAMPLES)) if reachable else 0
        correct.append(count)
        found.append(min(count, round(distinct * (0.4 + 1.2 * draw.random()))))
    scores = {f"pass@{k}": limits(values) for k, values in pass_at_k_curve(correct, NUM_SAMPLES, KS).items()}
    scores["distinct_correct"] = limits(found)
    jitter = 0 if method.startswith("base") and stage == "sft" else 1
    for key, value, spread in [
        ("greedy", accuracy + 0.06, 0.015), ("self_bleu", bleu, 0.6), ("entropy", entropy, 0.006),
        ("kl_to_base", kl, 0.006), ("side_tasks", side, 0.02), ("base_countdown_loss", 0.52 + 1.5 * kl, 0.01),
    ]:  # fmt: skip
        value += jitter * draw.gauss(0, spread)
        scores[key] = {"value": value, "low": value - 2 * spread, "high": value + 2 * spread}
    return {
        "method": method, "label": label, "stage": stage, "seed": seed,
        "temperature": 1 / 0.7 if method == "ce_hot" else 1.0,
        "objective": None if method.startswith("base") else method.split("_")[0].replace("ce", "nll"),
        "objective_kwargs": {}, "epochs": 10 if method == "ce_early" else 30, "rl_steps": 100 if stage == "rl" else 0,
        "seconds": 27.5, "training": {"loss": [2.0, 1.0]},
        "evaluation": {
            "scores": scores, "per_prompt": {"num_correct": correct, "num_distinct": found},
            "num_prompts": NUM_PROMPTS, "num_samples": NUM_SAMPLES, "temperature": 1.0, "prompt_hash": "5d1f",
            "sampling": {"seed": 0},
        },
    }  # fmt: skip


def limits(values):
    found = mean_interval(values)
    return {"value": found.value, "low": found.low, "high": found.high}


@pytest.fixture
def make_results():
    """Factory: make_results(seeds=3, methods=None, stages=("sft", "rl"), world="recall")."""

    def make(seeds=3, methods=None, stages=("sft", "rl"), world="recall"):
        runs = [
            make_run(stage, method, seed, row)
            for stage, rows in (("sft", SFT), ("rl", RL))
            if stage in stages
            for method, row in rows.items()
            if methods is None or method in methods
            for seed in (range(1) if stage == "sft" and method == "base" else range(seeds))
        ]
        return {
            "schema": 1, "world": world, "created": "2026-11-20T19:40:00+00:00",
            "versions": {"manypaths": "0.1.0", "torch": "2.13.0", "trl": "1.16.0", "python": "3.11.7"},
            "hardware": {"cpu": "AMD EPYC", "threads": 2, "gpu": None},
            "settings": {"seeds": seeds, "sft_epochs": 30, "rl_steps": 100, "evaluation": {"num_samples": 64}},
            "runs": runs,
        }  # fmt: skip

    return make


@pytest.fixture
def cold_results(make_results):
    """A cold start as made-up counts: RL alone and DFT score nothing, CE and SED learn the notation."""
    results = make_results(methods=("base", "ce", "sed", "dft"), world="coldstart")
    for run in results["runs"]:
        evaluation = run["evaluation"]
        if run["method"] in ("base", "dft"):
            evaluation["per_prompt"] = {"num_correct": [0] * NUM_PROMPTS, "num_distinct": [0] * NUM_PROMPTS}
            for key in [f"pass@{k}" for k in KS] + ["greedy", "distinct_correct"]:
                evaluation["scores"][key] = {"value": 0.0, "low": 0.0, "high": 0.0}
        for key, value in (("old_pass@1", 0.05), ("old_pass@64", 0.3)):
            evaluation["scores"][key] = {"value": value, "low": value - 0.01, "high": value + 0.01}
    return results
