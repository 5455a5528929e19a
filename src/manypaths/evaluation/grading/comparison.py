"""Whether two answers are the same: by structure and exact values, and by computer algebra only where these end."""

import re
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

from .formulas import same_formula
from .normal_form import join_thousands, squeeze, tidy
from .quantities import quantity, units_differ
from .structure import MOST_NESTED, Node, nesting, parse

LETTER_GOLD = re.compile(r"\(?\s*([A-K])\s*\)?")
LETTER_ANSWER = re.compile(
    r"(?:(?:option|choice|answer)\s+)?(?:\(([A-K])\)|([A-K])(?=$|[).:]))(?:\s*[).:])?(?:\s.*)?", re.I
)
BOUNDS = re.compile(r"<|>|\\le(?![a-z])|\\ge(?![a-z])|\\ne(?![a-z])|\\mathbb|\\setminus")
INTERVALS = ("()", "(]", "[)", "[]")
# words that make an answer prose: four letters and more, but for function names, and some shorter ones
FUNCTION = re.compile(
    r"(?:a|arc)(?:sin|cos|tan|cot|sec|csc)|(?:sin|cos|tan|sec|csc|cot)h|sqrt|frac|[pb]?matrix|array|cases"
)
WORD = re.compile(r"[a-z]{4,}|yes|no|not|the|is|are|for|all|any|has|if|one|two|odd|min|max", re.IGNORECASE)
MOST_CANDIDATES = 40  # elements of two lists compared pair by pair


class Comparison(NamedTuple):
    same: bool | None  # None: only computer algebra can tell
    reason: str


SAME_TEXT = Comparison(True, "same text")
EQUAL_NUMBERS = Comparison(True, "equal numbers")
UNDECIDED = Comparison(None, "undecided")
Decide = Callable[[str, str], Comparison]


def undecided(gold: str, answer: str) -> Comparison:
    return UNDECIDED


def compare(gold: str, answer: str, decide: Decide = undecided) -> Comparison:
    """Compare an answer with a gold; `decide` is asked about pairs of values that exact rules leave open.

    Without `decide` such a pair makes the result undecided (same is None).
    """
    gold, answer = tidy(gold), tidy(answer)
    if not gold or not answer:
        return Comparison(False, "empty answer" if gold else "empty gold")
    if squeeze(gold) == squeeze(answer):
        return SAME_TEXT
    if (letters := same_letter(gold, answer)) is not None:
        return letters
    if is_prose(gold) or is_prose(answer):
        same = plain_words(gold) == plain_words(answer)
        return SAME_TEXT if same else Comparison(False, "different text")
    if max(nesting(gold), nesting(answer)) > MOST_NESTED:
        return Comparison(False, "not understood")
    return same_node(parse(join_thousands(gold)), parse(join_thousands(answer)), decide)


def same_letter(gold: str, answer: str) -> Comparison | None:
    """Multiple choice: compared as letters where the gold is one; None where it is not."""
    wanted = LETTER_GOLD.fullmatch(squeeze(gold))
    if not wanted:
        return None
    given = LETTER_ANSWER.fullmatch(re.sub(r"\\text\{([^{}]*)\}", r"\1", answer).strip())
    letter = given and (given[1] or given[2])
    same = bool(letter) and (letter == wanted[1] or (given[1] is not None and letter.upper() == wanted[1]))
    return Comparison(True, "same letter") if same else Comparison(False, "different letter")


def is_prose(text: str) -> bool:
    """Whether words, other than units, "and" and "or", are part of the answer."""
    return any(prose_words(quantity(piece.strip()).core) for piece in re.split(r"[,;]|\b(?:and|or)\b", text))


def prose_words(text: str) -> list[str]:
    quoted = [word for group in re.findall(r"\\text\{([^{}]*)\}", text) for word in re.findall(r"[A-Za-z]{2,}", group)]
    plain = re.sub(r"\\(?:begin|end)\{[^{}]*\}|\\text\{[^{}]*\}|\\[A-Za-z]+|_\{?[A-Za-z]+\}?", " ", text)
    words = re.findall(r"[A-Za-z]+", plain)
    return quoted + [word for word in words if WORD.fullmatch(word) and not FUNCTION.fullmatch(word)]


def plain_words(text: str) -> str:
    return re.sub(r"[\s.,;:!?\"'`~]+", " ", squeeze(text)).strip().casefold()


def same_node(gold: Node, answer: Node, decide: Decide) -> Comparison:
    """Compare two structures."""
    if gold.name and answer.name and gold.name != answer.name:
        solved = gold.name in answer.text or answer.name in gold.text  # x = 2y against y = x/2
        return decide(gold.whole, answer.whole) if solved and gold.kind == answer.kind == "leaf" else different("name")
    if gold.kind == answer.kind == "leaf":
        return same_leaf(gold, answer, decide)
    if gold.kind == "list" and len({part.name for part in gold.parts} - {""}) > 1 and not any_name(answer):
        return in_order(gold.parts, answer.parts, decide)  # x = 1, y = 2 against 1, 2 or (1, 2)
    if gold.kind in INTERVALS and answer.kind in INTERVALS and gold.kind != answer.kind:
        return different("interval ends")
    if gold.kind != answer.kind:
        if is_set(gold) and is_set(answer):
            return decide(gold.text, answer.text)  # an interval and an inequality, say
        return different("form")
    if gold.kind in ("list", "union"):
        found = in_any_order(gold.parts, answer.parts, decide)
        if found.same is False and gold.kind == "union" and len(gold.parts) != len(answer.parts):
            return decide(gold.whole, answer.whole)
        return found
    return in_order(gold.parts, answer.parts, decide)


