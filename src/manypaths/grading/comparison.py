"""Whether two answers are the same: by structure and exact values, and by computer algebra only where these end."""

import re
from collections import Counter
from collections.abc import Callable
from itertools import product
from typing import NamedTuple

from .formulas import same_formula, value_of
from .normal_form import equations_as_list, join_thousands, squeeze, tidy, trimmed
from .quantities import quantity, units_differ
from .structure import CONSTANT, MOST_NESTED, TIME, Node, nesting, parse, split

LETTER_GOLD = re.compile(r"\(?\s*([A-K])\s*\)?")
LETTER_ANSWER = re.compile(
    r"(?:(?:option|choice|answer)\s+)?(?:\(([A-K])\)|([A-K])(?=$|[).:]))(?:\s*[).:])?(?:\s(.*))?", re.I
)
# behind a letter: another letter, or words that take it back
NO_LETTER = re.compile(r"(?<![A-Za-z\\])(?:[A-K]|I+|or|nor|not|neither|is|wrong|false|incorrect)(?![A-Za-z])")
BOUNDS = re.compile(r"<|>|\\le(?![a-z])|\\ge(?![a-z])|\\ne(?![a-z])|\\mathbb|\\setminus")
INTERVALS = ("()", "(]", "[)", "[]")
# words that make an answer prose: four letters and more, but for function names, and some shorter ones
FUNCTION = re.compile(
    r"(?:a|arc)(?:sin|cos|tan|cot|sec|csc)|(?:sin|cos|tan|sec|csc|cot)h|sqrt|frac|[pb]?matrix|array|cases"
)
WORD = re.compile(r"[a-z]{4,}|yes|no|not|the|is|are|for|all|any|has|if|one|two|odd|min|max", re.IGNORECASE)
MOST_CANDIDATES = 40  # elements of two lists compared pair by pair
MOST_AT_ONCE = 150  # such pairs outside of a worker
QUALIFIER = re.compile(r"[\s,]*(?:\\text\{\s*)?(?<![A-Za-z])for (?:all|any|every|each)(?![A-Za-z]).*", re.DOTALL)
TITLE = re.compile(r"\\text\{[^{}]*\}|[A-Za-z]+")
# left sides that may be missing, like a name: a derivative, a set, a function's value; and sums and products of names
LEFT_SIDE = re.compile(
    r"\\frac\{(?:d|\\partial ?)[^{}]*\}\{(?:d|\\partial ?)[^{}]*\}|\\nabla ?\w+|[A-Z]'?\\(?:cap|cup|setminus) ?[A-Z]'?"
    r"|\\(?:sin|cos|tan) ?(?:[A-Za-z]|\\[a-z]+)"
)
NAMES_FRACTION = r"\\frac\{[A-Za-z]\}\{[A-Za-z]\}"
SUM_OF_NAMES = re.compile(
    rf"(?:(?:[A-Za-z](?:_\w)?|{NAMES_FRACTION})(?:[-+/]|\\cdot ?)?){{2,}}(?<![-+/])|{NAMES_FRACTION}"
)
CONSTANT_OF_INTEGRATION = re.compile(r"\+\s*(?:[cCkK]|C_\d)$")
LABELLED = re.compile(
    r"(?:\([A-Ka-k]\) +(?=[-+\d\\])|\\text\{ *\([A-Ka-k]\) *\} *)(.+)|\\text\{ *\([A-Ka-k]\) *([^{}]+)\}"
)
CONGRUENCE = re.compile(
    r"(?:[A-Za-z] ?\\equiv)?([^=<>]+?)(?:\(? ?\\(?:b?mod|text\{ ?mod ?\})(?![A-Za-z])|\\pmod|\( ?mod(?![a-z])) ?\{?(\d+)\}?\)?"
)
SCRIPTS = re.compile(r"[\^_](?:\w|\{\w+\})")
OF_NAMES = re.compile(r"(?:[A-Za-z0-9^_(){}|+*/'-]|\\(?:frac|cdot|sqrt|alpha|beta|gamma|theta|phi|overline|angle) ?)+")
ANGLE = re.compile(r"\\pi(?![a-z])")


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
    given = gold, answer
    gold, answer = tidy(gold), tidy(answer)
    if not gold or not answer:
        return Comparison(False, "empty answer" if gold else "empty gold")
    if squeeze(gold) == squeeze(answer):
        return SAME_TEXT
    gold, answer = (tidy(equations_as_list(text)) for text in given)
    if (letters := same_letter(gold, answer)) is not None:
        return letters
    gold, answer = without_qualifier(gold, answer)
    gold, answer = without_label(gold), without_label(answer)
    gold, answer = without_modulus(gold, answer)
    if is_prose(gold) or is_prose(answer):
        same = plain_words(gold) == plain_words(answer)
        return SAME_TEXT if same else Comparison(False, "different text")
    if max(nesting(gold), nesting(answer)) > MOST_NESTED:
        return Comparison(False, "not understood")
    golds, answers = ([parse(form) for form in exact_and_rounded(join_thousands(side))] for side in (gold, answer))
    found = [same_node(one, other, decide) for one, other in product(golds, answers)]
    return next(
        (result for result in found if result.same),
        next((result for result in found if result.same is None), found[-1]),
    )


