"""results.json, the one schema of `manypaths eval`: what was asked, with what versions, and what was measured.

A score is {"value", "low", "high", "n"}: `n` units (problems, rows, tasks) were averaged, and `low` and `high`
are 95 % limits, None where one unit says nothing about its spread. Evaluations, one per benchmark and
temperature, are in the list "evaluations"; their average over benchmarks is in "macro".
"""

import datetime
import errno
import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from .intervals import Interval, mean_of_intervals, share_interval

SCHEMA = 2
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
LIBRARIES = ("manypaths", "torch", "transformers", "trl", "datasets", "math-verify", "sacrebleu")
OPTIONAL_LIBRARIES = ("vllm", "lm_eval", "sentence-transformers")
MODEL_FILES = (".safetensors", ".bin", ".json", ".model", ".jinja", ".txt")
NO_MODEL_FILES = ("results.json", "samples.meta.json", "trainer_state.json", "manypaths_run.json")
BLOCKS, BLOCK_BYTES = 64, 1 << 16  # read of every file: a training run or a merged adapter changes some of them

Score = dict[str, float | int | None]


def as_score(interval: Interval) -> Score:
    """A score as JSON."""
    return asdict(interval)


def record(settings: Mapping[str, Any], model: str, label: str, weights: str, **parts: Any) -> dict[str, Any]:
    """The content of results.json; parts that are None or empty are left out. `weights` names the model's state."""
    return {
        "schema": SCHEMA,
        "created": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "versions": versions(),
        "model": model,
        "label": label,
        "weights": weights,
        "settings": dict(settings),
        **{name: part for name, part in parts.items() if part},
    }


def earlier_results(folder: Path, weights: str) -> dict[str, Any]:
    """What a folder holds of the same model, {} for nothing.

    Raises ValueError for results of another model, or a results.json of another kind.
    """
    path = folder / "results.json"
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        schema, model, known = found["schema"], found["model"], found["weights"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is no result of this version's eval. Use another --output_dir.") from error
    if schema != SCHEMA:
        raise ValueError(f"{path} has schema {schema}, this version writes {SCHEMA}. Use another --output_dir.")
    if known != weights:
        raise ValueError(
            f"{folder} holds results of another model, or of other weights ({model}). Use another --output_dir, or delete "
            "the folder."
        )
    return found


def joined_results(earlier: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, Any]:
    """Both: parts and evaluations that were measured now replace earlier ones, others stay; averages are made anew."""
    fresh = {(one["benchmark"], one["setting"]): one for one in now.get("evaluations", ())}
    old = [(one["benchmark"], one["setting"]) for one in earlier.get("evaluations", ())]
    kept = [fresh.pop(key, one) for key, one in zip(old, earlier.get("evaluations", ()), strict=True)]
    evaluations = [*kept, *fresh.values()]
    if "tokens" in now:
        earlier = {name: part for name, part in earlier.items() if name != "ledger"}  # it was of other texts
    together = {**earlier, **now, "evaluations": evaluations, "macro": macro(evaluations)}
    return {name: part for name, part in together.items() if part not in ([], None)}


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

    Its interval joins those of the benchmarks, whose problems are resampled. Evaluations at each benchmark's own default
    temperature belong together under the temperature None. Data graded by a reward is no benchmark and stays out.
    """
    groups: dict[float | None, list[Mapping[str, Any]]] = {}
    for one in evaluations:
        if one["metric"] is not None and "reward" not in one["grader"]:
            groups.setdefault(one["setting"], []).append(one)
    averages = []
    for setting, members in groups.items():
        if len(members) > 1:
            names = [one["benchmark"] for one in members]
            average = mean_of_intervals(share_interval(one["per_problem"]["accuracy"]) for one in members)
            averages.append({"temperature": setting, "benchmarks": names, **as_score(average)})
    return averages


def write_results(results: Mapping[str, Any], folder: str | Path) -> Path:
    """results.json in `folder`, which is made when missing; whole or not at all."""
    path = Path(folder) / "results.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, json_text(results, indent=1) + "\n")
    return path


def write_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """A JSONL file, whole or not at all."""
    write_whole(path, "".join(json_text(row) + "\n" for row in rows))


def json_text(value: Any, indent: int | None = None) -> str:
    """JSON that is always UTF-8: half a surrogate pair, which no encoding takes, is escaped with all the rest."""
    text = json.dumps(value, ensure_ascii=False, indent=indent)
    try:
        text.encode()
    except UnicodeEncodeError:
        return json.dumps(value, indent=indent)
    return text


def write_whole(path: Path, text: str) -> None:
    """Write beside and move into place, so that a kill or a full disk leaves the old file."""
    beside = path.with_name(path.name + ".part")
    try:
        beside.write_text(text, encoding="utf-8")
        os.replace(beside, path)
    except OSError as error:
        beside.unlink(missing_ok=True)
        if error.errno not in NO_ROOM:
            raise
        why = "No room to write to; free some space and give the same command again: samples stay"
        raise OSError(error.errno, why, str(path)) from error


def fingerprint(value: Any) -> str:
    """A name for exactly this value (anything JSON can hold)."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def weights_fingerprint(model: str) -> str:
    """A name for what a local folder holds, from blocks spread over its files; a hub id is its own name.

    The model under an adapter counts too.
    """
    folder = Path(model)
    if not folder.is_dir():
        return model
    adapter = folder / "adapter_config.json"
    base = json.loads(adapter.read_text(encoding="utf-8")).get("base_model_name_or_path") if adapter.is_file() else None
    parts: list[Any] = [] if base is None else [weights_fingerprint(base)]
    for path in sorted(folder.iterdir()):
        if path.suffix in MODEL_FILES and path.name not in NO_MODEL_FILES and path.is_file():
            size = path.stat().st_size
            digest = hashlib.sha256()
            with path.open("rb") as file:
                for block in range(BLOCKS):
                    file.seek(max(size - BLOCK_BYTES, 0) * block // (BLOCKS - 1))
                    digest.update(file.read(BLOCK_BYTES))
            parts.append([path.name, size, digest.hexdigest()])
    return fingerprint(parts)
