"""The other things a base model can do; how well it still does them after training measures forgetting.

A task draws (question, expected answer) pairs; the question's first word says which task it is.
"""

import itertools
from collections.abc import Callable, Mapping
from functools import cache
from random import Random
from types import MappingProxyType
from typing import NamedTuple

from . import countdown
from .countdown import INFIX, LETTERS, NUMBERS

ALPHABET = "abcdef"
SUCCESSORS = {letter: (ALPHABET[(i + 1) % 6], ALPHABET[(i + 4) % 6]) for i, letter in enumerate(ALPHABET)}
CHAIN_SHOWN, CHAIN_HIDDEN = 4, 6


class SideTask(NamedTuple):
    """`draw(rng)` gives (question, expected answer); `grader` is the name of what grades in benchmark files."""

    description: str
    draw: Callable[[Random], tuple[str, str]]
    grader: str = "exact"


def is_chain(prompt: str, answer: str) -> bool:
    """Whether the answer goes on from the prompt's last letter by transitions of the chain, at full length.

    A string of the chain has many right continuations, so none is compared with.
    """
    letters = prompt.split()[-1:] + answer.split(" ")
    if len(letters) != CHAIN_HIDDEN + 1:
        return False
    return all(after in SUCCESSORS.get(before, ()) for before, after in itertools.pairwise(letters))


@cache
def _valued_expressions() -> tuple[tuple[str, int], ...]:
    return tuple((text, target) for (_, target), texts in countdown.all_solutions().items() for text in texts)


def _evaluate(notation: str) -> Callable[[Random], tuple[str, str]]:
    def draw(rng: Random) -> tuple[str, str]:
        text, value = rng.choice(_valued_expressions())
        return f"E {countdown.translate(text, INFIX, notation)} =", str(value)

    return draw


def _translate(rng: Random) -> tuple[str, str]:
    source, target = rng.choice(((INFIX, LETTERS), (LETTERS, INFIX)))
    text = countdown.random_expression(rng, tuple(rng.choices(NUMBERS, k=3)), source)
    return f"T {text} =", countdown.translate(text, source, target)


def _reverse(rng: Random) -> tuple[str, str]:
    letters = rng.choices(ALPHABET, k=rng.randint(3, 6))
    return f"R {' '.join(letters)} =", " ".join(reversed(letters))


def _sort(rng: Random) -> tuple[str, str]:
    numbers = rng.choices(NUMBERS, k=rng.randint(3, 6))
    return f"S {' '.join(map(str, numbers))} =", " ".join(map(str, sorted(numbers)))


def _markov(rng: Random) -> tuple[str, str]:
    letters = [rng.choice(ALPHABET)]
    while len(letters) < CHAIN_SHOWN + CHAIN_HIDDEN:
        letters.append(rng.choice(SUCCESSORS[letters[-1]]))
    return f"M {' '.join(letters[:CHAIN_SHOWN])}", " ".join(letters[CHAIN_SHOWN:])


SIDE_TASKS: Mapping[str, SideTask] = MappingProxyType(
    {
        "evaluate": SideTask("the value of an expression", _evaluate(INFIX)),
        "evaluate_new": SideTask("the value of an expression with operators A B Y Z", _evaluate(LETTERS)),
        "translate": SideTask("an expression in the other notation", _translate),
        "reverse": SideTask("letters in reverse order", _reverse),
        "sort": SideTask("numbers in order", _sort),
        "markov": SideTask("letters that go on by the rules of a chain", _markov, "chain"),
    }
)