def is_set(node: Node) -> bool:
    """Whether it can be a set of numbers given by bounds: an interval, a union of such, or inequalities."""
    if node.kind in ("leaf", "list"):
        return bool(BOUNDS.search(node.text))
    return node.kind == "union" or (node.kind in INTERVALS and len(node.parts) == 2)


def any_name(node: Node) -> bool:
    return any(part.name for part in node.parts)


def different(what: str) -> Comparison:
    return Comparison(False, f"different {what}")


def in_order(golds: tuple[Node, ...], answers: tuple[Node, ...], decide: Decide) -> Comparison:
    if len(golds) != len(answers):
        return different("length")
    return all_of(same_node(gold, answer, decide) for gold, answer in zip(golds, answers, strict=True))


def all_of(comparisons) -> Comparison:
    """True if all are, False with the first difference, undecided otherwise."""
    reasons, undecided = set(), False
    for found in comparisons:
        if found.same is False:
            return found
        undecided = undecided or found.same is None
        reasons.add(found.reason)
    if undecided:
        return UNDECIDED
    return Comparison(True, "symbolically equal" if "symbolically equal" in reasons else "equal parts")


def in_any_order(golds: tuple[Node, ...], answers: tuple[Node, ...], decide: Decide) -> Comparison:
    """Match the elements one to one: by their keys, then by exact rules, and the rest by `decide`."""
    if len(golds) != len(answers):
        return different("length")
    golds, left = unmatched(golds, answers), unmatched(answers, golds)
    if len(golds) > MOST_CANDIDATES:
        return different("parts")
    matches = [Comparison(True, "equal parts")]
    for judge in (undecided, decide):
        still_open = []
        for gold in golds:
            found = [same_node(gold, answer, judge) for answer in left]
            place = next((i for i, comparison in enumerate(found) if comparison.same), None)
            if place is not None:
                matches.append(found[place])
                del left[place]
            elif not any(comparison.same is None for comparison in found):
                return found[0] if len(found) == 1 else different("parts")
            else:
                still_open.append(gold)
        golds = still_open
    return UNDECIDED if golds else all_of(matches)


def unmatched(nodes: tuple[Node, ...], others: tuple[Node, ...]) -> list[Node]:
    """The nodes that have no partner of the same name and key among the others."""
    partners = Counter((other.name, node_key(other)) for other in others)
    partners.subtract((node.name, node_key(node)) for node in nodes)
    left = []
    for node in nodes:
        key = (node.name, node_key(node))
        if partners[key] < 0:
            partners[key] += 1
            left.append(node)
    return left


def same_leaf(gold: Node, answer: Node, decide: Decide) -> Comparison:
    if squeeze(gold.text) == squeeze(answer.text):
        return SAME_TEXT
    if "=" in gold.text + answer.text:
        return decide(gold.whole, answer.whole)  # y = 2x + 1 against 2x - y = -1
    one, other = quantity(gold.text), quantity(answer.text)
    if units_differ(one.unit, other.unit) and "percent" not in (one.unit, other.unit):
        return different("unit")
    if one.number is not None and other.number is not None:
        return same_number(one.number, one.unit, other.number, other.unit)
    if squeeze(one.core) == squeeze(other.core):
        return SAME_TEXT
    same = same_formula(one.core, other.core)
    if same is None:
        return decide(one.core, other.core)
    return Comparison(True, "equal formulas") if same else Comparison(False, "not equal")


def same_number(gold, gold_unit: str, answer, answer_unit: str) -> Comparison:
    """Exact equality; only where one side says percent may the two differ by the factor 100."""
    factors = [1]
    if (gold_unit == "percent") != (answer_unit == "percent"):
        factors.append(100)
    for factor in factors:
        if (gold == answer * factor) if gold_unit == "percent" else (gold * factor == answer):
            return EQUAL_NUMBERS
    return different("number")


def answer_key(extracted: str) -> str:
    """A text that most equal answers share: exact numbers, sorted lists, one look for the rest."""
    text = tidy(extracted)
    return plain_words(text) if is_prose(text) else node_key(parse(join_thousands(text)))


def node_key(node: Node) -> str:
    if node.kind == "leaf":
        found = quantity(node.text)
        value = squeeze(found.core) if found.number is None else str(found.number)
        return f"{value} {found.unit}".strip()
    keys = [node_key(part) for part in node.parts]
    return f"{node.kind}[{'; '.join(sorted(keys) if node.kind in ('list', 'union') else keys)}]"
