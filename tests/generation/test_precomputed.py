import json

import pytest

from manypaths.evaluation.store import SampleKey, SampleStore
from manypaths.generation.precomputed import read_recorded
from manypaths.generation.samples import Sample


@pytest.fixture
def written(tmp_path):
    def write(*rows):
        path = tmp_path / "texts.jsonl"
        path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
        return path

    return write


def test_one_sample_per_line_in_any_order(written):
    path = written(
        {"id": "a", "text": "first of a", "question": "ignored"},
        {"id": 7, "text": "first of 7"},
        {"id": 7, "text": "second of 7", "stop": "length", "num_tokens": 3, "logprob": -2, "temperature": None},
        {"id": "a", "text": "", "stop": "eos"},
    )
    assert read_recorded(path) == {
        SampleKey(None, "a", None, 0): Sample("first of a", None, None),
        SampleKey(None, "7", None, 0): Sample("first of 7", None, None),
        SampleKey(None, "7", None, 1): Sample("second of 7", None, "length", 3, -2),
        SampleKey(None, "a", None, 1): Sample("", None, "eos"),
    }


def test_indices_are_kept_where_they_are_given(written):
    rows = [{"id": "a", "text": "y", "index": 1}, {"id": "a", "text": "x", "index": 0}]
    assert {key.index: one.text for key, one in read_recorded(written(*rows)).items()} == {0: "x", 1: "y"}


@pytest.mark.parametrize("name", ["texts", "responses", "outputs", "completions", "samples"])
def test_one_problem_per_line(written, name):
    rows = [{"id": problem, "benchmark": "set", "temperature": 0.6, name: ["x", "y"]} for problem in ("a", "b")]
    found = read_recorded(written(*rows))
    assert list(found) == [SampleKey("set", problem, 0.6, index) for problem in ("a", "b") for index in (0, 1)]
    assert [one.text for one in found.values()] == ["x", "y", "x", "y"]


@pytest.mark.parametrize("name", ["response", "output", "completion"])
def test_other_names_of_the_text(written, name):
    (one,) = read_recorded(written({"id": "a", name: "x"}, "")).values()
    assert one == Sample("x", None, None)


def test_benchmarks_and_temperatures_may_have_different_numbers(written):
    found = read_recorded(
        written(
            {"id": "a", "benchmark": "one", "texts": ["x", "y"]},
            {"id": "a", "benchmark": "two", "temperature": 1, "texts": ["x"]},
            {"id": "a", "benchmark": "two", "temperature": 0.5, "texts": ["x", "y", "z"]},
        )
    )
    assert len(found) == 6


def test_samples_of_our_own_come_back(tmp_path):
    text = "\u2028 line separators \x85 are text\r"
    with SampleStore(tmp_path, {}) as store:
        for index in range(3):
            store.add(SampleKey("set", "a", 0.6, index), Sample(text, [1], "eos", index, -0.5))
        assert read_recorded(store.path) == store.samples


@pytest.mark.parametrize(
    "rows, message",
    [
        ([], "has no row"),
        (["{broken"], "line 1: broken JSON"),
        (["[1]"], "line 1: a row must be a JSON object, found a list"),
        ([{"id": "a", "text": "x"}, "", {"text": "x"}], "line 3: no id"),
        ([{"id": True, "text": "x"}], r"line 1: id must be text or a whole number, found true or false \(True\)"),
        ([{"id": "a"}], "line 1: one of text, response.* found only id"),
        ([{"id": "a", "text": "x", "output": "y"}], "found both text and output"),
        ([{"id": "a", "text": ["x"]}], "line 1: text must hold text, found a list"),
        ([{"id": "a", "texts": "x"}], "line 1: texts must be a list of texts, found a string"),
        ([{"id": "a", "texts": []}], "line 1: texts is an empty list"),
        ([{"id": "a", "texts": ["x", None]}], "line 1: texts must hold text, found null"),
        ([{"id": "a", "text": "x", "index": -1}], "line 1: index must be 0 or more, got -1"),
        ([{"id": "a", "text": "x", "index": 0.5}], "line 1: index must be a whole number, found a number"),
        ([{"id": "a", "text": "x", "benchmark": 1}], "line 1: benchmark must be text, found a number"),
        ([{"id": "a", "text": "x", "num_tokens": "9"}], "line 1: num_tokens must be a whole number, found a string"),
        ([{"id": "a", "text": "x", "logprob": "9"}], "line 1: logprob must be a number, found a string"),
        (
            [{"id": "a", "text": "x", "index": 0}, {"id": "a", "text": "y", "index": 0}],
            "line 2: sample 0 of problem a is there twice, first in line 1",
        ),
        (
            [{"id": "a", "text": "x"}, {"id": "a", "text": "y", "index": 0}],
            "line 2 has an index and line 1 has none; give all or none",
        ),
        (
            [{"id": "a", "texts": ["x"]}, {"id": "b", "texts": ["x", "y"]}, {"id": "c", "texts": ["x", "y"]}],
            "problem a has 1 samples and problem b has 2",
        ),
        (
            [{"id": "a", "text": "x", "index": 0}, {"id": "a", "text": "x", "index": 2}],
            "problem a has 2 samples but none with index 1",
        ),
    ],
)
def test_what_cannot_be_read_is_named_with_its_line(written, rows, message):
    path = written(*rows)
    with pytest.raises(ValueError, match=message) as caught:
        read_recorded(path)
    assert str(caught.value).startswith(str(path))


def test_a_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"No file with recorded texts at .*none.jsonl"):
        read_recorded(tmp_path / "none.jsonl")
