"""Graders by name: what GRPO is rewarded for and what an evaluation calls right, one function for both.

A grader is called as TRL calls a reward, `grader(completions, **columns) -> list[float]`, with an entry per completion
in every column: those of the data, `prompts`, `completions`, `completion_ids`, and `finished`, whether an end token came
(None where nobody knows). Completions are texts, or lists of messages where the prompt is one.
"""

import asyncio
import inspect
from collections.abc import Callable, Sequence
from itertools import islice
from string import ascii_uppercase
from typing import Any

from ..functions import did_you_mean, import_function, told
from . import Verdict, extract, grade_many
from .extraction import Mode

Grader = Callable[..., list[float]]

GOLD_COLUMNS = ("answer", "solution")


def math(completions: Sequence[Any], **columns: Any) -> list[float]:
    r"""1 when the last \boxed{...} of a completion equals the gold answer, else 0.

    The gold is the data's column `answer` or else `solution`: its last box, what follows "####", or all of it. With a
    column `choices`, the letter of a choice and its value are the same answer.
    """
    golds = list(map(gold_answer, columns[gold_column("math", columns)]))
    choices = columns.get("choices") or [None] * len(golds)
    verdicts = grade_choices(list(map(completion_text, completions)), golds, choices, mode="strict")
    return [float(verdict.correct) for verdict in verdicts]


def grade_choices(
    texts: Sequence[str], golds: Sequence[str], choices: Sequence[Any], *, mode: Mode, show_progress: bool = False
) -> list[Verdict]:
    """`grade_many`, and where a problem has choices, an answer may be the right one's letter or its value."""
    forms = [
        [gold] if given is None else forms_of(gold, lettered(given)) for gold, given in zip(golds, choices, strict=True)
    ]
    verdicts = grade_many(texts, [own[0] for own in forms], mode=mode, show_progress=show_progress)
    again = [place for place, own in enumerate(forms) if len(own) > 1 and not verdicts[place].correct]
    second = grade_many([texts[place] for place in again], [forms[place][1] for place in again], mode=mode)
    for place, verdict in zip(again, second, strict=True):
        verdicts[place] = verdict if verdict.correct else verdicts[place]
    return verdicts


def forms_of(gold: str, choices: dict[str, str]) -> list[str]:
    """The value and the letter of a gold that is a choice's letter, value, or place from 0; else the gold as it is."""
    letters, values = list(choices), list(choices.values())
    letter = gold.strip().strip("().").upper()
    if letter in letters:
        place = letters.index(letter)
    elif gold.strip() in values:
        place = values.index(gold.strip())
    elif gold.isdecimal() and int(gold) < len(values):
        place = int(gold)
    else:
        return [gold]
    return [values[place], letters[place]]


def lettered(choices: Any) -> dict[str, str]:
    """Choices by letter: a list, a mapping of letters, or lists of `label` and `text`.

    Raises ValueError for anything else.
    """
    if isinstance(choices, dict) and {"label", "text"} <= set(choices):
        choices = dict(zip(choices["label"], choices["text"], strict=True))
    if isinstance(choices, list):
        choices = dict(zip(ascii_uppercase, choices, strict=False))
    if not isinstance(choices, dict) or not choices:
        raise ValueError(f"Choices must be a list of texts or a mapping of letters to texts, found {choices!r}.")
    return {str(letter): str(value).strip() for letter, value in choices.items() if value is not None}


def exact(completions: Sequence[Any], **columns: Any) -> list[float]:
    """1 when a completion is the data's column `answer`, or else `solution`, word for word; outer space is ignored."""
    golds = columns[gold_column("exact", columns)]
    texts = [completion_text(completion).strip() for completion in completions]
    return [float(text == str(gold).strip()) for text, gold in zip(texts, golds, strict=True)]


def countdown(completions: Sequence[Any], **columns: Any) -> list[float]:
    """1 for an expression that uses the puzzle's `numbers` once each and hits the `target`, in its `notation`.

    A completion that was cut off is worth nothing.
    """
    from ..worlds.countdown import INFIX, is_solution

    missing = [name for name in ("numbers", "target") if columns.get(name) is None]
    if missing:
        raise ValueError(f"The countdown grader needs the columns numbers and target; no {' and no '.join(missing)}.")
    problems = zip(columns["numbers"], columns["target"], strict=True)
    notations = columns.get("notation") or [INFIX] * len(completions)
    texts = ended_texts(completions, columns)
    rows = zip(texts, problems, notations, strict=True)
    return [float(is_solution(text, (tuple(numbers), target), how)) for text, (numbers, target), how in rows]


