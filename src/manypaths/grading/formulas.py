"""A quick look at plain formulas: most pairs are told apart, or seen to be equal, by a few values."""

import math
import re

TOKEN = re.compile(
    r"\s*(\d+(?:\.\d*)?|\.\d+"
    r"|(?:[A-Za-z]|\\(?:alpha|beta|gamma|delta|theta|lambda|mu|omega|phi|rho|sigma|tau))(?:_(?:\{\w+\}|\w))?"
    r"|\\(?:frac|sqrt|pi|cdot|times)(?![A-Za-z])|[-+*/^(){}\[\]])"
)
CONSTANTS = {r"\pi": math.pi, "e": math.e, "i": 1j}
TIMES = (r"\cdot", r"\times", "*")
END_OF_FACTORS = frozenset(("", "+", "-", ")", "}", "]"))
# values of the variables in alphabetical order; a difference counts only where all are positive, as in radicals
POSITIVE = ((1.37, 2.71, 1.93, 3.19, 1.11, 2.23), (0.43, 0.77, 0.59, 0.31, 0.89, 1.23))
NEGATIVE = (-0.83, -1.71, -0.37, -2.29, -1.19, -0.53)
CLEARLY = 1e-4  # relative difference, far above what rounding does to a formula of this kind
NEARLY = 1e-13  # relative difference that is rounding
LONGEST_NUMBER = 6  # digits; longer numbers, and decimals, may be meant as roundings
RANGE = 1e6  # where every step stays within 1/RANGE and RANGE, no small or large term can hide behind another


class Unreadable(Exception):
    """Not a formula of this small grammar, or one that can be read in two ways."""


def same_formula(one: str, other: str) -> bool | None:
    r"""Whether two tidy formulas of numbers, letters, + - * / ^, \frac, \sqrt, \pi have the same values.

    None where either cannot be read, or where floating-point numbers do not settle it.
    """
    try:
        sides = tokens(one), tokens(other)
        names = sorted({name for side in sides for name in side if is_variable(name)})
        if len(names) > len(NEGATIVE):
            return None
        settled = not any(is_long(token) for side in sides for token in side)
        for point in (*POSITIVE, NEGATIVE):
            values = CONSTANTS | dict(zip(names, point, strict=False))
            first, second = (Formula(side, values) for side in sides)
            found, size = abs(first.value() - second.value()), max(abs(first.result), abs(second.result))
            if found > CLEARLY * size and point is not NEGATIVE:
                return False
            settled = settled and found <= NEARLY * size and not (first.extreme or second.extreme)
        return settled or None
    except (Unreadable, ArithmeticError, RecursionError):
        return None


def value_of(formula: str) -> float | None:
    """The value of a tidy formula without variables; None for anything else."""
    try:
        value = complex(Formula(tokens(formula), CONSTANTS).value())
    except (Unreadable, ArithmeticError, RecursionError):
        return None
    return None if value.imag else value.real


def tokens(text: str) -> list[str]:
    found, place = [], 0
    while place < len(text):
        token = TOKEN.match(text, place)
        if token is None:
            raise Unreadable
        found.append(token[1])
        place = token.end()
    return found


def is_variable(token: str) -> bool:
    return token not in CONSTANTS and (token[0].isalpha() or bool(re.match(r"\\(?!frac|sqrt|cdot|times)", token)))


def is_long(token: str) -> bool:
    return token[0] in "0123456789." and (len(token) > LONGEST_NUMBER or "." in token)


class Formula:
    """A recursive reader that computes as it goes."""

    def __init__(self, tokens: list[str], values: dict[str, complex]) -> None:
        self.tokens, self.values, self.place = tokens, values, 0
        self.result: complex = 0
        self.extreme = False  # whether some step left the range in which equality can be trusted

    def value(self) -> complex:
        self.result = self.total()
        if self.next:
            raise Unreadable
        return self.result

    def noted(self, step: complex) -> complex:
        self.extreme = self.extreme or not (step == 0 or 1 / RANGE <= abs(step) <= RANGE)
        return step

    @property
    def next(self) -> str:
        return self.tokens[self.place] if self.place < len(self.tokens) else ""

    def take(self, *wanted: str) -> str:
        """The next token; it has to be one of those wanted, if any are named."""
        token = self.next
        if not token or (wanted and token not in wanted):
            raise Unreadable
        self.place += 1
        return token

    def total(self) -> complex:
        found = 0
        while True:
            sign = self.take() if self.next in ("+", "-") else "+"
            found += self.product() if sign == "+" else -self.product()
            if self.next not in ("+", "-"):
                return self.noted(found)

    def product(self) -> complex:
        found = self.power()
        while self.next not in END_OF_FACTORS:
            if self.next == "/":
                self.take()
                found /= self.power()
                if self.next not in (*END_OF_FACTORS, *TIMES, "/"):
                    raise Unreadable  # 1/2x
            elif self.next in TIMES:
                self.take()
                found *= self.power()
            else:
                last = self.tokens[self.place - 1]
                if self.next[0] in "0123456789." or (last[-1].isdigit() and self.next == r"\frac"):
                    raise Unreadable  # 5 7, or a mixed number
                found *= self.power()
            self.noted(found)
        return found

    def power(self) -> complex:
        base = self.atom()
        if self.next != "^":
            return base
        self.take()
        if self.next != "{" and not (self.next.isalnum() and (len(self.next) == 1 or self.next.isdigit())):
            raise Unreadable
        found = self.noted(base ** self.atom())
        self.extreme = self.extreme or (found == 0 and base != 0)  # too small for a floating-point number
        return found

    def atom(self) -> complex:
        token = self.take()
        if token in ("(", "{"):
            found = self.total()
            self.take({"(": ")", "{": "}"}[token])
            return found
        if token == r"\frac":
            return self.noted(self.group() / self.group())
        if token == r"\sqrt":
            degree = 2
            if self.next == "[":
                self.take()
                degree = self.total()
                self.take("]")
            return self.group() ** (1 / degree)
        if token in self.values:
            return self.values[token]
        if token[0] in "0123456789.":
            return self.noted(float(token))
        raise Unreadable

    def group(self) -> complex:
        self.take("{")
        found = self.total()
        self.take("}")
        return found
