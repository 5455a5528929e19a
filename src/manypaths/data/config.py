"""Where rows come from: the same options for every subcommand that reads data."""

import json
from dataclasses import dataclass, field, fields
from typing import Any, Literal

from ..config import helped
from ..functions import did_you_mean


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
        "chat: prompts become messages; last_answer: only the last message is learnt.",
    )
    system_prompt: str | None = helped(None, "System message for conversations that have none.")


@dataclass
class TrainingDataConfig(DataConfig):
    """Data to train on: also mixtures, streams and a held-out part; the names are those of TRL's scripts.

    Raises:
        ValueError: an entry of `datasets` that is not TRL's DatasetConfig, or no size of a test split.
    """

    datasets: list[str] | None = field(
        default=None,
        metadata={"help": "A mixture, of paths or of mappings with path, split, fraction, as in TRL's scripts."},
    )
    dataset_streaming: bool = helped(False, "Read rows when they are needed; needs max_steps.", aliases=["--streaming"])
    test_split_size: float | None = helped(
        None, "Share (below 1) or number of rows held out to evaluate on, the same in every run."
    )
    ignore_bias_buffers: bool = helped(False, "Without effect, as in TRL's SFT and GRPO scripts.")

    def __post_init__(self) -> None:
        self.datasets = [mixture_part(part) for part in self.datasets or []] or None
        size = self.test_split_size
        if size is not None and not (0 < size < 1 or (size >= 1 and float(size).is_integer())):
            raise ValueError(f"test_split_size is a share between 0 and 1 or a number of rows, got {size}.")


def mixture_part(part: dict[str, Any] | str) -> dict[str, Any]:
    """A part of a mixture as fields of TRL's DatasetConfig; a string is its path, or all of it as JSON."""
    from trl.scripts.utils import DatasetConfig

    if isinstance(part, str) and part.lstrip().startswith("{"):
        try:
            part = json.loads(part)
        except json.JSONDecodeError as error:
            raise ValueError(f"datasets: {part!r} is not JSON ({error}).") from error
    part = {"path": part} if isinstance(part, str) else part
    known = [option.name for option in fields(DatasetConfig)]
    if not isinstance(part, dict) or not isinstance(part.get("path"), str):
        raise ValueError(f"datasets: every part needs a path, found {part!r}.")
    for name in part:
        if name not in known:
            raise ValueError(f"datasets: unknown key {name!r}. {did_you_mean(name, known)}Keys: {', '.join(known)}.")
    return {name: value for name, value in part.items() if value is not None}
