r"""Grading of final answers: exact where it can be, computer algebra in killable processes where it must be.

`grade` and `grade_many` extract the answer, `same_answers` and `answer_key` compare extracted answers with each
other. Policy: the last box wins; integers and decimals are exact; a factor of 100 is forgiven only where one side
has a percent sign and the other no unit; units may be missing, but where both sides have one they have to agree;
lists and sets have no order, tuples have; interval ends matter; letters are compared as letters, golds in words as
text.
"""

import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass

from tqdm import tqdm

from . import workers as pool_of_workers
from .comparison import Comparison, answer_key, compare, is_prose
from .extraction import LONGEST_ANSWER, MODES, Mode, extract
from .normal_form import tidy
from .structure import split

__all__ = [
    "GRADER_VERSION",
    "MODES",
    "Verdict",
    "answer_key",
    "extract",
    "grade",
    "grade_many",
    "same_answers",
    "unreliable_reference",
]

GRADER_VERSION = "3"  # raised whenever a verdict can change
DEADLINE = 5.0
MOST_CACHED = 100_000
UNPARSED = frozenset(("no box", "no answer", "empty answer", "not understood"))
STOPPED = frozenset(("time-out", "out of memory", "worker died"))


@dataclass(frozen=True)
class Verdict:
    """A grade: whether the answer is correct, what was taken for the answer, and why, in a short plain phrase."""

    correct: bool
    extracted: str | None
    reason: str

    @property
    def status(self) -> str:
        """ "correct", "wrong", "unparsed" (no answer, or none that can be read) or "timeout" (the worker was stopped)."""
        if self.correct:
            return "correct"
        return "unparsed" if self.reason in UNPARSED else "timeout" if self.reason in STOPPED else "wrong"


cache: dict[tuple[str, str], Comparison] = {}
cache_lock = threading.Lock()


def renew_lock() -> None:
    """A thread of the parent may have held the lock when this process was forked."""
    global cache_lock
    cache_lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=renew_lock)


def grade(answer_text: str, gold: str, *, mode: Mode = "lenient") -> Verdict:
    """Grade one text; see grade_many."""
    return grade_many([answer_text], [gold], mode=mode)[0]


def grade_many(
    answer_texts: Sequence[str],
    golds: Sequence[str],
    *,
    mode: Mode = "lenient",
    workers: int | None = None,
    deadline: float = DEADLINE,
    show_progress: bool = False,
) -> list[Verdict]:
    r"""Grade texts against their golds, in order.

    mode: "strict" wants a box (for rewards), "lenient" also takes the usual phrases, "last_number" at last any number;
    see extract.
    workers: how many processes at most, by default and never more than one per core.
    deadline: seconds for one comparison; what takes longer is a time-out, and its process is killed.

    Most answers are decided exactly in this process. Safe in any thread; no signal is used. Results are cached by
    gold and extracted answer, time-outs are not. Raises ValueError for an unknown mode, unequal lengths, a deadline
    that is not positive or fewer than one worker, RuntimeError if the worker processes cannot start at all.
    """
    if len(answer_texts) != len(golds):
        raise ValueError(f"Grading needs one gold per answer; got {len(answer_texts)} answers and {len(golds)} golds.")
    extracted = [extract(text, mode) for text in answer_texts]
    pairs = [(gold, answer or "") for gold, answer in zip(golds, extracted, strict=True)]
    found = compare_all([pair for pair in pairs if gradable(pair)], workers, deadline, show_progress)
    missing = "no box" if mode == "strict" else "no answer"
    verdicts = []
    for (gold, answer), candidate in zip(pairs, extracted, strict=True):
        if candidate is None:
            verdicts.append(Verdict(False, None, missing))
        elif not gradable((gold, answer)):
            long = "answer too long" if len(answer) >= LONGEST_ANSWER else "gold too long"
            verdicts.append(Verdict(False, answer, long if answer else "empty answer"))
        else:
            verdicts.append(Verdict(bool(found[gold, answer].same), answer, found[gold, answer].reason))
    return verdicts


def same_answers(
    pairs: Sequence[tuple[str, str]], *, workers: int | None = None, deadline: float = DEADLINE
) -> list[bool]:
    """Whether the two extracted answers of each pair are the same; the order within a pair does not matter.

    For classes of answers in voting. A comparison that runs out of time counts as different. Raises as grade_many.
    """
    ordered = [tuple(sorted(pair)) for pair in pairs]
    found = compare_all([pair for pair in ordered if gradable(pair)], workers, deadline, False)
    return [pair[0] == pair[1] or bool(gradable(pair) and found[pair].same) for pair in ordered]


def gradable(pair: tuple[str, str]) -> bool:
    return bool(pair[1]) and max(map(len, pair)) < LONGEST_ANSWER


def compare_all(
    pairs: Sequence[tuple[str, str]], workers: int | None, deadline: float, show_progress: bool
) -> dict[tuple[str, str], Comparison]:
    """The comparison of every distinct pair of gold and answer: from the cache, exactly, or by a worker."""
    if not deadline > 0:
        raise ValueError(f"The grading deadline must be positive seconds, got {deadline}.")
    if workers is not None and workers < 1:
        raise ValueError(f"Grading needs at least one worker, got {workers}.")
    with tqdm(total=len(set(pairs)), desc="grading", unit="answer", disable=not show_progress) as progress:
        found, left = {}, []
        for pair in dict.fromkeys(pairs):
            found[pair] = cache.get(pair) or compare(*pair)
            if found[pair].same is None:
                left.append(pair)
            else:
                progress.update()
        answers = pool_of_workers.ask_all(left, deadline, workers, progress.update)
        found.update(zip(left, answers, strict=True))
    remember(found)
    return found


def remember(found: dict[tuple[str, str], Comparison]) -> None:
    with cache_lock:
        if len(cache) > MOST_CACHED:
            cache.clear()
        cache.update({pair: result for pair, result in found.items() if result.reason not in STOPPED})


def unreliable_reference(gold: str) -> str | None:
    """Why a gold cannot be graded well, or None: "empty", "too long", "prose", "equation chain" or "approximation".

    Prose is compared as text only, of a chain or an approximation only the last value counts.
    """
    if len(gold) >= LONGEST_ANSWER:
        return "too long"
    text = tidy(gold)
    if not text:
        return "empty"
    if is_prose(text):
        return "prose"
    if "\\approx" in text:
        return "approximation"
    if any(len(split(piece, "=")) > 2 for piece in split(text, ",", ";")):
        return "equation chain"
    return None
