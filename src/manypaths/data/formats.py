"""Training data from the hub or a local file, and the checks that must pass before anything is written.

Accepted rows are TRL's: `messages`, `prompt` with `completion` (plain text or lists of messages), `text`,
`conversations` in ShareGPT form, and tokenised `input_ids` (with `labels`, or a mask that TRL knows).
Every failure is one ValueError or FileNotFoundError with the place and the cure.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from datasets import Dataset

from .sources import json_kind, read_source

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
    dataset = read_source(path_or_hub_id, split, name)
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
