"""When two right answers are the same: by their words, their final expression, their equations, or a user's function."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..functions import import_function, told
from ..grading import extract
from ..grading.normal_form import squeeze, tidy
from ..run_folder import fingerprint

Keys = Callable[[Sequence[str], Mapping[str, Any]], list[str]]  # texts of one prompt, and its row, to a key for each

ANNOTATION = re.compile(r"<<[^<>]*>>")  # GSM8K's calculations, which stand beside the same in words
BOX = re.compile(r"\\(?:boxed|fbox)\s*\{([^{}]*)\}")
THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
ARTICLE = r"(?![aAI] [\w\\(])"  # no variable: a, A or I before a word or a number
PIECE = re.compile(rf"=|\d+(?:\.\d+)?%?|\\[A-Za-z]+|(?<![A-Za-z\\]){ARTICLE}[A-Za-z](?![A-Za-z])|[-+*/^_(){{}}\[\]|!]")


def keys_by(name: str) -> Keys:
    """What `distinct` names: texts with equal keys are the same answer.

    Raises ValueError for a module or function that is not there.
    """
    by_text = {"text": words, "expression": final_expression, "chain": equations}
    if name in by_text:
        return lambda texts, row: list(map(by_text[name], texts))
    function = import_function(name, "distinct")

    def keys(texts: Sequence[str], row: Mapping[str, Any]) -> list[str]:
        try:
            values = [json.dumps(value, sort_keys=True) for value in function(list(texts), **row)]
        except Exception as error:  # whatever a user's function does
            raise ValueError(f"--distinct {name} fails: {told(error)}.") from error
        if len(values) != len(texts):
            raise ValueError(f"--distinct {name} gave {len(values)} keys for {len(texts)} texts.")
        return values

    return keys


def words(text: str) -> str:
    """The text but for its spacing."""
    return " ".join(text.split())


def final_expression(text: str) -> str:
    r"""The final answer (a box, "the answer is", "####") as it is written but for its look: 3 \cdot 4 is not 4 \cdot 3.

    A text that announces none is its own final expression.
    """
    return squeeze(tidy(extract(text, "lenient") or text))


def equations(text: str) -> str:
    r"""Every equation of a worked solution in order, without the words around them: "3*4=12; 12+5=17".

    Equations are runs of numbers, single letters, operators, brackets and LaTeX commands with an equals sign between;
    spacing and the way to write a product do not count. A text without any gives "".
    """
    found = []
    for line in BOX.sub(r"\1", ANNOTATION.sub("", text)).splitlines():
        line, run, end = THOUSANDS.sub("", tidy(line).replace("\\$", "")), "", 0
        for piece in PIECE.finditer(line):
            if line[end : piece.start()].strip():
                found.append(run)
                run = ""
            run, end = run + " " + piece[0], piece.end()
        found.append(run)
    runs = (squeeze(run.replace("\\div", "/")) for run in found)
    return "; ".join(run for run in runs if all(run.split("=")) and "=" in run)


def fewest_first(keys: Sequence[str], texts: Sequence[str], known: set[str], room: int) -> list[int]:
    """Places of at most `room` texts, one for each key that is not `known`, those that were drawn least often first.

    What a model seldom says is what its demonstrations lack. Ties, and the text that stands for a key, are settled by a
    digest of the text, so that the choice depends on the set of texts and not on their order.
    """
    groups: dict[str, list[int]] = {}
    for place, key in enumerate(keys):
        if key not in known:
            groups.setdefault(key, []).append(place)
    rarest = sorted(groups, key=lambda key: (len(groups[key]), fingerprint(key)))
    return [min(groups[key], key=lambda place: (fingerprint(texts[place]), place)) for key in rarest[: max(room, 0)]]
