"""Exact numbers and their units, read without any computer algebra."""

import re
from fractions import Fraction
from functools import lru_cache
from typing import NamedTuple

from .normal_form import squeeze

DIGITS = r"\d+(?:\.\d*)?|\.\d+"
PLAIN = re.compile(rf"({DIGITS})")
REPEATING = re.compile(r"(\d*)\.(\d*)\\(?:overline|dot)\{(\d+)\}")
RATIO = re.compile(rf"({DIGITS})/([+-]?)({DIGITS})")
FRACTION = re.compile(rf"\\frac\{{([+-]?)({DIGITS})\}}\{{([+-]?)({DIGITS})\}}")
MIXED = re.compile(r"(\d+) ?(?:\\frac\{(\d+)\}\{(\d+)\}|(?<= )(\d+)/(\d+))")
POWER_OF_TEN = re.compile(rf"(?:({DIGITS})\\cdot ?)?10\^(?:\{{([+-]?\d{{1,3}})\}}|(\d))")
EXPONENT = re.compile(rf"({DIGITS})[eE]([+-]?\d{{1,3}})")
SIGN = re.compile(r"[+-]?")

UNIT_NAMES = {
    "mm": "millimeter millimetre",
    "cm": "centimeter centimetre",
    "m": "meter metre",
    "km": "kilometer kilometre",
    "in": "inch inches",
    "ft": "foot feet",
    "yd": "yard",
    "mi": "mile",
    "s": "sec second",
    "min": "minute",
    "h": "hr hour",
    "day": "",
    "week": "wk",
    "month": "",
    "year": "yr",
    "am": "",
    "pm": "",
    "mg": "milligram",
    "g": "gram",
    "kg": "kilogram",
    "pound": "lb sterling",  # mass or money: the word is the same
    "oz": "ounce",
    "ml": "mL milliliter millilitre",
    "L": "liter litre",
    "gal": "gallon",
    "N": "newton",
    "J": "joule",
    "W": "watt",
    "V": "volt",
    "A": "amp ampere",
    "T": "tesla",
    "Hz": "hertz",
    "kHz": "kilohertz",
    "mi/h": "mph",
    "km/h": "kph kmh",
    "degree": "deg",
    "radian": "rad",
    "dollar": "USD usd",
    "euro": "EUR",
    "cent": "",
    "percent": "pct",
}
UNITS = {name: unit for unit, names in UNIT_NAMES.items() for name in (unit, *names.split())}
UNITS |= {name + "s": unit for name, unit in UNITS.items() if len(name) > 1}
# names that may stand behind a number without \text, and those that read as a product there unless a space divides them
PLAIN_UNITS = sorted((name for name in UNITS if len(name) > 1 and "/" not in name), key=len, reverse=True)
PRODUCTS = ("am", "pm", "mg", "hr", "hrs")
COMPASS = {"C": "celsius", "F": "fahrenheit", "N": "north", "S": "south", "E": "east", "W": "west"}
# a text with one of these words changes the value in front of it, or is a sentence
NO_UNITS = """
    and or to mod pi sqrt frac sin cos tan cot sec csc log exp lim max gcd lcm det where for when not half halves
    third thirds fourth fourths fifth fifths sixth sixths eighth eighths ninth ninths tenth tenths hundredth
    hundredths thousandth thousandths th st nd rd squared cubed factorial plus minus divided multiplied power root
    than least most is are was were isn wrong false incorrect
"""
CHANGING_WORDS = frozenset(NO_UNITS.split())
MEANINGLESS = frozenset(("unit", "units", "of", "the", "a", "an"))
POWER = r"(?:\s*\^\s*(?:\{\s*-?\d\s*\}|\d))?"
WORDS = re.compile(rf"(?:\\text\{{\s*[A-Za-z][A-Za-z.\- /]*(?:\^(?:\{{-?\d\}}|\d))?\s*\}}|(?<=[\d}})]\s)[A-Za-z]{{3,}}"
                   rf"(?:[ -][A-Za-z]+)*|(?<![A-Za-z\\])(?:{'|'.join(n for n in PLAIN_UNITS if n not in PRODUCTS)})|"
                   rf"(?:(?<=\d )|(?<=:\d\d))(?:{'|'.join(PRODUCTS)}))" + POWER + "$")  # fmt: skip
PERCENT = re.compile(r"\\?%$")
DEGREE = re.compile(r"\^\\circ(?:\s*(?:[CFNSEW]|\\text\{\s*[CFNSEW]\s*\}))?$")
MONEY = re.compile(r"\\(?:\$|euro|pounds)$")
MONEY_IN_FRONT = re.compile(r"([+-]?)\s*(\\(?:\$|euro|pounds))\s*(?=.)")
MOST_TAILS = 6
JOINS = re.compile(r"(?:/|\\cdot|-|\bper)?\s*(?:\bsquare|\bsq\.?|\bcubic)?\s*$")
NO_DEGREES = re.compile(r"\\(?:pi|sin|cos|tan|cot|sec|csc)(?![a-z])")
OPERATOR_AT_END = re.compile(r"(?:[-+*/=<>^_,(\[]|\\cdot|\\times|\\le|\\ge|\\ne|\\in|\\pm|\\mp|\\approx)$")
RAISED_BY = {"square": "^2", "sq": "^2", "cubic": "^3"}
UNIT_TOKEN = re.compile(r"[A-Za-z]+|\^-?\d+|/|-")


