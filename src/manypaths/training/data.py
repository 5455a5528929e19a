"""Training data from the hub or a local file, and the checks that must pass before anything is written.

Accepted rows are TRL's: `messages`, `prompt` with `completion` (plain text or lists of messages), `text`,
`conversations` in ShareGPT form, and tokenised `input_ids` (with `labels`, or a mask that TRL knows).
Every failure is one ValueError or FileNotFoundError with the place and the cure.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from datasets import Dataset, ReadInstruction, load_dataset, load_from_disk

Format = tuple[str, ...]

SFT_FORMATS: tuple[Format, ...] = (
    ("input_ids",),
    ("prompt", "completion"),
    ("messages",),
    ("conversations",),
    ("text",),
)
PROMPT_FORMATS: tuple[Format, ...] = (("prompt",),)
COMPANIONS = (
    "labels",
    "completion_mask",
    "assistant_masks",
    "attention_mask",
    "seq_lengths",
    "tools",
    "chat_template_kwargs",
)
EXTENSIONS = (".json", ".jsonl", ".parquet")
IGNORED = -100
ROWS_SAMPLED = 1000
ROWS_CHECKED = 100_000  # a file or slice of this size is checked row by row, of more data the beginning


def load_training_data(
    path_or_hub_id: str | Path,
    *,
    split: str = "train",
    name: str | None = None,
    formats: Sequence[Format] = SFT_FORMATS,
    columns: Mapping[str, str] | None = None,
    layout: Literal["as_is", "chat", "last_answer"] = "as_is",
    system_prompt: str | None = None,
    keep_all_columns: bool = False,
) -> Dataset:
    """A dataset whose columns are one of `formats`, other columns dropped (TRL would trip over some of them).

    Args:
        path_or_hub_id: a .json, .jsonl or .parquet file, a folder (saved dataset or data files), or a hub id.
            A local .json or .jsonl file is read into memory; publish very large data as parquet.
        split: split name, or a slice of it as in `train[:20000]`; a file has the one split `train`.
        name: configuration of a hub dataset.
        formats: accepted combinations of columns; the first that is present wins.
        columns: accepted name -> name in the file, for data that calls things otherwise.
        layout: "chat" turns plain prompts and completions into a user and an assistant message, so that the
            tokenizer's chat template is applied; "last_answer" splits `messages` into a prompt and the
            assistant's last message as completion, which alone then carries loss under any chat template.
        system_prompt: put in front of every conversation that has no system message yet.
        keep_all_columns: keep the rest of the columns too (rewards read them).

    Raises:
        FileNotFoundError: no such file.
        ValueError: an unsupported extension, an empty file, broken JSON (with its line), a row that is not an
            object or lacks what its format needs (with its number), missing columns, an unknown split.
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
    dataset = rename(dataset, columns or {}, path_or_hub_id)
    found = match_format(dataset.column_names, formats, path_or_hub_id)
    if not keep_all_columns:
        dataset = dataset.select_columns([c for c in dataset.column_names if c in found + COMPANIONS])
    check_rows(dataset, found, path_or_hub_id)
    if layout == "last_answer":
        dataset, found = split_last_answer(dataset, found, path_or_hub_id), ("prompt", "completion")
    if layout == "chat" or system_prompt is not None:
        dataset = to_chat(dataset, found, system_prompt, layout == "chat", path_or_hub_id)
    return dataset


def looks_like_file(text: str) -> bool:
    """Whether a name that does not exist was meant as a file: by its ending, or as no hub id starts so."""
    return text.startswith((".", "/", "~")) or Path(text).suffix in (*EXTENSIONS, ".csv", ".txt", ".gz")


def read_file(path: Path) -> Dataset:
    """A local file as a dataset; see `load_training_data` for the errors."""
    if not path.is_file():
        raise FileNotFoundError(f"No data file at {path} (looked in {path.absolute().parent}).")
    if path.suffix not in EXTENSIONS:
        ending = path.suffix or "without ending"
        raise ValueError(f"Cannot read {path}: data files are {', '.join(EXTENSIONS)}, this one is {ending}.")
    if path.stat().st_size == 0:
        raise ValueError(f"{path} is empty; training needs at least one row.")
    if path.suffix == ".parquet":
        return read_parquet(path)
    text = read_text(path)
    rows = json_lines(text, path) if path.suffix == ".jsonl" else json_document(text, path)
    if not rows:
        raise ValueError(f"{path} is empty; training needs at least one row.")
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


