import threading

import pytest

from manypaths.generation.samples import Sample
from manypaths.grading.graders import GRADERS, chain, countdown, exact, grade_samples, math, resolve_grader


def grade(completion, gold="7", column="answer"):
    return math([completion], **{column: [gold]})[0]


@pytest.mark.parametrize(
    ("gold", "answer", "expected"),
    [
        ("7", "7", 1.0),
        ("1,000", "1000", 1.0),
        ("3/4", "\\frac{3}{4}", 1.0),
        ("x+1", "1+x", 1.0),
        ("x+1", "x-1", 0.0),
        ("104", "10400", 0.0),
        ("(1,2)", "(2,1)", 0.0),
        ("", "", 0.0),
    ],
)
def test_answers_are_graded_by_value(gold, answer, expected):
    assert grade(f"\\boxed{{{answer}}}", gold) == expected


def test_the_last_closed_box_counts_and_no_box_is_wrong():
    assert grade("so \\boxed{8} no, \\boxed{7}") == 1.0
    assert grade("the answer is 7") == 0.0
    assert grade("#### 7") == 0.0
    assert grade("\\boxed{7") == 0.0


def test_gold_from_either_column_and_conversational_completions():
    assert grade([{"role": "assistant", "content": "\\boxed{7}"}]) == 1.0
    assert grade("\\boxed{7}", "thus \\boxed{7}.", "solution") == 1.0
    assert grade("\\boxed{7}", "$7$", "solution") == 1.0
    assert grade("\\boxed{7}", 7) == 1.0
    with pytest.raises(ValueError, match="column answer or solution in the data; there are target"):
        math(["\\boxed{7}"], target=[7])


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\\boxed{}",
        "\\boxed{" * 300,
        "\\boxed{" + "{" * 3000,
        "\\boxed{\\frac{}{}}",
        "\\boxed{}}}{{",
    ],
)
def test_nothing_crashes_the_math_reward(text):
    assert grade(text) == 0.0
    assert grade([{"role": "assistant", "content": None}]) == 0.0
    assert grade([]) == 0.0


def test_a_batch_is_graded_outside_the_main_thread():
    seen = []
    completions = ["\\boxed{b+a}", "\\boxed{a-b}", "7", "\\boxed{7}"]
    worker = threading.Thread(target=lambda: seen.append(math(completions, answer=["a+b", "a+b", "7", "7"])))
    worker.start()
    worker.join()
    assert seen == [[1.0, 0.0, 0.0, 1.0]]


def test_a_batch_needs_a_gold_for_each_completion():
    with pytest.raises(ValueError, match="one gold per answer; got 2 answers and 1 golds"):
        math(["\\boxed{1}", "\\boxed{2}"], answer=["1"])


def test_names_near_names_and_own_functions(tmp_path, monkeypatch):
    assert resolve_grader("math") is math
    assert resolve_grader(len) is len
    with pytest.raises(ValueError, match=r"Unknown reward 'maths'\. Did you mean math"):
        resolve_grader("maths")
    code = "def always(completions, **columns):\n    return [1.0] * len(completions)\n\nlimit = 3\n"
    (tmp_path / "my_rewards.py").write_text(code)
    monkeypatch.chdir(tmp_path)
    assert resolve_grader("my_rewards:always")(["a", "b"]) == [1.0, 1.0]
    with pytest.raises(ValueError, match="has no function 'never'"):
        resolve_grader("my_rewards:never")
    with pytest.raises(ValueError, match="is a int, not a function"):
        resolve_grader("my_rewards:limit")
    with pytest.raises(ValueError, match="Cannot import 'nowhere_to_be_found'"):
        resolve_grader("nowhere_to_be_found:always")


def test_exact_is_word_for_word():
    assert exact(["f e d", " f e d ", "f  e d", ""], answer=["f e d"] * 4) == [1.0, 1.0, 0.0, 0.0]
    assert exact([[{"role": "assistant", "content": "12"}]], solution=[12]) == [1.0]


