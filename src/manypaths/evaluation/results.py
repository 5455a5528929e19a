"""results.json, the one schema of `manypaths eval`: what was asked, with what versions, and what was measured.

A score is {"value", "low", "high", "n"}: `n` units (problems, rows, tasks) were averaged, and `low` and `high`
are 95 % limits, None where one unit says nothing about its spread. Evaluations, one per benchmark and
temperature, are in the list "evaluations"; their average over benchmarks is in "macro".
"""

import datetime
import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from .intervals import Interval, macro_interval

SCHEMA = 2
LIBRARIES = ("manypaths", "torch", "transformers", "trl", "datasets", "math-verify", "sacrebleu")
OPTIONAL_LIBRARIES = ("vllm", "lm_eval", "sentence-transformers")
MODEL_FILES = (".safetensors", ".bin", ".json", ".model", ".jinja", ".txt")
BLOCKS, BLOCK_BYTES = 64, 1 << 16  # read of every file: a training run or a merged adapter changes some of them

Score = dict[str, float | int | None]


def as_score(interval: Interval) -> Score:
    """A score as JSON."""
    return asdict(interval)


def record(settings: Mapping[str, Any], model: str, label: str, **parts: Any) -> dict[str, Any]:
    """The content of results.json; parts that are None or empty are left out."""
    return {
        "schema": SCHEMA,
        "created": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "versions": versions(),
        "model": model,
        "label": label,
        "settings": dict(settings),
        **{name: part for name, part in parts.items() if part},
    }


def versions() -> dict[str, str]:
    found = {name: version(name) for name in LIBRARIES}
    for name in OPTIONAL_LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def macro(evaluations: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Per temperature setting, the plain mean of the headline scores of graded benchmarks, when there are several.

    Its interval resamples problems within each benchmark. Evaluations at each benchmark's own default
    temperature belong together under the temperature None.
    """
    groups: dict[float | None, list[Mapping[str, Any]]] = {}
    for one in evaluations:
        if one["metric"] is not None:
            groups.setdefault(one["setting"], []).append(one)
    averages = []
    for setting, members in groups.items():
        if len(members) > 1:
            accuracy = {one["benchmark"]: one["per_problem"]["accuracy"] for one in members}
            averages.append(
                {"temperature": setting, "benchmarks": list(accuracy), **as_score(macro_interval(accuracy))}
            )
    return averages


def write_results(results: Mapping[str, Any], folder: str | Path) -> Path:
    """results.json in `folder`, which is made when missing; whole or not at all."""
    path = Path(folder) / "results.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, json.dumps(results, indent=1, ensure_ascii=False) + "\n")
    return path


def write_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """A JSONL file, whole or not at all."""
    write_whole(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def write_whole(path: Path, text: str) -> None:
    """Write beside and move into place, so that a kill or a full disk leaves the old file."""
    beside = path.with_name(path.name + ".part")
    try:
        beside.write_text(text, encoding="utf-8")
        os.replace(beside, path)
    except OSError:
        beside.unlink(missing_ok=True)
        raise


def fingerprint(value: Any) -> str:
    """A name for exactly this value (anything JSON can hold)."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def weights_fingerprint(model: str) -> str:
    """A name for what a local folder holds, from blocks spread over its files; a hub id is its own name."""
    folder = Path(model)
    if not folder.is_dir():
        return model
    parts = []
    for path in sorted(folder.iterdir()):
        if path.suffix in MODEL_FILES and path.is_file():
            size = path.stat().st_size
            digest = hashlib.sha256()
            with path.open("rb") as file:
                for block in range(BLOCKS):
                    file.seek(max(size - BLOCK_BYTES, 0) * block // (BLOCKS - 1))
                    digest.update(file.read(BLOCK_BYTES))
            parts.append([path.name, size, digest.hexdigest()])
    return fingerprint(parts)
