"""Mixtures hold the rows that `trl.get_dataset` puts together, from files that it takes and from some that it does not."""

import json

import pytest
from trl import DatasetMixtureConfig, get_dataset

from manypaths.config import parse
from manypaths.data.config import TrainingDataConfig
from manypaths.data.mixture import load_mixture
from manypaths.run_folder import settings_of


def talk(*texts):
    return [{"role": role, "content": text} for role, text in zip(["user", "assistant"] * len(texts), texts, strict=False)]


def write_rows(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.fixture
def files(tmp_path):
    return [
        write_rows(tmp_path / "a.jsonl", [{"text": f"a{number}", "id": number} for number in range(8)]),
        write_rows(tmp_path / "b.jsonl", [{"text": f"b{number}", "tools": "[]"} for number in range(4)]),
    ]


@pytest.mark.parametrize(
    "extra",
    [({}, {}), ({"split": "train[:2]"}, {}), ({"columns": ["text"]}, {}), ({"fraction": 1}, {"fraction": 3}),
     ({"fraction": 0.2}, {"fraction": 0.1}), ({"fraction": 0}, {"fraction": 2})],
)  # fmt: skip
@pytest.mark.parametrize("streaming", [False, True])
def test_mixtures_are_those_of_trl(files, extra, streaming):
    if streaming and any("fraction" in part or "split" in part for part in extra):
        pytest.skip("streams have neither")
    parts = [{"path": "json", "data_files": file, **more} for file, more in zip(files, extra, strict=True)]
    wanted = get_dataset(DatasetMixtureConfig([dict(part) for part in parts], streaming=streaming))["train"]
    ours = [part for part in load_mixture(parts, streaming=streaming)]
    assert ours == [{name: row[name] for name in ours[0]} for row in wanted]
    assert "id" not in ours[0], "no use for the trainer"
    by_path = [{**part, "path": part["data_files"], "data_files": None} for part in parts]
    assert [row for row in load_mixture(by_path, streaming=streaming)] == ours


def test_plain_and_tool_talk_go_together(tmp_path):
    call = {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": {"x": 1}}}]}
    plain, calls = [{"messages": talk("a", "b")}] * 2, [{"messages": [*talk("a"), call], "tools": [{"name": "f"}]}]
    paths = [write_rows(tmp_path / "a.jsonl", plain), write_rows(tmp_path / "b.jsonl", calls)]
    mixed = load_mixture([{"path": path} for path in paths])
    assert mixed["messages"] == [row["messages"] for row in plain + calls]
    assert mixed["tools"] == [None, None, [{"name": "f"}]]


def test_every_part_is_converted_first(tmp_path):
    paths = [
        write_rows(tmp_path / "a.jsonl", [{"instruction": "a", "output": "b"}]),
        write_rows(tmp_path / "b.jsonl", [{"prompt": talk("a"), "completion": talk("", "b")[1:]}]),
    ]
    parts = [{"path": path} for path in paths]
    first, second = load_mixture(parts, layout="chat")
    assert first == second
    with pytest.raises(ValueError, match=r"same kind of rows: .*a\.jsonl has .*prompt as a string; .*b\.jsonl has"):
        load_mixture(parts)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ([{"fraction": 1}, {}], "given for some of the datasets"),
        ([{"fraction": -1}, {"fraction": 2}], "0 or more and not all 0"),
        ([{"columns": ["text", "label"]}, {}], r"a\.jsonl has no column 'label'; found text, id"),
        ([{}, {"split": "test"}], r"split 'test' of .*b\.jsonl"),
        ([{}, {"path": "nowhere.jsonl"}], "No data file at nowhere"),
    ],
)
def test_wrong_mixtures_are_one_clear_error(files, parts, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        load_mixture([{"path": file, **part} for file, part in zip(files, parts, strict=True)])


def test_mixtures_are_given_as_in_trl_and_on_the_command_line(tmp_path, files):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        f"datasets:\n- path: {files[0]}\n  fraction: 0.5\n  name:\n- path: json\n  data_files: [{files[1]}]\n"
        "  split: train\nstreaming: false\ntest_split_size: 0.1\n"
    )
    (data,) = parse([TrainingDataConfig], ["--config", str(recipe)], "sft")
    parts = [{"path": files[0], "fraction": 0.5}, {"path": "json", "data_files": [files[1]], "split": "train"}]
    assert (data.datasets, data.dataset_streaming, data.test_split_size) == (parts, False, 0.1)
    (data,) = parse([TrainingDataConfig], ["--datasets", json.dumps(parts[1]), files[0], "--streaming"], "sft")
    assert (data.datasets, data.dataset_streaming) == ([parts[1], {"path": files[0]}], True)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"datasets": [{"paht": "a"}]}, "needs a path"),
        ({"datasets": [{"path": "a", "fractions": 1}]}, "unknown key 'fractions'. Did you mean fraction"),
        ({"datasets": ['{"path"']}, "is not JSON"),
        ({"test_split_size": 0}, "a share between 0 and 1 or a number of rows, got 0"),
        ({"test_split_size": 1.5}, "got 1.5"),
    ],
)
def test_wrong_options_are_named(given, message):
    with pytest.raises(ValueError, match=message):
        TrainingDataConfig(**given)


def test_a_run_is_of_what_the_parts_hold(tmp_path, files):
    def settings(path):
        parts = [{"path": path, "split": "train"}, {"path": "json", "data_files": {"train": [path]}}]
        return settings_of(TrainingDataConfig(datasets=parts))["datasets"]

    before = settings(files[0])
    (tmp_path / "moved").mkdir()
    moved = write_rows(tmp_path / "moved" / "a.jsonl", [{"text": f"a{number}", "id": number} for number in range(8)])
    assert settings(moved) == before
    write_rows(tmp_path / "a.jsonl", [{"text": "new"}])
    changed = settings(files[0])
    assert changed[0] != before[0] and changed[1] != before[1] and changed[0]["split"] == "train"
