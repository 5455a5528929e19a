"""Made-up results of `manypaths eval`: models that differ in skill, diversity and heat, over any benchmarks."""

import math
import random

from manypaths.evaluation.intervals import mean_interval
from manypaths.evaluation.metrics import pass_at_k_curve

SIZES = {
    "aime24": 30, "aime25": 30, "amc23": 40, "gsm8k": 300, "math500": 250, "gaokao2023en": 200, "olympiadbench": 300,
    "college_math": 400,
}  # fmt: skip
HARDNESS = {
    "aime24": 2.4, "aime25": 2.7, "amc23": 0.4, "gsm8k": -2.0, "math500": -0.8, "gaokao2023en": -0.2,
    "olympiadbench": 0.9, "college_math": 0.6,
}  # fmt: skip
TASKS = ("arc_challenge", "hellaswag", "mmlu", "truthfulqa_mc2", "winogrande", "gsm8k")
KS = (1, 2, 4, 8)
NUM_SAMPLES = 8


def make_result(
    label,
    *,
    benchmarks=("aime24", "amc23"),
    temperatures=(0.7,),
    skill=0.0,
    diversity=0.0,
    size=None,
    open_ended=(),
    truncated=0.01,
    best_of=False,
    **parts,
):
    """skill and diversity shift the log-odds of being right and 100 - Self-BLEU. temperatures (None,): defaults."""
    evaluations = [
        make_evaluation(name, setting, label, skill, diversity, size or SIZES.get(name, 40), graded, best_of)
        | {"truncated": truncated}
        for setting in temperatures
        for graded, names in ((True, benchmarks), (False, open_ended))
        for name in names
    ]
    return {
        "schema": 2, "created": "2026-11-20T19:40:00+00:00", "model": f"runs/{label}", "label": label,
        "versions": {"manypaths": "0.1.0", "torch": "2.13.0", "transformers": "5.23.0", "python": "3.11.7"},
        "settings": {"benchmarks": ",".join(benchmarks), "seed": 0},
        "evaluations": evaluations,
        "macro": [
            {"temperature": setting, "benchmarks": list(benchmarks)} | macro(evaluations, setting)
            for setting in temperatures
            if len(benchmarks) > 1
        ],
        **parts,
    }  # fmt: skip


def make_evaluation(name, setting, label, skill, diversity, size, graded, best_of):
    """One benchmark at one temperature; problems are shared by all models, the rest is drawn for each."""
    temperature = 0.7 if setting is None else setting
    problems, own = random.Random(name), random.Random(f"{name} {label} {setting}")
    table = {"id": [f"{name}-{i:04d}" for i in range(size)], "self_bleu": [], "distinct_answers": []}
    table |= {"accuracy": [], "num_correct": [], "answer_entropy": [], "entropy": [], "length": []}
    for _ in range(size):
        ease = problems.gauss(-HARDNESS.get(name, 0.0), 1.6) + skill - 0.9 * temperature**2 + own.gauss(0, 0.3)
        correct = sum(own.random() < 1 / (1 + math.exp(-ease)) for _ in range(NUM_SAMPLES))
        spread = 12 + diversity + 30 * temperature + 8 * problems.gauss(0, 1) + own.gauss(0, 2)
        wrong = 1 - correct / NUM_SAMPLES
        distinct = 1 + sum(own.random() < wrong * (0.3 + 0.3 * temperature) for _ in range(NUM_SAMPLES - 1))
        table["num_correct"].append(correct)
        table["accuracy"].append(correct / NUM_SAMPLES)
        table["self_bleu"].append(100 - min(max(spread, 1), 99))
        table["distinct_answers"].append(distinct)
        table["answer_entropy"].append(math.log(distinct) * 0.8)
        table["entropy"].append(abs(0.1 + 0.3 * temperature + 0.004 * diversity + own.gauss(0, 0.05)))
        table["length"].append(400 + 300 * temperature + own.gauss(0, 50))
    scores = {key: score(table[key]) for key in ("self_bleu", "entropy", "length")}
    scores["distinct_n"] = score([0.3 + (100 - one) / 300 for one in table["self_bleu"]])
    if graded:
        scores |= {key: score(table[key]) for key in ("distinct_answers", "answer_entropy")}
        scores |= graded_scores(table["num_correct"], best_of)
    else:
        for key in ("accuracy", "num_correct", "distinct_answers", "answer_entropy"):
            del table[key]
    return {
        "benchmark": name, "setting": setting, "temperature": temperature, "metric": "avg@8" if graded else None,
        "scores": scores, "per_problem": table, "num_problems": size, "num_samples": NUM_SAMPLES,
        "prompt_hash": f"5d1f{len(name):04x}",
        "sampling": {
            "backend": "transformers 5.23.0", "num_samples": NUM_SAMPLES, "temperature": temperature, "top_p": 1.0,
            "top_k": 0, "max_new_tokens": 3072, "seed": 0,
        },
        "grader": make_grader(sum(table["num_correct"]), size * NUM_SAMPLES) if graded else None,
        "stops": {"eos": size * NUM_SAMPLES - 3, "length": 3},
        "weakly_gradable": {"prose": table["id"][:2]} if graded else {},
        "excluded": [], "tokenizers": {"self_bleu": "sacrebleu 13a, case kept"},
    }  # fmt: skip


