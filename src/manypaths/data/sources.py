"""Rows from the hub, a folder or files; every failure names the place and the cure."""

import json
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from datasets import Dataset, Features, IterableDataset

EXTENSIONS = (".json", ".jsonl", ".parquet")
STREAM_START = 1000  # rows that tell the columns of a streamed file


def read_source(
    path_or_hub_id: str | Path,
    split: str = "train",
    name: str | None = None,
    *,
    data_dir: str | None = None,
    data_files: str | list[str] | dict[str, str] | None = None,
    streaming: bool = False,
) -> "Dataset | IterableDataset":
    """All columns of a .json, .jsonl or .parquet file, a folder (saved dataset or data files), or a hub id.

    Args:
        split: may be a slice (`train[:100]`); a file has the one split `train`.
        name: configuration on the hub.
        data_dir, data_files: as `datasets.load_dataset` takes them; the path may then be a builder, such as json.
        streaming: read rows when they are needed; what is wrong with later ones shows only then.

    Raises:
        FileNotFoundError: no such file.
        ValueError: an unsupported extension, an empty source, broken JSON (with its line), a row that is no
            object, an unknown split, a dataset that cannot be loaded.
    """
    path = Path(path_or_hub_id)
    files = [Path(file) for file in ([data_files] if isinstance(data_files, str) else data_files or [])]
    ours = bool(files) and all(file.is_file() and file.suffix in EXTENSIONS for file in files)
    if str(path) in ("json", "parquet") and ours:
        dataset = read_files(files, split, streaming)
    elif data_dir is not None or data_files is not None:
        how = {"data_dir": data_dir, "data_files": data_files}
        dataset = load_hub_dataset(str(path_or_hub_id), split, name, streaming=streaming, **how)
    elif path.is_dir():
        dataset = read_folder(path, split, name, streaming)
    elif path.is_file() or looks_like_file(str(path_or_hub_id)):
        dataset = read_files([path], split, streaming)
    else:
        dataset = load_hub_dataset(str(path_or_hub_id), split, name, streaming=streaming)
    if (next(iter(dataset), None) is None) if streaming else (len(dataset) == 0):
        raise ValueError(f"{path_or_hub_id} has no rows in split {split!r}.")
    return dataset


def looks_like_file(text: str) -> bool:
    """Whether a name that does not exist was meant as a file: by its ending, or as no hub id starts so."""
    return text.startswith((".", "/", "~")) or Path(text).suffix in (*EXTENSIONS, ".csv", ".txt", ".gz")


def read_files(paths: Sequence[Path], split: str, streaming: bool) -> "Dataset | IterableDataset":
    for path in paths:
        if not path.is_file():
            raise FileNotFoundError(f"No data file at {path} (looked in {path.absolute().parent}).")
        if path.suffix not in EXTENSIONS:
            ending = path.suffix or "without ending"
            raise ValueError(f"Cannot read {path}: data files are {', '.join(EXTENSIONS)}, this one is {ending}.")
        if path.stat().st_size == 0:
            raise ValueError(f"{path} is empty; it needs at least one row.")
    dataset = read_parquet(paths, streaming) if paths[0].suffix == ".parquet" else read_json(paths, streaming)
    return take_split(dataset, split, paths[0])


def read_parquet(paths: Sequence[Path], streaming: bool) -> "Dataset | IterableDataset":
    try:
        with quiet():
            return load("parquet", paths, streaming=streaming)
    except Exception as error:  # pyarrow and datasets wrap a damaged file in several ways
        raise ValueError(f"{paths[0]} is not a readable parquet file: {one_line(root(error))}") from error


def read_json(paths: Sequence[Path], streaming: bool) -> "Dataset | IterableDataset":
    """Rows as they are written, from memory-mapped Arrow files in the datasets cache, or as they are needed.

    `load_dataset` is fast, and right for text and for objects that all have the same keys. Where it fails, where it may
    have changed something (`is_as_written`), and for streams every object is kept as its own JSON instead; a broken
    line is named on the way.
    """
    from datasets import Dataset, IterableDataset

    if not streaming:
        try:
            with quiet():
                dataset = load("json", paths)
                if all(map(is_as_written, dataset.data.columns)):
                    return dataset
        except Exception:  # of pyarrow, pandas and datasets; the rows tell what it is
            pass
    rows = (row for path in paths for row in json_rows(path))
    features = features_of(islice(rows, STREAM_START) if streaming else rows)
    if not features:
        raise ValueError(f"{paths[0]} is empty; it needs at least one row.")
    changed = [(str(path), path.stat().st_mtime_ns, path.stat().st_size) for path in paths]
    kind = IterableDataset if streaming else Dataset
    try:
        return kind.from_generator(encoded_rows, features=features, gen_kwargs={"files": changed, "features": features})
    except Exception as error:  # datasets wraps what the generator and pyarrow raise
        raise ValueError(f"Cannot read {paths[0]}: {one_line(root(error))}") from error


def encoded_rows(files: Sequence[tuple[str, int, int]], features: "Features") -> Iterator[dict[str, Any]]:
    """Rows with what a `datasets.Json` feature holds written out; (file, time, size) let the cache notice changes.

    Raises ValueError for a column that `features` lacks.
    """
    from datasets import Json

    for file, _, _ in files:
        for row in json_rows(Path(file)):
            for name in row.keys() - features.keys():
                raise ValueError(
                    f"{file}: the column {name!r} comes after the first {STREAM_START} rows; do not stream it."
                )
            yield {
                name: json.dumps(value, ensure_ascii=False)
                if isinstance(feature, Json) and value is not None
                else value
                for name, feature in features.items()
                for value in [row.get(name)]
            }


