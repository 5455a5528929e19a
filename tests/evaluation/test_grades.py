import pytest

from manypaths.evaluation.benchmarks import Problem
from manypaths.evaluation.grades import check_same_grader, final_classes, grade_task, unreliable_references
from manypaths.evaluation.tasks import Task
from manypaths.generation.samples import Sample, Sampling
from manypaths.grading import GRADER_VERSION

TEXTS = [[r"\boxed{2}", r"\boxed{2.0}", r"\boxed{3}", "none"], [r"\boxed{7}"] * 4]


def task(*golds, grader="math", mode="lenient", answers="final", rows=None):
    rows = rows or [{} for _ in golds]
    problems = [Problem(f"p{place}", f"q{place}?", gold, row) for place, (gold, row) in enumerate(zip(golds, rows, strict=True))]
    return Task("mine", None, problems, [problem.text for problem in problems], Sampling(num_samples=4), grader,
                mode if grader == "math" else None, answers)  # fmt: skip


def samples(texts, stop="eos"):
    return [[Sample(text, [1], stop, 4, -2.0) for text in row] for row in texts]


def test_grades_by_gold():
    grades = grade_task(task("2", "8"), samples(TEXTS))
    assert grades.correct == [[True, True, False, False], [False] * 4]
    assert grades.classes == [[0, 0, 1, None], [0, 0, 0, 0]]
    assert grades.statuses[0] == ["correct", "correct", "wrong", "unparsed"]
    assert grades.grader == {
        "name": "math", "mode": "lenient", "version": GRADER_VERSION,
        "counts": {"correct": 2, "wrong": 5, "unparsed": 1, "timeout": 0},
    }  # fmt: skip
    assert grades.notes[0][0]["extracted"] == "2" and grades.notes[0][2]["reason"]
    assert grade_task(task(None, grader=None), samples(TEXTS[:1])) is None


def test_an_empty_box_is_not_an_answer():
    assert grade_task(task("2", mode="strict"), samples([[r"\boxed{}", r"\boxed{2}"]])).classes == [[None, 0]]


def test_named_graders_read_the_rows_and_compare_texts():
    rows = [{"numbers": [3, 4, 5], "target": 35}]
    texts = [["( 3 + 4 ) * 5", "5 * ( 3 + 4 )", "( 3 + 4 ) * 5", ""]]
    grades = grade_task(task(None, grader="countdown", answers="text", rows=rows), samples(texts))
    assert grades.correct == [[True, True, True, False]] and grades.classes == [[0, 1, 0, None]]
    cut = grade_task(task(None, grader="countdown", answers="text", rows=rows), samples(texts, stop="length"))
    assert not any(cut.correct[0])
    assert grade_task(task("a b", grader="exact", answers="text"), samples([["a b", "a  b"]])).correct == [[True, False]]


@pytest.fixture
def own(tmp_path, monkeypatch):
    (tmp_path / "own_graders.py").write_text(
        "def halves(completions, target, **columns):\n    return [value / 2 for value in target]\n"
        "def none(completions, **columns):\n    return [None for _ in completions]\n"
        "def nan(completions, **columns):\n    return [float('nan') for _ in completions]\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)


def test_grades_by_a_function_of_ones_own(own):
    rows = [{"target": 2}, {"target": 1}]
    grades = grade_task(task(None, None, grader="own_graders:halves", rows=rows), samples(TEXTS), correct_at=1.0)
    assert grades.values == [[1.0] * 4, [0.5] * 4] and grades.correct == [[True] * 4, [False] * 4]
    assert grades.classes == [[0, 0, 1, None], [0] * 4]
    assert (grades.grader["correct_at"], grades.grader["counts"]["correct"]) == (1.0, 4)
    unboxed = samples([["( 1 + 2 )", "( 2 + 1 )", ""]])
    grades = grade_task(task(None, grader="own_graders:halves", rows=rows[:1]), unboxed, correct_at=0.5)
    assert len({name for name in grades.classes[0] if name is not None}) == 2  # every text is its own answer
    for name in ("none", "nan"):
        with pytest.raises(ValueError, match=rf"own_graders:{name} gave .* for the samples of mine p0; .* finite"):
            grade_task(task(None, grader=f"own_graders:{name}"), samples([["x"]]))


def test_answers_that_are_equal_share_a_class():
    assert final_classes([[r"\frac{1}{2}", "0.5", None, "x+1", "1+x"]]) == [[0, 0, None, 1, 1]]


def test_other_rules_of_grading_are_refused_where_results_stay():
    def earlier(name="math", **rules):
        return [{"task": "other", "temperature": None, "grader": {"name": name, **rules}}]

    check_same_grader([task("2", mode="strict")], earlier(mode="strict", version=GRADER_VERSION))
    check_same_grader([task("2", mode="strict")], earlier(name="mine:reward", mode=None, version="0"))
    check_same_grader([task("2")], [{"task": "quiz", "temperature": None}])  # of forgetting
    check_same_grader([task(None, grader=None)], earlier(mode="lenient", version="0"))
    again = [{**earlier(mode="lenient", version="0")[0], "task": "mine"}]
    check_same_grader([task("2", mode="strict")], again)  # it is measured again
    for rules in ({"mode": "lenient", "version": GRADER_VERSION}, {"mode": "strict", "version": "0"}):
        with pytest.raises(ValueError, match=f"other was graded {rules['mode']} by grader version {rules['version']}"):
            check_same_grader([task("2", mode="strict")], earlier(**rules))


def test_unreliable_references_are_listed_with_the_reason():
    same = [Problem("a", "What is x?", "1"), Problem("b", "What is x?", "2"), Problem("c", "Why?", "because it is so")]
    reasons = unreliable_references(same)
    assert reasons["conflicting golds"] == ["a", "b"]
    assert ["c"] in reasons.values() and unreliable_references([Problem("d", "?", "3")]) == {}
