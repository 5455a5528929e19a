"""What an answer is made of: lists and sets, tuples and intervals, unions, matrices, and the leaves inside them."""

import re
from itertools import pairwise, product
from typing import NamedTuple

from .formulas import same_formula
from .normal_form import closing, squeeze, trimmed

OPENERS = {"(": ")", "[": "]", "\\{": "\\}", "{": "}", "\\langle": "\\rangle", "\\lfloor": "\\rfloor",
           "\\lceil": "\\rceil"}  # fmt: skip
CLOSERS = frozenset(OPENERS.values())
MOST_NESTED = 50
TOKEN = re.compile(r"\\[A-Za-z]+|\\.|.", re.DOTALL)
AND_OR = re.compile(r"\s*\\text\{[ ,]*(and|or)\s*\}\s*|(?<![A-Za-z\\])(and|or)(?![A-Za-z])")
PLUS_MINUS = re.compile(r"\\(pm|mp)(?![A-Za-z])")
MOST_SIGNS = 4  # of plus-minus that are free of each other
LETTER = r"(?:[A-Za-z]|\\(?!frac|sqrt|binom|text)[A-Za-z]+(?:\{\\?[A-Za-z]+\})?|\\text\{[^{}]*\})"
INDEX = r"(?:_(?:\{[^{}]*\}|[A-Za-z0-9]|\\[A-Za-z]+)|')*"
NAME = re.compile(
    rf"(?:\\angle ?)?(?:{LETTER}{INDEX}(?:\^\{{-1\}})?(?:\([A-Za-z, \\]+\))?|[A-Za-z]{{2,12}}|\|[A-Za-z]+\|)"
    rf"|\\angle ?[A-Z][A-Z0-9_ ]*|\({LETTER}{INDEX}(?:,{LETTER}{INDEX})+\)|[A-Zfgh]{INDEX}\([^()]*\)"
)
POINT = re.compile(rf"([A-Z]{INDEX})\s*(?=\()")
COMPONENT = re.compile(r"([+-]?[^+-]*?)(?:\\cdot)?\s*\\hat\{([ijk])\}\s*")
CONSTANT = re.compile(r"(?:\\[A-Za-z]+|[^A-Za-z\\]|\\[{}]|(?<![A-Za-z])[eiC](?![A-Za-z]))+")
MATRIX = re.compile(
    r"(?:[(\[]\s*)?\\begin\{([pb]?matrix|smallmatrix|array)\}(?:\{[lcr| ]*\})?(.*?)\\end\{\1\}(?:\s*[)\]])?", re.DOTALL
)
SCALAR = re.compile(r"([^,=&]+?)(?:\\cdot)?\s*(?=[(\[]?\s*\\begin\{)")
TIME = re.compile(r"\d{1,2}:[0-5]\d")
SET_BUILDER = re.compile(r"(?:[A-Za-z]|\([A-Za-z, ]+\))\s*(?:\\in\s*\S+\s*)?[|:](.*)", re.DOTALL)


class Node(NamedTuple):
    kind: (
        str  # "leaf", "list", "set", "union", "matrix", "row", "ratio", or an opening and a closing bracket as in "(]"
    )
    text: str  # of the value
    parts: tuple["Node", ...] = ()
    name: str = ""  # x of x = 5, f(x) of f(x) = 2x
    equation: str = ""  # the text with its left side, where the value had one
    joints: frozenset[str] = frozenset()  # "and" and "or" of a list; none for commas

    @property
    def whole(self) -> str:
        return self.equation or self.text


def parse(text: str) -> Node:
    """The structure of a tidy text; one leaf where brackets are nested too deep."""
    if nesting(text) > MOST_NESTED:
        return Node("leaf", text)
    text = trimmed(text)
    return without_outer_braces(listing(text) or single(text))


