"""Invented benchmarks, a tiny model, and the reading of scores, for tests of whole evaluations."""

import json
from pathlib import Path

import pandas as pd

from conftest import tiny_llama
from manypaths.evaluation.benchmarks import BENCHMARKS

GOLDS = ["3", r"\frac{1}{2}", "7", "(1, 2)", "x + 1"]


def write_rows(path: Path, rows) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def read_rows(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def write_benchmarks(folder: Path, names=tuple(BENCHMARKS), num_problems: int = 5) -> Path:
    """`NAME.jsonl` with a few invented problems each."""
    folder.mkdir(exist_ok=True)
    words = ["one", "two", "three", "four", "five", "six", "seven"]
    for shift, name in enumerate(names):
        rows = [
            {
                "id": f"{name}-{index:04d}",
                "problem": f"{words[index]} plus {words[(index + shift) % 7]} is?",
                "answer": GOLDS[index],
            }
            for index in range(num_problems)
        ]
        write_rows(folder / f"{name}.jsonl", rows)
    return folder


def save_model(folder: Path, tokenizer, seed: int = 0, **settings) -> Path:
    tiny_llama(len(tokenizer), seed, **settings).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def rows_of(table: pd.DataFrame, **values) -> pd.DataFrame:
    """Rows with these values in the columns; None is "unknown"."""
    for name, value in values.items():
        table = table[table[name].isna() if value is None else table[name] == value]
    return table


def score_of(scores: pd.DataFrame, metric: str, **keys) -> dict:
    """The one row of a metric under these keys."""
    (row,) = rows_of(scores, metric=metric, **keys).to_dict("records")
    return row
