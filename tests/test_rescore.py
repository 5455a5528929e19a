"""Scores without a model: recorded texts with known answers, and stored samples graded again."""

import json

import pytest

from evaluations import read_rows, write_rows
from manypaths.cli.main import main

PROBLEMS = [
    {"id": "p1", "problem": "1 + 1?", "answer": "2"},
    {"id": "p2", "problem": "Half of one?", "answer": r"\frac{1}{2}"},
    {"id": "p3", "problem": "Which letter?", "answer": "B"},
]
TEXTS = {
    "p1": [r"\boxed{2}", r"It is \boxed{2}.", r"\boxed{3}", r"\boxed{2.0}"],  # three of four
    "p2": [r"\boxed{0.5}", r"\boxed{\frac{2}{4}}", r"\boxed{2}", r"\boxed{2}"],  # two of four, a tied vote
    "p3": ["no idea at all", r"\boxed{}", r"The answer is A.", r"\boxed{C}"],  # none
}


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    write_rows(tmp_path / "data" / "math500.jsonl", PROBLEMS)
    rows = [{"id": name, "text": text} for name, texts in TEXTS.items() for text in texts]
    write_rows(tmp_path / "texts.jsonl", rows)
    return tmp_path


def recorded(*words: str, source: str = "texts.jsonl", benchmark: str = "math500") -> int:
    return main(["eval", "--samples", source, "--benchmarks", benchmark, "--data_dir", "data", *words])


def scores_in(folder) -> dict[str, float]:
    (one,) = json.loads((folder / "results.json").read_text())["evaluations"]
    return {name: score["value"] for name, score in one["scores"].items()}


def test_recorded_texts_have_exactly_the_known_scores(place):
    assert recorded("--output_dir", "out") == 0
    scores = scores_in(place / "out")
    assert scores["avg@4"] == scores["pass@1"] == pytest.approx((3 / 4 + 2 / 4 + 0) / 3)
    assert scores["pass@2"] == pytest.approx((1 + (1 - 1 / 6) + 0) / 3)
    assert scores["pass@4"] == pytest.approx(2 / 3)
    assert scores["maj@4"] == pytest.approx((1 + 0.5 + 0) / 3)
    assert scores["maj@2"] == pytest.approx((3 / 4 + 1 / 2 + 0) / 3)  # a pair that differs is a tie
    assert scores["distinct_answers"] == pytest.approx((2 + 2 + 2) / 3)
    (one,) = json.loads((place / "out" / "results.json").read_text())["evaluations"]
    assert one["per_problem"]["num_correct"] == [3, 2, 0]
    assert one["grader"]["counts"]["correct"] == 5 and sum(one["grader"]["counts"].values()) == 12
    assert one["sampling"] == {"backend": "recorded", "num_samples": 4, "temperature": None}


def test_several_benchmarks_and_temperatures_in_one_file(place):
    write_rows(place / "data" / "gsm8k.jsonl", [{"id": "g", "problem": "?", "answer": "7"}])
    rows = [
        {"benchmark": "gsm8k", "id": "g", "index": 0, "temperature": heat, "text": rf"\boxed{{{answer}}}"}
        for heat, answer in ((0.5, 7), (1.0, 8))
    ]
    rows += [
        {"benchmark": "math500", "id": one["id"], "index": 0, "text": rf"\boxed{{{one['answer']}}}"} for one in PROBLEMS
    ]
    write_rows(place / "texts.jsonl", rows)
    assert main(["eval", "--samples", "texts.jsonl", "--benchmarks", "gsm8k", "math500", "--data_dir", "data"]) == 0
    found = json.loads((place / "evaluation" / "results.json").read_text())["evaluations"]
    assert [(one["benchmark"], one["temperature"], one["scores"]["pass@1"]["value"]) for one in found] == [
        ("gsm8k", 0.5, 1.0), ("gsm8k", 1.0, 0.0), ("math500", None, 1.0),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"id": "p1", "text": "x"}], "has texts for 1 of the 3 problems of math500, none for p2"),
        ([{"id": "p1", "text": "x", "temperature": 1}, {"id": "p2", "text": "x"}], "some have none"),
        ([{"id": "p1", "text": "x", "logprob": 0.5}], "line 1: logprob is a sum of logarithms"),
        ([{"id": "p9", "text": "x"}], "has a text for 'p9'; math500 has no such problem. Its 3 are called p1"),
        ([{"benchmark": "gsm8k", "id": "p1", "text": "x"}], "has no text for benchmark math500"),
        ([{"id": "p1"}], "texts.jsonl, line 1"),
        ([{"id": "p1", "text": "x", "index": 0}, {"id": "p1", "text": "y", "index": 0}], "texts.jsonl, line 2"),
    ],
)
def test_texts_that_do_not_fit_the_problems(place, capsys, rows, message):
    write_rows(place / "texts.jsonl", rows)
    assert recorded("--output_dir", "out") == 2
    assert message in capsys.readouterr().err
    assert not (place / "out").exists()


