"""One output folder, one run: a small file remembers which settings the folder belongs to."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

RUN_FILE = "manypaths_run.json"
WEIGHT_FILES = ("*.safetensors", "*.bin", "checkpoint-*")


def check_output_dir(path: str | Path, fingerprint: Mapping[str, Any]) -> Path | None:
    """Whether a run with these settings may use the folder; writes nothing.

    Args:
        fingerprint: the settings that make the run what it is, JSON values only.

    Returns: the newest checkpoint of the same run, if the folder holds one.
    Raises ValueError when the folder holds another run (the settings that differ are named) or weights of
    unknown origin.
    """
    folder = Path(path)
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"The output folder {folder} is a file; choose another --output_dir.")
    record = folder / RUN_FILE
    if record.is_file():
        stored = read_record(record)
        different = differences(stored, as_json(fingerprint))
        if different:
            raise ValueError(
                f"The output folder {folder} holds another run ({'; '.join(different)}). "
                "Choose another --output_dir, or remove the folder if that run is no longer needed."
            )
        return newest_checkpoint(folder)
    weights = sorted(found.name for pattern in WEIGHT_FILES for found in folder.glob(pattern))
    if weights:
        raise ValueError(
            f"The output folder {folder} already holds {weights[0]} of a run that left no {RUN_FILE}. "
            "Choose another --output_dir."
        )
    return None


class RecordRun(TrainerCallback):
    """Claims the output folder for the run when its first step is done: a run that fails at once claims nothing."""

    def __init__(self, fingerprint: Mapping[str, Any]) -> None:
        self.fingerprint = fingerprint

    def on_step_end(self, args, state, control, **kwargs):
        if state.is_world_process_zero and not Path(args.output_dir, RUN_FILE).exists():
            record_run(args.output_dir, self.fingerprint)


@contextmanager
def nothing_left_on_failure(path: str | Path) -> Iterator[None]:
    """Trainers create their output folder when they are built; a failure before training takes it back."""
    folder = Path(path)
    made = [place for place in (folder, *folder.parents) if not place.exists()]
    try:
        yield
    except BaseException:
        for place in made:
            if place.is_dir() and not any(place.iterdir()):
                place.rmdir()
        raise


def record_run(path: str | Path, fingerprint: Mapping[str, Any]) -> None:
    """Write the settings into the folder; call it on one process."""
    folder = Path(path)
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(as_json(fingerprint), indent=2, sort_keys=True)
    (folder / RUN_FILE).write_text(text + "\n", encoding="utf-8")


def newest_checkpoint(folder: Path) -> Path | None:
    numbered = [found for found in folder.glob("checkpoint-*") if found.name.rpartition("-")[2].isdigit()]
    return max(numbered, key=lambda found: int(found.name.rpartition("-")[2]), default=None)


def data_fingerprint(path_or_hub_id: str | Path) -> str:
    """The name of the data, and for a file a hash of its content instead of its folder."""
    path = Path(path_or_hub_id)
    if not path.is_file():
        return str(path_or_hub_id)
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return f"{path.name} sha256:{digest.hexdigest()[:16]}"


def read_record(record: Path) -> dict[str, Any]:
    try:
        stored = json.loads(record.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError):
        stored = None
    if not isinstance(stored, dict):
        raise ValueError(f"{record} is damaged, so its run is unknown. Choose another --output_dir.")
    return stored


def differences(stored: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    changed = [key for key in sorted({*stored, *wanted}) if stored.get(key) != wanted.get(key)]
    return [f"{key}: there {stored.get(key)!r}, now {wanted.get(key)!r}" for key in changed]


def as_json(fingerprint: Mapping[str, Any]) -> dict[str, Any]:
    return json.loads(json.dumps(dict(fingerprint), sort_keys=True))
