"""Equality by computer algebra. It may take for ever: only a worker process calls it."""

import re
from functools import lru_cache
from typing import Any

from .comparison import Comparison

EQUAL, NOT_EQUAL = Comparison(True, "symbolically equal"), Comparison(False, "not equal")
NOT_UNDERSTOOD = Comparison(False, "not understood")
DIGITS = 30  # of numeric evaluation
EXACT = 1e-20  # relative difference of exact expressions
DECIMAL = 1e-9  # relative difference where one side is a decimal number
# values for variables: positive ones first, since radicals and logarithms are meant for these
POINTS = (
    ("1.37", "2.71", "1.93", "3.19", "1.11", "2.23"),
    ("0.43", "0.77", "0.59", "0.31", "0.89", "0.23"),
    ("2.47", "1.61", "3.83", "1.27", "2.09", "4.13"),
    ("-0.83", "-1.71", "-0.37", "-2.29", "-1.19", "-0.53"),
)
POSITIVE = POINTS[:3]
# what the LaTeX parser would read in a way nobody means
AMBIGUOUS = re.compile(r"\d\s+\d|(?<![A-Za-z0-9])\d+_")  # a product of two numbers, a number in another base
PREPARATIONS = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"\\text\{\s*([^{}]*?)\s*\}", r" \1 "),
        (r"(?<![\w}.^\\])(\d+)\s*(\\frac\{\d+\}\{\d+\})", r"(\1+\2)"),  # mixed numbers
        (r"(?<![A-Za-z\\])C_(?:\{(\w+)\}|(\w))\^(?:\{(\w+)\}|(\w))", r"\\binom{\1\2}{\3\4}"),
        (r"(\\binom\{[^{}]*\}\{[^{}]*\})", r"(\1)"),
        (r"(?<=\))\s*(?=[\d(])|(?<![_\d.])(\d+)\s*(?=\()", r"\1\\cdot "),  # the parser adds 2(3) up
        (r"\^\\circ", r"\\cdot\\frac{\\pi}{180}"),
        (r"([A-Za-z])'+", r"\1_{prime}"),
    )
)


def decide(gold: str, answer: str) -> Comparison:
    """Compare two tidy values or relations."""
    from sympy import Expr, Set

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
    """Inequalities as the set of numbers they allow; several of them as the union."""
    from sympy import And, FiniteSet, Union
    from sympy.logic.boolalg import Boolean

    try:
        if isinstance(side, FiniteSet) and all(isinstance(part, Boolean) for part in side.args):
            return Union(*(as_set(part) for part in side.args))
        return (
            And(*side.args).as_set() if isinstance(side, And) else side.as_set() if isinstance(side, Boolean) else side
        )
    except NotImplementedError:  # more than one variable
        return side


@lru_cache(maxsize=1024)
def expression(text: str) -> Any:
    """The sympy object of a tidy LaTeX text, or None. Letters keep their case; a free `i` is the imaginary unit."""
    from latex2sympy2_extended import NormalizationConfig, latex2sympy, normalize_latex
    from latex2sympy2_extended.latex2sympy2 import ConversionConfig
    from sympy import I

    if AMBIGUOUS.search(text):
        return None
    for pattern, replacement in PREPARATIONS:
        text = pattern.sub(replacement, text)
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

    A clear difference at a point settles it. Equality has to hold at every point that can be evaluated; if it
    fails only where variables are negative, math-verify decides.
    """
    from sympy import Float, Rational

    if gold == answer:
        return EQUAL
    if gold.is_Rational and answer.is_Rational:
        return NOT_EQUAL
    tolerance = DECIMAL if gold.has(Float) or answer.has(Float) else EXACT
    symbols = sorted(gold.free_symbols | answer.free_symbols, key=str)
    if len(symbols) > len(POINTS[0]):
        return verified(gold, answer)
    compared, equal_so_far = 0, True
    for point in POINTS if symbols else POINTS[:1]:
        place = dict(zip(symbols, map(Rational, point), strict=False))
        values = [number(side.subs(place)) for side in (gold, answer)]
        if None in values:
            continue
        compared += 1
        if not close(*values, tolerance):
            if point in POSITIVE:
                return NOT_EQUAL
            equal_so_far = False
    if not compared or not equal_so_far:
        return verified(gold, answer)
    return EQUAL if symbols or same_exactly(gold, answer) else NOT_EQUAL


def same_exactly(gold: Any, answer: Any) -> bool:
    """For constants equal to many digits: false if both are rational numbers and yet differ."""
    from sympy import Float, Rational

    one, other = (
        side.xreplace({decimal: Rational(str(decimal)) for decimal in side.atoms(Float)}).doit()
        for side in (gold, answer)
    )
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
    from sympy import Rational

    factors = []
    for point in POINTS:
        place = dict(zip(symbols, map(Rational, point), strict=False))
        values = [number(side.subs(place)) for side in (one, other)]
        if None not in values and values[1] != 0:
            factors.append(values[0] / values[1])
    if len(factors) < 2 or factors[0] == 0:
        return None
    return factors[0] if all(close(factor, factors[0], DECIMAL) for factor in factors) else None
