"""What a model is asked: from benchmarks, files of prompts and data to tasks, each with its prompts and its sampling."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from datasets import Dataset

from ..config import json_mapping
from ..data.config import DataConfig
from ..data.formats import COMPANIONS, PROMPT_FORMATS, SFT_FORMATS, load_training_data
from ..generation.precomputed import check_same_numbers
from ..generation.prompts import Prompt
from ..generation.samples import Sample, SampleKey, Sampling
from ..grading.graders import GOLD_COLUMNS, check_golds, gold_answer, resolve_grader
from .benchmarks import MAIN, Benchmark, Problem, load_problems, open_ended, prompt_text, resolve_benchmarks
from .config import EvalConfig, read_temperatures, short_name

SWEEP_SAMPLES = 8  # at least, where several temperatures are compared
SAMPLING = [field.name for field in fields(Sampling)]
DATA_DEFAULTS = {"num_samples": 8, "temperature": 1.0, "top_p": 1.0, "top_k": 0, "max_new_tokens": 512}


@dataclass(frozen=True)
class Task:
    """One set of problems at one temperature.

    temperature: what was asked for, None for the default of the set. prompts: the problems in the model's words.
    sampling: None for completions made elsewhere, which may have a `known_temperature`.
    grader: its name, None where nothing is graded; mode: of grading.MODES, how "math" reads answers.
    answers: what makes two answers the same, "final" or "text". excluded: ids left out, because their gold is empty.
    """

    name: str
    temperature: float | None
    problems: Sequence[Problem]
    prompts: Sequence[Prompt]
    sampling: Sampling | None
    grader: str | None
    mode: str | None = None
    answers: str = "text"
    group: str = MAIN
    excluded: Sequence[str] = ()
    known_temperature: float | None = None

    @property
    def sampled_at(self) -> float | None:
        """The temperature that the samples were drawn at; None where unknown."""
        return self.known_temperature if self.sampling is None else float(self.sampling.temperature)

    def keys(self, num_samples: int) -> list[SampleKey]:
        """The samples of the task in order, those of one problem side by side."""
        return [
            SampleKey(self.name, problem.id, self.sampled_at, index)
            for problem in self.problems
            for index in range(num_samples)
        ]


def read_tasks(data: DataConfig, config: EvalConfig, rows: Dataset | None) -> list[Task]:
    """The tasks of --benchmarks, --prompts and --data (`rows`), in this order.

    Raises ValueError for two sets of one name, and as `benchmark_tasks` and `data_tasks` do.
    """
    benchmarks = [*resolve_benchmarks(config.benchmarks or []), *map(open_ended, config.prompts or [])]
    names = [benchmark.name for benchmark in benchmarks] + ([] if rows is None else [short_name(data.dataset_name)])
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"Two sets are called {name!r}; give one of them another name.")
    tasks = []
    for benchmark in benchmarks:
        tasks += benchmark_tasks(benchmark, load_problems(benchmark, config.data_dir), config, data.system_prompt)
    return tasks if rows is None else [*tasks, *data_tasks(data, config, rows)]


def benchmark_tasks(
    benchmark: Benchmark, problems: Sequence[Problem], config: EvalConfig, system_prompt: str | None = None
) -> list[Task]:
    """A task per temperature, or one at the default. Problems with an empty gold are excluded.

    Several temperatures are there to compare diversity, which one sample has none of: they get at least SWEEP_SAMPLES.
    Raises ValueError when no problem is left or a setting is out of range.
    """
    if benchmark.group != MAIN and benchmark.temperature == 0:  # greedy beside the main benchmarks: it stays so
        config = replace(config, temperature=None, temperatures=None)
    considered = problems if config.completions is not None else problems[: config.num_prompts]
    kept = [problem for problem in considered if problem.answer != ""]
    excluded = [problem.id for problem in considered if problem.answer == ""]
    if not kept:
        raise ValueError(f"Benchmark {benchmark.name} has no problem with an answer.")
    prompt_format = benchmark.prompt_format or config.prompt_format
    prompts = [as_prompt(prompt_text(benchmark, problem), prompt_format, system_prompt) for problem in kept]
    mode = (config.grader or "lenient") if benchmark.grader == "math" else None
    rules = (benchmark.grader, mode, benchmark.answers, benchmark.group, excluded)
    defaults = {name: getattr(benchmark, name) for name in SAMPLING if name != "seed"}
    tasks = []
    for temperature, sampling in samplings(defaults, config):
        if benchmark.grader is None and sampling.num_samples == 1 and config.completions is None:
            raise ValueError(f"{benchmark.name} is judged for diversity, which one sample a prompt has none of.")
        tasks.append(Task(benchmark.name, temperature, kept, prompts, sampling, *rules))
    return tasks


def samplings(defaults: Mapping[str, Any], config: EvalConfig) -> list[tuple[float | None, Sampling]]:
    """(temperature asked for, how to sample) for every temperature of the config, or for the default alone."""
    given = {name: getattr(config, name) for name in SAMPLING if getattr(config, name) is not None}
    temperatures = read_temperatures(config.temperatures)
    pairs = []
    for temperature in temperatures or [given.get("temperature")]:
        chosen = {**defaults, **given} | ({} if temperature is None else {"temperature": temperature})
        if "num_samples" not in given:
            chosen["num_samples"] = max(chosen["num_samples"], SWEEP_SAMPLES if len(temperatures) > 1 else 1)
        if chosen["temperature"] == 0 and not {"temperature", "num_samples"} <= given.keys():
            chosen["num_samples"] = 1  # all greedy answers are equal
        pairs.append((temperature, Sampling(**chosen)))
    return pairs


def as_prompt(text: str, prompt_format: str, system_prompt: str | None) -> Prompt:
    """Text as it is, or a conversation of one user message."""
    if prompt_format == "text":
        return text if system_prompt is None else f"{system_prompt}\n\n{text}"
    system = [] if system_prompt is None else [{"role": "system", "content": system_prompt}]
    return [*system, {"role": "user", "content": text}]


def load_rows(data: DataConfig, config: EvalConfig) -> Dataset | None:
    """The rows of --data, None without it; a file's only split is train."""
    if data.dataset_name is None:
        return None
    is_file = Path(data.dataset_name).is_file() and data.dataset_test_split == "test"
    rows = load_training_data(
        data.dataset_name,
        split="train" if is_file else data.dataset_test_split,
        name=data.dataset_config,
        formats=(*SFT_FORMATS, *PROMPT_FORMATS),
        columns=json_mapping(data.dataset_columns, "dataset_columns", '{"prompt": "question"}'),
        layout=data.dataset_format,
        system_prompt=data.system_prompt,
        keep_all_columns=True,
    )
    return rows.select(range(min(len(rows), config.num_prompts or len(rows))))