def without_outer_braces(node: Node) -> Node:
    """A set that is all of the answer as the list of its elements, or its only element."""
    if node.kind != "set":
        return node
    if len(node.parts) > 1:
        return node._replace(kind="list")
    only = node.parts[0]
    return node if only.kind == "set" or only.text == "\\emptyset" else only._replace(name=node.name)


def nesting(text: str) -> int:
    depth = deepest = 0
    for token in TOKEN.findall(text):
        depth += (token in OPENERS) - (token in CLOSERS)
        deepest = max(deepest, depth)
    return deepest


def listing(text: str) -> Node | None:
    """An unordered list; lists inside it (a plus-minus, say) are taken apart. None if there is one element only."""
    pieces, joints = [], set()
    for piece in split(text, ",", ";"):
        first, *others = AND_OR.split(piece)
        pieces += [first, *others[2::3]]
        joints |= {joint for joint in others if joint in ("and", "or")}
    pieces = [piece.strip() for piece in pieces if piece.strip()]
    if len(pieces) == 1:
        return single(pieces[0])
    return Node("list", text, elements(pieces), joints=frozenset(joints)) if pieces else None


def elements(pieces: list[str]) -> tuple[Node, ...]:
    parts: list[Node] = []
    for piece in pieces:
        node = single(piece)
        parts += [part._replace(name=node.name) for part in node.parts] if node.kind == "list" else [node]
    return tuple(parts)


def single(text: str) -> Node:
    name, value = named(text)
    if name or value != text:
        return without_outer_braces(single(value))._replace(name=name, equation=text)
    union = split(text, "\\cup")
    if len(union) > 1:
        return Node("union", text, tuple(single(part.strip()) for part in union))
    if "\\begin" in text and (matrix := matrix_of(text)):
        return matrix
    inner, brackets = unwrapped(text)
    if brackets == "\\{\\}" or (brackets == "{}" and len(split(inner, ",", ";")) > 1):
        builder = SET_BUILDER.fullmatch(inner)
        return Node("leaf", trimmed(builder[1])) if builder else set_of(text, inner)
    if PLUS_MINUS.search(text) and "\\begin" not in text:
        return Node("list", text, elements(both_signs(text)))
    if brackets in ("()", "[]", "{}") and len(split(inner, ",", ";")) == 1:
        return parse(inner)
    if brackets and len(split(inner, ",", ";")) > 1:
        kind = "()" if brackets.startswith("\\langle") else brackets
        return Node(kind, text, tuple(single(part.strip()) for part in split(inner, ",", ";")))
    ratio = split(text, ":")
    if len(ratio) > 2:
        return Node("ratio", text, tuple(single(part.strip()) for part in ratio))
    return vector_of(text) or Node("leaf", text)


def set_of(text: str, inner: str) -> Node:
    found = listing(trimmed(inner))
    parts = found.parts if found and found.kind == "list" else (found or Node("leaf", inner),)
    return Node("set", text, parts)


def matrix_of(text: str) -> Node | None:
    """A matrix, also with a factor in front of it."""
    scalar = None if MATRIX.fullmatch(text) else SCALAR.match(text)
    matrix = MATRIX.fullmatch(text, scalar.end() if scalar else 0)
    factor = scalar[1].strip() if scalar else ""
    if not matrix or "\\begin" in factor:
        return None
    factor = "-1" if factor == "-" else factor
    rows = [split(row, "&") for row in split(matrix[2], "\\\\") if row.strip()]
    if factor:
        rows = [[f"({factor})\\cdot ({cell.strip()})" for cell in row] for row in rows]
    return Node("matrix", text, tuple(Node("row", "", tuple(parse(cell) for cell in row)) for row in rows))


def vector_of(text: str) -> Node | None:
    r"""2\hat{i} + 3\hat{j} as the tuple of its components."""
    if "\\hat{" not in text:
        return None
    components, place = {}, 0
    while place < len(text):
        found = COMPONENT.match(text, place)
        if not found or found[2] in components:
            return None
        size = found[1].replace(" ", "").removeprefix("+")
        components[found[2]] = {"": "1", "-": "-1"}.get(size, size)
        place = found.end()
    axes = "ijk" if "k" in components else "ij"
    return Node("()", text, tuple(single(components.get(axis, "0")) for axis in axes))


