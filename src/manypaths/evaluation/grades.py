"""Grading the samples of a task: which are right, which answers are the same, and why each got its grade."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ..generation.samples import Sample
from ..grading import GRADER_VERSION, answer_key, extract, same_answers, unreliable_reference
from ..grading.graders import grade_choices, grade_samples, resolve_grader
from .benchmarks import Problem, conflicting
from .tasks import Task
from .voting import answer_classes_of_all

STATUSES = ("correct", "wrong", "unparsed", "timeout")


@dataclass(frozen=True)
class Grades:
    """Per problem and sample, [P][n]: the grader's value, whether it counts as right, the class of the answer.

    Samples whose answers are equal share a class; None where no answer could be read. `statuses` are of STATUSES.
    `grader` says who graded, `notes` [P][n] what was extracted and why it got its grade.
    """

    values: list[list[float]]
    correct: list[list[bool]]
    classes: list[list[int | None]]
    statuses: list[list[str]]
    grader: dict[str, Any]
    notes: list[list[dict[str, Any]]]


def grade_task(task: Task, samples: Sequence[Sequence[Sample]], correct_at: float = 1.0) -> Grades | None:
    """The grades of a task's samples [P][n]; None where nothing is graded.

    correct_at: the value from which a sample counts as right, for graders other than "math".
    Raises ValueError for a grader that gives no finite number for some sample.
    """
    if task.grader is None:
        return None
    return by_gold(task, samples) if task.grader == "math" else by_function(task, samples, correct_at)


def by_gold(task: Task, samples: Sequence[Sequence[Sample]]) -> Grades:
    """Final answers against the gold answers."""
    pairs = [
        (sample.text, problem.answer) for problem, row in zip(task.problems, samples, strict=True) for sample in row
    ]
    texts, golds = zip(*pairs, strict=True)
    choices = [problem.row.get("choices") for problem, row in zip(task.problems, samples, strict=True) for _ in row]
    remaining = iter(grade_choices(texts, golds, choices, mode=task.mode, show_progress=True))
    verdicts = [[next(remaining) for _ in row] for row in samples]
    statuses = [[verdict.status for verdict in row] for row in verdicts]
    correct = [[verdict.correct for verdict in row] for row in verdicts]
    answers = [[verdict.extracted or None for verdict in row] for row in verdicts]
    return Grades(
        values=[list(map(float, row)) for row in correct],
        correct=correct,
        classes=text_classes(samples) if task.answers == "text" else final_classes(answers),
        statuses=statuses,
        grader={"name": "math", "mode": task.mode, "version": GRADER_VERSION, "counts": counts_of(statuses)},
        notes=[[asdict(verdict) for verdict in row] for row in verdicts],
    )


def by_function(task: Task, samples: Sequence[Sequence[Sample]], correct_at: float) -> Grades:
    """The values of a named grader or a user's function; a sample is right when its value reaches `correct_at`."""
    rows = [{**problem.row, "answer": problem.answer} if problem.answer is not None else dict(problem.row)
            for problem in task.problems]  # fmt: skip
    values = grade_samples(resolve_grader(task.grader), rows, task.prompts, samples)
    for problem, row in zip(task.problems, values, strict=True):
        if not all(isinstance(value, (int, float)) and math.isfinite(value) for value in row):
            raise ValueError(
                f"Reward {task.grader} gave {row} for the samples of {task.name} {problem.id}; an evaluation needs a finite "
                "number for each."
            )
    correct = [[value >= correct_at - 1e-9 for value in row] for row in values]
    statuses = [["correct" if right else "wrong" for right in row] for row in correct]
    return Grades(
        values=[list(map(float, row)) for row in values],
        correct=correct,
        classes=text_classes(samples) if task.answers == "text" else classes_of_finals(samples),
        statuses=statuses,
        grader={"name": task.grader, "mode": None, "version": GRADER_VERSION, "counts": counts_of(statuses),
                "correct_at": correct_at},
        notes=[
            [{"correct": right, "reward": float(value)} for right, value in zip(*pair, strict=True)]
            for pair in zip(correct, values, strict=True)
        ],
    )  # fmt: skip


def counts_of(statuses: Sequence[Sequence[str]]) -> dict[str, int]:
    flat = [status for row in statuses for status in row]
    return {name: flat.count(name) for name in STATUSES}


def final_classes(answers: Sequence[Sequence[str | None]]) -> list[list[int | None]]:
    """[P][n] final answers to the number of their class within the problem: equal values share one."""
    keys = [[None if answer is None else answer_key(answer) for answer in row] for row in answers]
    return answer_classes_of_all(keys, same_answers)


def classes_of_finals(samples: Sequence[Sequence[Sample]]) -> list[list[int | None]]:
    """Classes of what each text gives as its final answer; where no text at all gives one, every text is its answer."""
    answers = [[extract(sample.text, "lenient") or None for sample in row] for row in samples]
    has_one = any(answer is not None for row in answers for answer in row)
    return final_classes(answers) if has_one else text_classes(samples)


def text_classes(samples: Sequence[Sequence[Sample]]) -> list[list[int | None]]:
    """[P][n] the same for answers that are equal word for word; an empty text is not one."""
    return answer_classes_of_all([[" ".join(sample.text.split()) or None for sample in row] for row in samples])


def unreliable_references(problems: Sequence[Problem]) -> dict[str, list[str]]:
    """Ids of problems whose reference answer may be wrong or unfit to compare with, by reason."""
    reasons: dict[str, list[str]] = {}
    for problem in problems:
        reason = None if problem.answer is None else unreliable_reference(problem.answer)
        if reason is not None:
            reasons.setdefault(reason, []).append(problem.id)
    ids = conflicting(problems)
    return {**reasons, "conflicting golds": ids} if ids else reasons


def check_same_grader(tasks: Sequence[Task], earlier: Sequence[Mapping[str, Any]]) -> None:
    """ValueError where tasks would join results (`earlier`, entries of "tasks") that stay and had other rules."""
    modes = {task.mode for task in tasks if task.grader == "math"}
    again = {(task.name, task.temperature) for task in tasks}
    for entry in earlier:
        rules = entry.get("grader") or {}  # forgetting has none
        if (entry["task"], entry["temperature"]) in again or rules.get("name") != "math":
            continue
        for mode in modes:
            if (rules["mode"], rules["version"]) != (mode, GRADER_VERSION):
                raise ValueError(
                    f"The folder's {entry['task']} was graded {rules['mode']} by grader version {rules['version']}, now it "
                    f"would be {mode}, version {GRADER_VERSION}. Give --grader {rules['mode']}, score the folder again first "
                    f"(--rescore FOLDER --grader {mode}), or use another --output_dir."
                )
