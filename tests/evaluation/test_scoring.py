import math

import pytest

from manypaths.evaluation.benchmarks import Problem
from manypaths.evaluation.scoring import (
    by_gold,
    check_same_grader,
    classes_of,
    doubtful,
    evaluate_task,
    grade_by_gold,
    grade_by_reward,
    ks,
)
from manypaths.evaluation.tasks import Task
from manypaths.generation.samples import Sample, Sampling
from manypaths.grading import GRADER_VERSION

TEXTS = [[r"\boxed{2}", r"\boxed{2.0}", r"\boxed{3}", "none"], [r"\boxed{7}"] * 4]
HOW = {"backend": "recorded", "temperature": None}


def task(*golds, prompts=None):
    problems = [Problem(f"p{index}", f"question {index}", gold) for index, gold in enumerate(golds)]
    return Task("mine", None, problems, [one.text for one in problems], Sampling(num_samples=4), ("left-out",))


def samples(texts, **fields):
    settings = {"stop": "eos", "num_tokens": 4, "logprob": -2.0, **fields}
    return [[Sample(text, None, **settings) for text in row] for row in texts]


def values(entry):
    return {name: score["value"] for name, score in entry["scores"].items()}


def test_grades_by_gold():
    grades = grade_by_gold(["2", "8"], TEXTS, "lenient", show_progress=False)
    assert grades.correct == [[True, True, False, False], [False] * 4]
    assert grades.classes == [[0, 0, 1, None], [0, 0, 0, 0]]
    assert grades.grader["counts"] == {"correct": 2, "wrong": 5, "unparsed": 1, "timeout": 0}
    assert grades.notes[0][0]["extracted"] == "2" and grades.notes[0][2]["reason"]
    assert by_gold("lenient")(task(None), TEXTS[:1]) is None


def test_other_rules_of_grading_are_refused_where_results_stay():
    def earlier(**rules):
        return {"evaluations": [{"benchmark": "other", "setting": None, "grader": rules}]}

    check_same_grader([task("2")], "strict", earlier(mode="strict", version=GRADER_VERSION))
    check_same_grader([task("2")], "strict", earlier(reward="mine:reward"))
    check_same_grader([task(None)], "strict", earlier(mode="lenient", version="0"))
    for rules in ({"mode": "lenient", "version": GRADER_VERSION}, {"mode": "strict", "version": "0"}):
        with pytest.raises(ValueError, match=f"other was graded {rules['mode']} by grader version {rules['version']}"):
            check_same_grader([task("2")], "strict", earlier(**rules))


def test_an_empty_box_is_no_answer():
    grades = grade_by_gold(["2"], [[r"\boxed{}", r"\boxed{2}"]], "strict", show_progress=False)
    assert grades.classes == [[None, 0]]


def test_grades_by_reward():
    grades = grade_by_reward("mine:reward", [[1.0, 0.5, 0.0, 0.0], [0.2] * 4], TEXTS, correct_at=0.5)
    assert grades.correct == [[True, True, False, False], [False] * 4]
    assert grades.classes == [[0, 0, 1, None], [0, 0, 0, 0]]
    assert grades.grader == {"reward": "mine:reward", "correct_at": 0.5, "counts": {"correct": 2, "wrong": 6}}
    unboxed = grade_by_reward("mine:reward", [[1.0, 0.0, 0.0]], [["( 1 + 2 )", "( 2 + 1 )", ""]], 1.0)
    assert unboxed.classes == [[0, 1, None]] or unboxed.classes == [[0, 0, None]]  # every text is its own answer
    scores = values(evaluate_task(task(None, None), samples(TEXTS), grades, sampling=HOW))
    assert scores["mean_reward"] == pytest.approx((1.5 / 4 + 0.2) / 2) and scores["pass@4"] == 0.5
    with pytest.raises(ValueError, match="for the samples of prompt 2; rewards must be finite"):
        grade_by_reward("mine:reward", [[1.0], [math.nan]], [["a"], ["b"]], 1.0)


def test_all_scores_of_a_task():
    given = task("2", "7")
    grades = grade_by_gold(["2", "7"], TEXTS, "lenient", show_progress=False)
    entry = evaluate_task(given, samples(TEXTS), grades, sampling=HOW)
    scores = values(entry)
    assert (entry["metric"], scores["avg@4"], scores["pass@1"]) == ("avg@4", 0.75, 0.75)
    assert scores["pass@2"] == pytest.approx((1 - 1 / 6 + 1) / 2) and scores["pass@4"] == 1.0
    assert scores["maj@4"] == 1.0 and scores["distinct_answers"] == 1.5
    assert scores["answer_entropy"] == pytest.approx((math.log(3) - 2 / 3 * math.log(2)) / 2)
    assert scores["entropy"] == pytest.approx(0.5) and scores["length"] == 4
    assert entry["per_problem"]["num_correct"] == [2, 4] and entry["excluded"] == ["left-out"]
    assert (entry["stops"], entry["truncated"]) == ({"eos": 8}, 0.0)


def test_what_is_not_known_is_left_out():
    entry = evaluate_task(
        task(None, None), samples(TEXTS, stop=None, num_tokens=None, logprob=None), None, sampling=HOW
    )
    assert entry["metric"] is None and entry["grader"] is None and entry["truncated"] is None
    assert not {"entropy", "length", "pass@1", "distinct_answers"} & set(entry["scores"])
    cut = samples([["a b c d"]], stop="length")
    assert evaluate_task(task(None), cut, None, sampling=HOW)["truncated"] == 1.0


def test_a_reward_model_picks_and_weighs():
    grades = grade_by_gold(["2", "7"], TEXTS, "lenient", show_progress=False)
    scores = [[0.0, 0.0, 9.0, 1.0], [1.0, 2.0, 3.0, 4.0]]
    found = values(evaluate_task(task("2", "7"), samples(TEXTS), grades, scores=scores, sampling=HOW))
    assert found["best_of@1"] == found["avg@4"] and found["best_of@4"] == 0.5  # the wrong answer has the best score
    assert found["weighted_maj@4"] == 0.5 and found["maj@4"] == 1.0
    assert found["expected_max@4"] == 6.5
    far = [[100.0, 60.0, 20.0, 10.0], [0.0] * 4]  # gaps that no softmax over all four survives
    right = grade_by_reward("mine", [[0.0, 1.0, 0.0, 0.0], [0.0] * 4], [["a", "b", "c", "d"], ["e"] * 4], 1.0)
    found = values(evaluate_task(task("2", "7"), samples(TEXTS), right, scores=far, sampling=HOW))
    assert found["weighted_maj@2"] == pytest.approx(found["best_of@2"]) == pytest.approx(1 / 6)


def test_answers_that_are_equal_share_a_class():
    assert classes_of([[r"\frac{1}{2}", "0.5", None, "x+1", "1+x"]]) == [[0, 0, None, 1, 1]]


def test_doubtful_problems_are_listed_with_the_reason():
    same = [Problem("a", "What is x?", "1"), Problem("b", "What is x?", "2"), Problem("c", "Why?", "because it is so")]
    found = doubtful(same)
    assert found["conflicting golds"] == ["a", "b"]
    assert ["c"] in found.values() and doubtful([Problem("d", "?", "3")]) == {}


@pytest.mark.parametrize(("n", "expected"), [(1, [1]), (2, [1, 2]), (6, [1, 2, 4, 6]), (8, [1, 2, 4, 8])])
def test_ks_end_with_all_samples(n, expected):
    assert ks(n) == expected
