"""Training data from the hub or local files, and the checks that must pass before anything is written.

Accepted rows are TRL's (`messages`, `prompt` with `completion` as plain text or lists of messages, `text`, tokenised
`input_ids` with `labels` or a mask that TRL knows), and two that are converted to them: `conversations` in ShareGPT
form and `instruction` with `input` and `output` as in Alpaca. Every failure is one ValueError or FileNotFoundError
with the place and the cure.
"""

import difflib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from datasets import Dataset, Features, IterableDataset, Json, Value

from .sources import json_kind, read_source

Format = tuple[str, ...]
Rows = Dataset | IterableDataset
Row = dict[str, Any]

CONVERSATIONS: Format = ("conversations",)
ALPACA: Format = ("instruction", "output")
SFT_FORMATS: tuple[Format, ...] = (
    ("input_ids",),
    ("prompt", "completion"),
    ("messages",),
    CONVERSATIONS,
    ("text",),
    ALPACA,
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
    "image",
    "images",
)
UNTRAINABLE = ("audio", "audios", "video", "videos")
ROLES = ("system", "developer", "user", "assistant", "tool")
SHAREGPT_ROLES = {"human": "user", "gpt": "assistant"}
IGNORED = -100
ROWS_SAMPLED = 1000
ROWS_CHECKED = 100_000  # a file or slice of this size is checked row by row, of more data the beginning


def load_training_data(
    path_or_hub_id: str | Path,
    *,
    split: str = "train",
    name: str | None = None,
    streaming: bool = False,
    **how: Any,
) -> Rows:
    """`read_source` (which see for the first arguments), then `as_training_data`."""
    rows = read_source(path_or_hub_id, split, name, streaming=streaming)
    return as_training_data(rows, path_or_hub_id, **how)


def as_training_data(
    dataset: Rows,
    source: str | Path,
    *,
    formats: Sequence[Format] = SFT_FORMATS,
    columns: Mapping[str, str] | None = None,
    layout: Literal["as_is", "chat", "last_answer"] = "as_is",
    system_prompt: str | None = None,
    keep_all_columns: bool = False,
) -> Rows:
    """The dataset with the columns of one of `formats`, checked, and converted where TRL has another form.

    Columns that TRL's trainer has no use for are dropped: it would trip over some of them.

    Args:
        source: where the rows are from, for messages.
        formats: accepted combinations of columns; the first that is present wins.
        columns: accepted name -> name in the file, for data that calls things otherwise.
        layout: "chat" turns plain prompts and completions into a user and an assistant message, so that the
            tokenizer's chat template is applied; "last_answer" splits `messages` into a prompt and the
            assistant's last message as completion, which alone then carries loss under any chat template.
        system_prompt: put in front of every conversation that has no system message yet.
        keep_all_columns: keep the rest of the columns too (rewards read them).

    Raises:
        ValueError: a row that lacks what its format needs (with its number), missing columns, audio or video.
    """
    dataset = rename(dataset, columns or {}, source)
    names = column_names(dataset)
    found = match_format(names, formats, source)
    if not keep_all_columns:
        for name in set(names) & set(UNTRAINABLE):
            raise ValueError(f"{source} has a column {name!r}, which TRL's trainer would leave out; take it away.")
        wanted = (*found, *COMPANIONS, *(["input"] if found == ALPACA else []))
        dataset = dataset.select_columns([name for name in names if name in wanted])
    check_rows(dataset, found, source)
    return converted(dataset, found, layout, system_prompt, source)


def sft_formats(text: str) -> tuple[Format, ...]:
    """What `sft` reads when plain text is in the column `text`."""
    return tuple((text,) if columns == ("text",) else columns for columns in SFT_FORMATS)


def column_names(dataset: Rows) -> list[str]:
    """A stream may know its columns only from a row."""
    return list(next(iter(dataset))) if dataset.column_names is None else dataset.column_names


def rename(dataset: Rows, columns: Mapping[str, str], source: str | Path) -> Rows:
    """Call the columns what TRL calls them; a column that already has the wanted name makes room."""
    for wanted, given in columns.items():
        names = column_names(dataset)
        if given not in names:
            raise ValueError(f"{source} has no column {given!r} to use as {wanted!r}; found {', '.join(names)}.")
        if wanted != given:
            dataset = dataset.remove_columns([wanted] if wanted in names else [])
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