class Quantity(NamedTuple):
    core: str  # the text without its unit
    unit: str  # words between spaces, known units by their canonical name; "" for none
    number: Fraction | None  # of the core, where it is a number


@lru_cache(maxsize=4096)
def quantity(text: str) -> Quantity:
    """A tidy text as number and unit; without a number the core is what stands before the unit."""
    in_front = MONEY_IN_FRONT.match(text)
    core = start = in_front[1] + text[in_front.end() :] if in_front else text
    for _ in range(MOST_TAILS):
        tail = next((match for kind in (WORDS, PERCENT, DEGREE, MONEY) if (match := kind.search(core))), None)
        if tail is None:
            break
        rest = JOINS.sub("", core[: tail.start()], count=1).rstrip()
        if not rest or OPERATOR_AT_END.search(rest) or not re.search(r"\d|\\pi", rest) or not is_unit(tail, rest):
            break
        core = rest
    unit = unit_name((in_front[2] if in_front else "") + start[len(core) :])
    core = re.sub(r"^\\approx\s*", "", core)
    return Quantity(core, unit, exact_number(core))


def is_unit(tail: re.Match, rest: str) -> bool:
    """Whether what ends a text is a unit of the rest, and not part of its value."""
    if tail.re is PERCENT:
        return exact_number(rest) is not None
    if tail.re is DEGREE:
        return not NO_DEGREES.search(rest)
    return not CHANGING_WORDS & set(re.findall("[a-z]+", tail[0].replace("\\text", "").lower()))


def unit_name(text: str) -> str:
    """The canonical name of a unit: "miles per hour" as "mi/h", "\text{ square inches}" as "in^2"."""
    if not text:
        return ""
    text = re.sub(
        r"\^\\circ\s*(?:\\text\{\s*)?([CFNSEW]?)", lambda found: f" degree {COMPASS.get(found[1], '')} ", text
    )
    for sign, name in ((r"\%", "percent"), ("%", "percent"), (r"\$", "dollar"), (r"\cdot", "-")):
        text = text.replace(sign, f" {name} ")
    text = re.sub(r"\b([ap])\.\s?m\b\.?", r"\1m", squeeze(text), flags=re.IGNORECASE)
    words, joint, power = [], "", ""
    for token in UNIT_TOKEN.findall(text):
        if token in ("/", "-", "per"):
            joint = "-" if token == "-" else "/"
        elif token in RAISED_BY:
            power = RAISED_BY[token]
        elif token[0] == "^":
            words[-1:] = [word + token for word in words[-1:]]
        elif token not in MEANINGLESS:
            word = UNITS.get(token) or UNITS.get(token.lower() if len(token) > 1 else "") or singular(token.lower())
            words[-1:] = [words[-1] + joint + word + power] if joint and words else [*words[-1:], joint + word + power]
            joint = power = ""
    return " ".join(words)


def singular(word: str) -> str:
    if len(word) < 4 or word.endswith("ss"):
        return word
    return re.sub(r"(?<=x|s)es$|(?<=ch|sh)es$|(?<!s)s$", "", re.sub("ies$", "y", word))


def units_differ(one: str, other: str) -> bool:
    """Whether both sides have a unit, and not the same.

    Further words may stand on one side only: "apple" and "red apple" are the same, "apple" and "pear" are not.
    """
    if not one or not other:
        return False
    words = set(one.split()), set(other.split())
    known = [{word for word in side if re.split(r"[\^/-]", word)[0] in UNIT_NAMES} for side in words]
    return known[0] != known[1] or not (words[0] <= words[1] or words[1] <= words[0])


def exact_number(text: str) -> Fraction | None:
    r"""Integers, decimals, fractions, mixed numbers and powers of ten as an exact fraction; None for anything else."""
    text = squeeze(text)
    while len(text) > 2 and text[0] + text[-1] in ("()", "{}") and not set(text[1:-1]) & set("(){}"):
        text = text[1:-1]
    sign = SIGN.match(text)[0]
    body = text[len(sign) :].lstrip()
    for form, value in FORMS:
        if found := form.fullmatch(body):
            try:
                return value(*found.groups()) * (-1 if sign == "-" else 1)
            except (ZeroDivisionError, ValueError):  # over nothing, or more digits than Python converts
                return None
    return None


def ratio(sign: str, over: str, under_sign: str, under: str) -> Fraction:
    return Fraction(over) / Fraction(under) * (-1 if (sign == "-") != (under_sign == "-") else 1)


def repeating(whole: str, fixed: str, period: str) -> Fraction:
    return Fraction(f"{whole or 0}.{fixed or 0}") + Fraction(int(period), (10 ** len(period) - 1) * 10 ** len(fixed))


def mixed(whole: str, *parts: str | None) -> Fraction:
    over, under = [int(part) for part in parts if part is not None]
    return int(whole) + Fraction(over, under)


def scientific(factor: str | None, *exponents: str | None) -> Fraction:
    exponent = next(int(power) for power in exponents if power is not None)
    return Fraction(factor or 1) * Fraction(10) ** exponent


FORMS = (
    (PLAIN, Fraction),
    (RATIO, lambda over, sign, under: ratio("", over, sign, under)),
    (FRACTION, ratio),
    (MIXED, mixed),
    (POWER_OF_TEN, scientific),
    (EXPONENT, scientific),
    (REPEATING, repeating),
)
