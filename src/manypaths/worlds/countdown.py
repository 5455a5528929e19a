"""The Countdown task: reach a target by combining three numbers, each used exactly once.

An answer is one of two shapes, `( a + b ) * c` or `c * ( a + b )`: seven words separated by single spaces.
Every intermediate result must be a positive integer and every division exact. Solutions are enumerated
completely, so a base model's coverage can be compared with all there is to find; answers are verified by
parsing, never by `eval`.
"""

from collections.abc import Mapping
from functools import cache
from itertools import combinations_with_replacement, permutations, product
from random import Random
from types import MappingProxyType

NUMBERS = range(1, 13)
TARGETS = range(1, 41)
MIN_SOLUTIONS = 4
ANSWER_WORDS = 7

INFIX = "+-*/"  # a notation names the four operations in the order add, subtract, multiply, divide
LETTERS = "ABYZ"

Problem = tuple[tuple[int, int, int], int]  # ((a, b, c), target)

_VALUES = {str(number): number for number in NUMBERS}


class _Malformed(Exception):
    """The words are not an expression."""


def apply(operation: int, left: int, right: int) -> int | None:
    """Result of operation 0..3 (add, subtract, multiply, divide); None unless it is a positive integer."""
    if operation == 0:
        return left + right
    if operation == 1:
        return left - right if left > right else None
    if operation == 2:
        return left * right
    return left // right if left % right == 0 else None


def parse(expression: str, notation: str = INFIX) -> tuple[int | None, tuple[int, ...]] | None:
    """Read an answer by recursive descent: `pair := term operator term`, `term := number | "(" pair ")"`.

    Returns (value, sorted numbers used), value None when an intermediate result is not a positive integer;
    None when the text is not a well-formed expression of three numbers in this notation.
    """
    words = expression.split(" ")
    if len(words) != ANSWER_WORDS:
        return None
    try:
        value, used, end = _pair(words, 0, notation)
    except _Malformed:
        return None
    return (value, tuple(sorted(used))) if end == len(words) else None


def _pair(words: list[str], start: int, notation: str) -> tuple[int | None, list[int], int]:
    left, left_used, position = _term(words, start, notation)
    symbol = _word(words, position)
    if len(symbol) != 1 or symbol not in notation:
        raise _Malformed
    right, right_used, end = _term(words, position + 1, notation)
    value = None if left is None or right is None else apply(notation.index(symbol), left, right)
    return value, left_used + right_used, end


def _term(words: list[str], start: int, notation: str) -> tuple[int | None, list[int], int]:
    word = _word(words, start)
    if word in _VALUES:
        return _VALUES[word], [_VALUES[word]], start + 1
    if word != "(":
        raise _Malformed
    value, used, end = _pair(words, start + 1, notation)
    if _word(words, end) != ")":
        raise _Malformed
    return value, used, end + 1


def _word(words: list[str], position: int) -> str:
    if position >= len(words):
        raise _Malformed
    return words[position]


def is_solution(expression: str, problem: Problem, notation: str = INFIX) -> bool:
    """Whether `expression` uses exactly these numbers, keeps to positive integers and hits the target."""
    numbers, target = problem
    return parse(expression, notation) == (target, tuple(sorted(numbers)))


def translate(expression: str, source: str, target: str) -> str:
    """The same expression in another notation."""
    return expression.translate(str.maketrans(source, target))


def random_expression(rng: Random, numbers: tuple[int, ...], notation: str = INFIX) -> str:
    """One of the two shapes with shuffled numbers and random operators: usually not a solution to anything."""
    a, b, c = rng.sample(numbers, 3)
    first, second = rng.choice(notation), rng.choice(notation)
    return _shapes(a, b, c, first, second)[rng.randrange(2)]


def _shapes(a: int, b: int, c: int, first: str, second: str) -> tuple[str, str]:
    return f"( {a} {first} {b} ) {second} {c}", f"{c} {second} ( {a} {first} {b} )"


@cache
def all_solutions() -> Mapping[Problem, tuple[str, ...]]:
    """Every solvable problem (its numbers sorted) and all its solutions in infix, sorted as text."""
    texts: dict[Problem, set[str]] = {}
    for numbers in combinations_with_replacement(NUMBERS, 3):
        for (a, b, c), first, second in product(set(permutations(numbers)), range(4), range(4)):
            inner = apply(first, a, b)
            if inner is None:
                continue
            values = apply(second, inner, c), apply(second, c, inner)
            for text, value in zip(_shapes(a, b, c, INFIX[first], INFIX[second]), values, strict=True):
                if value in TARGETS:
                    texts.setdefault((numbers, value), set()).add(text)
    return MappingProxyType({problem: tuple(sorted(texts[problem])) for problem in sorted(texts)})


def solutions(problem: Problem, notation: str = INFIX) -> tuple[str, ...]:
    """All solutions of a problem, its numbers in any order."""
    numbers, target = problem
    texts = all_solutions().get((tuple(sorted(numbers)), target), ())
    return tuple(translate(text, INFIX, notation) for text in texts)


_RANK = {word: rank for rank, word in enumerate((*map(str, NUMBERS), *INFIX, "(", ")"))}


def canonical_solution(problem: Problem, notation: str = INFIX) -> str:
    """The one solution demonstrated: the last in the order of its words (numbers, operations, brackets)."""
    last = max(solutions(problem), key=lambda text: [_RANK[word] for word in text.split()])
    return translate(last, INFIX, notation)


_SHARES = {"pretrain": 0.50, "sft": 0.12, "rl": 0.23}  # the rest is the test split


@cache
def splits() -> Mapping[str, tuple[Problem, ...]]:
    """Disjoint pretrain / sft / rl / test problems (numbers sorted) of MIN_SOLUTIONS or more solutions."""
    problems = [problem for problem, texts in all_solutions().items() if len(texts) >= MIN_SOLUTIONS]
    Random(0).shuffle(problems)
    result, start = {}, 0
    for name, share in _SHARES.items():
        end = start + int(share * len(problems))
        result[name] = tuple(problems[start:end])
        start = end
    return MappingProxyType({**result, "test": tuple(problems[start:])})


def shuffled(rng: Random, problem: Problem) -> Problem:
    """The same problem with its numbers in random order."""
    numbers, target = problem
    return tuple(rng.sample(numbers, 3)), target