def chain(completions: Sequence[Any], **columns: Any) -> list[float]:
    """1 for a lawful continuation of the prompt's last letter, in the chain of letters of the built-in worlds.

    A completion that was cut off is worth nothing.
    """
    from ..worlds.side_tasks import is_chain

    texts = ended_texts(completions, columns)
    questions = [completion_text(prompt) for prompt in columns["prompts"]]
    return [float(is_chain(question, text)) for question, text in zip(questions, texts, strict=True)]


GRADERS: dict[str, Grader] = {"math": math, "exact": exact, "countdown": countdown, "chain": chain}


def resolve_grader(name: str | Grader) -> Grader:
    """The grader of that name, or a function of your own written as `module:function`.

    Raises ValueError for an unknown name (near ones are offered) or a module or function that is not there.
    """
    if callable(name):
        return name
    if ":" in name:
        return import_function(name, "reward")
    if name not in GRADERS:
        hint = did_you_mean(name, GRADERS)
        raise ValueError(f"Unknown reward {name!r}. {hint}Known: {', '.join(GRADERS)}; your own is module:function.")
    return GRADERS[name]


def check_golds(name: str | Grader, rows: Any, source: str) -> None:
    """That rows (a dataset) have the columns that a reward of ours reads, and no empty gold.

    Raises ValueError with the row; what a function of your own reads only it knows.
    """
    if name not in GRADERS:
        return
    try:
        GRADERS[name](completions=[], prompts=[], **{column: [] for column in rows.column_names})
    except ValueError as error:
        raise ValueError(f"{source} does not fit the reward {name}. {error}") from error
    golds = rows[gold_column(name, dict.fromkeys(rows.column_names, ()))] if name in ("math", "exact") else []
    for number, gold in enumerate(golds, start=1):
        if gold is None or not str(gold).strip():
            raise ValueError(f"{source}, row {number}: the right answer is missing; give it, or take the row out.")


def grade_samples(
    grader: Grader, rows: Sequence[dict[str, Any]], prompts: Sequence[Any], samples: Sequence[Sequence[Any]]
) -> list[list[float | None]]:
    """What a grader gives for the samples of every row, called as TRL calls it.

    rows: [P] the columns of the data. prompts: [P] text or messages. samples: [P][n] of generation's `Sample`.
    """
    places = [place for place, group in enumerate(samples) for _ in group]
    flat = [sample for group in samples for sample in group]
    values = called(
        grader,
        {name: [rows[place][name] for place in places] for name in rows[0] if name not in ("prompt", "completion")}
        | {
            "prompts": [prompts[place] for place in places],
            "completions": [
                as_completion(prompts[place], sample.text) for place, sample in zip(places, flat, strict=True)
            ],
            "completion_ids": [sample.token_ids for sample in flat],
            "finished": [sample.finished for sample in flat],
            "trainer_state": None,
            "log_extra": ignore,
            "log_metric": ignore,
        },
    )
    if len(values) != len(flat):
        raise ValueError(f"A reward gave {len(values)} values for {len(flat)} completions; it must give one for each.")
    remaining = iter(values)
    return [list(islice(remaining, len(group))) for group in samples]


def called(grader: Grader, columns: dict[str, Any]) -> Sequence[float | None]:
    try:
        values = grader(**columns)
        return list(asyncio.run(values) if inspect.iscoroutine(values) else values)
    except ValueError:
        raise
    except Exception as error:  # whatever a user's function does
        raise ValueError(f"The reward fails: {told(error)}.") from error


def ignore(*_: Any, **__: Any) -> None:
    """Stands in for the trainer's loggers."""


def as_completion(prompt: Any, text: str) -> str | list[dict[str, str]]:
    return [{"role": "assistant", "content": text}] if isinstance(prompt, list) else text


def completion_text(completion: Any) -> str:
    """The text of a plain or conversational completion or prompt (its last message)."""
    if isinstance(completion, str):
        return completion
    content = completion[-1].get("content") if completion else None
    return content if isinstance(content, str) else ""


def ended_texts(completions: Sequence[Any], columns: dict[str, Any]) -> list[str]:
    """The text of each completion; nothing where it was cut off before its end."""
    finished = columns.get("finished") or [None] * len(completions)
    texts = map(completion_text, completions)
    return ["" if end is False else text.strip() for text, end in zip(texts, finished, strict=True)]


def gold_column(grader: str, columns: dict[str, Any]) -> str:
    column = next((name for name in GOLD_COLUMNS if columns.get(name) is not None), None)
    if column is None:
        names = ", ".join(sorted(columns)) or "none"
        raise ValueError(f"The {grader} grader needs a column answer or solution in the data; there are {names}.")
    return column


def gold_answer(gold: Any) -> str:
    """The bare answer of a gold column's value: its last box if it has one, or what follows "####", or all of it."""
    text = str(gold)
    _, marked, final = text.rpartition("####")  # GSM8K's way to mark the final answer
    text = final if marked else text
    boxed = extract(text, "strict")
    return text.strip() if boxed is None else boxed
