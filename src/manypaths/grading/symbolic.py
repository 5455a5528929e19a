"""Equality by computer algebra. It may take for ever: only a worker process calls it."""

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from .comparison import Comparison
from .structure import AND_OR, split

EQUAL, NOT_EQUAL = Comparison(True, "symbolically equal"), Comparison(False, "not equal")
NOT_UNDERSTOOD = Comparison(False, "not understood")
DIGITS = 30  # of numeric evaluation
EXACT = 1e-20  # relative difference of sums, integrals and their kin, which are computed by approximation
# values for variables: positive ones first, since radicals and logarithms are meant for these
POSITIVE = (
    ("1.37", "2.71", "1.93", "3.19", "1.11", "2.23"),
    ("0.43", "0.77", "0.59", "0.31", "0.89", "0.23"),
    ("2.47", "1.61", "3.83", "1.27", "2.09", "4.13"),
)
POINTS = (*POSITIVE, ("-0.83", "-1.71", "-0.37", "-2.29", "-1.19", "-0.53"))
# what the LaTeX parser would read in a way nobody means
AMBIGUOUS = re.compile(r"\d\s+\d|(?<![A-Za-z0-9])\d+_")  # a product of two numbers, a number in another base
PREPARATIONS = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"\\text\{\s*([^{}]*?)\s*\}", r" \1 "),
        (r"\\(?:\$|euro|pounds)", ""),
        (r"\\%", r"\\cdot\\frac{1}{100}"),
        (r"\\log_(?:e|\{e\})(?![A-Za-z])", r"\\ln "),
        (r"\\lg(?![A-Za-z])", r"\\log_{10} "),
        (r"\\log_(\w)", r"\\log_{\1} "),
        (r"(?<![A-Za-z\\])([fgh])\(([a-z])\)", r"\1_{of\2}"),
        (r"(?<![\w}.^\\])(\d+)\s*(\\frac\{\d+\}\{\d+\})", r"(\1+\2)"),  # mixed numbers
        (r"(?<![A-Za-z\\])C_(?:\{(\w+)\}|(\w))\^(?:\{(\w+)\}|(\w))", r"\\binom{\1\2}{\3\4}"),
        (r"(\\binom\{[^{}]*\}\{[^{}]*\})", r"(\1)"),
        (r"(?<=\))\s*(?=[\d(])|(?<![_\d.])(?<!\\[a-z]{3}\^)(?<!\\ln\^)(\d+)\s*(?=\()", r"\1\\cdot "),  # it adds 2(3) up
        (r"(\d+(?:\.\d+)?)\s*\^\\circ", r"(\1\\cdot\\frac{\\pi}{180})"),
        (r"\^\\circ", r"\\cdot\\frac{\\pi}{180}"),
        (r"([A-Za-z])('+)", lambda found: f"{found[1]}_{{{'prime' * len(found[2])}}}"),
    )
)


def decide(gold: str, answer: str) -> Comparison:
    """Compare two tidy values or relations."""
    from sympy import Expr, Set

    if any(AND_OR.search(text) or len(split(text, ",")) > 1 for text in (gold, answer)):
        return same_region(gold, answer)
    sides = expression(gold), expression(answer)
    if any(side is None for side in sides):
        return NOT_UNDERSTOOD
    if any(isinstance(side, Set) for side in sides):
        return verified(as_set(sides[0]), as_set(sides[1]))
    if all(isinstance(side, Expr) for side in sides):
        return same_value(*sides)
    golds, answers = map(relations, sides)
    if golds and answers:
        return same_relations(golds, answers)
    return NOT_EQUAL if golds or answers else verified(*sides)


def relations(side: Any) -> list:
    """The equations or inequalities that a relation or a chain of them is made of; [] for all else."""
    from sympy import And
    from sympy.core.relational import Relational

    parts = side.args if isinstance(side, And) else (side,)
    return list(parts) if all(isinstance(part, Relational) for part in parts) else []


def same_relations(golds: list, answers: list) -> Comparison:
    """Every relation of the one has its own equal in the other."""
    left = list(answers)
    for gold in golds:
        place = next((i for i, answer in enumerate(left) if same_relation(gold, answer).same), None)
        if place is None:
            return NOT_EQUAL
        del left[place]
    return NOT_EQUAL if left else EQUAL


def as_set(side: Any) -> Any:
    """Inequalities as the set of numbers they allow."""
    from sympy import And
    from sympy.logic.boolalg import Boolean

    try:
        if isinstance(side, And):
            return And(*side.args).as_set()
        return side.as_set() if isinstance(side, Boolean) else side
    except NotImplementedError:  # more than one variable
        return side


