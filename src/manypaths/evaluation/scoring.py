"""One benchmark at one temperature: its samples, their grades, and all scores from them.

A task's samples live in the store of the run, so that every score can be computed again from the texts. Grades
come from the gold answers or from a reward function; without either the samples are judged for diversity only.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any

from ..generation.samples import Sample
from ..grading import GRADER_VERSION, answer_key, extract, grade_many, same_answers, weakly_gradable
from .benchmarks import Problem, conflicting
from .diversity import TOKENIZERS, corpus_score, diversity_per_prompt
from .intervals import bootstrap_interval, share_interval
from .metrics import answer_entropy, avg_at_k, best_of_n, distinct_answers, expected_max, pass_at_k_curve
from .results import Score, as_score, fingerprint
from .tasks import Task
from .voting import SUBSETS, answer_classes_of_all, maj_at_k

STATUSES = ("correct", "wrong", "unparsed", "timeout")


@dataclass(frozen=True)
class Grades:
    """Per problem and sample, [P][n]: the grade, whether it counts as right, the class of its final answer.

    Samples whose answers are equal share a class; None where no answer could be read. `grader` says who graded,
    `notes` [P][n] what was extracted and why it got its grade.
    """

    values: list[list[float]]
    correct: list[list[bool]]
    classes: list[list[int | None]]
    grader: dict[str, Any]
    notes: list[list[dict[str, Any]]]


def by_gold(mode: str) -> Callable[[Task, Sequence[Sequence[str]]], Grades | None]:
    """Grades from the problems' golds; none for problems without."""

    def grade_task(task: Task, texts: Sequence[Sequence[str]]) -> Grades | None:
        if task.problems[0].answer is None:
            return None
        return grade_by_gold([one.answer for one in task.problems], texts, mode, show_progress=True)

    return grade_task


def check_same_grader(tasks: Sequence[Task], mode: str, earlier: Mapping[str, Any]) -> None:
    """ValueError where graded tasks would join results that stay and were graded by other rules."""
    if all(task.problems[0].answer is None for task in tasks):
        return
    again = {(task.benchmark, task.setting) for task in tasks}
    for one in earlier.get("evaluations", ()):
        rules = one["grader"] or {}
        if (one["benchmark"], one["setting"]) in again or "mode" not in rules:
            continue
        if (rules["mode"], rules["version"]) != (mode, GRADER_VERSION):
            raise ValueError(
                f"The folder's {one['benchmark']} was graded {rules['mode']} by grader version {rules['version']}, now it "
                f"would be {mode}, version {GRADER_VERSION}. Give --grader {rules['mode']}, grade the folder again first "
                f"(--regrade FOLDER --grader {mode}), or use another --output_dir."
            )


def grade_by_gold(golds: Sequence[str], texts: Sequence[Sequence[str]], mode: str, *, show_progress: bool) -> Grades:
    """Final answers against the gold answers. golds: [P]; texts: [P][n]."""
    flat = [(text, gold) for gold, row in zip(golds, texts, strict=True) for text in row]
    verdicts = grade_many(
        [text for text, _ in flat], [gold for _, gold in flat], mode=mode, show_progress=show_progress
    )
    remaining = iter(verdicts)
    rows = [[next(remaining) for _ in row] for row in texts]
    counts = {name: sum(verdict.status == name for verdict in verdicts) for name in STATUSES}
    return Grades(
        values=[[float(verdict.correct) for verdict in row] for row in rows],
        correct=[[verdict.correct for verdict in row] for row in rows],
        classes=classes_of([[verdict.extracted or None for verdict in row] for row in rows]),
        grader={
            "mode": mode,
            "version": GRADER_VERSION,
            "counts": counts,
            "timeout_rate": counts["timeout"] / len(verdicts),
        },
        notes=[[asdict(verdict) for verdict in row] for row in rows],
    )


def grade_by_reward(
    name: str, rewards: Sequence[Sequence[float]], texts: Sequence[Sequence[str]], correct_at: float
) -> Grades:
    """Rewards that were computed elsewhere; a sample is right when its reward reaches `correct_at`.

    Raises ValueError for a reward that is not finite.
    """
    for number, row in enumerate(rewards, start=1):
        if not all(math.isfinite(value) for value in row):
            raise ValueError(f"Reward {name} gave {row} for the samples of prompt {number}; rewards must be finite.")
    correct = [[value >= correct_at - 1e-9 for value in row] for row in rewards]
    counts = {"correct": sum(map(sum, correct)), "wrong": sum(len(row) - sum(row) for row in correct)}
    return Grades(
        values=[list(map(float, row)) for row in rewards],
        correct=correct,
        classes=classes_of(final_answers(texts)),
        grader={"reward": name, "correct_at": correct_at, "counts": counts},
        notes=[[{"correct": right} for right in row] for row in correct],
    )


def final_answers(texts: Sequence[Sequence[str]]) -> list[list[str | None]]:
    """What each text gives as its answer, None where none can be read.

    Where no text at all gives one, as where answers are formulas or code without a box, every text is its own answer.
    """
    found = [[extract(text, "lenient") or None for text in row] for row in texts]
    if any(answer is not None for row in found for answer in row):
        return found
    return [[text.strip() or None for text in row] for row in texts]


def classes_of(answers: Sequence[Sequence[str | None]]) -> list[list[int | None]]:
    """[P][n] answers to the number of their class within the problem."""
    keys = [[None if answer is None else answer_key(answer) for answer in row] for row in answers]
    return answer_classes_of_all(keys, same_answers)


