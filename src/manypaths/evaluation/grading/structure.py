"""What an answer is made of: lists and sets, tuples and intervals, unions, matrices, and the leaves inside them."""

import re
from typing import NamedTuple

from .normal_form import closing, squeeze, trimmed

OPENERS = {"(": ")", "[": "]", "\\{": "\\}", "{": "}", "\\langle": "\\rangle", "\\lfloor": "\\rfloor",
           "\\lceil": "\\rceil"}  # fmt: skip
CLOSERS = frozenset(OPENERS.values())
MOST_NESTED = 50
TOKEN = re.compile(r"\\[A-Za-z]+|\\.|.", re.DOTALL)
AND_OR = re.compile(r"\s*\\text\{[ ,]*(?:and|or)\s*\}\s*|(?<![A-Za-z\\])(?:and|or)(?![A-Za-z])")
LETTER = r"(?:[A-Za-z]|\\(?!frac|sqrt|binom|text)[A-Za-z]+(?:\{\\?[A-Za-z]+\})?|\\text\{[^{}]*\})"
INDEX = r"(?:_(?:\{[^{}]*\}|[A-Za-z0-9]|\\[A-Za-z]+)|')*"
NAME = re.compile(
    rf"(?:\\angle ?)?(?:{LETTER}{INDEX}(?:\^\{{-1\}})?(?:\([A-Za-z, \\]+\))?|[A-Za-z]{{2,12}}|\|[A-Za-z]+\||\\angle ?[A-Z ]+)"
)
CONSTANT = re.compile(r"(?:\\[A-Za-z]+|[^A-Za-z\\]|\\[{}]|(?<![A-Za-z])[eiC](?![A-Za-z]))+")
MATRIX = re.compile(
    r"(?:[(\[]\s*)?\\begin\{([pb]?matrix|smallmatrix|array)\}(?:\{[lcr| ]*\})?(.*?)\\end\{\1\}(?:\s*[)\]])?", re.DOTALL
)
SET_BUILDER = re.compile(r"(?:[A-Za-z]|\([A-Za-z, ]+\))\s*(?:\\in\s*\S+\s*)?[|:](.*)", re.DOTALL)


class Node(NamedTuple):
    kind: str  # "leaf", "list", "union", "matrix", or an opening and a closing bracket such as "(]"
    text: str  # of the value
    parts: tuple["Node", ...] = ()
    name: str = ""  # x of x = 5, f(x) of f(x) = 2x
    equation: str = ""  # the text with its left side, where the value had one

    @property
    def whole(self) -> str:
        return self.equation or self.text


def parse(text: str) -> Node:
    """The structure of a tidy text; one leaf where brackets are nested too deep."""
    if nesting(text) > MOST_NESTED:
        return Node("leaf", text)
    text = trimmed(text)
    pieces = [part for piece in split(text, ",", ";") for part in AND_OR.split(piece)]
    pieces = [piece.strip() for piece in pieces if piece.strip()]
    if len(pieces) > 1:
        return listing(text, pieces)
    return single(pieces[0] if pieces else text)


def nesting(text: str) -> int:
    depth = deepest = 0
    for token in TOKEN.findall(text):
        depth += (token in OPENERS) - (token in CLOSERS)
        deepest = max(deepest, depth)
    return deepest


def listing(text: str, pieces: list[str]) -> Node:
    """An unordered list; lists inside it (a plus-minus, say) are taken apart."""
    parts: list[Node] = []
    for piece in pieces:
        node = single(piece)
        parts += [part._replace(name=node.name) for part in node.parts] if node.kind == "list" else [node]
    return Node("list", text, tuple(parts))


def single(text: str) -> Node:
    name, value = named(text)
    if name or value != text:
        return single(value)._replace(name=name, equation=text)
    union = split(text, "\\cup")
    if len(union) > 1:
        return Node("union", text, tuple(single(part.strip()) for part in union))
    if matrix := MATRIX.fullmatch(text):
        rows = [row for row in split(matrix[2], "\\\\") if row.strip()]
        cells = [tuple(parse(cell) for cell in split(row, "&")) for row in rows]
        return Node("matrix", text, tuple(Node("row", "", row) for row in cells))
    inner, brackets = unwrapped(text)
    if brackets == "\\{\\}":
        builder = SET_BUILDER.fullmatch(inner)
        return leaf(trimmed(builder[1])) if builder else parse(inner)
    if brackets in ("()", "[]", "{}") and len(split(inner, ",")) == 1:
        return parse(inner)
    if brackets and len(split(inner, ",")) > 1:
        return Node(brackets, text, tuple(single(part.strip()) for part in split(inner, ",", ";")))
    return leaf(text)


def leaf(text: str) -> Node:
    r"""A single value, or two of them for a \pm."""
    if "\\pm" in text:
        signs = (("+", "-"), ("-", "+"))
        both = [text.replace("\\pm", upper).replace("\\mp", lower) for upper, lower in signs]
        return Node("list", text, tuple(Node("leaf", re.sub(r"^\s*\+\s*", "", one)) for one in both))
    return Node("leaf", text)


def named(text: str) -> tuple[str, str]:
    """The name and the value of `x = 5` or `x in S`; of a chain the last value; no name where the left side is constant.

    An equation such as x + y = 1 is no naming: its value is all of it.
    """
    member = split(text, "\\in")
    if len(member) == 2 and NAME.fullmatch(squeeze(member[0])):
        return "", member[1].strip()
    sides = [side.strip() for side in split(text, "=", "\\approx")]
    if len(sides) < 2 or not all(sides) or re.search(r"<|>|\\le|\\ge|\\ne|\\equiv", text):
        return "", text
    first, last = squeeze(sides[0]), squeeze(sides[-1])
    if NAME.fullmatch(first):
        return first, sides[-1]
    if NAME.fullmatch(last) and len(sides) == 2 and not CONSTANT.fullmatch(last):
        return last, sides[0]
    return ("", sides[-1]) if CONSTANT.fullmatch(first) else ("", text)


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