def check_rows(dataset: Rows, wanted: Format, source: str | Path) -> None:
    """Every row has a value of a usable kind in every wanted column; the first that has not is named."""
    names = [*wanted, *(name for name in column_names(dataset) if name == "chat_template_kwargs")]
    checked = dataset.select_columns(names)
    size = ROWS_SAMPLED if isinstance(dataset, IterableDataset) else min(len(dataset), ROWS_CHECKED)
    kinds: dict[str, type] = {}
    number = 0
    for batch in checked.take(size).iter(ROWS_SAMPLED):
        for values in zip(*(batch[name] for name in names), strict=True):
            number += 1
            for name, value in zip(names, values, strict=True):
                problem = value_problem(name, value)
                if problem is None and kinds.setdefault(name, type(value)) is not type(value):
                    problem = f"is {json_kind(value)}, unlike the rows before"
                if problem is None and name == "completion" and kinds.get("prompt", type(value)) is not type(value):
                    problem = f"is {json_kind(value)}, unlike 'prompt': make both text, or both lists of messages"
                if problem:
                    raise ValueError(f"{source}, row {number}: {name!r} {problem}.")


def value_problem(column: str, value: Any) -> str | None:
    if column == "chat_template_kwargs":
        return None if isinstance(value, dict) else f"must be an object, {{}} for none; found {json_kind(value)}"
    if value is None:
        return "is missing"
    if column == "input_ids":
        return None if isinstance(value, list) and value else "must be a non-empty list of token ids"
    chat_only = column in ("messages", "conversations")
    if isinstance(value, str):
        return "must be a list of messages, found a string" if chat_only else None
    if not isinstance(value, list) or not (chat_only or column in ("prompt", "completion")):
        return f"must be text, found {json_kind(value)}"
    return messages_problem(value, ("from", "value") if column == "conversations" else ("role", "content"))


def messages_problem(messages: list[Any], keys: tuple[str, str]) -> str | None:
    if not messages:
        return "holds no messages"
    for number, message in enumerate(messages, start=1):
        if keys == ("from", "value") and isinstance(message, dict):
            message = chat_message(message)
        if not isinstance(message, dict) or message.get("role") is None:
            return f"must be a list of messages, each with {keys[0]!r} and {keys[1]!r}"
        role, content = message["role"], message.get("content")
        if meant := meant_role(role):
            return f"has a message with the role {role!r} (number {number}); write {meant!r}"
        if not isinstance(content, str | list | dict | None):
            return f"has a message whose {keys[1]!r} is {json_kind(content)}, not text (number {number}, {role!r})"
        if content is None and not message.get("tool_calls"):
            return f"has a message without {keys[1]!r} and without tool calls (number {number}, {role!r})"
    return None


def meant_role(role: Any) -> str | None:
    """The usual role that another is a near miss of, or ShareGPT's word for; a chat template may have roles of its own."""
    near = difflib.get_close_matches(str(role).lower(), ROLES, n=1, cutoff=0.75)
    return None if role in ROLES else SHAREGPT_ROLES.get(role) or next(iter(near), None)


def converted(dataset: Rows, found: Format, layout: str, system_prompt: str | None, source: str | Path) -> Rows:
    """ShareGPT and Alpaca as TRL's columns, then what `layout` and `system_prompt` ask for, in one pass."""
    steps: list[Callable[[Row], Row]] = []
    read = [*found, *(["input"] if found == ALPACA and "input" in column_names(dataset) else [])]
    if found == CONVERSATIONS:
        steps, found = [from_sharegpt], ("messages",)
    if found == ALPACA:
        steps, found = [partial(from_alpaca, end="" if layout == "chat" else "\n\n")], ("prompt", "completion")
    if layout == "last_answer":
        if found != ("messages",):
            raise ValueError(f"--dataset_format last_answer splits messages, and {source} has {' + '.join(found)}.")
        steps, found = [*steps, last_answer], ("prompt", "completion")
    if (layout == "chat" or system_prompt is not None) and found[0] not in ("prompt", "messages"):
        raise ValueError(
            f"{source} holds {found[0]!r}, which has no place for a system prompt or chat format; give prompt "
            "(and completion) columns and --dataset_format chat."
        )
    if layout == "chat":
        steps.append(as_chat)
    if system_prompt is not None:
        steps.append(partial(led_by, system_prompt))
    if not steps:
        return dataset

    def convert(row: Row, index: int) -> Row:
        row = {name: row[name] for name in read}
        try:
            for step in steps:
                row = step(row)
        except ValueError as error:
            raise ValueError(f"{source}, row {index + 1}: {error}") from error
        return row

    return rewritten(dataset, convert, [name for name in read if name not in found])


