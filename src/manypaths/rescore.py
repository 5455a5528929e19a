"""Scores without a model: of texts that were made elsewhere, and again of the samples a folder holds."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

from .cli.options import EvalArguments
from .data.sources import json_lines, read_text
from .evaluation.diversity import named_encoder
from .evaluation.results import fingerprint, joined_results, record
from .evaluation.reward_model import scorer as reward_scorer
from .evaluation.run import PROBLEMS, check_same_problems, evaluate_tasks, samples_of, stored_problems
from .evaluation.scoring import by_gold, check_same_grader
from .evaluation.store import SAMPLES, SampleKey, SampleStore, read_samples
from .evaluation.tasks import Task
from .generation.precomputed import read_recorded
from .generation.samples import Sample, Sampling
from .report.compare import RESULTS, load_results

SAMPLING = [field.name for field in fields(Sampling)]


def evaluate_recorded(
    options: EvalArguments, sets: Sequence[Task], folder: Path, held: ExitStack, earlier: Mapping[str, Any]
) -> Iterator[dict[str, Any]]:
    """Texts made elsewhere for these sets of problems, brought into the folder so that they can be graded again."""
    tasks, found = recorded_tasks(sets, read_recorded(options.samples), options.samples, options.num_prompts)
    check_same_problems(tasks, folder)
    check_same_grader(tasks, options.grader or "lenient", earlier)
    scorer = None if options.reward_model is None else reward_scorer(options.reward_model)
    encoder = None if options.embedding_model is None else named_encoder(options.embedding_model)
    store = held.enter_context(SampleStore(folder, {"samples": recorded_fingerprint(found)}))
    for key, one in found.items():
        if key not in store.samples:
            store.add(key, one)
    evaluations = evaluate_tasks(
        tasks,
        store.samples,
        folder,
        grade=by_gold(options.grader or "lenient"),
        sampling=lambda task, number: {"backend": "recorded", "num_samples": number, "temperature": task.temperature},
        scorer=scorer,
        encoder=encoder,
    )
    yield {"evaluations": [{**one, **judges(options)} for one in evaluations]}


def judges(options: EvalArguments) -> dict[str, Any]:
    """Who judged the samples beside the grader, kept with an evaluation so that grading again asks them again."""
    return {"reward_model": options.reward_model, "embedding_model": options.embedding_model}


def recorded_fingerprint(samples: Mapping[SampleKey, Sample]) -> str:
    return fingerprint([[*key, *asdict(one).values()] for key, one in samples.items()])


def recorded_tasks(
    sets: Sequence[Task], recorded: Mapping[SampleKey, Sample], source: str, num_prompts: int | None
) -> tuple[list[Task], dict[SampleKey, Sample]]:
    """A task per benchmark and recorded temperature, and their samples under full keys.

    One temperature per benchmark counts as its default. num_prompts: only the first problems of each.
    Raises ValueError for texts without a benchmark where several are asked for, a benchmark without texts, a problem
    that lacks a sample, a text for a problem that the benchmark does not have, or a temperature that only some have.
    """
    if len(sets) > 1 and any(key.benchmark is None for key in recorded):
        raise ValueError(
            f"{source} has texts that do not say their benchmark, and {len(sets)} benchmarks are asked for: give every "
            'row a "benchmark", or ask for one at a time.'
        )
    tasks, found = [], {}
    for one in sets:
        own = {
            key._replace(benchmark=one.benchmark): text
            for key, text in recorded.items()
            if key.benchmark in (None, one.benchmark) and key.id not in one.excluded
        }
        if not own:
            raise ValueError(f"{source} has no text for benchmark {one.benchmark}.")
        known = {problem.id: place for place, problem in enumerate(one.problems)}
        for key in own:
            if key.id not in known:
                raise ValueError(
                    f"{source} has a text for {key.id!r}; {one.benchmark} has no such problem. Its {len(known)} are called "
                    f"{one.problems[0].id} and so on."
                )
        heats = list(dict.fromkeys(key.temperature for key in own))
        if None in heats and len(heats) > 1:
            raise ValueError(f"{source}: some texts of {one.benchmark} have a temperature and some have none.")
        first = replace(one, problems=one.problems[:num_prompts], prompts=one.prompts[:num_prompts], sampling=None)
        for heat in heats:
            tasks.append(replace(first, setting=heat if len(heats) > 1 else None, recorded_temperature=heat))
        found |= {key: text for key, text in own.items() if known[key.id] < len(first.problems)}
    for task in tasks:
        check_complete(task, found, source)
    return tasks, found


def check_complete(task: Task, found: Mapping[SampleKey, Sample], source: str) -> None:
    there = {key.id for key in found if key.benchmark == task.benchmark}
    missing = [problem.id for problem in task.problems if problem.id not in there]
    if missing:
        raise ValueError(
            f"{source} has texts for {len(there)} of the {len(task.problems)} problems of {task.benchmark}, none for "
            f"{missing[0]}. Add the rest, or read the first N problems only with --num_prompts N."
        )
    samples_of(task, found)


def regrade(options: EvalArguments, folder: Path) -> dict[str, Any]:
    """The folder's results with its stored samples graded and scored again; what has no gold answers stays as it is.

    The grader, reward and embedding models are those of before unless others are given; a new label alone grades nothing.
    """
    if not (folder / RESULTS).is_file():
        raise FileNotFoundError(f"{folder} holds no finished evaluation.")
    (results,) = load_results([folder])
    label = options.label or results["label"]
    if options.label is not None and not any((options.grader, options.reward_model, options.embedding_model)):
        return {**results, "label": label}
    if not results.get("evaluations"):
        raise ValueError(f"{folder} holds no samples to grade again; only a new --label can be given to it.")
    rows = list(json_lines(read_text(folder / PROBLEMS), folder / PROBLEMS).values())
    samples = read_samples(folder / SAMPLES)
    again = [regraded(one, rows, samples, options, folder) for one in results["evaluations"]]
    return joined_results(
        results, record(results["settings"], results["model"], label, results["weights"], evaluations=again)
    )


def regraded(
    one: dict[str, Any],
    rows: Sequence[Mapping[str, Any]],
    samples: Mapping[SampleKey, Sample],
    options: EvalArguments,
    folder: Path,
) -> dict[str, Any]:
    """One evaluation, graded again."""
    if "reward" in (one["grader"] or ()):
        print(f"{one['benchmark']} stays as it was graded: its reward reads the data. Give the first command again.")
        return one
    problems, prompts = stored_problems(rows, one["benchmark"], one["per_problem"]["id"])
    drawn = one["sampling"]
    given = None if drawn["backend"] == "recorded" else Sampling(**{name: drawn[name] for name in SAMPLING})
    heat = None if given is not None else one["temperature"]
    task = Task(one["benchmark"], one["setting"], problems, prompts, given, one["excluded"], heat)
    judged = {name: getattr(options, name) or one.get(name) for name in judges(options)}
    (entry,) = evaluate_tasks(
        [task],
        samples,
        folder,
        grade=by_gold(options.grader or (one["grader"] or {}).get("mode", "lenient")),
        sampling=lambda task, number: drawn,
        scorer=None if judged["reward_model"] is None else reward_scorer(judged["reward_model"]),
        encoder=None if judged["embedding_model"] is None else named_encoder(judged["embedding_model"]),
    )
    return {**entry, **judged}