def read_parquet(path: Path) -> Dataset:
    try:
        return Dataset.from_parquet(str(path), keep_in_memory=True)
    except Exception as error:  # pyarrow and datasets wrap a damaged file in several ways
        raise ValueError(f"{path} is no readable parquet file: {one_line(error)}") from error


def json_lines(text: str, path: Path) -> list[dict[str, Any]]:
    """One object per line; blank lines are skipped."""
    rows = []
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            rows.append(json_object(line, path, number))
    return rows


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
            return json_lines(text, path)
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


def take_split(dataset: Dataset, split: str, path: Path) -> Dataset:
    """Rows of `train`, `train[:100]`, `train[90%:]`; a file has no other split."""
    try:
        (instruction,) = ReadInstruction.from_spec(split).to_absolute({"train": len(dataset)})
    except (ValueError, AssertionError) as error:
        raise ValueError(
            f"Cannot take split {split!r} of {path} ({one_line(error)}). "
            f"It has {len(dataset)} rows in the one split train; slices look like train[:90%]."
        ) from error
    start, stop = instruction.from_, instruction.to
    return dataset.select(range(start or 0, len(dataset) if stop is None else stop))


def read_folder(path: Path, split: str, name: str | None) -> Dataset:
    """A folder written by `save_to_disk`, or one of data files."""
    if (path / "dataset_dict.json").is_file():
        return named_split(load_from_disk(str(path)), split, path)
    if (path / "state.json").is_file():
        return take_split(load_from_disk(str(path)), split, path)
    return load_hub_dataset(str(path), split, name)


def named_split(splits: Mapping[str, Dataset], split: str, path: Path) -> Dataset:
    if split not in splits:
        raise ValueError(f"{path} has no split {split!r}; it has {', '.join(splits)}.")
    return splits[split]


def load_hub_dataset(path: str, split: str, name: str | None) -> Dataset:
    try:
        return load_dataset(path, name, split=split)
    except Exception as error:  # the hub client, the builders and pyarrow all raise their own
        raise ValueError(f"Cannot load dataset {path!r}, split {split!r}: {one_line(error)}") from error


def one_line(error: BaseException, limit: int = 300) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= limit else text[: limit - 3] + "..."


def rename(dataset: Dataset, columns: Mapping[str, str], source: str | Path) -> Dataset:
    """Call the columns what TRL calls them; a column that already has the wanted name makes room."""
    for wanted, given in columns.items():
        if given not in dataset.column_names:
            found = ", ".join(dataset.column_names)
            raise ValueError(f"{source} has no column {given!r} to use as {wanted!r}; found {found}.")
        if wanted != given:
            dataset = dataset.remove_columns([wanted] if wanted in dataset.column_names else [])
            dataset = dataset.rename_column(given, wanted)
    return dataset


def match_format(found: Sequence[str], formats: Sequence[Format], source: str | Path) -> Format:
    for wanted in formats:
        if all(column in found for column in wanted):
            return wanted
    accepted = "; ".join(" + ".join(wanted) for wanted in formats)
    raise ValueError(
        f"{source} has the columns {', '.join(found)}; accepted are: {accepted}. "
        'Rename them, or map them with --dataset_columns \'{"prompt": "question"}\'.'
    )


def check_rows(dataset: Dataset, wanted: Format, source: str | Path) -> None:
    """Every row has a value of a usable kind in every wanted column; the first that has not is named."""
    checked = dataset.select_columns(list(wanted)).select(range(min(len(dataset), ROWS_CHECKED)))
    for number, row in enumerate(checked, start=1):
        for column in wanted:
            problem = value_problem(column, row[column])
            if problem:
                raise ValueError(f"{source}, row {number}: {column!r} {problem}.")


def value_problem(column: str, value: Any) -> str | None:
    if value is None:
        return "is missing"
    if column == "input_ids":
        return None if isinstance(value, list) and value else "must be a non-empty list of token ids"
    chat_only = column in ("messages", "conversations")
    if isinstance(value, str):
        return "must be a list of messages, found a string" if chat_only else None
    if not isinstance(value, list) or column == "text":
        return f"must be text, found {json_kind(value)}"
    return messages_problem(value, ("from", "value") if column == "conversations" else ("role", "content"))


