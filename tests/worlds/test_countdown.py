from itertools import permutations, product
from random import Random
from statistics import mean, median

import pytest

from manypaths.worlds import countdown
from manypaths.worlds.countdown import INFIX, LETTERS, is_solution, parse, translate


def long_problems():
    return {problem: texts for problem, texts in countdown.all_solutions().items() if len(texts) >= 4}


def brute_force(numbers, target):
    """All valid texts in the two shapes, checked with Python's own arithmetic on rational values."""
    found = set()
    for (a, b, c), first, second in product(permutations(numbers), INFIX, INFIX):
        for text in (f"( {a} {first} {b} ) {second} {c}", f"{c} {second} ( {a} {first} {b} )"):
            inner = eval(f"{a} {first} {b}")
            if inner > 0 and inner == int(inner) and eval(text) == target:
                found.add(text)
    return found


def test_number_of_problems_and_solutions():
    problems = long_problems()
    assert len(problems) == 1948
    assert mean(map(len, problems.values())) == pytest.approx(7.07, abs=0.01)
    assert median(map(len, problems.values())) == 6


def test_splits_are_disjoint_and_complete():
    splits = countdown.splits()
    sizes = {name: len(part) for name, part in splits.items()}
    assert sizes == {"pretrain": 974, "sft": 233, "rl": 448, "test": 293}
    assert set().union(*splits.values()) == set(long_problems())
    assert sum(map(len, splits.values())) == 1948


@pytest.mark.parametrize("problem", Random(1).sample(list(countdown.all_solutions()), 60), ids=str)
def test_enumeration_agrees_with_brute_force(problem):
    assert set(countdown.solutions(problem)) == brute_force(*problem)


def test_verifier_agrees_with_enumeration_on_random_expressions():
    rng, hits = Random(0), 0
    for problem in countdown.splits()["test"]:
        known = set(countdown.solutions(problem))
        for _ in range(20):
            text = countdown.random_expression(rng, problem[0])
            assert is_solution(text, problem) == (text in known)
            hits += text in known
    assert hits > 20


def test_every_solution_verifies_in_any_number_order_and_in_both_notations():
    rng = Random(0)
    for problem in countdown.splits()["sft"]:
        shown = countdown.shuffled(rng, problem)
        for notation in (INFIX, LETTERS):
            assert all(is_solution(text, shown, notation) for text in countdown.solutions(shown, notation))


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "35",
        "( 3 + 4 ) * 5 ",
        " ( 3 + 4 ) * 5",
        "( 3 + 4 )  * 5",
        "(3 + 4) * 5",
        "3 + 4 * 5",
        "( ( 3 + 4 ) ) * 5",
        "( 3 + 4 ) * 5 + 0",
        "( 3 + 4 ) * 5 <pad>",
        "( 3 + 4 ) * <pad>",
        "( 3 + 4 ) * 5\n",
        "( 03 + 4 ) * 5",
        "( \u0663 + 4 ) * 5",
        "( 3 + 4 ) ** 5",
        "( 3 + 4 ) +- 5",
        "( 3 + 4 )  5",
        "( 3 + 4 * 5 )",
        ") 3 + 4 ( * 5",
        "( 3 + 4 ) * 7",
        "( 3 + 3 ) * 5",
        "( 3 A 4 ) Y 5",
        "__import__('os').system('true')",
        "( " * 7,
        "( " * 100_000,
        "3 + ( 4 * 5",
        "3 4 5 + * ( )",
    ],
)
def test_hostile_answers_are_wrong(text):
    assert not is_solution(text, ((3, 4, 5), 35))


def test_each_number_is_used_exactly_once():
    assert is_solution("( 3 + 3 ) * 5", ((5, 3, 3), 30))
    assert not is_solution("( 3 + 3 ) * 5", ((5, 5, 3), 30))


@pytest.mark.parametrize(
    "text, value",
    [
        ("( 8 - 3 ) * 2", 10),
        ("2 * ( 8 - 3 )", 10),
        ("( 3 - 8 ) * 2", None),
        ("( 3 - 3 ) + 2", None),
        ("( 8 / 3 ) * 3", None),
        ("12 / ( 8 / 2 )", 3),
    ],
)
def test_values_stay_positive_integers(text, value):
    assert parse(text)[0] == value


def test_notation_is_strict_and_translation_invertible():
    problem = ((3, 4, 5), 35)
    translated = translate("( 3 + 4 ) * 5", INFIX, LETTERS)
    assert translated == "( 3 A 4 ) Y 5"
    assert is_solution(translated, problem, LETTERS) and not is_solution(translated, problem, INFIX)
    assert translate(translated, LETTERS, INFIX) == "( 3 + 4 ) * 5"


def test_canonical_solution_does_not_depend_on_number_order_or_notation():
    for numbers, target in countdown.splits()["test"][:50]:
        canonical = countdown.canonical_solution((numbers, target))
        assert is_solution(canonical, (numbers, target))
        assert canonical == countdown.canonical_solution((numbers[::-1], target))
        assert canonical == translate(countdown.canonical_solution((numbers, target), LETTERS), LETTERS, INFIX)
