"""Several datasets as one, as `trl.get_dataset` mixes them."""

from collections.abc import Mapping, Sequence
from typing import Any

from datasets import Dataset, concatenate_datasets
from trl.scripts.utils import DatasetConfig

from .formats import COMPANIONS, Row, Rows, as_training_data, column_names, rewritten
from .sources import json_kind, one_line, read_source


def load_mixture(parts: Sequence[Mapping[str, Any]], *, streaming: bool = False, **how: Any) -> Rows:
    """All parts one after the other, or with fractions the first rows of each.

    Args:
        parts: fields of TRL's DatasetConfig: `path` (also a file), `name`, `data_dir`, `data_files`, `split`, `columns`
            (the ones to keep) and `fraction` (share of the mixture, which is as large as it can be without a row twice).
        how: as `as_training_data` takes it, which every part goes through.

    Raises:
        ValueError: as `read_source` and `as_training_data` for a part; parts that do not fit together; fractions that
            are not given for all, not positive, or asked of streams.
    """
    configs = [DatasetConfig(**part) for part in parts]
    names = [str(config.data_files or config.path) for config in configs]
    datasets = [
        as_training_data(read_part(config, streaming), name, **how) for config, name in zip(configs, names, strict=True)
    ]
    check_alike(datasets, names)
    fractions = [config.fraction for config in configs if config.fraction is not None]
    if fractions:
        datasets = shares(datasets, fractions, streaming)
    try:
        return concatenate_datasets(datasets if streaming else with_common_features(datasets))
    except ValueError as error:
        raise ValueError(f"The datasets do not fit together: {one_line(error)}") from error


def read_part(config: DatasetConfig, streaming: bool) -> Rows:
    where = {"data_dir": config.data_dir, "data_files": config.data_files, "streaming": streaming}
    rows = read_source(config.path, config.split, config.name, **where)
    missing = [name for name in config.columns or [] if name not in column_names(rows)]
    if missing:
        raise ValueError(f"{config.path} has no column {missing[0]!r}; found {', '.join(column_names(rows))}.")
    return rows if config.columns is None else rows.select_columns(config.columns)


def shares(datasets: Sequence[Dataset], fractions: Sequence[float], streaming: bool) -> list[Dataset]:
    """The first rows of each dataset, in these proportions and as many as the scarcest allows."""
    if len(fractions) < len(datasets):
        raise ValueError("A fraction is given for some of the datasets; give all of them one, or none.")
    if streaming:
        raise ValueError("fraction needs to know how many rows there are, which a stream does not; leave one out.")
    if min(fractions) < 0 or sum(fractions) == 0:
        raise ValueError(f"Fractions are shares, 0 or more and not all 0, got {', '.join(map(str, fractions))}.")
    parts = [(rows, fraction / sum(fractions)) for rows, fraction in zip(datasets, fractions, strict=True) if fraction]
    total = min(len(rows) / weight for rows, weight in parts)
    return [rows.select(range(round(weight * total))) for rows, weight in parts]


def check_alike(datasets: Sequence[Rows], names: Sequence[str]) -> None:
    """Every part has the first one's kind of rows: the same columns to learn from, and plain text or conversations."""

    def shape(rows: Rows) -> str:
        row = next(iter(rows))
        return ", ".join(f"{name} as {json_kind(row[name])}" for name in sorted(set(row) - set(COMPANIONS)))

    shapes = [shape(rows) for rows in datasets]
    for name, found in zip(names, shapes, strict=True):
        if found != shapes[0]:
            raise ValueError(
                f"The datasets must hold the same kind of rows: {names[0]} has {shapes[0]}; {name} has {found}. "
                "--dataset_format may make them alike: chat for plain prompts, last_answer for messages."
            )


def with_common_features(datasets: Sequence[Dataset]) -> list[Dataset]:
    """Columns of text or objects that the parts store in different ways are stored alike."""
    columns = ("messages", "prompt", "completion", "tools", "chat_template_kwargs")
    features = {name: [rows.features[name] for rows in datasets if name in rows.column_names] for name in columns}
    differing = [name for name, found in features.items() if any(feature != found[0] for feature in found)]

    def alike(row: Row, _: int) -> Row:
        return {name: row[name] for name in differing if name in row}

    return [rewritten(rows, alike, []) if differing else rows for rows in datasets]
