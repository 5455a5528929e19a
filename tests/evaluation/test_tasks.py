import pytest

from manypaths.evaluation.benchmarks import BENCHMARKS, Problem
from manypaths.evaluation.tasks import benchmark_tasks, read_temperatures

PROBLEMS = [Problem("a", "1 + 1?", "2"), Problem("b", "leaked", "")]


def tasks(name="aime24", **settings):
    return benchmark_tasks(BENCHMARKS[name], PROBLEMS, **{"overrides": {}, **settings})


def test_the_benchmark_decides_what_is_not_given():
    (task,) = tasks(overrides={"seed": 3, "top_p": None, "max_new_tokens": 100})
    how = task.sampling
    assert (task.setting, how.num_samples, how.temperature, how.top_p) == (None, 8, 0.7, 1.0)
    assert (how.seed, how.max_new_tokens) == (3, 100)


def test_an_empty_gold_is_left_out_and_named():
    (task,) = tasks()
    assert [one.id for one in task.problems] == ["a"] and task.excluded == ["b"]
    with pytest.raises(ValueError, match="gsm8k has no problem with an answer"):
        benchmark_tasks(BENCHMARKS["gsm8k"], PROBLEMS[1:], overrides={})


def test_prompts_as_conversation_or_text():
    (task,) = tasks(system_prompt="Be brief.")
    assert [message["role"] for message in task.prompts[0]] == ["system", "user"]
    assert task.prompts[0][1]["content"].startswith("1 + 1?\nPlease reason step by step")
    (task,) = tasks(prompt_format="text")
    assert task.prompts[0].startswith("1 + 1?\nPlease")


def test_a_task_per_temperature():
    found = tasks(temperatures=[0.5, 1.0], overrides={"num_samples": 4})
    assert [(one.setting, one.sampling.temperature, one.sampling.num_samples) for one in found] == [
        (0.5, 0.5, 4), (1.0, 1.0, 4),
    ]  # fmt: skip
    (given,) = tasks(overrides={"temperature": 0.2})
    assert given.setting == 0.2 and given.sampling.temperature == 0.2


def test_several_temperatures_need_several_samples():
    found = tasks("gsm8k", temperatures=[0.0, 0.5])
    assert [one.sampling.num_samples for one in found] == [1, 8]
    found = tasks("gsm8k", temperatures=[0.0, 0.5], overrides={"num_samples": 3})
    assert [one.sampling.num_samples for one in found] == [1, 3]
    assert tasks("gsm8k", temperatures=[0.5])[0].sampling.num_samples == 1
    assert tasks("gsm8k", temperatures=[0.5, 1.0], overrides={"num_samples": 2})[0].sampling.num_samples == 2


def test_greedy_needs_one_sample():
    (task,) = tasks(overrides={"temperature": 0.0})
    assert task.sampling.num_samples == 1
    with pytest.raises(ValueError, match="temperature 0 gives 4 equal samples"):
        tasks(overrides={"temperature": 0.0, "num_samples": 4})


def test_temperatures_from_the_command_line():
    assert read_temperatures(None) == [] and read_temperatures("0.6, 1") == read_temperatures([0.6, 1]) == [0.6, 1.0]
    for text, message in [("warm", "numbers separated by commas"), ("1,1.0", "each temperature once"), ("-1", "0 or above")]:
        with pytest.raises(ValueError, match=message):
            read_temperatures(text)
