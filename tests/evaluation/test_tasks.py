import pytest
from datasets import Dataset

from manypaths.data.config import DataConfig
from manypaths.evaluation.benchmarks import BENCHMARKS, Benchmark, Problem
from manypaths.evaluation.config import EvalConfig, origin, read_temperatures
from manypaths.evaluation.tasks import (
    benchmark_tasks,
    completed_tasks,
    data_tasks,
    load_rows,
    samples_of,
    taught_rows,
)
from manypaths.generation.samples import Sample, SampleKey

PROBLEMS = [Problem("a", "1 + 1?", "2", {"hint": "two"}), Problem("b", "leaked", "")]


def tasks(name="aime24", system_prompt=None, **options):
    return benchmark_tasks(BENCHMARKS[name], PROBLEMS, EvalConfig(**options), system_prompt)


def test_the_benchmark_decides_what_is_not_given():
    (task,) = tasks(seed=3, max_new_tokens=100)
    how = task.sampling
    assert (task.temperature, task.sampled_at, how.num_samples, how.top_p) == (None, 0.7, 8, 1.0)
    assert (how.seed, how.max_new_tokens) == (3, 100)
    assert (task.grader, task.mode, task.answers, task.group) == ("math", "lenient", "final", "main")
    assert tasks(grader="strict")[0].mode == "strict"


def test_an_empty_gold_is_left_out_and_named():
    (task,) = tasks()
    assert [problem.id for problem in task.problems] == ["a"] and task.excluded == ["b"]
    with pytest.raises(ValueError, match="gsm8k has no problem with an answer"):
        benchmark_tasks(BENCHMARKS["gsm8k"], PROBLEMS[1:], EvalConfig())


def test_prompts_as_conversation_or_text_and_with_any_column():
    (task,) = tasks(system_prompt="Be brief.")
    assert [message["role"] for message in task.prompts[0]] == ["system", "user"]
    assert task.prompts[0][1]["content"].startswith("1 + 1?\nPlease reason step by step")
    (task,) = tasks(prompt_format="text")
    assert task.prompts[0].startswith("1 + 1?\nPlease")
    own = Benchmark("own", "x", prompt="{problem} Hint: {hint}", prompt_format="text")
    (task,) = benchmark_tasks(own, PROBLEMS, EvalConfig(prompt_format="chat"))  # the benchmark's own format wins
    assert task.prompts == ["1 + 1? Hint: two"]
    with pytest.raises(
        ValueError, match=r"prompt of benchmark own cannot be filled for a \('clue'\); columns are hint"
    ):
        benchmark_tasks(Benchmark("own", "x", prompt="{problem} {clue}"), PROBLEMS, EvalConfig())


def test_a_task_per_temperature():
    pairs = [(task.temperature, task.sampled_at) for task in tasks(temperatures="0.5,1", num_samples=4)]
    assert pairs == [(0.5, 0.5), (1.0, 1.0)]
    assert [(task.temperature, task.sampled_at) for task in tasks(temperature=0.2)] == [(0.2, 0.2)]


@pytest.mark.parametrize(
    ("options", "numbers"),
    [
        ({"temperatures": "0,0.5"}, [1, 8]),
        ({"temperatures": "0,0.5", "num_samples": 3}, [1, 3]),
        ({"temperatures": "0.5"}, [1]),
        ({"temperatures": "0.5,1", "num_samples": 2}, [2, 2]),
        ({"temperature": 0.0}, [1]),
    ],
)
def test_several_temperatures_need_several_samples_and_greedy_one(options, numbers):
    assert [task.sampling.num_samples for task in tasks("gsm8k", **options)] == numbers


def test_greedy_samples_would_be_equal():
    with pytest.raises(ValueError, match="temperature 0 gives 4 equal samples"):
        tasks(temperature=0.0, num_samples=4)


def test_a_greedy_benchmark_takes_one_sample_whatever_is_asked_of_the_others():
    sort = Benchmark("sort", "x", group="side tasks", temperature=0.0)
    (task,) = benchmark_tasks(sort, PROBLEMS, EvalConfig(num_samples=64, temperatures="0.5,1"))
    assert (task.temperature, task.sampled_at, task.sampling.num_samples) == (None, 0.0, 1)


def test_temperatures_from_the_command_line():
    assert read_temperatures(None) == [] and read_temperatures("0.6, 1") == read_temperatures([0.6, 1]) == [0.6, 1.0]
    for text, message in [
        ("warm", "numbers separated by commas"),
        ("1,1.0", "each temperature once"),
        ("-1", "0 or above"),
    ]:
        with pytest.raises(ValueError, match=message):
            read_temperatures(text)


def test_open_ended_prompts_need_several_samples():
    poems = Benchmark("poems", "x", answer=None, grader=None, num_samples=1)
    with pytest.raises(ValueError, match="poems is judged for diversity, which one sample a prompt has none of"):
        benchmark_tasks(poems, [Problem("a", "A poem?")], EvalConfig())


def data_task(columns, name="own.jsonl", **options):
    return data_tasks(DataConfig(dataset_name=name), EvalConfig(**options), Dataset.from_dict(columns))