def taught_rows(rows: Dataset) -> Dataset | None:
    """The columns that hold an answer to learn from; None for prompts alone."""
    taught = next((columns for columns in SFT_FORMATS if set(columns) <= set(rows.column_names)), None)
    return taught and rows.select_columns([name for name in rows.column_names if name in (*taught, *COMPANIONS)])


def data_tasks(data: DataConfig, config: EvalConfig, rows: Dataset) -> list[Task]:
    """The tasks of --data: none where neither a reward nor a number of samples asks for answers.

    Raises ValueError at once for a column that the reward lacks.
    """
    if config.num_samples is None and config.reward is None and config.completions is None:
        return []
    name = short_name(data.dataset_name)
    prompts = prompts_of(rows, data.dataset_name)
    if config.reward is not None:
        resolve_grader(config.reward)
        check_golds(config.reward, rows, data.dataset_name)
    gold = next((column for column in GOLD_COLUMNS if column in rows.column_names), None)
    golds = [None] * len(rows) if gold is None or config.reward != "math" else list(map(gold_answer, rows[gold]))
    problems = [
        Problem(str(row.get("id") or f"{name}-{place:04d}"), "", answer, row)
        for place, (row, answer) in enumerate(zip(rows, golds, strict=True))
    ]
    if len({problem.id for problem in problems}) < len(problems):
        raise ValueError(f"{data.dataset_name} has an id twice; a row's id is its own, or leave the column id out.")
    mode = (config.grader or "lenient") if config.reward == "math" else None
    answers = "text" if config.reward in (None, "exact", "countdown", "chain") else "final"
    return [
        Task(name, temperature, problems, prompts, sampling, config.reward, mode, answers)
        for temperature, sampling in samplings(DATA_DEFAULTS, config)
    ]


