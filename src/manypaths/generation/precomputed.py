"""Texts made elsewhere, read from JSONL so that they can be evaluated without a model."""

import math
from collections import Counter
from pathlib import Path
from typing import Any

from ..data.sources import json_kind, json_lines, read_text
from ..evaluation.store import SampleKey, named
from .samples import Sample

ONE = ("text", "response", "output", "completion")
SEVERAL = ("texts", "responses", "outputs", "completions", "samples")


def read_recorded(path: str | Path) -> dict[SampleKey, Sample]:
    """Every text of a JSONL file, in the order of the file.

    A row has an `id` and either one text (under text, response, output or completion) or the list of all texts of
    that problem (under texts, responses, outputs, completions or samples). It may have `benchmark` and
    `temperature`, and with one text `index` (or else the texts of a problem are numbered in their order), `stop`,
    `num_tokens` and `logprob`; a samples.jsonl of this project has all of them. Other columns are left alone.

    Raises FileNotFoundError, or ValueError: an empty file, a row that cannot be read (file and line), a sample that
    is there twice, problems with different numbers of samples.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"No file with recorded texts at {path}.")
    rows = json_lines(read_text(path), path)
    if not rows:
        raise ValueError(f"{path} has no row; give one JSON object with an id and a text per line.")
    samples: dict[SampleKey, Sample] = {}
    lines: dict[SampleKey, int] = {}
    without_index = {number for number, row in rows.items() if row.get("index") is None}
    numbers: Counter[tuple[Any, ...]] = Counter()
    for number, row in rows.items():
        where = f"{path}, line {number}"
        group = problem_of(row, where)
        name, texts = texts_of(row, where)
        if name in ONE and number not in without_index:
            if without_index:
                raise ValueError(f"{where} has an index and line {min(without_index)} has none; give all or none.")
            start = field(row, "index", (int,), where)
        else:
            start = numbers[group]
            numbers[group] += len(texts)
        extra = details(row, where) if name in ONE else {"stop": None}
        for index, text in enumerate(texts, start=start):
            key = SampleKey(*group, index)
            if key in samples:
                raise ValueError(f"{where}: {named(key)} is there twice, first in line {lines[key]}.")
            samples[key] = Sample(text, None, **extra)
            lines[key] = number
    check_numbers(samples, path)
    return samples


def problem_of(row: dict[str, Any], where: str) -> tuple[str | None, str, float | None]:
    """(benchmark, id, temperature) of a row; an id may be a whole number."""
    if row.get("id") is None:
        raise ValueError(f"{where}: no id; a row names its problem, as the benchmark does.")
    identity = field(row, "id", (str, int), where)
    return field(row, "benchmark", (str,), where), str(identity), field(row, "temperature", (int, float), where)


def texts_of(row: dict[str, Any], where: str) -> tuple[str, list[str]]:
    """The column with the text or texts of a row, and what is in it."""
    found = [name for name in (*ONE, *SEVERAL) if name in row]
    if len(found) != 1:
        has = f"both {' and '.join(found)}" if found else f"only {', '.join(row)}"
        raise ValueError(f"{where}: one of {', '.join(ONE)} (a text) or {', '.join(SEVERAL)} (a list), found {has}.")
    (name,) = found
    texts = [row[name]] if name in ONE else row[name]
    if not isinstance(texts, list):
        raise ValueError(f"{where}: {name} must be a list of texts, found {json_kind(texts)}.")
    if not texts:
        raise ValueError(f"{where}: {name} is an empty list; give at least one text.")
    for text in texts:
        if not isinstance(text, str):
            raise ValueError(f"{where}: {name} must hold text, found {json_kind(text)}.")
    return name, texts


def details(row: dict[str, Any], where: str) -> dict[str, Any]:
    return {
        "stop": field(row, "stop", (str,), where),
        "num_tokens": field(row, "num_tokens", (int,), where),
        "logprob": field(row, "logprob", (int, float), where),
    }


def field(row: dict[str, Any], name: str, types: tuple[type, ...], where: str) -> Any:
    """A column's value, None where it is missing or null."""
    value = row.get(name)
    if value is None:
        return None
    if not isinstance(value, types) or isinstance(value, bool):
        wanted = {(str,): "text", (str, int): "text or a whole number", (int,): "a whole number"}.get(types, "a number")
        raise ValueError(f"{where}: {name} must be {wanted}, found {json_kind(value)} ({value!r:.40}).")
    if name == "logprob" and not -math.inf < value <= 0:
        raise ValueError(f"{where}: logprob is a sum of logarithms of probabilities, 0 or below; got {value}.")
    if name in ("index", "num_tokens", "temperature") and not 0 <= value < math.inf:
        raise ValueError(f"{where}: {name} must be 0 or more, got {value}.")
    return value


def check_numbers(samples: dict[SampleKey, Sample], path: Path) -> None:
    """ValueError unless every problem of a benchmark and temperature has the same samples, 0 to n - 1."""
    counts = Counter((key.benchmark, key.temperature, key.id) for key in samples)
    largest: dict[tuple[Any, ...], tuple[int, str]] = {}
    for (benchmark, heat, name), count in counts.items():
        largest[benchmark, heat] = max(largest.get((benchmark, heat), (0, "")), (count, name), key=lambda pair: pair[0])
    for (benchmark, heat, name), count in counts.items():
        most, other = largest[benchmark, heat]
        if count < most:
            raise ValueError(
                f"{path}: problem {name} has {count} samples and problem {other} has {most}; every problem of a "
                "benchmark needs the same number."
            )
        missing = [index for index in range(count) if SampleKey(benchmark, name, heat, index) not in samples]
        if missing:
            raise ValueError(f"{path}: problem {name} has {count} samples but none with index {missing[0]}.")
