import json

import pytest
import torch
from datasets import Dataset, DatasetDict
from transformers import LlamaConfig

from manypaths.data.formats import (
    PROMPT_FORMATS,
    check_tokenizer_fits,
    check_trained_tokens,
    load_training_data,
    rows_of,
)

CALL = {"type": "function", "function": {"name": "f", "arguments": {"x": 1}}}
CHAT = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}]


def write(path, text):
    path.write_text(text, encoding="utf-8")
    return path


def write_rows(path, rows):
    return write(path, "".join(json.dumps(row) + "\n" for row in rows))


@pytest.mark.parametrize(
    "row",
    [
        {"messages": CHAT},
        {"prompt": "a", "completion": "b"},
        {"prompt": CHAT[:1], "completion": CHAT[1:]},
        {"text": "a b"},
        {"input_ids": [1, 2], "labels": [-100, 2]},
    ],
)
def test_every_format_survives_the_reading(tmp_path, row):
    path = write_rows(tmp_path / "rows.jsonl", [row, row])
    assert load_training_data(path).to_list() == [row, row]


@pytest.mark.parametrize("ending", ["json", "parquet"])
def test_other_file_types_give_the_same_rows(tmp_path, ending):
    rows = [{"prompt": "a", "completion": "b"}, {"prompt": "c", "completion": "d"}]
    path = tmp_path / f"rows.{ending}"
    if ending == "json":
        write(path, json.dumps(rows, indent=1))
    else:
        Dataset.from_list(rows).to_parquet(path)
    assert load_training_data(path).to_list() == rows


def test_json_lines_under_the_name_json(tmp_path):
    path = write(tmp_path / "rows.json", '{"text": "a"}\n\n{"text": "b"}\n')
    assert load_training_data(path)["text"] == ["a", "b"]


def test_saved_dataset_folders(tmp_path):
    dataset = Dataset.from_list([{"text": "a"}, {"text": "b"}])
    dataset.save_to_disk(tmp_path / "one")
    DatasetDict(test=dataset).save_to_disk(tmp_path / "splits")
    assert len(load_training_data(tmp_path / "one", split="train[:1]")) == 1
    assert len(load_training_data(tmp_path / "splits", split="test")) == 2
    with pytest.raises(ValueError, match="no split 'train'; it has test"):
        load_training_data(tmp_path / "splits")


def test_sharegpt_becomes_messages(tmp_path):
    talk = [{"from": "system", "value": "s"}, {"from": "human", "value": "hi"}, {"from": "gpt", "value": "ho"}]
    path = write_rows(tmp_path / "rows.jsonl", [{"conversations": talk}])
    led = [{"role": "system", "content": "s"}, *CHAT]
    assert load_training_data(path).to_list() == [{"messages": led}]
    assert load_training_data(path, layout="last_answer").to_list() == [{"prompt": led[:2], "completion": led[2:]}]


def test_alpaca_becomes_prompt_and_completion(tmp_path):
    rows = [{"instruction": "add", "input": "1 2", "output": "3"}, {"instruction": "greet", "input": "", "output": "hi"}]
    path = write_rows(tmp_path / "rows.jsonl", rows)
    plain = [{"prompt": "add\n\n1 2\n\n", "completion": "3"}, {"prompt": "greet\n\n", "completion": "hi"}]
    assert load_training_data(path).to_list() == plain
    chat = load_training_data(path, layout="chat")
    assert chat[0]["prompt"] == [{"role": "user", "content": "add\n\n1 2"}]
    assert chat[0]["completion"] == [{"role": "assistant", "content": "3"}]
    text = write_rows(tmp_path / "text.jsonl", [{**row, "text": "whole"} for row in rows])
    assert load_training_data(text).column_names == ["text"], "as TRL, which knows no Alpaca"


def test_conversions_keep_what_a_message_holds(tmp_path):
    talk = [{"role": "user", "content": "hi"}, {"role": "assistant", "tool_calls": [CALL]}]
    rows = [{"messages": CHAT}] * 1500 + [{"messages": talk, "tools": [{"name": "f"}]}]
    path = write_rows(tmp_path / "rows.jsonl", rows)
    split = load_training_data(path, layout="last_answer", system_prompt="s")[1500]
    assert split["completion"] == talk[1:] and split["tools"] == [{"name": "f"}]
    assert split["prompt"] == [{"role": "system", "content": "s"}, talk[0]]
    path = write_rows(tmp_path / "rows.jsonl", [rows[0] | {"tools": None}, rows[-1]])
    assert list(load_training_data(path, layout="last_answer", system_prompt="s", streaming=True))[1] == split