def rewritten(dataset: Rows, convert: Callable[[Row, int], Row], removed: Sequence[str]) -> Rows:
    """`dataset.map` to columns of text or conversations; these are stored as JSON, so that messages keep their own keys."""
    first = convert(next(iter(dataset)), 0)
    if isinstance(dataset, IterableDataset):
        return dataset.map(convert, with_indices=True, remove_columns=removed)

    def encode(row: Row, index: int) -> Row:
        values = convert(row, index).items()
        return {name: value if isinstance(value, str | None) else json.dumps(value) for name, value in values}

    new = {name: Value("string") if isinstance(value, str) else Json() for name, value in first.items()}
    kept = {name: feature for name, feature in dataset.features.items() if name not in removed}
    features = Features({**kept, **new})
    return dataset.map(encode, with_indices=True, remove_columns=removed, features=features, desc="Converting")


def from_sharegpt(row: Row) -> Row:
    return {"messages": [chat_message(message) for message in row["conversations"]]}


def chat_message(message: Row) -> Row:
    """{"from": "human", "value": ...} as {"role": "user", "content": ...}."""
    names = {"from": "role", "value": "content"}
    renamed = {names.get(key, key): value for key, value in message.items()}
    return {**renamed, "role": SHAREGPT_ROLES.get(renamed.get("role"), renamed.get("role"))}


def from_alpaca(row: Row, end: str) -> Row:
    """The instruction and its input, a blank line between them, then the output; `end` closes a plain prompt."""
    parts = [part for part in (row["instruction"], row.get("input")) if part]
    return {"prompt": "\n\n".join(parts) + end, "completion": row["output"]}


def last_answer(row: Row) -> Row:
    """`messages` as `prompt` (all but the last) and `completion` (the assistant's last message)."""
    *before, last = row["messages"]
    if last["role"] != "assistant" or not before:
        raise ValueError("messages must end in an answer of the assistant.")
    return {"prompt": before, "completion": [last]}


def as_chat(row: Row) -> Row:
    """Plain prompts and completions as messages."""
    roles = {"prompt": "user", "completion": "assistant"}
    plain = [name for name in row if name in roles and isinstance(row[name], str)]
    return {**row, **{name: [{"role": roles[name], "content": row[name]}] for name in plain}}


def led_by(system_prompt: str, row: Row) -> Row:
    """The conversation with a system message first, unless it has its own."""
    first = "prompt" if "prompt" in row else "messages"
    if isinstance(row[first], str):
        raise ValueError("plain text has no place for a system prompt; add --dataset_format chat.")
    if row[first][0]["role"] == "system":
        return row
    return {**row, first: [{"role": "system", "content": system_prompt}, *row[first]]}


def share_of_others(rows: Rows, sample: int = 100) -> float:
    """How much of the text of the first `messages` is not the assistant's, counted in characters."""
    others = total = 0
    for row in islice(rows, sample):
        for message in row["messages"]:
            size = len(str(message.get("content") or ""))
            total += size
            others += 0 if message["role"] == "assistant" else size
    return others / max(total, 1)


def check_trained_tokens(dataset: Iterable[Mapping[str, Any]], vocab_size: int | None = None) -> dict[str, int]:
    """That a prepared dataset (rows with `labels`, as `trainer.train_dataset`) trains at all.

    A position trains when its label is not -100 and a token stands before it.

    Returns: {"rows": rows read, "untrained_rows": those without a trained token}; reading stops after 1000
        rows if some of them train, or if it is a stream.
    Raises ValueError when no row trains a token, or when one that was read has ids outside `vocab_size`.
    """
    seen = untrained = 0
    for row in dataset.take(ROWS_SAMPLED) if isinstance(dataset, IterableDataset) else dataset:
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


def rows_of(weight: Any) -> int:
    """How many rows a weight has, also where DeepSpeed has partitioned it and left the tensor itself empty (ZeRO-3)."""
    return getattr(weight, "ds_shape", weight.shape)[0]


def check_tokenizer_fits(model_or_config: Any, tokenizer: Any) -> None:
    """That every token id of the tokenizer has a row in the model's embedding.

    Raises ValueError otherwise. Takes a model, or the config of one that is not loaded yet.
    """
    if hasattr(model_or_config, "get_input_embeddings"):
        rows = rows_of(model_or_config.get_input_embeddings().weight)
    else:
        rows = model_or_config.get_text_config().vocab_size
    size = len(tokenizer)
    if size > rows:
        raise ValueError(
            f"The tokenizer has {size} tokens but the model's embedding only {rows} rows, so the last ids "
            "would fail. Load the model's own tokenizer, or call model.resize_token_embeddings first."
        )