def graded_scores(num_correct, best_of):
    curves = pass_at_k_curve(num_correct, NUM_SAMPLES, KS)
    scores = {"avg@8": score(curves[1]), **{f"pass@{k}": score(values) for k, values in curves.items()}}
    scores |= {f"maj@{k}": score([a * (2 - a) if k > 2 else a for a in curves[1]]) for k in KS[1:]}
    if best_of:
        halves = {k: [(a + b) / 2 for a, b in zip(curves[1], curves[k], strict=True)] for k in KS}
        scores |= {
            f"{family}@{k}": score(values) for family in ("best_of", "weighted_maj") for k, values in halves.items()
        }
    return scores


def make_grader(right, total, unparsed=0.02, timeout=0.0):
    counts = {"correct": right, "unparsed": round(unparsed * total), "timeout": round(timeout * total)}
    counts["wrong"] = total - sum(counts.values())
    return {"mode": "lenient", "version": "1", "counts": counts, "timeout_rate": timeout}


def reward_graded(result, benchmark):
    """The same result, one benchmark of which was graded by a reward function."""
    for one in result["evaluations"]:
        if one["benchmark"] == benchmark:
            one["grader"] = {"reward": "mine:score", "correct_at": 1.0, "counts": one["grader"]["counts"]}
    return result


def make_forgetting(label):
    own, tasks = random.Random(label), {}
    for task in TASKS:
        change = own.gauss(-0.02, 0.02)
        tasks[task] = {
            "metric": "acc_norm", "filter": "none", "shots": 5, "version": 1.0,
            "base": {"value": 0.5, "stderr": 0.01, "n": 1000, "truncated": 0},
            "tuned": {"value": 0.5 + change, "stderr": 0.01, "n": 1000, "truncated": 0},
            "difference": {"value": change, "low": change - 0.015, "high": change + 0.015, "stderr": 0.008, "n": 1000},
        }  # fmt: skip
    tax = -sum(part["difference"]["value"] for part in tasks.values()) / len(tasks)
    return {
        "tasks": tasks, "alignment_tax": {"value": tax, "low": tax - 0.006, "high": tax + 0.006, "n": len(tasks)},
        "chat_template": False, "limit": None, "versions": {"lm_eval": "0.4.13"}, "base": "base", "tuned": label,
    }  # fmt: skip


def make_ledger():
    values = {"base_perplexity": 8.1, "tuned_perplexity": 8.9, "difference": 0.09, "kl_to_base": 0.12, "worse": 0.8}
    return {"scores": roughly(values, n=50), "num_texts": 50, "num_tokens": 9000}


def make_tokens():
    values = {"ce": 1.2, "perplexity": 3.3, "entropy": 1.1, "top1": 0.6}
    return {"scores": roughly(values), "num_rows": 20, "num_tokens": 900}


def roughly(values, **more):
    """Scores with limits 10 % away."""
    return {key: {"value": value, "low": 0.9 * value, "high": 1.1 * value, **more} for key, value in values.items()}


def score(values):
    found = mean_interval(values)
    return {"value": found.value, "low": found.low, "high": found.high, "n": found.n}


def macro(evaluations, setting):
    own = [one for one in evaluations if one["setting"] == setting and one["metric"]]
    value = sum(one["scores"]["avg@8"]["value"] for one in own) / len(own)
    return {"value": value, "low": value - 0.02, "high": value + 0.02, "n": len(own)}
