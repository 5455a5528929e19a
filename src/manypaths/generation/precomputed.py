"""Completions in JSONL: made elsewhere, or by an earlier run of this project."""

import math
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..data.sources import json_kind, json_lines, read_text
from .samples import Sample, SampleKey

ONE_TEXT = ("text", "response", "output", "completion")
SEVERAL_TEXTS = ("texts", "responses", "outputs", "completions", "samples")
DETAILS = {"token_ids": (list,), "stop": (str,), "num_tokens": (int,), "logprob": (int, float)}
KINDS = {(str,): "text", (int,): "a whole number", (str, int): "text or a whole number", (list,): "a list"}


def read_completions(path: str | Path) -> dict[SampleKey, Sample]:
    """Every completion of a JSONL file, in the order of its lines.

    A row has an `id` and either one text (under text, response, output or completion) or the list of all texts of that
    problem (under texts, responses, outputs, completions or samples). It may have `task` (or `benchmark`) and
    `temperature`, and with one text `index` (or else the texts of a problem are numbered in their order), `stop`,
    `num_tokens`, `logprob` and `token_ids`; a samples.jsonl of this project has all of them. Other columns are left alone.

    Raises FileNotFoundError, or ValueError for an empty file, a row that cannot be read (with file and line), or a
    completion that is there twice.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"There is no file with completions at {path}.")
    rows = json_lines(read_text(path), path)
    if not rows:
        raise ValueError(f"{path} has no row; give one JSON object with an id and a text per line.")
    return samples_of_rows(rows, path)


def samples_of_rows(rows: Mapping[int, Mapping[str, Any]], path: Path) -> dict[SampleKey, Sample]:
    """The completions in the rows {line number: row} of a file."""
    samples: dict[SampleKey, Sample] = {}
    lines: dict[SampleKey, int] = {}
    without_index = next((number for number, row in rows.items() if row.get("index") is None), None)
    numbers: Counter[tuple[Any, ...]] = Counter()
    for number, row in rows.items():
        where = f"{path}, line {number}"
        group = problem_of(row, where)
        name, texts = texts_of(row, where)
        if name in ONE_TEXT and row.get("index") is not None:
            if without_index is not None:
                raise ValueError(f"{where} has an index and line {without_index} has none; give all or none.")
            start = column(row, "index", (int,), where)
        else:
            start = numbers[group]
            numbers[group] += len(texts)
        details = [column(row, detail, types, where) for detail, types in DETAILS.items()]
        for index, text in enumerate(texts, start=start):
            key = SampleKey(*group, index)
            if key in samples:
                raise ValueError(f"{where}: {key} is there twice, first in line {lines[key]}.")
            samples[key] = Sample(text, *details) if name in ONE_TEXT else Sample(text, None, None)
            lines[key] = number
    return samples


def problem_of(row: Mapping[str, Any], where: str) -> tuple[str | None, str, float | None]:
    """(task, id, temperature) of a row; an id may be a whole number."""
    identity = column(row, "id", (str, int), where)
    if identity is None:
        raise ValueError(f"{where}: no id; a row names its problem, as the benchmark does.")
    task = column(row, "task" if "task" in row else "benchmark", (str,), where)
    return task, str(identity), column(row, "temperature", (int, float), where)


def texts_of(row: Mapping[str, Any], where: str) -> tuple[str, list[str]]:
    """The column with the text or texts of a row, and what is in it."""
    names = [name for name in (*ONE_TEXT, *SEVERAL_TEXTS) if name in row]
    if len(names) != 1:
        has = f"both {' and '.join(names)}" if names else f"only {', '.join(row)}"
        known = f"one of {', '.join(ONE_TEXT)} (a text) or {', '.join(SEVERAL_TEXTS)} (a list)"
        raise ValueError(f"{where}: a row needs {known}, found {has}.")
    (name,) = names
    texts = [row[name]] if name in ONE_TEXT else row[name]
    if not isinstance(texts, list) or not texts:
        raise ValueError(f"{where}: {name} must be a list of at least one text, found {json_kind(texts)}.")
    for text in texts:
        if not isinstance(text, str):
            raise ValueError(f"{where}: {name} must hold text, found {json_kind(text)}.")
    return name, texts


def column(row: Mapping[str, Any], name: str, types: tuple[type, ...], where: str) -> Any:
    """A column's value, None where it is missing or null."""
    value = row.get(name)
    if value is None:
        return None
    if not isinstance(value, types) or isinstance(value, bool):
        wanted = KINDS.get(types, "a number")
        raise ValueError(f"{where}: {name} must be {wanted}, found {json_kind(value)} ({value!r:.40}).")
    if name == "logprob" and not -math.inf < value <= 0:
        raise ValueError(f"{where}: logprob is a sum of logarithms of probabilities, 0 or below; got {value}.")
    if name in ("index", "num_tokens", "temperature") and not 0 <= value < math.inf:
        raise ValueError(f"{where}: {name} must be 0 or more, got {value}.")
    return value


def check_same_numbers(samples: Mapping[SampleKey, Sample], path: str | Path) -> None:
    """ValueError unless every problem of a task and temperature has the same samples, 0 to n - 1."""
    groups: dict[tuple[Any, ...], dict[str, set[int]]] = {}
    for key in samples:
        groups.setdefault((key.task, key.temperature), {}).setdefault(key.id, set()).add(key.index)
    for problems in groups.values():
        other = max(problems, key=lambda name: len(problems[name]))
        for name, indices in problems.items():
            if len(indices) < len(problems[other]):
                raise ValueError(
                    f"{path}: problem {name} has {len(indices)} samples and problem {other} has {len(problems[other])}; "
                    "every problem of a benchmark needs the same number."
                )
            missing = set(range(len(indices))) - indices
            if missing:
                raise ValueError(
                    f"{path}: problem {name} has {len(indices)} samples but none with index {min(missing)}."
                )
