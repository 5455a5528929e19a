"""Tasks to results: draw what is missing, grade all of it, score it, and keep every text and every verdict.

Files in the folder: samples.jsonl (each sample as it comes), problems.jsonl (what was asked and the golds),
grades.jsonl (what was extracted from each sample and why it got its grade). Killed at any moment, the same call
goes on with what is missing.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..data.sources import json_lines, read_text
from ..generation.samples import Backend, Request, Sample, requests_for, with_progress
from .benchmarks import Problem
from .results import fingerprint, write_lines
from .scoring import Grades, evaluate_task
from .store import SampleKey, SampleStore
from .tasks import Task

PROBLEMS = "problems.jsonl"
GRADES = "grades.jsonl"

Grader = Callable[[Task, Sequence[Sequence[str]]], Grades | None]
Scorer = Callable[[Sequence[str], Sequence[str]], Sequence[float]]


def keys_of(task: Task, num_samples: int) -> list[SampleKey]:
    """The samples of a task in order, those of one problem side by side."""
    return [
        SampleKey(task.benchmark, problem.id, task.temperature, index)
        for problem in task.problems
        for index in range(num_samples)
    ]


def task_settings(task: Task, prompt_ids: Sequence[Sequence[int]]) -> dict[str, Any]:
    """What decides the samples of a task, apart from how many there are: more may be drawn later."""
    how = task.sampling
    ids = {one.id: fingerprint(list(tokens))[:16] for one, tokens in zip(task.problems, prompt_ids, strict=True)}
    return {
        "prompts": ids,
        "top_p": how.top_p,
        "top_k": how.top_k,
        "max_new_tokens": how.max_new_tokens,
        "seed": how.seed,
    }


def draw_missing(
    tasks: Sequence[Task],
    prompt_ids: Sequence[Sequence[Sequence[int]]],
    store: SampleStore,
    open_backend: Callable[[], Backend],
) -> None:
    """Draw every sample that the store lacks; prompt_ids are those of each task. Without gaps no model is loaded."""
    work: list[tuple[list[Request], list[SampleKey], set[int]]] = []
    for task, ids in zip(tasks, prompt_ids, strict=True):
        keys = keys_of(task, task.sampling.num_samples)
        done = {position for position, key in enumerate(keys) if key in store.samples}
        work.append((requests_for(ids, task.sampling), keys, done))
    total, there = sum(len(keys) for _, keys, _ in work), sum(len(done) for _, _, done in work)
    if there == total:
        return
    backend = open_backend()
    store.note(backend.name)

    def draws() -> Iterator[tuple[int, Sample]]:
        for requests, keys, done in work:
            for position, one in backend.draw(requests, done):
                store.add(keys[position], one)
                yield position, one

    for _ in with_progress(draws(), total=total, done=there):
        pass


def samples_of(task: Task, samples: Mapping[SampleKey, Sample]) -> list[list[Sample]]:
    """[P][n] samples of a task. Without a sampling of its own, every problem has as many as the first.

    Raises ValueError for the first problem that lacks a sample.
    """
    if task.sampling is not None:
        number = task.sampling.num_samples
    else:
        first = task.benchmark, task.problems[0].id, task.temperature
        number = max(1, sum((key.benchmark, key.id, key.temperature) == first for key in samples))
    keys = keys_of(task, number)
    for key in keys:
        if key not in samples:
            raise ValueError(f"{task.benchmark}: problem {key.id} has no sample {key.index} (of {number}).")
    return [[samples[key] for key in keys[start : start + number]] for start in range(0, len(keys), number)]


def evaluate_tasks(
    tasks: Sequence[Task],
    samples: Mapping[SampleKey, Sample],
    folder: Path,
    *,
    grade: Grader,
    sampling: Callable[[Task, int], dict[str, Any]],
    scorer: Scorer | None = None,
    encoder: Any = None,
) -> list[dict[str, Any]]:
    """Grade and score the samples of the tasks; writes problems.jsonl and grades.jsonl, where rows of other tasks stay.

    grade: from a task and its texts [P][n] to their grades, None for open-ended prompts. sampling: from a task
    and its samples per problem to how they were drawn, for the results.
    """
    evaluations, graded = [], []
    for task in tasks:
        drawn = samples_of(task, samples)
        texts = [[one.text for one in row] for row in drawn]
        grades = grade(task, texts)
        scores = None if scorer is None else scored(task, texts, scorer)
        how = sampling(task, len(texts[0]))
        evaluations.append(evaluate_task(task, drawn, grades, scores=scores, encoder=encoder, sampling=how))
        graded += grade_rows(task, grades, scores, len(texts[0]))
    problems = list(problem_rows(tasks))
    write_lines(folder / PROBLEMS, [*earlier_rows(folder / PROBLEMS, problems, ("benchmark", "id")), *problems])
    write_lines(folder / GRADES, [*earlier_rows(folder / GRADES, graded, ("benchmark", "temperature")), *graded])
    return evaluations


def check_same_problems(tasks: Sequence[Task], folder: Path) -> None:
    """ValueError where the folder holds another problem, or another prompt for it, under the same names."""
    path = folder / PROBLEMS
    rows = json_lines(read_text(path), path).values() if path.is_file() else ()
    known = {(row["benchmark"], row["id"]): row for row in rows}
    for row in problem_rows(tasks):
        if known.get((row["benchmark"], row["id"]), row) != row:
            raise ValueError(
                f"{folder} holds another set called {row['benchmark']}, or other prompts for it ({row['id']} differs). "
                "Give the set another name, or use another --output_dir."
            )


def earlier_rows(path: Path, rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> list[dict[str, Any]]:
    """The rows of an earlier run that no new row replaces by having the same values under these names."""
    replaced = {tuple(row[name] for name in names) for row in rows}
    earlier = json_lines(read_text(path), path).values() if path.is_file() else ()
    return [row for row in earlier if tuple(row[name] for name in names) not in replaced]


def scored(task: Task, texts: Sequence[Sequence[str]], scorer: Scorer) -> list[list[float]]:
    """A reward model's scores, [P][n]."""
    number = len(texts[0])
    asked = [prompt for prompt in task.prompts for _ in range(number)]
    flat = list(scorer(asked, [text for row in texts for text in row]))
    return [flat[start : start + number] for start in range(0, len(flat), number)]


