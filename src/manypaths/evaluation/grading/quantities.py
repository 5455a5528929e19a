"""Exact numbers and their units, read without any computer algebra."""

import re
from fractions import Fraction
from typing import NamedTuple

from .normal_form import squeeze

DIGITS = r"\d+(?:\.\d*)?|\.\d+"
PLAIN = re.compile(rf"({DIGITS})")
REPEATING = re.compile(r"(\d*)\.(\d*)\\overline\{(\d+)\}")
RATIO = re.compile(rf"({DIGITS})/([+-]?)({DIGITS})")
FRACTION = re.compile(rf"\\frac\{{([+-]?)({DIGITS})\}}\{{([+-]?)({DIGITS})\}}")
MIXED = re.compile(r"(\d+) ?(?:\\frac\{(\d+)\}\{(\d+)\}|(?<= )(\d+)/(\d+))")
POWER_OF_TEN = re.compile(rf"(?:({DIGITS})\\cdot ?)?10\^(?:\{{([+-]?\d{{1,3}})\}}|(\d))")
EXPONENT = re.compile(rf"({DIGITS})[eE]([+-]?\d{{1,3}})")
SIGN = re.compile(r"[+-]?")

UNIT_NAMES = {
    "mm": "millimeter millimeters millimetre millimetres",
    "cm": "centimeter centimeters centimetre centimetres",
    "m": "meter meters metre metres",
    "km": "kilometer kilometers kilometre kilometres",
    "in": "inch inches",
    "ft": "foot feet",
    "yd": "yard yards",
    "mi": "mile miles",
    "s": "sec secs second seconds",
    "min": "mins minute minutes",
    "h": "hr hrs hour hours",
    "day": "days",
    "week": "weeks wk",
    "month": "months",
    "year": "years yr yrs",
    "mg": "milligram milligrams",
    "g": "gram grams",
    "kg": "kilogram kilograms",
    "lb": "lbs pound pounds",
    "oz": "ounce ounces",
    "ml": "mL milliliter milliliters",
    "L": "liter liters litre litres",
    "gal": "gallon gallons",
    "mph": "",
    "degree": "degrees deg",
    "radian": "radians rad",
    "dollar": "dollars usd USD",
    "cent": "cents",
    "percent": "percents pct",
}
UNITS = {name: unit for unit, names in UNIT_NAMES.items() for name in (unit, *names.split())}
# units that may stand as plain letters behind a number: single letters there are variables
PLAIN_UNITS = "|".join(sorted((name for name in UNITS if len(name) > 1), key=len, reverse=True))
NO_UNITS = "and|or|to|mod|pi|sqrt|frac|sin|cos|tan|cot|sec|csc|log|exp|lim|max|gcd|lcm|det|where|for|when|not"
POWER = r"(?:\s*\^\s*(?:\{\s*-?\d\s*\}|\d))?"
TAILS = (
    re.compile(rf"\\text\{{\s*(?!(?:{NO_UNITS})\b)([A-Za-z][A-Za-z.\- /]*?)\s*\}}" + POWER + r"$"),
    re.compile(rf"(?<![A-Za-z\\])({PLAIN_UNITS})" + POWER + r"$"),
    re.compile(
        rf"(?<=[\d}})]\s)((?!(?:{NO_UNITS})\b)[A-Za-z]{{3,}}(?:[ -](?!(?:{NO_UNITS})\b)[A-Za-z]+)*)" + POWER + r"$"
    ),
    re.compile(r"(\\?%)$"),
    re.compile(r"(\^\\circ\s*[CF]?)$"),
)
MOST_TAILS = 6
JOINS = re.compile(r"(/|\\cdot|-|\bper)?\s*(\bsquare|\bsq\.?|\bcubic)?\s*$")
RAISED_BY = {"square": "^2", "sq": "^2", "cubic": "^3"}
OPERATOR_AT_END = re.compile(r"(?:[-+*/=<>^_,(\[]|\\cdot|\\times|\\le|\\ge|\\ne|\\in|\\pm|\\approx)$")


class Quantity(NamedTuple):
    core: str  # the text without its unit
    unit: str  # canonical name, "" for none, the text itself where the unit is not known
    number: Fraction | None  # of the core, where it is a number


def quantity(text: str) -> Quantity:
    """A tidy text as number and unit; without a number the core is what stands before the unit."""
    core, units = text, []
    for _ in range(MOST_TAILS):
        found = next((match for tail in TAILS if (match := tail.search(core))), None)
        if found is None:
            break
        rest = core[: found.start()]
        joined = JOINS.search(rest)
        rest = rest[: joined.start()].rstrip()
        if not rest or OPERATOR_AT_END.search(rest) or not re.search(r"\d|\\pi", rest):
            break
        power = RAISED_BY.get((joined[2] or "").rstrip("."), "")
        units.insert(0, (joined[1] or "").replace("per", "/") + unit_name(core[found.start() :]) + power)
        core = rest
    core = re.sub(r"^\\approx\s*", "", core)
    return Quantity(core, "".join(units), exact_number(core))


def unit_name(text: str) -> str:
    words = squeeze(text).replace("\\%", "percent").replace("%", "percent")
    if words.startswith("^\\circ"):
        return "degree"
    name, power, exponent = words.partition("^")
    parts = re.split(r"[ .]+", name.strip())
    if parts[0] in RAISED_BY and len(parts) > 1:
        parts, power, exponent = parts[1:], RAISED_BY[parts[0]], ""
    names = [UNITS.get(part, UNITS.get(part.lower(), part)) for part in parts if part]
    return " ".join(names) + power + exponent


def units_differ(one: str, other: str) -> bool:
    """Whether both are known units, and not the same; a unit that is missing or unknown contradicts nothing."""
    if not one or not other or one == other:
        return False
    return all(re.split(r"[\^/]", unit)[0] in UNIT_NAMES for unit in (one, other))


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