def both_signs(text: str) -> list[str]:
    r"""What a text with \pm stands for: upper and lower signs if it has a \mp too, else every choice of signs."""
    signs = PLUS_MINUS.findall(text)
    if ("mp" in signs and "pm" in signs) or len(signs) > MOST_SIGNS:
        choices = [["+" if sign == "pm" else "-" for sign in signs], ["-" if sign == "pm" else "+" for sign in signs]]
    else:
        choices = product("+-", repeat=len(signs))
    found = []
    for choice in choices:
        left = iter(choice)
        one = PLUS_MINUS.sub(lambda _, left=left: next(left), text)
        found.append(re.sub(r"(^|[(,\[])\s*\+\s*", r"\1", one))
    return found


def named(text: str) -> tuple[str, str]:
    """The name and the value of `x = 5`, `x in S` or `P(1, 2)`; of a chain the last value; no name of a constant.

    An equation such as x + y = 1 is not a naming, nor is a chain of values that differ: their value is all of it.
    """
    point = POINT.match(text)
    if point and unwrapped(text[point.end() :])[1] and len(split(text[point.end() + 1 : -1], ",")) > 1:
        return point[1], text[point.end() :]
    member = split(text, "\\in")
    if len(member) == 2 and NAME.fullmatch(squeeze(member[0])):
        return "", member[1].strip()
    sides = [side.strip() for side in split(text, "=", "\\approx")]
    if len(sides) < 2 or not all(sides) or len(split(text, "<", ">", "\\le", "\\ge", "\\ne", "\\equiv")) > 1:
        return "", text
    if "\\approx" not in text and any(same_formula(*pair) is False for pair in pairwise(filter(is_constant, sides))):
        return "", text
    first, last = squeeze(sides[0]), squeeze(sides[-1])
    if NAME.fullmatch(first):
        return first.replace(" ", ""), sides[-1]
    if NAME.fullmatch(last) and len(sides) == 2 and not CONSTANT.fullmatch(last):
        return last.replace(" ", ""), sides[0]
    return ("", sides[-1]) if CONSTANT.fullmatch(first) and CONSTANT.fullmatch(last) else ("", text)


def is_constant(side: str) -> bool:
    side = squeeze(side)
    return bool(CONSTANT.fullmatch(side)) and not NAME.fullmatch(side)


def unwrapped(text: str) -> tuple[str, str]:
    """What stands in the brackets around the whole text, and the two brackets; the text and "" without them.

    A half-open interval closes with the other bracket, so any round or square bracket closes any other.
    """
    opener = next((opener for opener in ("\\{", "\\langle", "(", "[", "{") if text.startswith(opener)), None)
    if opener is None:
        return text, ""
    depth = place = 0
    for token in TOKEN.findall(text):
        place += len(token)
        depth += (token in OPENERS) - (token in CLOSERS)
        if depth == 0:
            whole = place == len(text)
            return (text[len(opener) : place - len(token)], opener + token) if whole else (text, "")
    return text, ""


def split(text: str, *separators: str) -> list[str]:
    """The pieces of a text between separators that stand outside of all brackets."""
    pieces, piece, depth = [], "", 0
    place = 0
    while place < len(text):
        if text.startswith("\\begin", place):
            end = text.find("\\end{", place)
            end = closing(text, text.find("{", end)) if end >= 0 else len(text)
            piece, place = piece + text[place:end], end
            continue
        token = TOKEN.match(text, place)[0]
        place += len(token)
        depth += (token in OPENERS) - (token in CLOSERS)
        if token in separators and depth <= 0:
            pieces.append(piece)
            piece = ""
        else:
            piece += token
    return [*pieces, piece]