def same_region(gold: str, answer: str) -> Comparison:
    """Compare inequalities, intervals and sets that are joined by "or", "and" and commas."""
    names: list[set] = [set(), set()]
    sides = [region(text, found) for text, found in zip((gold, answer), names, strict=True)]
    if None in sides or max(map(len, names)) > 1 or (all(names) and names[0] != names[1]):
        return NOT_EQUAL
    same = sides[0] == sides[1] or sides[0].symmetric_difference(sides[1]).is_empty
    return EQUAL if same else NOT_EQUAL


def region(text: str, names: set) -> Any:
    """The set of numbers that a text allows, or None; the variables in it are added to `names`.

    "or" joins sets, "and" intersects them; so does a comma, unless nothing is left then: x < 1, x > 2.
    """
    from sympy import Expr, FiniteSet, Intersection, Set, Union

    for joint in ("or", "and", ","):
        parts = split(text, ",") if joint == "," else joined_by(joint, text)
        if len(parts) > 1:
            found = [region(part, names) for part in parts]
            if None in found:
                return None
            common = Intersection(*found) if joint != "or" else None
            return Union(*found) if common is None or (joint == "," and common.is_empty) else common
    found = expression(split(text, "\\in")[-1].strip())
    if found is None:
        return None
    found = as_set(FiniteSet(found) if isinstance(found, Expr) else found)
    names |= {str(symbol) for symbol in expression(text).free_symbols} if expression(text) is not None else set()
    return found if isinstance(found, Set) else None


def joined_by(joint: str, text: str) -> list[str]:
    """The pieces of a text between "or" or "and"."""
    pieces, *others = AND_OR.split(text)
    pieces = [pieces]
    for quoted, plain, piece in zip(others[::3], others[1::3], others[2::3], strict=True):
        if joint in (quoted, plain):
            pieces.append(piece)
        else:
            pieces[-1] += f" {quoted or plain} {piece}"
    return [piece.strip(" ,") for piece in pieces]


@lru_cache(maxsize=1024)
def expression(text: str) -> Any:
    """The sympy object of a tidy LaTeX text, or None. Letters keep their case; a free `i` is the imaginary unit."""
    from latex2sympy2_extended import NormalizationConfig, latex2sympy, normalize_latex
    from latex2sympy2_extended.latex2sympy2 import ConversionConfig
    from sympy import I

    for pattern, replacement in PREPARATIONS:
        text = pattern.sub(replacement, text)
    if AMBIGUOUS.search(text):
        return None
    look = NormalizationConfig(
        basic_latex=True, units=False, malformed_operators=True, nits=True, boxed="none", equations=False
    )
    try:
        found = latex2sympy(
            normalize_latex(text, look),
            is_real=True,
            convert_degrees=False,
            normalization_config=None,
            conversion_config=ConversionConfig(lowercase_symbols=False),
        )
        return found.xreplace({symbol: I for symbol in found.free_symbols if symbol.name == "i"})
    except (MemoryError, KeyboardInterrupt):
        raise
    except Exception:  # whatever the parser chokes on is not understood
        return None


def verified(gold: Any, answer: Any) -> Comparison:
    """math-verify's opinion about sets, intervals, matrices and their kin."""
    from math_verify import verify

    same = verify(gold, answer, float_rounding=9, allow_set_relation_comp=True, timeout_seconds=None)
    return EQUAL if same else NOT_EQUAL


def same_value(gold: Any, answer: Any) -> Comparison:
    """Compare by numeric evaluation at fixed points; where that shows nothing, by math-verify.

    A difference where all variables are positive settles it. A difference where one is negative counts only if both
    sides are real there: the root of a product is not the product of the roots then. If such a one is found, math-verify
    decides. With a constant of integration on both sides, the difference may be any constant.
    """
    from sympy import Float, Rational, Symbol

    gold, answer = (
        side.xreplace({decimal: Rational(str(decimal)) for decimal in side.atoms(Float)}) for side in (gold, answer)
    )
    if gold == answer:
        return EQUAL
    if gold.is_Rational and answer.is_Rational:
        return NOT_EQUAL
    if any(one.is_Rational and other.is_rational is False for one, other in ((gold, answer), (answer, gold))):
        return NOT_EQUAL
    free = Symbol("C", real=True)
    shift = 0
    symbols = sorted(gold.free_symbols | answer.free_symbols, key=str)
    if len(symbols) > len(POSITIVE[0]):
        return verified(gold, answer)
    if free in symbols and len(symbols) > 1 and gold.diff(free) == 1 == answer.diff(free):
        place = at(symbols, POSITIVE[0])
        shift = gold.subs(place) - answer.subs(place)
    compared, equal_so_far, real = 0, True, True
    for point, sign in places(len(symbols)):
        place = at(symbols, point, sign)
        sides = [gold.subs(place), answer.subs(place) + shift]
        values = [number(side) for side in sides]
        if None in values:
            continue
        if sign is None:
            real = real and not any(value.imag for value in values)
        elif real and any(abs(value.imag) > EXACT * abs(value) for value in values):
            continue
        compared += 1
        if not equal_numbers(sides, values):
            if sign is None:
                return NOT_EQUAL
            equal_so_far = False
    if not compared or not equal_so_far:
        return verified(gold, answer)
    return EQUAL if symbols or same_exactly(gold, answer) else NOT_EQUAL


