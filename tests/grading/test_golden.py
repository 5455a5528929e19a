"""Cases graded by hand, in golden.txt beside this file."""

import re
from collections import Counter
from pathlib import Path

import pytest

from manypaths.grading import grade_many

SECTIONS = ("[box]", "[strict]", "[lenient]")


def read_cases():
    """(line, modes, gold, text, right, why) of every case; a boxed one is graded in both modes."""
    section, cases = None, []
    for number, line in enumerate(Path(__file__).with_name("golden.txt").read_text(encoding="utf-8").splitlines(), 1):
        if line in SECTIONS:
            section = line.strip("[]")
        elif line and not line.startswith("#"):
            gold, answer, expected, why = re.split(r"\s*::\s*", line.strip().replace("<br>", "\n"))
            text = f"Therefore \\boxed{{{answer}}}." if section == "box" else answer
            modes = ("strict", "lenient") if section == "box" else (section,)
            cases.append((number, modes, gold, text, {"right": True, "wrong": False}[expected], why))
    return cases


CASES = read_cases()


@pytest.fixture(scope="module")
def verdicts():
    """All verdicts, by line and mode; graded together, as workers have to start only once."""
    found = {}
    for mode in ("strict", "lenient"):
        chosen = [case for case in CASES if mode in case[1]]
        graded = grade_many([case[3] for case in chosen], [case[2] for case in chosen], mode=mode, deadline=60)
        found |= {(case[0], mode): verdict for case, verdict in zip(chosen, graded, strict=True)}
    return found


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"line{case[0]}")
def test_graded_as_by_hand(case, verdicts):
    number, modes, gold, text, right, why = case
    for mode in modes:
        verdict = verdicts[number, mode]
        assert verdict.correct is right, f"{gold!r} against {text!r} ({why}), {mode}: {verdict}"
        assert verdict.status != "timeout"


def test_the_set_is_large_and_has_both_kinds():
    kinds = Counter(case[4] for case in CASES)
    assert kinds[True] >= 280 and kinds[False] >= 200
