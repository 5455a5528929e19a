import json

import pytest

from manypaths.generation.precomputed import check_same_numbers, read_completions
from manypaths.generation.samples import Sample, SampleKey


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
    assert read_completions(path) == {
        SampleKey(None, "a", None, 0): Sample("first of a", None, None),
        SampleKey(None, "7", None, 0): Sample("first of 7", None, None),
        SampleKey(None, "7", None, 1): Sample("second of 7", None, "length", 3, -2),
        SampleKey(None, "a", None, 1): Sample("", None, "eos"),
    }


def test_indices_are_kept_where_they_are_given(written):
    rows = [{"id": "a", "text": "y", "index": 1}, {"id": "a", "text": "x", "index": 0}]
    assert {key.index: one.text for key, one in read_completions(written(*rows)).items()} == {0: "x", 1: "y"}


@pytest.mark.parametrize("name", ["texts", "responses", "outputs", "completions", "samples"])
def test_one_problem_per_line(written, name):
    rows = [{"id": problem, "benchmark": "set", "temperature": 0.6, name: ["x", "y"]} for problem in ("a", "b")]
    found = read_completions(written(*rows))
    assert list(found) == [SampleKey("set", problem, 0.6, index) for problem in ("a", "b") for index in (0, 1)]
    assert [one.text for one in found.values()] == ["x", "y", "x", "y"]


@pytest.mark.parametrize("name", ["response", "output", "completion"])
def test_other_names_of_the_text(written, name):
    (one,) = read_completions(written({"id": "a", name: "x"}, "")).values()
    assert one == Sample("x", None, None)


def test_benchmarks_and_temperatures_may_have_different_numbers(written):
    found = read_completions(
        written(
            {"id": "a", "benchmark": "one", "texts": ["x", "y"]},
            {"id": "a", "benchmark": "two", "temperature": 1, "texts": ["x"]},
            {"id": "a", "benchmark": "two", "temperature": 0.5, "texts": ["x", "y", "z"]},
        )
    )
    assert len(found) == 6


def test_all_that_is_known_of_a_sample(written):
    row = {"task": "set", "id": "a", "temperature": 0.6, "index": 2, "text": "x", "token_ids": [4, 1], "stop": "eos"}
    samples = read_completions(written({**row, "num_tokens": 2, "logprob": -0.5}))
    assert samples == {SampleKey("set", "a", 0.6, 2): Sample("x", [4, 1], "eos", 2, -0.5)}


@pytest.mark.parametrize(
    "rows, message",
    [
        ([], "has no row"),
        (["{broken"], "line 1: broken JSON"),
        (["[1]"], "line 1: a row must be a JSON object, found a list"),
        ([{"id": "a", "text": "x"}, "", {"text": "x"}], "line 3: no id"),
        ([{"id": True, "text": "x"}], r"line 1: id must be text or a whole number, found true or false \(True\)"),
        ([{"id": "a"}], "line 1: a row needs one of text, response.* found only id"),
        ([{"id": "a", "text": "x", "output": "y"}], "found both text and output"),
        ([{"id": "a", "text": ["x"]}], "line 1: text must hold text, found a list"),
        ([{"id": "a", "texts": "x"}], "line 1: texts must be a list of at least one text, found a string"),
        ([{"id": "a", "texts": []}], "line 1: texts must be a list of at least one text"),
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
        ([{"id": "a", "text": "x", "token_ids": "1"}], "line 1: token_ids must be a list, found a string"),
    ],
)
def test_what_cannot_be_read_is_named_with_its_line(written, rows, message):
    path = written(*rows)
    with pytest.raises(ValueError, match=message) as caught:
        read_completions(path)
    assert str(caught.value).startswith(str(path))


def test_a_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"There is no file with completions at .*none\.jsonl"):
        read_completions(tmp_path / "none.jsonl")


@pytest.mark.parametrize(
    "rows, message",
    [
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
def test_every_problem_needs_the_same_number(written, rows, message):
    path = written(*rows)
    with pytest.raises(ValueError, match=message):
        check_same_numbers(read_completions(path), path)