def same_letter(gold: str, answer: str) -> Comparison | None:
    """Multiple choice: compared as letters where either side is no more than a letter; None where neither is."""
    for wanted, given in ((gold, answer), (answer, gold)):
        bare = LETTER_GOLD.fullmatch(squeeze(wanted))
        full = bare and LETTER_ANSWER.fullmatch(re.sub(r"\\text\{([^{}]*)\}", r"\1", given).strip())
        if full and not NO_LETTER.search(full[3] or ""):
            letter = full[1] or full[2]
            same = letter == bare[1] or (full[1] is not None and letter.upper() == bare[1])
            return Comparison(True, "same letter") if same else different("letter")
        if bare and wanted is gold:
            return different("letter")
    return None


def without_qualifier(gold: str, answer: str) -> tuple[str, str]:
    """Both texts without a closing "for all x" that only one of them has."""
    cut = [QUALIFIER.sub("", text) for text in (gold, answer)]
    if (cut[0] == gold) == (cut[1] == answer) or not all(cut):
        return gold, answer
    return cut[0], cut[1]


def without_label(text: str) -> str:
    """The value of a choice that is given with its letter, as in (b) 5."""
    labelled = LABELLED.fullmatch(text)
    return labelled[1] or labelled[2] if labelled else text


def without_modulus(gold: str, answer: str) -> tuple[str, str]:
    """The residues where only one side names the modulus, or both the same."""
    found = [CONGRUENCE.fullmatch(text) for text in (gold, answer)]
    if not any(found) or (all(found) and found[0][2] != found[1][2]):
        return gold, answer
    values = [match[1].strip() if match else text for match, text in zip(found, (gold, answer), strict=True)]
    return values[0], values[1]


def exact_and_rounded(text: str) -> list[str]:
    r"""Both values of \frac{70}{9} \approx 7.78, where the one is the other rounded; else the text as it is."""
    exact, *rounded = split(text, "\\approx")
    if len(rounded) != 1:
        return [text]
    number = quantity(trimmed(rounded[0])).number
    value = value_of(quantity(trimmed(split(exact, "=")[-1])).core)
    decimals = len(quantity(trimmed(rounded[0])).core.partition(".")[2])
    fits = None not in (number, value) and abs(value - float(number)) <= 10.0**-decimals
    return [exact.strip(), text] if fits else [text]


def is_prose(text: str) -> bool:
    """Whether words, other than units, titles of values, "and" and "or", are part of the answer."""
    return any(prose_words(quantity(untitled(piece)).core) for piece in re.split(r"[,;]|\b(?:and|or)\b", text))


