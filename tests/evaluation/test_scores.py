import math

import pytest

from manypaths.evaluation.benchmarks import Problem
from manypaths.evaluation.grades import grade_task
from manypaths.evaluation.scores import averages, ks, score_task
from manypaths.evaluation.table import score_frame
from manypaths.evaluation.tasks import Task
from manypaths.generation.samples import Sample, Sampling

TEXTS = [[r"\boxed{2}", r"\boxed{2.0}", r"\boxed{3}", "none"], [r"\boxed{7}"] * 4]
HOW = {"backend": "fake", "temperature": 1.0}


def task(*golds, grader="math", group="main", number=4):
    problems = [Problem(f"p{place}", f"question {place}", gold) for place, gold in enumerate(golds)]
    return Task("mine", None, problems, [problem.text for problem in problems], Sampling(num_samples=number), grader,
                "lenient" if grader == "math" else None, "final", group, ("left-out",))  # fmt: skip


def samples(texts, **fields):
    settings = {"token_ids": [1], "stop": "eos", "num_tokens": 4, "logprob": -2.0, **fields}
    return [[Sample(text, **settings) for text in row] for row in texts]


def scored(given, drawn, **others):
    return score_task(given, drawn, grade_task(given, drawn), sampling=HOW, **others)


def values(part):
    return {row["metric"]: row["value"] for row in part.scores}


def items(part, metric):
    return [row["value"] for row in part.items if row["metric"] == metric]


def test_all_scores_of_a_task():
    part = scored(task("2", "7"), samples(TEXTS))
    scores = values(part)
    assert scores["pass@1"] == 0.75 and not any(metric.startswith("avg@") for metric in scores)
    assert scores["pass@2"] == pytest.approx((1 - 1 / 6 + 1) / 2) and scores["pass@4"] == 1.0
    assert scores["maj@4"] == 1.0 and scores["distinct_answers"] == 1.5 and scores["distinct_correct"] == 1.0
    assert scores["answer_entropy"] == pytest.approx((math.log(3) - 2 / 3 * math.log(2)) / 2)
    assert scores["sampled_entropy"] == pytest.approx(0.5) and scores["length"] == 4
    assert (scores["unparsed"], scores["timed_out"], scores["truncated"]) == (1 / 8, 0.0, 0.0)
    assert items(part, "num_correct") == [2, 4] and "num_correct" not in scores
    assert {row["flags"] for row in part.scores} == {"unparsed"}  # more than 5 % of the samples
    units = {row["metric"]: (row["unit"], row["over"]) for row in part.scores}
    assert units["pass@1"] == ("share", "problems") and units["distinct_correct"] == ("count", "problems")
    assert all(row["low"] <= row["value"] <= row["high"] for row in part.scores)
    (entry,) = part.tasks
    assert (entry["num_problems"], entry["num_samples"], entry["stops"]) == (2, 4, {"eos": 8})
    assert entry["excluded"] == ["left-out"] and entry["grader"]["counts"]["correct"] == 6
    assert entry["sampling"] == HOW and len(entry["prompt_hash"]) == 64


def test_what_is_not_known_is_left_out():
    part = scored(task(None, None, grader=None), samples(TEXTS, stop=None, num_tokens=None, logprob=None))
    assert part.tasks[0]["grader"] is None and part.tasks[0]["stops"] == {"None": 8}
    unknown = {"sampled_entropy", "length", "pass@1", "distinct_answers", "truncated", "mean_reward"}
    assert not unknown & set(values(part))
    assert values(part)["words"] == 1.0 and "self_bleu" in values(part)
    short = scored(task(None, grader=None), samples([["a b", "a b", "c", "d"]]))
    assert "self_bleu" not in values(short)  # which would be 0 however alike texts of fewer than four tokens are
    cut = scored(task(None, grader=None, number=1), samples([["a b c d"]], stop="length"))
    assert values(cut)["truncated"] == 1.0 and cut.scores[0]["flags"] == "truncated"