def test_images_are_kept_and_audio_is_refused(tmp_path):
    rows = write_rows(tmp_path / "rows.jsonl", [{"messages": CHAT, "images": ["a.png"], "id": 3}])
    assert load_training_data(rows).column_names == ["messages", "images"]
    with pytest.raises(ValueError, match="column 'audio', which TRL's trainer would leave out"):
        load_training_data(write_rows(tmp_path / "rows.jsonl", [{"messages": CHAT, "audio": "a.wav"}]))


def test_streams_are_checked_and_converted(tmp_path):
    rows = [{"instruction": str(number), "output": "b"} for number in range(3)]
    path = write_rows(tmp_path / "rows.jsonl", rows)
    streamed = load_training_data(path, streaming=True, layout="chat")
    assert list(streamed) == load_training_data(path, layout="chat").to_list()
    path = write_rows(tmp_path / "bad.jsonl", [{"messages": CHAT}, {"messages": []}])
    with pytest.raises(ValueError, match="row 2: 'messages' holds no messages"):
        load_training_data(path, streaming=True)


def test_columns_of_other_formats_are_dropped_unless_wanted(tmp_path):
    path = write_rows(tmp_path / "rows.jsonl", [{"prompt": "a", "prompt_id": 3, "messages": CHAT}])
    assert load_training_data(path).column_names == ["messages"]
    kept = load_training_data(path, formats=PROMPT_FORMATS, keep_all_columns=True)
    assert kept.column_names == ["prompt", "prompt_id", "messages"]


def test_date_like_text_stays_text_and_late_columns_are_seen(tmp_path):
    rows = [{"text": "2024-01-01"}, {"text": "b", "tools": "[]"}]
    loaded = load_training_data(write_rows(tmp_path / "rows.jsonl", rows))
    assert loaded["text"] == ["2024-01-01", "b"]
    assert loaded["tools"] == [None, "[]"]


def test_renaming_chat_and_system_prompt(tmp_path):
    path = write_rows(tmp_path / "rows.jsonl", [{"question": "q", "response": "r", "prompt": "other"}])
    columns = {"prompt": "question", "completion": "response"}
    assert load_training_data(path, columns=columns).to_list() == [{"prompt": "q", "completion": "r"}]
    (row,) = load_training_data(path, columns=columns, layout="chat", system_prompt="be brief")
    assert row["prompt"] == [{"role": "system", "content": "be brief"}, {"role": "user", "content": "q"}]
    assert row["completion"] == [{"role": "assistant", "content": "r"}]
    with pytest.raises(ValueError, match="no column 'answer' to use as 'completion'; found"):
        load_training_data(path, columns={"completion": "answer"})
    with pytest.raises(ValueError, match="no place for a system prompt"):
        load_training_data(path, columns=columns, system_prompt="be brief")


def test_the_last_answer_can_be_split_off(tmp_path):
    path = write_rows(tmp_path / "rows.jsonl", [{"prompt": "other", "messages": CHAT}])
    assert load_training_data(path, layout="last_answer").to_list() == [{"prompt": CHAT[:1], "completion": CHAT[1:]}]
    (row,) = load_training_data(path, layout="last_answer", system_prompt="be brief")
    assert [message["role"] for message in row["prompt"]] == ["system", "user"]
    path = write_rows(tmp_path / "rows.jsonl", [{"messages": CHAT}, {"messages": CHAT[:1]}])
    with pytest.raises(ValueError, match="row 2: messages must end in an answer"):
        load_training_data(path, layout="last_answer")
    with pytest.raises(ValueError, match=r"splits messages, and .* has text"):
        load_training_data(write_rows(tmp_path / "rows.jsonl", [{"text": "a"}]), layout="last_answer")


def test_system_prompt_keeps_one_that_is_there(tmp_path):
    led = [{"role": "system", "content": "mine"}, *CHAT]
    path = write_rows(tmp_path / "rows.jsonl", [{"messages": led}, {"messages": CHAT}])
    loaded = load_training_data(path, system_prompt="yours")
    assert [row["messages"][0]["content"] for row in loaded] == ["mine", "yours"]


def test_slices_of_a_file(tmp_path):
    path = write_rows(tmp_path / "rows.jsonl", [{"text": str(i)} for i in range(10)])
    assert load_training_data(path, split="train[:30%]")["text"] == ["0", "1", "2"]
    assert load_training_data(path, split="train[8:]")["text"] == ["8", "9"]
    with pytest.raises(ValueError, match="one split train"):
        load_training_data(path, split="test")


