"""Rows from the hub, a folder or a file; every failure names the place and the cure."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from datasets import Dataset

EXTENSIONS = (".json", ".jsonl", ".parquet")


def read_source(path_or_hub_id: str | Path, split: str = "train", name: str | None = None) -> "Dataset":
    """All columns of a .json, .jsonl or .parquet file, a folder (saved dataset or data files), or a hub id.

    `split` may be a slice (`train[:100]`); a file has the one split `train`. `name`: configuration on the hub.

    Raises:
        FileNotFoundError: no such file.
        ValueError: an unsupported extension, an empty source, broken JSON (with its line), a row that is no
            object, an unknown split, a dataset that cannot be loaded.
    """
    path = Path(path_or_hub_id)
    if path.is_dir():
        dataset = read_folder(path, split, name)
    elif path.is_file() or looks_like_file(str(path_or_hub_id)):
        dataset = take_split(read_file(path), split, path)
    else:
        dataset = load_hub_dataset(str(path_or_hub_id), split, name)
    if len(dataset) == 0:
        raise ValueError(f"{path_or_hub_id} has no rows in split {split!r}.")
    return dataset


def looks_like_file(text: str) -> bool:
    """Whether a name that does not exist was meant as a file: by its ending, or as no hub id starts so."""
    return text.startswith((".", "/", "~")) or Path(text).suffix in (*EXTENSIONS, ".csv", ".txt", ".gz")


def read_file(path: Path) -> "Dataset":
    """A local file as a dataset; see `load_training_data` for the errors."""
    from datasets import Dataset

    if not path.is_file():
        raise FileNotFoundError(f"No data file at {path} (looked in {path.absolute().parent}).")
    if path.suffix not in EXTENSIONS:
        ending = path.suffix or "without ending"
        raise ValueError(f"Cannot read {path}: data files are {', '.join(EXTENSIONS)}, this one is {ending}.")
    if path.stat().st_size == 0:
        raise ValueError(f"{path} is empty; it needs at least one row.")
    if path.suffix == ".parquet":
        return read_parquet(path)
    text = read_text(path)
    rows = list(json_lines(text, path).values()) if path.suffix == ".jsonl" else json_document(text, path)
    if not rows:
        raise ValueError(f"{path} is empty; it needs at least one row.")
    names = list(dict.fromkeys(key for row in rows for key in row))
    try:
        return Dataset.from_dict({key: [row.get(key) for row in rows] for key in names})
    except Exception as error:  # pyarrow has no common base class for its type errors
        raise ValueError(f"The rows of {path} do not have the same types: {one_line(error)}") from error


def read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text (byte {error.start}); is it {path.suffix}?") from error


def read_parquet(path: Path) -> "Dataset":
    from datasets import Dataset

    try:
        return Dataset.from_parquet(str(path), keep_in_memory=True)
    except Exception as error:  # pyarrow and datasets wrap a damaged file in several ways
        raise ValueError(f"{path} is no readable parquet file: {one_line(error)}") from error


def json_lines(text: str, path: Path) -> dict[int, dict[str, Any]]:
    """{line number: object}, one object per line; blank lines are skipped."""
    lines = enumerate(text.split("\n"), start=1)
    return {number: json_object(line, path, number) for number, line in lines if line.strip()}


def json_object(line: str, path: Path, number: int) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(
            f"{path}, line {number}: broken JSON ({error.msg}, column {error.colno}); a line is one object."
        ) from error
    if not isinstance(row, dict):
        raise ValueError(f"{path}, line {number}: a row must be a JSON object, found {json_kind(row)}.")
    return row


def json_document(text: str, path: Path) -> list[dict[str, Any]]:
    """A list of objects, or one object per line under the name .json."""
    try:
        document = json.loads(text)
    except json.JSONDecodeError as error:
        if error.msg == "Extra data" and text.lstrip().startswith("{"):
            return list(json_lines(text, path).values())
        place = f"{path}, line {error.lineno}"
        raise ValueError(f"{place}: broken JSON ({error.msg}, column {error.colno}).") from error
    if isinstance(document, dict):
        document = [document]
    if not isinstance(document, list):
        raise ValueError(f"{path} must hold a list of objects, found {json_kind(document)}.")
    for number, row in enumerate(document, start=1):
        if not isinstance(row, dict):
            raise ValueError(f"{path}, row {number}: a row must be a JSON object, found {json_kind(row)}.")
    return document


def json_kind(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true or false"
    kinds = {list: "a list", dict: "an object", str: "a string", int: "a number", float: "a number"}
    return kinds.get(type(value), type(value).__name__)


def take_split(dataset: "Dataset", split: str, path: Path) -> "Dataset":
    """Rows of `train`, `train[:100]`, `train[90%:]`; a file has no other split."""
    from datasets import ReadInstruction

    try:
        (instruction,) = ReadInstruction.from_spec(split).to_absolute({"train": len(dataset)})
    except (ValueError, AssertionError) as error:
        raise ValueError(
            f"Cannot take split {split!r} of {path} ({one_line(error)}). "
            f"It has {len(dataset)} rows in the one split train; slices look like train[:90%]."
        ) from error
    start, stop = instruction.from_, instruction.to
    return dataset.select(range(start or 0, len(dataset) if stop is None else stop))


def read_folder(path: Path, split: str, name: str | None) -> "Dataset":
    """A folder written by `save_to_disk`, or one of data files."""
    from datasets import load_from_disk

    if (path / "dataset_dict.json").is_file():
        return named_split(load_from_disk(str(path)), split, path)
    if (path / "state.json").is_file():
        return take_split(load_from_disk(str(path)), split, path)
    return load_hub_dataset(str(path), split, name)


def named_split(splits: Mapping[str, "Dataset"], split: str, path: Path) -> "Dataset":
    if split not in splits:
        raise ValueError(f"{path} has no split {split!r}; it has {', '.join(splits)}.")
    return splits[split]


def load_hub_dataset(path: str, split: str, name: str | None) -> "Dataset":
    from datasets import load_dataset

    try:
        return load_dataset(path, name, split=split)
    except Exception as error:  # the hub client, the builders and pyarrow all raise their own
        raise ValueError(f"Cannot load dataset {path!r}, split {split!r}: {one_line(error)}") from error


def one_line(error: BaseException, limit: int = 300) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= limit else text[: limit - 3] + "..."