def test_other_groups_are_marked():
    part = scored(task("2", "7", group="side tasks"), samples([[r"\boxed{2}"]] * 2))
    assert {row["flags"] for row in part.scores} == {"side"}


def test_a_reward_model_picks_and_weighs():
    rewards = [[0.0, 0.0, 9.0, 1.0], [1.0, 2.0, 3.0, 4.0]]
    scores = values(scored(task("2", "7"), samples(TEXTS), rewards=rewards))
    assert scores["best_of@1"] == scores["pass@1"] and scores["best_of@4"] == 0.5  # the wrong answer is scored best
    assert scores["weighted_maj@4"] == 0.5 and scores["maj@4"] == 1.0 and scores["expected_max@4"] == 6.5
    far = [[100.0, 60.0, 20.0, 10.0], [0.0] * 4]  # gaps that no softmax over all four survives
    texts = [[r"\boxed{1}", r"\boxed{2}", r"\boxed{3}", r"\boxed{4}"], [r"\boxed{5}"] * 4]
    scores = values(scored(task("2", "7"), samples(texts), rewards=far))
    assert scores["weighted_maj@2"] == pytest.approx(scores["best_of@2"]) == pytest.approx(1 / 6)


def test_values_of_ones_own_reward_have_a_mean(tmp_path, monkeypatch):
    (tmp_path / "score_reward.py").write_text(
        "def half(completions, **columns):\n    return [0.5 if 'boxed' in one else 0.0 for one in completions]\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    part = scored(task(None, None, grader="score_reward:half"), samples(TEXTS))
    assert values(part)["mean_reward"] == pytest.approx((0.375 + 0.5) / 2) and values(part)["pass@1"] == 0.0


def test_what_was_read_again_joins():
    part = scored(task("2", "7"), samples(TEXTS), reread={"entropy": [1.0, 2.0], "kl_to_reference": [0.0, 0.5]})
    assert values(part)["entropy"] == 1.5 and items(part, "kl_to_reference") == [0.0, 0.5]


def row(name, value, metric="pass@1", temperature=None, flags=""):
    return {"task": name, "temperature": temperature, "metric": metric, "value": value, "low": max(0, value - 0.1),
            "high": min(1, value + 0.1), "n": 9, "over": "problems", "unit": "share", "flags": flags}  # fmt: skip


def entry(name, group="main", temperature=None, grader="math"):
    return {"task": name, "group": group, "temperature": temperature, "grader": grader and {"name": grader}}


def test_the_average_weighs_tasks_alike_and_stays_within_its_group():
    rows = [row("a", 1.0), row("b", 0.0, flags="truncated"), row("poems", 0.2), row("sort", 0.5), row("copy", 1.0)]
    entries = [entry("a"), entry("b"), entry("poems", grader=None), entry("sort", "side tasks"), entry("copy", "side tasks")]
    means = averages(score_frame([*rows, row("a", 0.3, "maj@2")]), entries)  # not every task has maj@2
    assert [(one["task"], one["metric"], one["value"], one["n"], one["over"]) for one in means] == [
        ("average", "pass@1", 0.5, 2, "tasks"), ("side tasks", "pass@1", 0.75, 2, "tasks"),
    ]  # fmt: skip
    assert means[0]["flags"] == "truncated" and means[0]["low"] < 0.5 < means[0]["high"]


def test_every_temperature_has_an_average_of_its_own_and_one_task_has_none():
    rows = [row(name, value, temperature=at) for at, value in ((0.5, 1.0), (1.0, 0.0)) for name in "ab"]
    entries = [entry(name, temperature=at) for at in (0.5, 1.0) for name in "ab"]
    assert [(one["temperature"], one["value"]) for one in averages(score_frame(rows), entries)] == [(0.5, 1.0), (1.0, 0.0)]
    assert averages(score_frame(rows[:1]), entries[:1]) == []


@pytest.mark.parametrize(("n", "expected"), [(1, [1]), (2, [1, 2]), (6, [1, 2, 4, 6]), (8, [1, 2, 4, 8])])
def test_ks_end_with_all_samples(n, expected):
    assert ks(n) == expected