def test_data_with_a_reward_is_an_ordinary_task():
    columns = {"prompt": ["one", "two"], "numbers": [[1, 2, 3]] * 2, "target": [6, 6]}
    (task,) = data_task(columns, reward="countdown")
    assert (task.name, task.grader, task.mode, task.answers, task.group) == ("own", "countdown", None, "text", "main")
    assert [problem.id for problem in task.problems] == ["own-0000", "own-0001"]
    assert task.problems[1].row["target"] == 6 and task.prompts == ["one", "two"]
    assert (task.sampling.num_samples, task.sampling.temperature) == (8, 1.0)
    (task,) = data_task({"prompt": ["one"], "solution": ["so\n#### 7"]}, reward="math", grader="strict")
    assert (task.problems[0].answer, task.mode, task.answers) == ("7", "strict", "final")
    assert [task.sampling.num_samples for task in data_task(columns, temperatures="0,1", num_samples=2)] == [1, 2]
    assert data_task(columns) == []


def test_data_that_a_reward_cannot_read_is_refused_at_once():
    with pytest.raises(ValueError, match="math grader needs a column answer or solution in the data; there are prompt"):
        data_task({"prompt": ["one"]}, reward="math")
    with pytest.raises(ValueError, match="needs the columns numbers and target"):
        data_task({"prompt": ["one"]}, reward="countdown")
    with pytest.raises(ValueError, match=r"a column prompt or messages; own\.jsonl has text"):
        data_task({"text": ["one"]}, num_samples=2)
    with pytest.raises(ValueError, match="has an id twice"):
        data_task({"prompt": ["one", "two"], "id": ["a", "a"]}, num_samples=2)


def test_a_file_has_the_one_split_train(tmp_path):
    path = tmp_path / "own.jsonl"
    path.write_text('{"prompt": "a", "completion": "b", "extra": 1}\n' * 3)
    rows = load_rows(DataConfig(dataset_name=str(path)), EvalConfig(num_prompts=2))
    assert len(rows) == 2 and taught_rows(rows).column_names == ["prompt", "completion"]
    assert len(load_rows(DataConfig(dataset_name=str(path), dataset_test_split="train[:1]"), EvalConfig())) == 1
    assert load_rows(DataConfig(), EvalConfig()) is None


def test_conversations_are_asked_without_their_answer():
    messages = [[{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]]
    (task,) = data_task({"messages": messages}, num_samples=2)
    assert task.prompts == [[{"role": "user", "content": "a"}]]
    with pytest.raises(ValueError, match="nothing before the assistant"):
        data_task({"messages": [messages[0][1:]]}, num_samples=2)


def completed(samples, names=("math500",), **options):
    config = EvalConfig(completions="texts.jsonl", **options)
    problems = [Problem(name, f"{name}?", "1") for name in ("p1", "p2")]
    sets = [task for name in names for task in benchmark_tasks(BENCHMARKS[name], problems, config)]
    return completed_tasks(sets, {SampleKey(*key): Sample("x", None, None) for key in samples}, config)


def test_completions_made_elsewhere_become_tasks():
    (task,), samples = completed([(None, "p1", 0.7, 0), (None, "p2", 0.7, 0)])
    assert (task.temperature, task.sampled_at, task.sampling) == (None, 0.7, None)  # one temperature is the default
    assert list(samples) == task.keys(1) and len(samples_of(task, samples)) == 2
    both = [(None, name, temperature, 0) for name in ("p1", "p2") for temperature in (0.5, 1.0)]
    assert [task.temperature for task in completed(both)[0]] == [0.5, 1.0]
    (task,), samples = completed([(None, "p1", None, 0), (None, "p2", None, 0)], num_prompts=1)
    assert len(task.problems) == len(samples) == 1


@pytest.mark.parametrize(
    ("samples", "names", "message"),
    [
        ([(None, "p1", None, 0)], ["math500"], "texts for 1 of the 2 problems of math500, none for p2"),
        ([(None, "p1", 1.0, 0), (None, "p2", None, 0)], ["math500"], "some have none"),
        ([(None, "p9", None, 0)], ["math500"], "a text for 'p9'; math500 has no such problem. Its 2 are called p1"),
        ([("gsm8k", "p1", None, 0)], ["math500"], "has no text for benchmark math500"),
        ([(None, "p1", None, 0)], ["gsm8k", "math500"], "do not say their benchmark, and 2 benchmarks are asked for"),
        (
            [(None, "p1", None, 0), (None, "p1", None, 1), (None, "p2", None, 0)],
            ["math500"],
            "problem p2 has 1 samples",
        ),
        ([(None, "p1", None, 0), (None, "p1", None, 2)], ["math500"], "but none with index 1"),
    ],
)
def test_completions_that_do_not_fit_the_problems(samples, names, message):
    with pytest.raises(ValueError) as caught:
        completed(samples, names)
    assert message in str(caught.value)


def test_a_missing_sample_is_named():
    (task,) = tasks(num_samples=2)
    with pytest.raises(ValueError, match=r"aime24: problem a has no sample 1 \(of 2\)"):
        samples_of(task, {SampleKey("aime24", "a", 0.7, 0): Sample("x", None, None)})


def test_method_stage_and_seed_are_what_was_given_or_what_the_model_remembers():
    run = {"subcommand": "grpo", "settings": {"seed": 3, "objective": "sed"}}
    names = origin(EvalConfig(model_name_or_path="runs/sed"), run)
    assert (names["method"], names["stage"], names["seed"], names["objective"]) == ("sed", "rl", 3, "sed")
    names = origin(EvalConfig(model_name_or_path="m", label="CE", stage="sft", train_seed=0), run)
    assert (names["method"], names["stage"], names["seed"]) == ("CE", "sft", 0)
    names = origin(EvalConfig(completions="texts.jsonl"), None)
    assert (names["method"], names["stage"], names["seed"]) == ("texts", "", None)