def places(count: int) -> Iterator[tuple[tuple[str, ...], int | None]]:
    """Where formulas are compared: points, and which variable is negative there (None for none)."""
    yield from ((point, None) for point in POSITIVE[: 3 if count else 1])
    yield from ((POSITIVE[1], place) for place in range(count))


def at(symbols: list, point: tuple[str, ...], negative: int | None = None) -> dict:
    from sympy import Rational

    values = [Rational(value) for value in point[: len(symbols)]]
    if negative is not None:
        values[negative] *= -1
    return dict(zip(symbols, values, strict=True))


def equal_numbers(sides: list, values: list) -> bool:
    """Whether two constants are equal, given their values to 30 digits."""
    from sympy import Integral, Product, Sum

    if not close(*values, EXACT):
        return False
    if any(side.has(Sum, Product, Integral) for side in sides):
        return True
    return number(sides[0] - sides[1]) in (0, None)  # sympy computes with as many digits as a difference needs


def same_exactly(gold: Any, answer: Any) -> bool:
    """For constants equal to many digits: false if both are rational numbers and yet differ."""
    one, other = gold.doit(), answer.doit()
    return one == other if one.is_Rational and other.is_Rational else True


def number(value: Any) -> Any:
    """A finite real or complex number to 30 digits, or None."""
    import mpmath

    try:
        parts = value.evalf(DIGITS).as_real_imag()
    except (MemoryError, KeyboardInterrupt):
        raise
    except Exception:  # sympy raises all kinds of errors here
        return None
    if not all(part.is_Float or part.is_Rational for part in parts):
        return None
    # sympy marks a zero that it cannot tell from a tiny number by one bit of precision
    real, imaginary = (0 if part.is_Float and part._prec == 1 else part for part in parts)
    with mpmath.workdps(DIGITS):
        return mpmath.mpc(mpmath.mpf(str(real)), mpmath.mpf(str(imaginary)))


def close(one: Any, other: Any, tolerance: float) -> bool:
    return bool(abs(one - other) <= tolerance * max(abs(one), abs(other)))


def same_relation(gold: Any, answer: Any) -> Comparison:
    """Equations and inequalities are the same if one is the other times a constant, for inequalities a positive one."""
    from sympy import Eq, Ge, Gt, Le, Lt, fraction, together

    turned = {Gt: Lt, Ge: Le}
    kinds = [turned.get(type(relation), type(relation)) for relation in (gold, answer)]
    symbols = sorted(gold.free_symbols, key=str)
    if kinds[0] is not kinds[1] or not symbols or gold.free_symbols != answer.free_symbols:
        return NOT_EQUAL
    differences = [
        relation.rhs - relation.lhs if type(relation) in turned else relation.lhs - relation.rhs
        for relation in (gold, answer)
    ]
    attempts = [differences]
    if kinds[0] is Eq:
        attempts.append([fraction(together(difference))[0] for difference in differences])
    for sides in attempts:
        factor = constant_factor(*sides, symbols)
        if factor is not None and (kinds[0] not in (Lt, Le) or (factor.imag == 0 and factor.real > 0)):
            return EQUAL
    return NOT_EQUAL


def constant_factor(one: Any, other: Any, symbols: list) -> Any:
    """The factor between two expressions, or None where it is not the same at all points."""
    from sympy import Float, Rational

    one, other = (
        side.xreplace({decimal: Rational(str(decimal)) for decimal in side.atoms(Float)}) for side in (one, other)
    )
    factors = []
    for point in POINTS:
        place = dict(zip(symbols, map(Rational, point), strict=False))
        values = [number(side.subs(place)) for side in (one, other)]
        if None not in values and values[1] != 0:
            factors.append(values[0] / values[1])
    if len(factors) < 2 or factors[0] == 0:
        return None
    return factors[0] if all(close(factor, factors[0], EXACT) for factor in factors) else None