GOOD = '{"text": "a"}\n'


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", "", "empty"),
        ("a.jsonl", "\n  \n", "empty"),
        ("a.json", "[]", "empty"),
        ("a.jsonl", GOOD + "\n" + '{"text": "b"\n', r"line 3: broken JSON \(Expecting ',' delimiter"),
        ("a.json", '[{"text": "a"},\n{"text" 3}]', "line 2: broken JSON"),
        ("a.jsonl", GOOD + '["text"]\n', "line 2: a row must be a JSON object, found a list"),
        ("a.json", '[{"text": "a"}, 3]', "row 2: a row must be a JSON object, found a number"),
        ("a.json", '"text"', "must hold a list of objects, found a string"),
        ("a.jsonl", '{"question": "a", "answer": "b"}\n', "columns question, answer; accepted are: .*prompt"),
        ("a.jsonl", '{"prompt": "a", "completion": "b"}\n{"prompt": "a"}\n', "row 2: 'completion' is mis"),
        ("a.jsonl", '{"messages": []}\n', "row 1: 'messages' holds no messages"),
        ("a.jsonl", '{"messages": "hi"}\n', "row 1: 'messages' must be a list of messages, found a string"),
        ("a.jsonl", '{"messages": [{"from": "me", "value": "x"}]}\n', "row 1: 'messages' must be a list"),
        ("a.jsonl", '{"messages": [{"role": "user"}]}\n', "row 1: 'messages' has a message without 'content' and"),
        (
            "a.jsonl",
            '{"messages": [{"role": "user", "content": null}]}\n',
            r"without 'content' and without tool calls \(number 1, 'user'\)",
        ),
        ("a.jsonl", '{"conversations": [{"from": "gpt", "value": null}]}\n', "without 'value'"),
        (
            "a.jsonl",
            '{"prompt": "a", "completion": "b"}\n{"prompt": [{"role": "user", "content": "b"}], "completion": "b"}\n',
            "row 2: 'prompt' is a list, unlike the rows before",
        ),
        (
            "a.jsonl",
            '{"text": "a", "chat_template_kwargs": {"a": 1}}\n{"text": "b"}\n',
            "row 2: 'chat_template_kwargs' must be an object, {} for none; found null",
        ),
        ("a.jsonl", '{"input_ids": []}\n', "row 1: 'input_ids' must be a non-empty list"),
        ("a.jsonl", '{"text": 3}\n', "row 1: 'text' must be text, found a number"),
        ("a.jsonl", GOOD + '{"text": 3}\n', "row 2: 'text' must be text, found a number"),
        ("a.parquet", "no parquet", "not a readable parquet"),
        ("a.csv", "text\na\n", r"data files are \.json, \.jsonl, \.parquet, this one is \.csv"),
        ("a", "text", "this one is without ending"),
    ],
)
def test_bad_files_are_one_clear_error(tmp_path, name, content, message):
    path = write(tmp_path / name, content)
    with pytest.raises(ValueError, match=message) as caught:
        load_training_data(path)
    assert "\n" not in str(caught.value)
    assert name in str(caught.value)


def test_binary_text_and_missing_file(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="not UTF-8"):
        load_training_data(tmp_path / "a.jsonl")
    with pytest.raises(FileNotFoundError, match=r"No data file at .*nowhere\.jsonl"):
        load_training_data(tmp_path / "nowhere.jsonl")


def test_empty_slice_is_an_error(tmp_path):
    path = write(tmp_path / "a.jsonl", GOOD)
    with pytest.raises(ValueError, match=r"no rows in split 'train\[:0\]'"):
        load_training_data(path, split="train[:0]")


def test_trained_tokens_are_counted_after_the_first_position():
    rows = [{"labels": [5, -100]}, {"labels": [-100, 5]}]
    assert check_trained_tokens(rows) == {"rows": 2, "untrained_rows": 1}
    for nothing in ([{"labels": [5, -100]}], [{"labels": [-100, -100]}] * 3, []):
        with pytest.raises(ValueError, match="no trained token"):
            check_trained_tokens(nothing)


def test_one_trained_row_after_many_untrained_is_enough():
    rows = [{"labels": [-100, -100]}] * 1500 + [{"labels": [-100, 1]}]
    assert check_trained_tokens(rows) == {"rows": 1501, "untrained_rows": 1500}


def test_tokenizer_larger_than_embedding():
    check_tokenizer_fits(LlamaConfig(vocab_size=5), range(5))
    with pytest.raises(ValueError, match="6 tokens but the model's embedding only 5 rows"):
        check_tokenizer_fits(LlamaConfig(vocab_size=5), range(6))


def test_rows_of_a_weight_that_zero3_has_partitioned():
    weight = torch.empty(0)
    weight.ds_shape = (5, 3)
    assert rows_of(weight) == rows_of(torch.empty(5, 3)) == 5


def test_ids_outside_the_vocabulary_are_found_before_training():
    rows = [{"input_ids": [1, 2], "labels": [-100, 2]}, {"input_ids": [1, 9], "labels": [-100, 3]}]
    assert check_trained_tokens(rows, 10)["rows"] == 2
    with pytest.raises(ValueError, match="Row 2 has 9 among its input_ids; the model's vocabulary has 5"):
        check_trained_tokens(rows, 5)
