r"""Finding the final answer in a text: the last \boxed{...}, or in lenient mode one of a few usual phrases."""

import re
from typing import Literal, NamedTuple

from .comparison import answer_key
from .normal_form import tidy

Mode = Literal["lenient", "strict", "last_number"]
MODES = ("lenient", "strict", "last_number")
LONGEST_ANSWER = 2000  # characters; nothing longer is a final answer
LONGEST_ENDING = 20 * LONGEST_ANSWER  # where phrases are looked for: an answer is announced at the end

# what the scan for boxes stops at: a box's opening, an escaped character, or a brace
MARKS = re.compile(r"\\{1,4}(?:boxed|fbox)\s*\{|\\.|[{}]", re.DOTALL)
BARE_BOX = re.compile(r"\\(?:boxed|fbox)(?![A-Za-z])\s*([^\s${}\\]+)")
BLANK = r"(?:\s|\$|\\[()\[\],;! ]|\\q?quad)*"
JOINT = rf"(?:,|(?:,{BLANK})?(?:and|or|\\text\s*\{{\s*(?:and|or)\s*\}}))"
BETWEEN_BOXES = re.compile(BLANK + JOINT + BLANK)

FINAL, HOPE = re.compile(r"final answer is:?", re.IGNORECASE), re.compile(r"I hope", re.IGNORECASE)
HASHES = re.compile(r"####([^\n]*)")
ANNOUNCED = re.compile(r"\banswer\W{0,3}?(?: is\b:?|:)[\s*]*(?=([^\n]{0,2000}))", re.IGNORECASE)
OPINION = re.compile(r"(?:in)?correct|right|wrong|false|true|valid|reasonable|consistent", re.IGNORECASE)
NUMBER = re.compile(r"-?(?<![\w.])\d+(?:,\d{3})*(?:\.\d+)?(?:/\d+)?")
SENTENCE_END = re.compile(r"[.!?](?=\s|$)")


class Box(NamedTuple):
    start: int  # of the command
    inside: int  # of the content
    end: int  # behind the closing brace


def extract(text: str, mode: Mode = "lenient") -> str | None:
    r"""The final answer of a text, or None; cut at 2000 characters.

    The last closed \boxed{...} or \fbox{...} wins (of nested boxes, the inner one). Boxes with nothing but a
    comma, "and" or "or" between them are one list, joined by commas, unless one is empty or all have the same
    value. Without a box, lenient mode takes, in this order, "final answer is X. I hope", "#### X", and "answer
    is X" or "answer: X"; mode last_number then takes the last number of the text, strict mode takes nothing.
    Time is linear in the text. Raises ValueError for an unknown mode.
    """
    if mode not in MODES:
        raise ValueError(f"Unknown grading mode {mode!r}; choose one of {', '.join(MODES)}.")
    answer = boxed_answer(text)
    if answer is None and mode != "strict":
        answer = announced_answer(text)
    if not answer and mode == "last_number":
        numbers = NUMBER.findall(text[-LONGEST_ENDING:])
        answer = numbers[-1] if numbers else answer
    return None if answer is None else answer.strip()[:LONGEST_ANSWER]


def boxed_answer(text: str) -> str | None:
    boxes = closed_boxes(text)
    if not boxes:
        bare = BARE_BOX.findall(text)
        return bare[-1] if bare else None
    first = len(boxes) - 1
    while first and BETWEEN_BOXES.fullmatch(text, boxes[first - 1].end, boxes[first].start):
        first -= 1
    contents = [content_of(text, box) for box in boxes[first:]]
    if len(contents) < 2 or len(joined := ", ".join(contents)) > LONGEST_ANSWER:
        return contents[-1] if len(contents) < 2 else joined
    if not all(map(tidy, contents)) or len({answer_key(content) for content in contents}) == 1:
        return contents[-1]  # the same value in two forms is one answer
    return joined


def content_of(text: str, box: Box) -> str:
    """What is in a box; where its own backslash is doubled, as in JSON, all of them are."""
    content = text[box.inside : box.end - 1].strip()
    backslashes = text[box.start : box.inside].count("\\")
    return content.replace("\\\\", "\\") if backslashes % 2 == 0 else content


def closed_boxes(text: str) -> list[Box]:
    """The closed boxes that hold no other box, in order.

    One pass with a stack of what is open; a brace or box that is never closed does no harm.
    """
    opened: list[tuple[int, int] | None] = []  # None for a plain brace
    boxes: list[Box] = []
    for mark in MARKS.finditer(text):
        if mark[0] == "{":
            opened.append(None)
        elif mark[0] == "}":
            box = opened.pop() if opened else None
            if box is not None and not (boxes and boxes[-1].start > box[0]):
                boxes.append(Box(*box, mark.end()))
        elif mark[0].endswith("{") and len(mark[0]) > 2:
            opened.append((mark.start(), mark.end()))
    return boxes


def announced_answer(text: str) -> str | None:
    """What follows the last of the usual phrases, up to the end of its sentence."""
    ending = text[-LONGEST_ENDING:]
    hopes = [hope.start() for hope in HOPE.finditer(ending)]
    starts = [start.end() for start in FINAL.finditer(ending, 0, hopes[-1])] if hopes else []
    if starts:
        return ending[starts[-1] : hopes[-1]].strip().removesuffix(".").strip("*_ \t")
    for phrase in (HASHES, ANNOUNCED):
        announced = phrase.findall(ending)
        sayings = [text for text in announced if re.search(r"\w", text)] or announced[-1:]
        if sayings:
            answer = next((text for text in reversed(sayings) if not OPINION.match(text)), sayings[-1]).strip()
            sentence_end = SENTENCE_END.search(answer) if phrase is ANNOUNCED else None
            return (answer[: sentence_end.start()] if sentence_end else answer).strip("*_ \t")
    return None