def untitled(text: str) -> str:
    title, equals, value = text.partition("=")
    return (value if equals and TITLE.fullmatch(title.strip()) else text).strip()


def prose_words(text: str) -> list[str]:
    quoted = [word for group in re.findall(r"\\text\{([^{}]*)\}", text) for word in re.findall(r"[A-Za-z]{2,}", group)]
    commands = r"\\(?:begin|end)\{[^{}]*\}(?:\{[lcr| ]*\})?|\\text\{[^{}]*\}|\\[A-Za-z]+|_\{?[A-Za-z]+\}?"
    words = re.findall(r"[A-Za-z]+", re.sub(commands, " ", text))
    return quoted + [word for word in words if is_word(word)]


def is_word(word: str) -> bool:
    """Whether letters are a word, and not a function or the points of a figure."""
    points = word.isupper() and len(word) < 4
    return bool(WORD.fullmatch(word)) and not FUNCTION.fullmatch(word) and not points


def plain_words(text: str) -> str:
    """The words of a text; a letter by itself keeps its case, a decimal its point."""
    text = re.sub(r"(?<!\d)[.,]|[.,](?!\d)|[\s;:?\"'`~]", " ", squeeze(text).replace("\\$", " "))
    text = re.sub(r"[^\W\d_]{2,}|^\s*A(?= [a-z]{3})", lambda word: word[0].casefold(), text)
    return " ".join(text.split())


def same_node(gold: Node, answer: Node, decide: Decide) -> Comparison:
    """Compare two structures."""
    if names_differ(gold.name, answer.name):
        solved = gold.name in answer.text or answer.name in gold.text  # x = 2y against y = x/2
        return decide(gold.whole, answer.whole) if solved and gold.kind == answer.kind == "leaf" else different("name")
    gold, answer = without_left_side(gold, answer)
    if gold.kind == answer.kind == "leaf":
        return same_leaf(gold, answer, decide)
    if has_names(gold) != has_names(answer) and {gold.kind, answer.kind} <= {"list", "()"}:
        return in_order(gold.parts, answer.parts, decide)  # x = 1, y = 2 against 1, 2 or (1, 2)
    if gold.kind in INTERVALS and answer.kind in INTERVALS and gold.kind != answer.kind:
        return different("interval ends")
    both_sets = is_set(gold) and is_set(answer)
    if gold.kind != answer.kind or (both_sets and gold.joints != answer.joints):
        # an interval and an inequality, say
        return decide(gold.text, answer.text) if both_sets else different("form")
    if gold.kind in ("list", "set", "union"):
        found = in_any_order(gold.parts, answer.parts, decide)
        return decide(gold.text, answer.text) if found.same is False and both_sets else found
    return in_order(gold.parts, answer.parts, decide)


def names_differ(one: str, other: str) -> bool:
    """Whether both have a name, and not the same; y and y(x) are the same."""
    return bool(one and other) and one != other and one.split("(")[0] != other and other.split("(")[0] != one


def has_names(node: Node) -> bool:
    """Whether it gives several names their values: x = 1, y = 2."""
    return node.kind == "list" and len({part.name for part in node.parts} - {""}) > 1


def without_left_side(gold: Node, answer: Node) -> tuple[Node, Node]:
    r"""A left side such as M \cap N or m + n is dropped where the other answer has none."""
    if "=" in answer.text and "=" not in gold.whole:
        left, value = answer.text.rsplit("=", 1)
        asked = CONSTANT.fullmatch(squeeze(gold.whole)) and is_of_names(squeeze(left))
        if asked or LEFT_SIDE.fullmatch(squeeze(left)) or SUM_OF_NAMES.fullmatch(squeeze(left)):
            return gold, parse(value)
    if "=" in gold.text and "=" not in answer.whole:
        left, value = gold.text.rsplit("=", 1)
        if LEFT_SIDE.fullmatch(squeeze(left)):
            return parse(value), answer
    return gold, answer


