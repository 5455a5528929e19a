"""Rewards by name or `module:function`, in TRL's form: `reward(completions, **columns) -> list[float]`."""

from collections.abc import Callable, Sequence
from typing import Any

from ..functions import did_you_mean, import_function
from ..grading import extract, grade_many

Reward = Callable[..., list[float]]

GOLD_COLUMNS = ("answer", "solution")
COUNTDOWN_COLUMNS = ("numbers", "target", "notation")


def countdown(completions: Sequence[Any], **columns: Any) -> list[float]:
    """1 for an expression that uses the playground problem's numbers once each and hits the target."""
    from ..worlds import countdown_reward

    missing = [name for name in COUNTDOWN_COLUMNS if columns.get(name) is None]
    if missing:
        raise ValueError(
            f"The countdown reward needs columns {', '.join(COUNTDOWN_COLUMNS)}; the data lacks {', '.join(missing)}. "
            "It is for the built-in worlds (manypaths.worlds.rl_dataset)."
        )
    return countdown_reward(completions=completions, **columns)


def math(completions: Sequence[Any], **columns: Any) -> list[float]:
    r"""1 when the last \boxed{...} of a completion equals the gold answer, else 0 (see evaluation.grading).

    The gold is the data's column `answer` or else `solution`: its last box, what follows "####", or all of it.
    Raises ValueError when the data has neither, or golds for another number of completions.
    """
    column = next((name for name in GOLD_COLUMNS if columns.get(name) is not None), None)
    if column is None:
        found = ", ".join(sorted(columns)) or "none"
        raise ValueError(f"The math reward needs a column answer or solution in the data; found {found}.")
    texts = [completion_text(completion) for completion in completions]
    golds = [gold_answer(gold) for gold in columns[column]]
    return [float(verdict.correct) for verdict in grade_many(texts, golds, mode="strict")]


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


def gold_answer(gold: Any) -> str:
    """The bare answer of a gold column's value: its last box if it has one, or what follows "####", or all of it."""
    text = str(gold)
    _, marked, final = text.rpartition("####")  # GSM8K's way to mark the final answer
    text = final if marked else text
    boxed = extract(text, "strict")
    return text if boxed is None else boxed