def test_regrade_reads_nothing_but_the_folder(place):
    assert recorded("--output_dir", "out") == 0
    before = scores_in(place / "out")
    lines = read_rows(place / "out" / "samples.jsonl")
    for row in lines:
        if row["text"] == "The answer is A.":
            row["text"] = "The answer is B."
    write_rows(place / "out" / "samples.jsonl", lines)
    (place / "texts.jsonl").unlink()
    (place / "data" / "math500.jsonl").unlink()
    assert main(["eval", "--regrade", "out"]) == 0
    assert scores_in(place / "out")["avg@4"] == pytest.approx(before["avg@4"] + 1 / 12)
    assert main(["eval", "--regrade", "out", "--grader", "strict"]) == 0
    strict = json.loads((place / "out" / "results.json").read_text())
    assert scores_in(place / "out")["avg@4"] == pytest.approx(before["avg@4"])  # no box, no credit
    assert strict["evaluations"][0]["grader"]["mode"] == "strict"
    assert main(["eval", "--regrade", "out", "--label", "renamed"]) == 0  # a name changes nothing else
    renamed = json.loads((place / "out" / "results.json").read_text())
    assert renamed == {**strict, "label": "renamed"}
    assert main(["eval", "--regrade", "out"]) == 0  # by the rules of before
    again = json.loads((place / "out" / "results.json").read_text())
    assert again["evaluations"] == strict["evaluations"]


def test_a_new_label_and_options_that_regrading_does_not_read(place, capsys):
    assert recorded("--output_dir", "out") == 0
    assert main(["eval", "--regrade", "out", "--label", "other"]) == 0
    assert json.loads((place / "out" / "results.json").read_text())["label"] == "other"
    for words in (["--output_dir", "new"], ["--num_samples", "3"], ["--model", "m"]):
        assert main(["eval", "--regrade", "out", *words]) == 2
        assert f"--regrade does not go with {words[0]}" in capsys.readouterr().err


def test_recorded_texts_that_changed_are_refused(place, capsys):
    assert recorded("--output_dir", "out") == 0
    rows = [{**row, "stop": "length"} for row in read_rows(place / "texts.jsonl")]
    write_rows(place / "texts.jsonl", rows)
    assert recorded("--output_dir", "out") == 2
    assert "drawn with other settings: samples:" in capsys.readouterr().err
    assert recorded("--output_dir", "new") == 0
    (one,) = json.loads((place / "new" / "results.json").read_text())["evaluations"]
    assert one["truncated"] == 1.0


def test_half_a_surrogate_pair_in_a_text(place):
    (place / "texts.jsonl").write_text(
        "".join(f'{{"id": "{one["id"]}", "text": "\\ud83d \\\\boxed{{2}}"}}\n' for one in PROBLEMS)
    )
    assert recorded("--output_dir", "out") == 0
    assert scores_in(place / "out")["pass@1"] == pytest.approx(1 / 3)
    assert main(["eval", "--regrade", "out"]) == 0


def test_the_first_problems_only(place):
    assert recorded("--num_prompts", "2", "--output_dir", "out") == 0
    assert scores_in(place / "out")["avg@4"] == pytest.approx((3 / 4 + 2 / 4) / 2)


def test_one_temperature_per_benchmark_is_its_default(place):
    rows = [{"id": one["id"], "text": "x", "temperature": 0.7} for one in PROBLEMS]
    write_rows(place / "texts.jsonl", rows)
    assert recorded("--output_dir", "out") == 0
    (one,) = json.loads((place / "out" / "results.json").read_text())["evaluations"]
    assert (one["setting"], one["temperature"]) == (None, 0.7)
    assert main(["eval", "--regrade", "out"]) == 0
    (again,) = json.loads((place / "out" / "results.json").read_text())["evaluations"]
    assert again == one


def test_texts_that_do_not_say_their_benchmark(place, capsys):
    write_rows(place / "data" / "gsm8k.jsonl", [{"id": "g", "problem": "?", "answer": "7"}])
    words = ["--samples", "texts.jsonl", "--benchmarks", "gsm8k", "math500", "--data_dir", "data"]
    assert main(["eval", *words]) == 2
    assert "texts that do not say their benchmark, and 2 benchmarks are asked for" in capsys.readouterr().err


def test_regrade_of_what_is_not_there(place, capsys):
    assert main(["eval", "--regrade", "nowhere"]) == 2
    assert "nowhere holds no finished evaluation" in capsys.readouterr().err
    assert main(["eval", "--regrade", "nowhere", "--benchmarks", "gsm8k"]) == 2
    assert "--regrade does not go with --benchmarks: leave that out" in capsys.readouterr().err
