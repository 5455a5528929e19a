"""Rewards by name or `module:function`, in TRL's form: `reward(completions, **columns) -> list[float]`."""

import re
import threading
from collections.abc import Callable, Sequence
from fractions import Fraction
from functools import lru_cache
from typing import Any

from ..functions import did_you_mean, import_function

Reward = Callable[..., list[float]]

GOLD_COLUMNS = ("answer", "solution")
COUNTDOWN_COLUMNS = ("numbers", "target", "notation")
LONGEST_ANSWER = 2000  # characters; nothing longer is a final answer, and parsing it could take minutes
SECONDS_PER_ANSWER = 3


def countdown(completions: Sequence[Any], **columns: Any) -> list[float]:
    """1 for an expression that uses the playground problem's numbers once each and hits the target."""
    from manypaths.playground import countdown_reward

    missing = [name for name in COUNTDOWN_COLUMNS if columns.get(name) is None]
    if missing:
        raise ValueError(
            f"The countdown reward needs columns {', '.join(COUNTDOWN_COLUMNS)}; the data lacks {', '.join(missing)}. "
            "It is for the built-in worlds (manypaths.playground.rl_dataset)."
        )
    return countdown_reward(completions=completions, **columns)


def math(completions: Sequence[Any], **columns: Any) -> list[float]:
    r"""1 when the last \boxed{...} of a completion equals the gold answer, else 0.

    The gold is the data's column `answer` or else `solution`: its last box, or all of it.
    Raises ValueError when the data has neither.
    """
    column = next((name for name in GOLD_COLUMNS if columns.get(name) is not None), None)
    if column is None:
        found = ", ".join(sorted(columns)) or "none"
        raise ValueError(f"The math reward needs a column answer or solution in the data; found {found}.")
    graded = []
    for completion, gold in zip(completions, columns[column], strict=True):
        answer = last_box(completion_text(completion))
        graded.append(float(answer is not None and same_answer(gold_answer(gold), answer)))
    return graded


REWARDS: dict[str, Reward] = {"countdown": countdown, "math": math}


def resolve_reward(name: str | Reward) -> Reward:
    """The reward of that name, or a function of your own written as `module:function`.

    Raises ValueError for an unknown name (near ones are offered) or a module or function that is not there.
    """
    if callable(name):
        return name
    if ":" in name:
        return import_function(name, "reward")
    if name not in REWARDS:
        hint = did_you_mean(name, REWARDS)
        known = ", ".join(REWARDS)
        raise ValueError(f"Unknown reward {name!r}. {hint}Known: {known}; your own is module:function.")
    return REWARDS[name]


def completion_text(completion: Any) -> str:
    """The text of a plain or conversational completion (its last message)."""
    if isinstance(completion, str):
        return completion
    content = completion[-1].get("content") if completion else None
    return content if isinstance(content, str) else ""


def last_box(text: str) -> str | None:
    r"""What stands in the last closed \boxed{...} or \fbox{...}; None when there is none."""
    for start in reversed([match.end() for match in re.finditer(r"\\(?:boxed|fbox)\s*\{", text)]):
        end = closing_brace(text, start)
        if end is not None:
            return text[start:end].strip()
    return None


def closing_brace(text: str, start: int) -> int | None:
    depth = 1
    for place in range(start, min(len(text), start + LONGEST_ANSWER)):
        if text[place] in "{}" and text[place - 1] != "\\":
            depth += 1 if text[place] == "{" else -1
        if depth == 0:
            return place
    return None


def gold_answer(gold: Any) -> str:
    """The bare answer of a gold column's value: its last box if it has one, without dollar signs."""
    text = str(gold)
    _, marked, final = text.rpartition("####")  # GSM8K's way to mark the final answer
    text = final if marked else text
    boxed = last_box(text)
    return (text if boxed is None else boxed).replace("$", "").strip()


@lru_cache(maxsize=65536)
def same_answer(gold: str, answer: str) -> bool:
    """Equal as text, as exact numbers, or else by math-verify."""
    gold, answer = plain_form(gold), plain_form(answer)
    if not gold or not answer or len(answer) > LONGEST_ANSWER:
        return False
    if gold == answer:
        return True
    numbers = exact_number(gold), exact_number(answer)
    if None not in numbers:
        return numbers[0] == numbers[1]
    return verified(gold, answer)


def plain_form(text: str) -> str:
    """Without what does not change a value: outer space, a final period, LaTeX spacing, thousands commas."""
    text = re.sub(r"\\[!,;: ]", "", text.replace("$", "").replace("\\left", "").replace("\\right", ""))
    text = re.sub(r"\s+", " ", text.replace("{,}", ",")).strip().rstrip(".").strip()
    return text.replace(",", "") if re.fullmatch(r"[-+]?\d{1,3}(,\d{3})+(\.\d+)?", text) else text


def exact_number(text: str) -> Fraction | None:
    r"""3, -2.50, 3/4 and \frac{3}{4} as a fraction; None for anything else."""
    fraction = re.fullmatch(r"(-?)\\[dt]?frac\{(-?\d{1,50})\}\{(\d{1,50})\}", text)
    if fraction:
        text = f"{fraction[1]}{fraction[2]}/{fraction[3]}".replace("--", "")
    if not re.fullmatch(r"[-+]?\d{1,50}(\.\d{1,50}|/\d{1,50})?", text):
        return None
    try:
        return Fraction(text)
    except ZeroDivisionError:
        return None


def verified(gold: str, answer: str) -> bool:
    """math-verify's opinion. Its alarm clock needs the main thread; elsewhere there is no time limit."""
    from math_verify import LatexExtractionConfig, parse, verify

    seconds = SECONDS_PER_ANSWER if threading.current_thread() is threading.main_thread() else None
    config = [LatexExtractionConfig(boxed_match_priority=0)]
    try:
        sides = [
            parse(f"\\boxed{{{text}}}", config, fallback_mode="no_fallback", parsing_timeout=seconds)
            for text in (gold, answer)
        ]
        return bool(sides[0] and sides[1] and verify(*sides, float_rounding=9, timeout_seconds=seconds))
    except Exception:  # whatever the parser chokes on is no correct answer
        return False
