import threading

import pytest

from manypaths.training import rewards
from manypaths.training.rewards import math, resolve_reward


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
    with pytest.raises(ValueError, match="column answer or solution in the data; found target"):
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
    assert resolve_reward("math") is math
    assert resolve_reward(len) is len
    with pytest.raises(ValueError, match=r"Unknown reward 'maths'\. Did you mean math"):
        resolve_reward("maths")
    code = "def always(completions, **columns):\n    return [1.0] * len(completions)\n\nlimit = 3\n"
    (tmp_path / "my_rewards.py").write_text(code)
    monkeypatch.chdir(tmp_path)
    assert resolve_reward("my_rewards:always")(["a", "b"]) == [1.0, 1.0]
    with pytest.raises(ValueError, match="has no function 'never'"):
        resolve_reward("my_rewards:never")
    with pytest.raises(ValueError, match="is a int, not a function"):
        resolve_reward("my_rewards:limit")
    with pytest.raises(ValueError, match="Cannot import 'nowhere_to_be_found'"):
        resolve_reward("nowhere_to_be_found:always")


def test_registered_names_are_functions_with_documentation():
    assert set(rewards.REWARDS) == {"countdown", "math"}
    assert all(reward.__doc__ for reward in rewards.REWARDS.values())


def test_countdown_by_name_is_the_playground_s_reward():
    from manypaths.worlds import rl_dataset
    from manypaths.worlds.countdown import solutions
    from manypaths.worlds.tokenizer import as_completion, encode

    row = rl_dataset("recall")[0]
    right = solutions((tuple(row["numbers"]), row["target"]), row["notation"])[0]
    columns = {name: [row[name]] * 2 for name in ("numbers", "target", "notation")}
    ids = [encode(as_completion(right)), encode(as_completion("1 + 1"))]
    graded = resolve_reward("countdown")([right, "1 + 1"], completion_ids=ids, log_metric=None, **columns)
    assert graded == [1.0, 0.0]


def test_golds_of_gsm8k_and_whole_solutions():
    assert math(["so \\boxed{72}"], answer=["48 + 24 = 72\n#### 72"]) == [1.0]
    assert math(["so \\boxed{24}"], answer=["48 + 24 = 72\n#### 72"]) == [0.0]
    assert math(["so \\boxed{72}"], solution=["first \\boxed{71}, then \\boxed{72}"]) == [1.0]