def test_countdown_wants_the_target_from_the_numbers_and_an_end():
    columns = {"numbers": [[3, 4, 5]] * 4, "target": [35] * 4}
    texts = ["( 3 + 4 ) * 5", "( 3 + 5 ) * 4", "1 + 1", "( 3 + 4 ) * 5"]
    assert countdown(texts, **columns, finished=[True, True, True, False]) == [1.0, 0.0, 0.0, 0.0]
    assert countdown(texts, **columns) == [1.0, 0.0, 0.0, 1.0]  # whether it ended is not known
    assert countdown(["( 3 A 4 ) Y 5"], numbers=[[5, 4, 3]], target=[35], notation=["ABYZ"]) == [1.0]
    with pytest.raises(ValueError, match="needs the columns numbers and target; no target"):
        countdown([], numbers=[])


def test_chain_wants_lawful_letters_and_an_end():
    prompts = ["<bos> M a b c d"] * 4
    texts = ["e f a b c d", "a b c d e f", "e f a b c", "e f a b c d"]  # each letter is 1 or 4 after the one before
    assert chain(texts, prompts=prompts, finished=[True, True, True, False]) == [1.0, 0.0, 0.0, 0.0]


def test_samples_are_graded_as_trl_does_it():
    rows = [{"prompt": "a", "answer": 1}, {"prompt": "b", "answer": 2}]
    samples = [[Sample("x", [5], "eos"), Sample("y", [6], "length")], [Sample("z", None, None)]]
    seen = {}

    async def remembers(prompts, completions, completion_ids, finished, answer, log_metric, **columns):
        log_metric("name", 1.0)
        seen.update(prompts=prompts, completions=completions, ids=completion_ids, finished=finished, answer=answer)
        return [1.0, None, 3.0]

    assert grade_samples(remembers, rows, ["a", "b"], samples) == [[1.0, None], [3.0]]
    assert seen == {
        "prompts": ["a", "a", "b"], "completions": ["x", "y", "z"], "ids": [[5], [6], None],
        "finished": [True, False, None], "answer": [1, 1, 2],
    }  # fmt: skip
    with pytest.raises(ValueError, match="gave 1 values for 3 completions"):
        grade_samples(lambda **columns: [1.0], rows, ["a", "b"], samples)


def test_registered_names_are_functions_with_documentation():
    assert set(GRADERS) == {"math", "exact", "countdown", "chain"}
    assert all(grader.__doc__ for grader in GRADERS.values())


def test_golds_of_gsm8k_and_whole_solutions():
    assert math(["so \\boxed{72}"], answer=["48 + 24 = 72\n#### 72"]) == [1.0]
    assert math(["so \\boxed{24}"], answer=["48 + 24 = 72\n#### 72"]) == [0.0]
    assert math(["so \\boxed{72}"], solution=["first \\boxed{71}, then \\boxed{72}"]) == [1.0]


@pytest.mark.parametrize(
    ("gold", "choices"),
    [
        ("B", ["3", "5", "7"]),
        ("5", ["3", "5", "7"]),
        ("1", ["3", "5", "7"]),
        ("(b)", {"A": "3", "B": "5", "C": "7"}),
        ("B", {"label": ["A", "B"], "text": ["3", "5"]}),
    ],
)
def test_a_choice_is_its_letter_or_its_value(gold, choices):
    answers = ["\\boxed{B}", "\\boxed{5}", "\\boxed{(B) 5}", "\\boxed{A}", "\\boxed{3}", "\\boxed{7}"]
    columns = {"answer": [gold] * len(answers), "choices": [choices] * len(answers)}
    assert math(answers, **columns) == [1, 1, 1, 0, 0, 0]


def test_choices_that_cannot_be_read():
    with pytest.raises(ValueError, match="Choices must be a list of texts"):
        math(["\\boxed{B}"], answer=["B"], choices=["A, B or C"])
