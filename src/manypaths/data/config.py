"""Where rows come from: the same options for every subcommand that reads data."""

from dataclasses import dataclass, field
from typing import Literal

from ..config import helped


@dataclass
class DataConfig:
    """Data of a subcommand; the names are TRL's."""

    dataset_name: str | None = helped(
        None, "A .json, .jsonl or .parquet file, a folder, or a hub id; --data for short."
    )
    dataset_config: str | None = helped(None, "Configuration of a hub dataset.")
    dataset_train_split: str = helped("train", "Split to train on, or a slice of it: train[:20000].")
    dataset_test_split: str = helped("test", "Split to evaluate on, or a slice; a file has the one split train.")
    eval_dataset_name: str | None = helped(None, "Evaluation data during training, if not a split of dataset_name.")
    dataset_columns: dict[str, str] | str | None = field(
        default=None,
        metadata={"help": 'Accepted column -> column in the data, as JSON: {"prompt": "question"}.'},
    )
    dataset_format: Literal["as_is", "chat", "last_answer"] = helped(
        "as_is",
        "chat: plain prompts become messages. last_answer: only the last message of `messages` carries loss.",
    )
    system_prompt: str | None = helped(None, "System message for conversations that have none.")
