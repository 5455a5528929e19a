"""`manypaths eval`: benchmarks, prompts, data of one's own, a built-in world, or what was forgotten, for one model."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

from datasets import Dataset

from .cli.options import EvalArguments, SamplingArguments
from .config import json_mapping
from .data.formats import COMPANIONS, PROMPT_FORMATS, SFT_FORMATS, check_tokenizer_fits, load_training_data
from .drawing import draw, load_model, load_tokenizer, plan_draws
from .evaluation.benchmarks import Problem, check_names, load_problems, open_ended, resolve_benchmarks
from .evaluation.diversity import named_encoder
from .evaluation.ledger import ledger
from .evaluation.results import earlier_results, joined_results, record, weights_fingerprint, write_results
from .evaluation.reward_model import scorer as reward_scorer
from .evaluation.run import Grader, check_same_problems, evaluate_tasks
from .evaluation.scoring import Grades, by_gold, check_same_grader, grade_by_reward
from .evaluation.store import locked
from .evaluation.tasks import Task, benchmark_tasks, read_temperatures
from .evaluation.tokens import token_evidence
from .generation.prompts import Prompt
from .generation.samples import Sample, Sampling
from .models.device import default_device, free_memory
from .models.lm_head import plain_head
from .rescore import evaluate_recorded, judges, regrade
from .training.evidence import prepared_batches, row_statistics
from .training.grpo import call, grade
from .training.rewards import REWARDS, Reward, resolve_reward
from .training.run import check_model, column_map

OUTPUT_DIR = "evaluation"
NOT_A_SETTING = ("output_dir", "label")
SAMPLING_OPTIONS = ("num_samples", "temperature", "top_p", "top_k", "max_new_tokens", "seed")
DATA_DEFAULTS = {"num_samples": 8, "temperature": 1.0, "top_p": 1.0, "top_k": 0, "max_new_tokens": 512}
TOKEN_BATCH = 8
ALWAYS = ("label", "output_dir")
READ_BY = {  # what the ways to evaluate that read few options read
    "regrade": ("regrade", "label", "grader", "reward_model", "embedding_model"),
    "samples": (
        *ALWAYS, "samples", "benchmarks", "prompts", "data_dir", "grader", "reward_model", "embedding_model",
        "num_prompts", "prompt_format", "system_prompt",
    ),
    "world": (*ALWAYS, "world", "model", "reference", "num_prompts", "dtype", "num_samples", "temperature", "seed"),
}  # fmt: skip


def evaluate(options: EvalArguments, sampling: SamplingArguments | None = None) -> dict[str, Any]:
    """Measure a model; write results.json, a report and all texts, print the scores; returns the results.

    Any of: benchmarks and prompts (samples, graded, with their diversity), data (token scores where rows hold an
    answer to learn from; samples with a reward or `num_samples`), forgetting (lm-eval tasks on model and
    reference). Or a built-in world. Or texts made elsewhere (`samples`), or the stored samples of a folder graded
    again (`regrade`). Results of the same model that the folder holds already stay, unless measured again.

    Raises ValueError or FileNotFoundError for whatever can be known before a model is loaded, with nothing written.
    """
    from .report import print_evaluation, write_evaluation_report
    from .report.compare import check_report_folder

    sampling = SamplingArguments() if sampling is None else sampling
    check_options(options, sampling)
    folder = Path(options.regrade or options.output_dir or OUTPUT_DIR)
    check_report_folder(folder)
    if options.regrade is not None and not folder.is_dir():
        raise FileNotFoundError(f"{folder} holds no finished evaluation.")
    if options.model is not None:
        check_model(options.model)
    with ExitStack() as held:
        held.enter_context(locked(folder))
        if options.regrade is not None:
            results = regrade(options, folder)
            path = write_results(results, folder)
        else:
            model = options.model or options.samples
            weights = weights_fingerprint(model)
            results = earlier_results(folder, weights)
            settings = {**asdict(options), **asdict(sampling)}
            settings = {name: value for name, value in settings.items() if name not in NOT_A_SETTING}
            for part in parts_of(options, sampling, folder, held, results):
                results = joined_results(
                    results, record(settings, model, options.label or short_name(model), weights, **part)
                )
                path = write_results(results, folder)
        print_evaluation([results])
        print(f"report: {write_evaluation_report([results], folder)}")
        print(f"results: {path}")
    return results


def parts_of(
    options: EvalArguments, sampling: SamplingArguments, folder: Path, held: ExitStack, earlier: dict[str, Any]
) -> Iterator[dict[str, Any]]:
    """What is measured, part by part, so that each can be written before the next begins."""
    if options.samples is not None:
        sets = benchmark_sets(replace(options, num_prompts=None), sampling)
        return evaluate_recorded(options, sets, folder, held, earlier)
    if options.world is not None:
        return evaluate_world(options, sampling)
    return evaluate_model(options, sampling, folder, held, earlier)


def short_name(model: str) -> str:
    path = Path(model)
    return path.stem if path.suffix == ".jsonl" else path.name or path.resolve().name


def check_options(options: EvalArguments, sampling: SamplingArguments) -> None:
    """ValueError for what is missing, does not go together, or is out of range."""
    asked = [name for name in ("data", "benchmarks", "prompts", "forgetting", "world") if getattr(options, name)]
    for way, read in READ_BY.items():
        if getattr(options, way) is not None:
            unread = [f"--{name}" for name in given_options(options, sampling) if name not in read]
            if unread:
                raise ValueError(f"--{way} does not go with {', '.join(unread)}: leave that out.")
    if options.regrade is None and options.samples is None and options.model is None:
        raise ValueError("--model is missing: a model folder or hub id (or --samples FILE with texts made elsewhere).")
    if options.regrade is None and not asked:
        raise ValueError("Nothing to measure: give --benchmarks, --prompts, --data, --forgetting or --world.")
    given = given_options(options, sampling)
    if options.reward is not None and options.data is None:
        raise ValueError("--reward grades the samples of --data; benchmarks are graded by their answers.")
    if options.reference is not None and not (options.data or options.forgetting or options.world or options.samples):
        raise ValueError("--reference is for --data, --forgetting or --world; give one of them, or leave it out.")
    drawing = [name for name in ("temperature", "temperatures", "top_p", "top_k", "max_new_tokens") if name in given]
    if asked == ["data"] and options.reward is None and sampling.num_samples is None and drawing:
        raise ValueError(f"--{drawing[0]} is for sampling: give a --reward or --num_samples too.")
    if options.forgetting and options.reference is None:
        raise ValueError("--forgetting needs --reference, the base model to compare with.")
    if sampling.temperature is not None and sampling.temperatures is not None:
        raise ValueError("Give --temperature or --temperatures, not both.")
    if sampling.backend != "vllm":
        for name in given:
            if name.startswith("vllm_"):
                raise ValueError(f"--{name} is for --backend vllm; give that too, or leave it out.")
    least = {"num_samples": 0 if options.data else 1, "batch_size": 1, "max_new_tokens": 1, "num_prompts": 1}
    for name, value in {**asdict(sampling), "num_prompts": options.num_prompts}.items():
        if name in least and value is not None and value < least[name]:
            raise ValueError(f"--{name} must be at least {least[name]}, got {value}.")


def given_options(options: EvalArguments, sampling: SamplingArguments) -> list[str]:
    """Options that differ from their defaults."""
    return [
        field.name for group in (options, sampling) for field in fields(group)
        if getattr(group, field.name) != field.default
    ]  # fmt: skip


def evaluate_world(options: EvalArguments, sampling: SamplingArguments) -> Iterator[dict[str, Any]]:
    from .worlds import WORLDS, evaluate
    from .worlds.tokenizer import VOCABULARY

    if options.world not in WORLDS:
        raise ValueError(f"Unknown world {options.world!r}; choose one of {', '.join(WORLDS)}.")
    model = load_model(options.model, options.dtype)
    if len(plain_head(model).weight) != len(VOCABULARY):
        raise ValueError(f"{options.model} is no model of the built-in worlds: they have {len(VOCABULARY)} tokens.")
    base = None if options.reference is None else load_model(options.reference, options.dtype)
    measured = evaluate(
        model,
        options.world,
        base=base,
        seed=sampling.seed,
        num_prompts=options.num_prompts or 200,
        num_samples=sampling.num_samples or 64,
        temperature=1.0 if sampling.temperature is None else sampling.temperature,
    )
    yield {"evaluation": measured}


def evaluate_model(
    options: EvalArguments, sampling: SamplingArguments, folder: Path, held: ExitStack, earlier: dict[str, Any]
) -> Iterator[dict[str, Any]]:
    """Everything but worlds and recorded texts, from the cheapest check to the longest run."""
    kwargs = json_mapping(sampling.chat_template_kwargs, "chat_template_kwargs", '{"enable_thinking": false}')
    sampling = replace(sampling, chat_template_kwargs=kwargs)
    reward = None if options.reward is None else resolve_reward(options.reward)
    scorer = None if options.reward_model is None else reward_scorer(options.reward_model)
    encoder = None if options.embedding_model is None else named_encoder(options.embedding_model)
    if options.reference is not None:
        check_model(options.reference)
    tasks = benchmark_sets(options, sampling)
    rows = None if options.data is None else load_rows(options, sampling)
    if options.reward in REWARDS:
        reward(completions=[], **{name: [] for name in rows.column_names})  # says at once which columns it lacks
    data_tasks = [] if rows is None else data_samples(options, sampling, rows)
    taught = None if rows is None else taught_columns(rows)
    if rows is not None and taught is None and not data_tasks:
        raise ValueError(f"{options.data} has prompts only: give a --reward or --num_samples to draw answers.")
    check_names([*dict.fromkeys(one.benchmark for one in tasks), *dict.fromkeys(one.benchmark for one in data_tasks)])
    tokenizer = load_tokenizer(options.model, sampling.chat_template_path)
    everything = [*tasks, *data_tasks]
    plan = plan_draws(options.model, options.dtype, everything, tokenizer, sampling) if everything else None
    check_same_problems(everything, folder)
    check_same_grader(tasks, options.grader or "lenient", earlier)
    if options.forgetting:
        check_forgetting(options)
    if taught is not None:
        yield token_scores(options, tokenizer, rows.select_columns(training_columns(rows, taught)))
    if plan is not None:
        store = draw(plan, folder, held)
        by_reward = {task.benchmark: rewarded(options, reward, rows, tokenizer) for task in data_tasks if reward}
        mode = by_gold(options.grader or "lenient")
        for task in everything:
            found = evaluate_tasks(
                [task],
                store.samples,
                folder,
                grade=by_reward.get(task.benchmark, mode),
                sampling=lambda task, number: plan.sampling(task, store.drawn_with),
                scorer=scorer,
                encoder=encoder,
            )
            yield {"evaluations": [{**one, **judges(options)} for one in found]}
    if options.forgetting:
        yield {"forgetting": forgotten(options, folder)}


def check_forgetting(options: EvalArguments) -> None:
    """That lm-eval is there and knows the tasks; its own errors say what to do."""
    from .evaluation.forgetting import task_names
    from .evaluation.harness import harness_version, load_tasks

    harness_version()
    load_tasks(task_names(options.forgetting), options.task_dir)


def forgotten(options: EvalArguments, folder: Path) -> dict[str, Any]:
    from .evaluation.forgetting import forgetting

    return forgetting(
        options.reference,
        options.model,
        tasks=options.forgetting,
        task_dir=options.task_dir,
        limit=options.num_prompts,
        dtype=options.dtype,
        batch_size=8 if default_device().type == "cpu" else "auto",
        folder=folder / "forgetting",
    )


def benchmark_sets(options: EvalArguments, sampling: SamplingArguments) -> list[Task]:
    """The tasks of --benchmarks and --prompts."""
    benchmarks = [*resolve_benchmarks(options.benchmarks or []), *map(open_ended, options.prompts or [])]
    check_names([one.name for one in benchmarks])
    overrides = {name: getattr(sampling, name) for name in SAMPLING_OPTIONS}
    tasks = []
    for benchmark in benchmarks:
        tasks += benchmark_tasks(
            benchmark,
            load_problems(benchmark, options.data_dir)[: options.num_prompts],
            overrides=overrides,
            temperatures=read_temperatures(sampling.temperatures),
            prompt_format=sampling.prompt_format,
            system_prompt=sampling.system_prompt,
        )
    return tasks


def never_none(reward: Reward, name: str) -> Reward:
    """The reward, with an error where it gives None: whether such an answer is right is not known."""

    def checked(**columns: Any) -> list[float]:
        values = call(reward, columns)
        if any(value is None for value in values):
            raise ValueError(
                f"Reward {name} gave None, which says nothing about an answer; an evaluation needs a number."
            )
        return list(values)

    return checked


def rewarded(options: EvalArguments, reward: Callable, rows: Dataset, tokenizer: Any) -> Grader:
    """Grades from a reward function, called as TRL calls it, on the columns of the data."""

    def grade_task(task: Task, texts: Sequence[Sequence[str]]) -> Grades:
        asked = [{**row, "prompt": prompt} for row, prompt in zip(rows, task.prompts, strict=True)]
        encode = partial(tokenizer, add_special_tokens=False)
        samples = [[Sample(text, encode(text)["input_ids"], None) for text in row] for row in texts]
        values = grade(asked, samples, [never_none(reward, options.reward)])
        return grade_by_reward(options.reward, values, texts, options.correct_at)

    return grade_task


def load_rows(options: EvalArguments, sampling: SamplingArguments) -> Dataset:
    rows = load_training_data(
        options.data,
        split=options.split,
        name=options.data_config,
        formats=(*SFT_FORMATS, *PROMPT_FORMATS),
        columns=column_map(options.data_columns),
        layout=options.data_format,
        system_prompt=sampling.system_prompt,
        keep_all_columns=True,
    )
    return rows.select(range(min(len(rows), options.num_prompts or len(rows))))


def taught_columns(rows: Dataset) -> tuple[str, ...] | None:
    """The columns that hold an answer to learn from; None for prompts alone."""
    return next((columns for columns in SFT_FORMATS if set(columns) <= set(rows.column_names)), None)


def training_columns(rows: Dataset, taught: tuple[str, ...]) -> list[str]:
    return [column for column in rows.column_names if column in (*taught, *COMPANIONS)]


def data_samples(options: EvalArguments, sampling: SamplingArguments, rows: Dataset) -> list[Task]:
    """The tasks of --data: none where neither a reward nor a number of samples asks for answers."""
    number = sampling.num_samples
    if number == 0 or (number is None and options.reward is None):
        return []
    name = short_name(options.data).partition(".")[0]
    prompts = prompts_of(rows, options.data)
    problems = [Problem(f"{name}-{index:04d}", "", None) for index in range(len(prompts))]
    tasks = []
    for setting in read_temperatures(sampling.temperatures) or [sampling.temperature]:
        given = {key: getattr(sampling, key) for key in SAMPLING_OPTIONS} | {"temperature": setting}
        chosen = {**DATA_DEFAULTS, **{key: value for key, value in given.items() if value is not None}}
        if chosen["temperature"] == 0 and (sampling.temperatures or number is None):
            chosen["num_samples"] = 1
        tasks.append(Task(name, setting, problems, prompts, Sampling(**chosen)))
    return tasks


def prompts_of(rows: Dataset, source: str) -> list[Prompt]:
    """The column `prompt`, or conversations without the assistant's last message."""
    if "prompt" in rows.column_names:
        return list(rows["prompt"])
    if "messages" not in rows.column_names:
        found = ", ".join(rows.column_names)
        raise ValueError(f"Drawing answers needs a column prompt or messages; {source} has {found}.")
    conversations = [row[:-1] if row[-1]["role"] == "assistant" else row for row in rows["messages"]]
    if not all(conversations):
        raise ValueError(f"A conversation in {source} has nothing before the assistant's message to answer to.")
    return conversations


def token_scores(options: EvalArguments, tokenizer: Any, rows: Dataset) -> dict[str, Any]:
    """Scores of the data's own answers; with a reference also what the model lost against it on the same texts."""
    model = load_model(options.model, options.dtype)
    check_tokenizer_fits(model, tokenizer)
    reference = None if options.reference is None else load_model(options.reference, options.dtype)
    settings = {"max_length": options.max_length, "assistant_only_loss": options.assistant_only_loss}
    batches = prepared_batches(model, tokenizer, rows, TOKEN_BATCH, **settings)
    own = list(row_statistics(model, batches, reference))
    parts = {"tokens": token_evidence(own)}
    if reference is not None:
        parts["ledger"] = ledger(own, list(row_statistics(reference, batches)))
    del model, reference
    free_memory()  # what draws next may want all of it
    return parts