def evaluate_task(
    task: Task,
    drawn: Sequence[Sequence[Sample]],
    grades: Grades | None,
    *,
    scores: Sequence[Sequence[float]] | None = None,
    encoder: Any = None,
    sampling: dict[str, Any],
) -> dict[str, Any]:
    """An entry of "evaluations" in results.json.

    drawn: [P][n]. scores: [P][n] of a reward model, for best-of-N. encoder: for embedding diversity.
    sampling: how the samples were drawn, as it goes into the results.
    """
    texts = [[one.text for one in row] for row in drawn]
    num_samples = len(texts[0])
    per_problem: dict[str, Any] = {"id": [problem.id for problem in task.problems]}
    found: dict[str, Score] = {}
    if grades is not None:
        per_problem |= {
            "accuracy": [fmean(row) for row in grades.correct],
            "num_correct": [sum(row) for row in grades.correct],
            "distinct_answers": [distinct_answers(row) for row in grades.classes],
            "answer_entropy": [answer_entropy(row) for row in grades.classes],
        }
        found |= graded_scores(grades, num_samples)
        found |= {name: mean_score(per_problem[name]) for name in ("distinct_answers", "answer_entropy")}
        if "reward" in grades.grader:
            per_problem["reward"] = [fmean(row) for row in grades.values]
            found["mean_reward"] = mean_score(per_problem["reward"])
    if scores is not None:
        found |= best_of_scores(scores, grades, num_samples)
    if num_samples > 1:
        diversity = diversity_per_prompt(texts, encoder)
        per_problem |= diversity
        corpus = {name: corpus_score(values) for name, values in diversity.items()}
        found |= {name: score for name, score in corpus.items() if score is not None}
    lengths = [[one.num_tokens for one in row] for row in drawn]
    if all(length is not None for row in lengths for length in row):
        per_problem["length"] = [fmean(row) for row in lengths]
        found["length"] = mean_score(per_problem["length"])
    if all(one.logprob is not None and one.num_tokens for row in drawn for one in row):
        per_problem["entropy"] = [
            -math.fsum(one.logprob for one in row) / sum(one.num_tokens for one in row) for row in drawn
        ]
        found["entropy"] = mean_score(per_problem["entropy"])
    stops = [one.stop for row in drawn for one in row]
    return {
        "benchmark": task.benchmark,
        "setting": task.setting,
        "temperature": sampling.get("temperature"),
        "metric": None if grades is None else f"avg@{num_samples}",
        "scores": found,
        "per_problem": per_problem,
        "num_problems": len(texts),
        "num_samples": num_samples,
        "prompt_hash": fingerprint(list(task.prompts)),
        "sampling": sampling,
        "grader": None if grades is None else grades.grader,
        "stops": {str(stop): stops.count(stop) for stop in dict.fromkeys(stops)},
        "truncated": None if None in stops else fmean(stop == "length" for stop in stops),
        "weakly_gradable": doubtful(task.problems),
        "excluded": list(task.excluded),
        "tokenizers": TOKENIZERS,
        "votes": {"ties": "fair", "random_subsets": SUBSETS},
    }


def graded_scores(grades: Grades, num_samples: int) -> dict[str, Score]:
    """avg@n, and pass@k and maj@k for k = 1, 2, 4, ... n."""
    counts = [sum(row) for row in grades.correct]
    curves = pass_at_k_curve(counts, num_samples, ks(num_samples))
    found = {f"avg@{num_samples}": share_score([avg_at_k(row, num_samples) for row in grades.correct])}
    found |= {f"pass@{k}": share_score(values) for k, values in curves.items()}
    for k in ks(num_samples)[1:]:
        votes = [maj_at_k(classes, right, k) for classes, right in zip(grades.classes, grades.correct, strict=True)]
        found[f"maj@{k}"] = share_score([vote.value for vote in votes])
    return found


def best_of_scores(scores: Sequence[Sequence[float]], grades: Grades | None, num_samples: int) -> dict[str, Score]:
    """Per N, the mean best score of N samples and, with grades, how right the sample is that has it, and how right
    the answer is that wins a vote in which samples count by the softmax of their scores."""
    found: dict[str, Score] = {}
    for n in ks(num_samples):
        found[f"expected_max@{n}"] = mean_score([expected_max(row, n) for row in scores])
        if grades is not None:
            rows = list(zip(scores, grades.classes, grades.correct, strict=True))
            found[f"best_of@{n}"] = share_score([best_of_n(row, right, n) for row, _, right in rows])
            votes = [maj_at_k(classes, right, n, log_weights=row) for row, classes, right in rows]
            found[f"weighted_maj@{n}"] = share_score([vote.value for vote in votes])
    return found


def doubtful(problems: Sequence[Problem]) -> dict[str, list[str]]:
    """Ids whose grades are worth less: prose golds and the like by reason, and one question with several golds."""
    weak: dict[str, list[str]] = {}
    for problem in problems:
        reason = None if problem.answer is None else weakly_gradable(problem.answer)
        if reason is not None:
            weak.setdefault(reason, []).append(problem.id)
    ids = conflicting(problems)
    if ids:
        weak["conflicting golds"] = ids
    return weak


def mean_score(values: Sequence[float]) -> Score:
    return as_score(bootstrap_interval(values))


def share_score(values: Sequence[float]) -> Score:
    return as_score(share_interval(values))


def ks(num_samples: int) -> list[int]:
    """1, 2, 4, ... and num_samples itself."""
    return sorted({2**power for power in range(num_samples.bit_length())} - {0} | {num_samples})
