"""Rows come out as they stand in the file, and as `load_dataset` reads them where that is the same."""

import json
import os

import pytest
from datasets import Dataset, load_dataset

from manypaths.data.sources import read_source


def call(**arguments):
    return {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": arguments}}]}


def write_rows(path, rows, end=""):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows) + end)
    return path


def trl_reads(path):
    """As TRL's script: it has no other way to a file."""
    return load_dataset("json", data_files={"train": str(path)}, split="train")


FAITHFUL = {
    "plain": [{"text": "a", "id": 1}, {"text": "b", "id": 2}],
    "messages": [{"messages": [{"role": "user", "content": "1"}]}, {"messages": [{"role": "user", "content": "b"}] * 2}],
    "token ids": [{"input_ids": [1, 2], "labels": [-100, 2]}, {"input_ids": [3], "labels": [3]}],
    "other arguments": [{"messages": [call(x=1)]}, {"messages": [call(y="a", z=[1])]}],
    "calls between words": [{"messages": [{"role": "user", "content": "a"}, call(x=1)]}],
    "tools": [{"tools": [{"name": "f", "parameters": {"x": {}}}, {"name": "g", "parameters": {"y": {"type": "string"}}}]}],
}


@pytest.mark.parametrize("rows", FAITHFUL.values(), ids=FAITHFUL)
def test_files_are_read_as_trl_reads_them(tmp_path, rows):
    path = write_rows(tmp_path / "rows.jsonl", rows)
    assert read_source(path).to_list() == trl_reads(path).to_list() == rows


CHANGED = {
    "arguments and a blank line": ([{"messages": [call(x=1)]}, {"messages": [call(y="a")]}], "\n"),
    "whole and other numbers": ([{"messages": [call(x=1)]}, {"messages": [call(x=2.5)]}], ""),
    "small numbers": ([{"messages": [call(x=1e-12)]}, {"messages": [call(y=0.123456789012)]}], ""),
    "text like dates": ([{"prompt": "when", "completion": "2024-01-01"}], ""),
    "text like JSON": ([{"messages": [{"role": "user", "content": text}]} for text in ("3.10", "null", ["a"])], ""),
    "nulls": ([{"messages": [{"role": "user", "content": "a", "name": None}]}], ""),
}


@pytest.mark.parametrize(("rows", "end"), CHANGED.values(), ids=CHANGED)
def test_what_load_dataset_would_change_is_kept(tmp_path, rows, end):
    path = write_rows(tmp_path / "rows.jsonl", rows, end)
    assert repr(read_source(path).to_list()) == repr(rows)
    if rows != CHANGED["nulls"][0]:
        assert repr(trl_reads(path).to_list()) != repr(rows), "the slower way is no longer needed"


@pytest.mark.slow
def test_keys_that_come_late_are_read(tmp_path):
    """`load_dataset` fixes the features after ten megabytes and fails at a later key."""
    rows = [{"m": [{"content": "a" * 11_000_000}]}, {"m": [{"content": "b"}, call(x=1)], "late": "2024-01-01"}]
    path = write_rows(tmp_path / "rows.jsonl", rows)
    first, second = read_source(path)
    assert second == rows[1] and first == {**rows[0], "late": None}


def test_a_changed_file_is_read_again(tmp_path):
    path = tmp_path / "rows.jsonl"
    for number in (1, 2):
        rows = [{"messages": [call(x=number)]}, {"messages": [call(x=0.5)]}]
        assert read_source(write_rows(path, rows)).to_list() == rows
        os.utime(path, (number, number))


def test_several_files_and_their_folder(tmp_path):
    files = [write_rows(tmp_path / f"{name}.jsonl", [{"text": name}]) for name in "ab"]
    assert read_source("json", data_files=[str(path) for path in files])["text"] == ["a", "b"]
    assert sorted(read_source(tmp_path)["text"]) == ["a", "b"]
    assert read_source("json", data_files=str(files[1]), split="train[:1]")["text"] == ["b"]


@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
def test_streams_give_the_same_rows(tmp_path, ending):
    path = tmp_path / f"rows.{ending}"
    rows = [{"text": "a"}, {"text": "b"}]
    write_rows(path, rows) if ending == "jsonl" else Dataset.from_list(rows).to_parquet(path)
    assert list(read_source(path, streaming=True)) == rows
    with pytest.raises(ValueError, match="a streamed file has the one split train, whole"):
        read_source(path, "train[:1]", streaming=True)


def test_a_stream_names_a_broken_line(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"text": "a"}\n{"text" "b"}\n')
    with pytest.raises(ValueError, match="line 2: broken JSON"):
        read_source(path, streaming=True)
