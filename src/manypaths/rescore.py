"""Scores without a model: of texts that were made elsewhere, and again of the samples a folder holds."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from .evaluation.diversity import named_encoder
from .evaluation.recorded import read_recorded
from .evaluation.results import fingerprint, macro, record
from .evaluation.reward_model import scorer as reward_scorer
from .evaluation.run import PROBLEMS, evaluate_tasks, samples_of, stored_problems
from .evaluation.samples import Sample, Sampling
from .evaluation.scoring import by_gold
from .evaluation.store import SampleKey, SampleStore
from .evaluation.tasks import Task
from .options import EvalArguments
from .sources import json_lines, read_text


def evaluate_recorded(options: EvalArguments, sets: Sequence[Task], folder: Path) -> dict[str, Any]:
    """Texts made elsewhere for these sets of problems, brought into the folder so that they can be graded again."""
    tasks, found = recorded_tasks(sets, read_recorded(options.samples), options.samples)
    scorer = None if options.reward_model is None else reward_scorer(options.reward_model)
    encoder = None if options.embedding_model is None else named_encoder(options.embedding_model)
    with SampleStore(folder, {"samples": fingerprint([[*key, one.text] for key, one in found.items()])}) as store:
        for key, one in found.items():
            if key not in store.samples:
                store.add(key, one)
    evaluations = evaluate_tasks(
        tasks,
        folder,
        grade=by_gold(options.grader),
        sampling=lambda task, number: {"backend": "recorded", "num_samples": number, "temperature": task.setting},
        scorer=scorer,
        encoder=encoder,
    )
    return {"evaluations": evaluations, "macro": macro(evaluations)}


def recorded_tasks(
    sets: Sequence[Task], recorded: Mapping[SampleKey, Sample], source: str
) -> tuple[list[Task], dict[SampleKey, Sample]]:
    """A task per benchmark and recorded temperature, and their samples under full keys.

    Raises ValueError for texts without a benchmark where several are asked for, a benchmark without texts, or a
    text for a problem that the benchmark does not have.
    """
    tasks, found = [], {}
    for one in sets:
        own = {
            key._replace(benchmark=one.benchmark): text
            for key, text in recorded.items()
            if key.benchmark in (None, one.benchmark) and key.id not in one.excluded
        }
        if not own:
            raise ValueError(f"{source} has no text for benchmark {one.benchmark}.")
        known = {problem.id for problem in one.problems}
        for key in own:
            if key.id not in known:
                raise ValueError(f"{source} has a text for {key.id!r}; {one.benchmark} has no such problem.")
        tasks += [replace(one, setting=heat, sampling=None) for heat in dict.fromkeys(key.temperature for key in own)]
        found |= own
    for task in tasks:
        samples_of(task, found)
    if len(sets) > 1 and any(key.benchmark is None for key in recorded):
        raise ValueError(f"{source} has texts without a benchmark, and {len(sets)} benchmarks are asked for.")
    return tasks, found


def regrade(options: EvalArguments, folder: Path) -> dict[str, Any]:
    """The folder's results with its stored samples graded and scored again; what was not sampled stays."""
    if not (folder / "results.json").is_file() or not (folder / PROBLEMS).is_file():
        raise FileNotFoundError(f"{folder} holds no finished evaluation with samples to grade again.")
    results = json.loads(read_text(folder / "results.json"))
    rows = list(json_lines(read_text(folder / PROBLEMS), folder / PROBLEMS).values())
    tasks, how = [], []
    for one in results["evaluations"]:
        if one["grader"] and "reward" in one["grader"]:
            raise ValueError(
                f"{one['benchmark']} was graded by the reward {one['grader']['reward']}, which reads the data: give the "
                "same command again; it keeps the samples."
            )
        problems, prompts = stored_problems(rows, one["benchmark"])
        given = {name: value for name, value in one["sampling"].items() if name != "backend"}
        sampling = None if one["sampling"]["backend"] == "recorded" else Sampling(**given)
        tasks.append(Task(one["benchmark"], one["setting"], problems, prompts, sampling, one["excluded"]))
        how.append(one["sampling"])
    chosen = {name: getattr(options, name) or results["settings"][name] for name in ("reward_model", "embedding_model")}
    evaluations = evaluate_tasks(
        tasks,
        folder,
        grade=by_gold(options.grader),
        sampling=lambda task, number: how[tasks.index(task)],
        scorer=None if chosen["reward_model"] is None else reward_scorer(chosen["reward_model"]),
        encoder=None if chosen["embedding_model"] is None else named_encoder(chosen["embedding_model"]),
    )
    settings = {**results["settings"], **chosen, "grader": options.grader}
    kept = {name: part for name, part in results.items() if name not in record({}, "", "")}
    parts = {**kept, "evaluations": evaluations, "macro": macro(evaluations)}
    return record(settings, results["model"], options.label or results["label"], **parts)