def prompts_of(rows: Dataset, source: str) -> list[Prompt]:
    """The column `prompt`, or conversations without the assistant's last message."""
    if "prompt" in rows.column_names:
        return list(rows["prompt"])
    if "messages" not in rows.column_names:
        names = ", ".join(rows.column_names)
        raise ValueError(f"Sampling answers needs a column prompt or messages; {source} has {names}.")
    conversations = [row[:-1] if row[-1]["role"] == "assistant" else row for row in rows["messages"]]
    if not all(conversations):
        raise ValueError(f"A conversation in {source} has nothing before the assistant's message to answer to.")
    return conversations


def completed_tasks(
    tasks: Sequence[Task], samples: Mapping[SampleKey, Sample], config: EvalConfig
) -> tuple[list[Task], dict[SampleKey, Sample]]:
    """A task per set and temperature of completions made elsewhere, and these completions under full keys.

    One temperature per set counts as its default. Raises ValueError for completions that do not say their set where
    several are asked for, a set without any, a problem that lacks some, a completion for a problem that the set does
    not have, or a temperature that only some have.
    """
    source = config.completions
    check_same_numbers(samples, source)
    if len(tasks) > 1 and any(key.task is None for key in samples):
        raise ValueError(
            f"{source} has texts that do not say their benchmark, and {len(tasks)} benchmarks are asked for: give every "
            'row a "benchmark", or ask for one at a time.'
        )
    completed, kept = [], {}
    for task in tasks:
        own = {
            key._replace(task=task.name): sample
            for key, sample in samples.items()
            if key.task in (None, task.name) and key.id not in task.excluded
        }
        if not own:
            raise ValueError(f"{source} has no text for benchmark {task.name}.")
        places = {problem.id: place for place, problem in enumerate(task.problems)}
        for key in own:
            if key.id not in places:
                raise ValueError(
                    f"{source} has a text for {key.id!r}; {task.name} has no such problem. Its {len(places)} are called "
                    f"{task.problems[0].id} and so on."
                )
        temperatures = list(dict.fromkeys(key.temperature for key in own))
        if None in temperatures and len(temperatures) > 1:
            raise ValueError(f"{source}: some texts of {task.name} have a temperature and some have none.")
        number = config.num_prompts
        first = replace(task, problems=task.problems[:number], prompts=task.prompts[:number], sampling=None)
        for temperature in temperatures:
            asked = temperature if len(temperatures) > 1 else None
            completed.append(replace(first, temperature=asked, known_temperature=temperature))
            there = {key.id for key in own if key.temperature == temperature}
            missing = [problem.id for problem in first.problems if problem.id not in there]
            if missing:
                raise ValueError(
                    f"{source} has texts for {len(there)} of the {len(first.problems)} problems of {task.name}, none for "
                    f"{missing[0]}. Add the rest, or read the first N problems only with --num_prompts N."
                )
        kept |= {key: sample for key, sample in own.items() if places[key.id] < len(first.problems)}
    return completed, kept


def samples_of(task: Task, samples: Mapping[SampleKey, Sample]) -> list[list[Sample]]:
    """[P][n] samples of a task. Without a sampling, every problem has as many as the first.

    Raises ValueError for the first problem that lacks a sample.
    """
    first = task.keys(1)[0]
    number = task.sampling.num_samples if task.sampling else max(1, sum(key[:3] == first[:3] for key in samples))
    keys = task.keys(number)
    for key in keys:
        if key not in samples:
            raise ValueError(f"{task.name}: problem {key.id} has no sample {key.index} (of {number}).")
    return [[samples[key] for key in keys[start : start + number]] for start in range(0, len(keys), number)]