def is_of_names(left: str) -> bool:
    """Whether a left side is a product or power of names, such as AB^2 or (x+y)^2: then it is what was asked for.

    A sum of powers is not: x^2+y^2=41 is a circle.
    """
    is_product = OF_NAMES.fullmatch(left) and len(split(left, "+", "-")) == 1
    return bool(is_product) and not re.search(r"\d", SCRIPTS.sub("", left))


def is_set(node: Node) -> bool:
    """Whether it can be a set of numbers given by bounds: an interval, a union of such, or inequalities."""
    if node.kind in ("leaf", "list"):
        return bool(BOUNDS.search(node.text))
    return node.kind == "union" or (node.kind in INTERVALS and len(node.parts) == 2)


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
    if len(golds) ** 2 > MOST_AT_ONCE and decide is undecided:
        return UNDECIDED  # only a worker has a deadline
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
    if {one.unit, other.unit} == {"degree", ""} and ANGLE.search(other.core if one.unit else one.core):
        return decide(gold.text, answer.text)  # 90 degrees against \pi/2
    if units_differ(one.unit, other.unit):
        return different("unit")
    if one.number is not None and other.number is not None:
        return same_number(one.number, one.unit, other.number, other.unit)
    if squeeze(one.core) == squeeze(other.core):
        return SAME_TEXT
    if any(TIME.fullmatch(squeeze(side.core)) for side in (one, other)) and ":" in one.core and ":" in other.core:
        return different("time")
    if cores := with_integration_constants(one.core, other.core):
        return SAME_TEXT if squeeze(cores[0]) == squeeze(cores[1]) else decide(*cores)
    same = same_formula(one.core, other.core)
    if same is None:
        return decide(one.core, other.core)
    return Comparison(True, "equal formulas") if same else Comparison(False, "not equal")


def with_integration_constants(gold: str, answer: str) -> list[str] | None:
    """Both formulas with +C at the end, where both end in a constant of integration; else None.

    Behind a gold with +C any letter is one; a gold with +c means a constant if it has one letter more at most.
    """
    endings = [CONSTANT_OF_INTEGRATION.search(side) for side in (gold, answer)]
    if not all(endings):
        return None
    cores = [side[: ending.start()] for side, ending in zip((gold, answer), endings, strict=True)]
    upper = ["C" in ending[0] for ending in endings]
    variables = set(re.findall(r"[a-df-zA-Z]", re.sub(r"\\[A-Za-z]+", "", cores[0])))
    if upper[0] or (upper[1] and endings[0][0].endswith("c") and len(variables) < 2):
        return [core + "+C" for core in cores]
    return None


def same_number(gold, gold_unit: str, answer, answer_unit: str) -> Comparison:
    """Exact equality; only where one side says percent, and the other has no unit, may they differ by 100."""
    percent = ["percent" in unit.split() for unit in (gold_unit, answer_unit)]
    equal = gold == answer or (percent == [True, False] and gold == answer * 100)
    equal = equal or (percent == [False, True] and gold * 100 == answer)
    return EQUAL_NUMBERS if equal else different("number")


def answer_key(extracted: str) -> str:
    """A text that most equal answers share: exact numbers, sorted lists, one look for the rest."""
    text = tidy(equations_as_list(extracted))
    return plain_words(text) if is_prose(text) else node_key(parse(join_thousands(text)))


def node_key(node: Node) -> str:
    if node.kind == "leaf":
        found = quantity(node.text)
        value = squeeze(found.core) if found.number is None else str(found.number)
        return f"{value} {found.unit}".strip()
    keys = [node_key(part) for part in node.parts]
    joints = " ".join(sorted(node.joints)) if is_set(node) else ""
    return f"{node.kind}[{'; '.join(sorted(keys) if node.kind in ('list', 'set', 'union') else keys)}]{joints}"