def messages_problem(messages: list[Any], keys: tuple[str, str]) -> str | None:
    if not messages:
        return "holds no messages"
    for message in messages:
        if not isinstance(message, dict) or message.get(keys[0]) is None or keys[1] not in message:
            return f"must be a list of messages, each with {keys[0]!r} and {keys[1]!r}"
    return None


def to_chat(dataset: Dataset, found: Format, system_prompt: str | None, chat: bool, source: str | Path) -> Dataset:
    """Plain prompts and completions as messages (when `chat`), each conversation led by the system prompt."""
    first = found[0]
    plain = isinstance(dataset[0][first], str)
    if first not in ("prompt", "messages") or (plain and not chat):
        kind = "plain text" if plain else repr(first)
        raise ValueError(
            f"{source} holds {kind}, which has no place for a system prompt or chat format; give prompt "
            "(and completion) columns and --dataset_format chat."
        )

    def convert(row: dict[str, Any]) -> dict[str, Any]:
        new = {}
        for column in found:
            role = "assistant" if column == "completion" else "user"
            value = row[column]
            new[column] = [{"role": role, "content": value}] if isinstance(value, str) else value
        if system_prompt is not None and new[first][0]["role"] != "system":
            new[first] = [{"role": "system", "content": system_prompt}, *new[first]]
        return new

    return dataset.map(convert, desc="Writing prompts as conversations")


def split_last_answer(dataset: Dataset, found: Format, source: str | Path) -> Dataset:
    """`messages` as `prompt` (all but the last) and `completion` (the assistant's last message)."""
    if found != ("messages",):
        raise ValueError(f"--dataset_format last_answer splits messages, and {source} has {' + '.join(found)}.")

    def split(row: dict[str, Any], index: int) -> dict[str, Any]:
        *before, last = row["messages"]
        if last["role"] != "assistant" or not before:
            raise ValueError(f"{source}, row {index + 1}: messages must end in an answer of the assistant.")
        return {"prompt": before, "completion": [last]}

    return dataset.map(split, with_indices=True, remove_columns="messages", desc="Splitting off the answers")


def check_trained_tokens(dataset: Iterable[Mapping[str, Any]], vocab_size: int | None = None) -> dict[str, int]:
    """That a prepared dataset (rows with `labels`, as `trainer.train_dataset`) trains at all.

    A position trains when its label is not -100 and a token stands before it.

    Returns: {"rows": rows read, "untrained_rows": those without a trained token}; reading stops after 1000
        rows if some of them train.
    Raises ValueError when no row trains a token, or when one that was read has ids outside `vocab_size`.
    """
    seen = untrained = 0
    for row in dataset:
        labels = row["labels"] if row.get("labels") is not None else row["input_ids"]
        seen += 1
        check_ids(row, labels, vocab_size, seen)
        untrained += all(label == IGNORED for label in labels[1:])
        if seen >= ROWS_SAMPLED and untrained < seen:
            break
    if untrained == seen:
        raise ValueError(
            f"The training data has no trained token (all labels are {IGNORED}): nothing would be learned. "
            "Look for empty completions, prompts that fill --max_length, or --assistant_only_loss with a "
            "chat template that does not mark the assistant's part."
        )
    return {"rows": seen, "untrained_rows": untrained}


def check_ids(row: Mapping[str, Any], labels: list[int], vocab_size: int | None, number: int) -> None:
    for name, ids in (
        ("input_ids", row.get("input_ids") or []),
        ("labels", [label for label in labels if label != IGNORED]),
    ):
        wrong = next((i for i in ids if vocab_size is not None and not 0 <= i < vocab_size), None)
        if wrong is not None:
            raise ValueError(
                f"Row {number} has {wrong} among its {name}; the model's vocabulary has {vocab_size} tokens."
            )


def check_tokenizer_fits(model_or_config: Any, tokenizer: Any) -> None:
    """That every token id of the tokenizer has a row in the model's embedding.

    Raises ValueError otherwise. Takes a model, or the config of one that is not loaded yet.
    """
    if hasattr(model_or_config, "get_input_embeddings"):
        rows = len(model_or_config.get_input_embeddings().weight)
    else:
        rows = model_or_config.get_text_config().vocab_size
    size = len(tokenizer)
    if size > rows:
        raise ValueError(
            f"The tokenizer has {size} tokens but the model's embedding only {rows} rows, so the last ids "
            "would fail. Load the model's own tokenizer, or call model.resize_token_embeddings first."
        )
