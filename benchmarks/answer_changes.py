"""Wrong and equivalent variants of gold answers, made mechanically: the material of benchmarks/grading.py."""

import re
from collections.abc import Iterator
from fractions import Fraction

NUMBER = re.compile(r"-?(?:\d+|\d*\.\d+)")
FRACTION = re.compile(r"(-?)\\[dt]?frac\{(\d+)\}\{(\d+)\}")
INTERVAL = re.compile(r"([(\[])(?!.*\\cup)([^()\[\],]*\\infty|[^()\[\],]+),([^()\[\],]+)([)\]])")
SYMBOLS = re.compile(r"[A-Za-z\\0-9{}^_+\-*/() .]+")
# a torn formula, a number in another base, a set, a relation, vectors, primes
NO_VALUE = re.compile(r"[-+.]$|\d \d|\d_|\\\{|\\[gl]eq|\\math|prime")
WORDY = re.compile(
    r"(?<![\\A-Za-z])[A-Za-z]{2,}|text|mathrm|mbox|circ|begin|infty|pm|left|quad|approx|%|ldots|cdots|[^ -~]"
)


def bare(gold: str) -> str:
    """The gold without dollar signs round its formulas, and of an amount of money the number alone."""
    text = re.sub(r"(?<!\\)\$", "", gold).strip()
    return re.sub(r"^\\\$\s*(?=[\d.,]+$)", "", text)


def elements(gold: str) -> list[str]:
    """The elements of a plain comma list; one element for all else."""
    text = bare(gold)
    if "\\!" in text or "\\{" in text:
        return [text]
    if re.search(r"[()\[\]{}=]|\d,\d{3}(?!\d)|\\\w*text|[A-Za-z]{3}", re.sub(r"\\[a-z]?frac|\\sqrt|[{}]", "", text)):
        return [text]
    return [part.strip() for part in re.split(r",|\bor\b|\band\b", text)]


def is_value(gold: str) -> bool:
    """Whether the gold is one number or formula, so that arithmetic can be done on it."""
    text = bare(gold)
    return (
        bool(text)
        and bool(SYMBOLS.fullmatch(text))
        and not WORDY.search(text)
        and not re.fullmatch("[A-K]", text)
        and not NO_VALUE.search(text)
    )


def wrong_answers(gold: str, others: list[str]) -> Iterator[tuple[str, str]]:
    """(kind, answer) pairs that are wrong, but for rare accidents."""
    text = bare(gold)
    for other in others:
        if bare(other) != text:
            yield "another row's answer", bare(other)
    plain = text.replace(",", "") if re.fullmatch(r"-?\d{1,3}(,\d{3})+", text) else text
    if NUMBER.fullmatch(plain):
        value = Fraction(plain)
        yield "off by one", decimal(value + 1)
        if value:
            yield "sign", decimal(-value)
            yield "x100", decimal(value * 100)
            yield "/100", decimal(value / 100)
    elif is_value(text):
        if not re.search(r"\+ ?C$", text):
            yield "off by one", f"{text}+1"
        yield "sign", f"-({text})"
        yield "x100", f"100({text})"
        yield "/100", f"\\frac{{{text}}}{{100}}"
    if found := INTERVAL.fullmatch(text.replace("\\left", "").replace("\\right", "")):
        first, low, high, last = found.groups()
        yield "interval ends", f"{'[' if first == '(' else '('}{low},{high}{last}"
        yield "interval ends", f"{first}{low},{high}{']' if last == ')' else ')'}"
    parts = elements(gold)
    if len(parts) > 1:
        yield "missing element", ", ".join(parts[1:])
        yield "extra element", ", ".join([*parts, "1234567"])


def decimal(value: Fraction) -> str:
    if value.denominator == 1:
        return str(value.numerator)
    digits = next(
        (places for places in range(1, 30) if value.denominator and (value * 10**places).denominator == 1), 12
    )
    scaled = abs(value * 10**digits)
    text = f"{int(scaled):0{digits + 1}d}"
    return ("-" if value < 0 else "") + text[:-digits] + "." + text[-digits:]


def equivalent_answers(gold: str) -> Iterator[tuple[str, str]]:
    """(kind, answer) pairs that are right: other ways to write the gold."""
    text = bare(gold)
    if not text:
        return
    yield "period in the box", text + "."
    yield "spaces", f"\\, {text} \\;"
    if "\\frac" in text:
        yield "dfrac", text.replace("\\frac", "\\dfrac")
    if "-" in text:
        yield "unicode minus", text.replace("-", "\u2212")
    if "\\pi" in text:
        yield "unicode pi", re.sub(r"\\pi(?![A-Za-z])", "\u03c0", text)
    if "(" in text and "\\left" not in text and text.count("(") == text.count(")"):
        yield "left right", text.replace("(", "\\left(").replace(")", "\\right)")
    plain = text.replace(",", "")
    if NUMBER.fullmatch(text):
        value = Fraction(text)
        if "\\$" not in gold:
            yield "words", f"{text} apples"
            yield "unit", f"{text}\\text{{ cm}}"
        yield "currency", f"\\${text}"
        yield "decimals", text + ("0" if "." in text else ".0")
        yield "as fraction", f"\\frac{{{(value * 6).numerator}}}{{{(value * 6).denominator * 6}}}"
        if value.denominator == 1 and abs(value) >= 1000:
            yield "thousands", f"{int(text):,}"
            yield "thousands in LaTeX", f"{int(text):,}".replace(",", "{,}")
    elif re.fullmatch(r"-?\d{1,3}(,\d{3})+", text):
        yield "no thousands", plain
    if found := FRACTION.fullmatch(text):
        sign, over, under = found.groups()
        yield "slash", f"{sign}{over}/{under}"
        yield "expanded", f"{sign}\\frac{{{2 * int(over)}}}{{{2 * int(under)}}}"
        if int(over) > int(under):
            yield "mixed number", f"{sign}{int(over) // int(under)}\\frac{{{int(over) % int(under)}}}{{{under}}}"
    if is_value(text):
        yield "named", f"x = {text}"
        if not NUMBER.fullmatch(text):
            yield "twice its half", f"\\frac{{2({text})}}{{2}}"
            yield "plus zero", f"0+({text})"
    parts = elements(gold)
    if len(parts) > 1:
        yield "order", ", ".join(reversed(parts))
        yield "set", "\\{" + ", ".join(parts) + "\\}"
        yield "and", ", ".join(parts[:-1]) + " \\text{ and } " + parts[-1]