def features_of(rows: Iterable[Mapping[str, Any]]) -> "Features":
    """Features that keep every value as it is: a column of text, one of lists of token ids, and all others as JSON."""
    from datasets import Features, Json, List, Value

    known = {"text": Value("string"), "ids": List(Value("int64"))}
    kinds: dict[str, set[str]] = {}
    for row in rows:
        for name, value in row.items():
            ids = isinstance(value, list) and all(type(item) is int for item in value)
            kind = "text" if isinstance(value, str) else "ids" if ids else "other"
            kinds.setdefault(name, set()).update([] if value is None else [kind])
    return Features({name: known.get("".join(found), Json()) for name, found in kinds.items()})


def is_as_written(values: Any, inside: bool = False) -> bool:
    """Whether a column that Arrow read from JSON can only be what the file says.

    Arrow writes null for keys that other objects have, 1.0 for 1 beside 2.5, dates for text that looks like dates; where
    `datasets` keeps JSON, text such as "42" becomes a number and numbers are rounded. `inside`: of an object.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    kind = values.type
    if pa.types.is_list(kind):
        return is_as_written(pc.list_flatten(values), inside)
    if pa.types.is_struct(kind):
        fields = [pc.struct_field(values, index) for index in range(kind.num_fields)]
        return all(field.null_count == 0 and is_as_written(field, inside=True) for field in fields)
    if pa.types.is_string(kind):
        values.validate(full=True)  # raises for bytes that are no UTF-8, which Arrow's reader lets pass
    number = pa.types.is_integer(kind) or (pa.types.is_floating(kind) and not inside)
    return number or pa.types.is_string(kind) or pa.types.is_boolean(kind) or pa.types.is_null(kind)


def load(builder: str, paths: Sequence[Path], **how: Any) -> "Dataset | IterableDataset":
    from datasets import load_dataset

    return load_dataset(builder, data_files={"train": list(map(str, paths))}, split="train", **how)


@contextmanager
def quiet() -> Iterator[None]:
    """Without the lines that `datasets` logs before it raises: the error says it all."""
    logger = logging.getLogger("datasets")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)


def root(error: BaseException) -> BaseException:
    """The first cause: `datasets` raises "An error occurred" from what went wrong."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def json_rows(path: Path) -> Iterator[dict[str, Any]]:
    """The objects of a file, a .jsonl line by line; ValueError names the place of what is none."""
    if path.suffix == ".json":
        yield from json_document(read_text(path), path)
        return
    try:
        with path.open(encoding="utf-8-sig", newline="\n") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield json_object(line, path, number)
    except UnicodeDecodeError:
        read_text(path)  # raises with the place in the file
        raise


def read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text (byte {error.start}): save it as UTF-8.") from error


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


def take_split(dataset: "Dataset | IterableDataset", split: str, path: Path) -> "Dataset | IterableDataset":
    """Rows of `train`, `train[:100]`, `train[90%:]`; a file has no other split, and a stream no slices."""
    from datasets import IterableDataset, ReadInstruction

    if isinstance(dataset, IterableDataset):
        if split != "train":
            raise ValueError(f"Cannot take split {split!r} of {path}: a streamed file has the one split train, whole.")
        return dataset
    try:
        (instruction,) = ReadInstruction.from_spec(split).to_absolute({"train": len(dataset)})
    except (ValueError, AssertionError) as error:
        raise ValueError(
            f"Cannot take split {split!r} of {path} ({one_line(error)}). "
            f"It has {len(dataset)} rows in the one split train; slices look like train[:90%]."
        ) from error
    start, stop = instruction.from_, instruction.to
    wanted = range(start or 0, len(dataset) if stop is None else stop)
    return dataset.select(wanted or [])  # what lies beyond the end is no range to `datasets`


def read_folder(path: Path, split: str, name: str | None, streaming: bool) -> "Dataset | IterableDataset":
    """A folder written by `save_to_disk`, or one of data files."""
    from datasets import load_from_disk

    if (path / "dataset_dict.json").is_file():
        dataset = named_split(load_from_disk(str(path)), split, path)
    elif (path / "state.json").is_file():
        dataset = take_split(load_from_disk(str(path)), split, path)
    else:
        return load_hub_dataset(str(path), split, name, streaming=streaming)
    return dataset.to_iterable_dataset() if streaming else dataset


def named_split(splits: Mapping[str, "Dataset"], split: str, path: Path) -> "Dataset":
    if split not in splits:
        raise ValueError(f"{path} has no split {split!r}; it has {', '.join(splits)}.")
    return splits[split]


def load_hub_dataset(path: str, split: str, name: str | None, **how: Any) -> "Dataset | IterableDataset":
    from datasets import load_dataset

    try:
        with quiet():
            return load_dataset(path, name, split=split, **how)
    except Exception as error:  # the hub client, the builders and pyarrow all raise their own
        raise ValueError(f"Cannot load dataset {path!r}, split {split!r}: {one_line(root(error))}") from error


def one_line(error: BaseException, limit: int = 300) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= limit else text[: limit - 3] + "..."