def problem_rows(tasks: Sequence[Task]) -> Iterator[dict[str, Any]]:
    """Every problem once, whatever number of tasks it is in."""
    for name, task in {task.benchmark: task for task in tasks}.items():
        for problem, prompt in zip(task.problems, task.prompts, strict=True):
            row = {"benchmark": name, "id": problem.id, "problem": problem.text, "answer": problem.answer}
            yield {**row, "prompt": prompt}


def grade_rows(
    task: Task, grades: Grades | None, scores: Sequence[Sequence[float]] | None, number: int
) -> Iterator[dict[str, Any]]:
    for position, key in enumerate(keys_of(task, number)):
        row, column = divmod(position, number)
        notes = {} if grades is None else grades.notes[row][column]
        if scores is not None:
            notes = {**notes, "score": scores[row][column]}
        if notes:
            yield {**key._asdict(), **notes}


def stored_problems(
    rows: Sequence[Mapping[str, Any]], benchmark: str, ids: Sequence[str]
) -> tuple[list[Problem], list[Any]]:
    """Problems and prompts of one benchmark by id, from the rows of a problems.jsonl; ValueError for a missing one."""
    own = {row["id"]: row for row in rows if row["benchmark"] == benchmark}
    for name in ids:
        if name not in own:
            raise ValueError(f"{PROBLEMS} lacks problem {name} of {benchmark}.")
    problems = [Problem(name, own[name]["problem"], own[name]["answer"]) for name in ids]
    return problems, [own[name]["prompt"] for name in ids]
