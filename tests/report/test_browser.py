"""The browser of completions, from the recorded texts of two models."""

import json
import shutil

import pytest

from manypaths.evaluation.table import load_results
from manypaths.report import browser
from manypaths.report.compare import Study
from recorded_results import HERE


def test_answers_are_grouped_with_their_verdicts(experiment, tmp_path):
    shown = browser.completions(Study(experiment), tmp_path)
    assert [column["label"] for column in shown.data["columns"]] == [
        "CE · before RL", "CE · after RL", "SED · before RL", "SED · after RL",
    ]  # fmt: skip
    folder = HERE / "experiment/CE-rl"
    samples = [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()]
    right = {(row["task"], row["id"], row["index"]) for line in (folder / "grades.jsonl").read_text().splitlines()
             if (row := json.loads(line))["correct"]}  # fmt: skip
    for problem in shown.data["problems"]:
        own = [row for row in samples if (row["task"], row["id"]) == (problem["task"], problem["id"])]
        groups = problem["cells"][1]
        assert sum(group["count"] for group in groups) == len(own)
        assert [group["count"] for group in groups] == sorted((group["count"] for group in groups), reverse=True)
        good = {" ".join(row["text"].split()) for row in own if (row["task"], row["id"], row["index"]) in right}
        assert {group["answer"] for group in groups if group["verdict"] == "right"} == good
    link = shown.data["columns"][0]["link"]
    assert (tmp_path / link).resolve() == (HERE / "experiment/CE-sft/samples.jsonl").resolve()


def test_what_is_left_out_is_said(experiment, tmp_path, monkeypatch):
    whole = browser.completions(Study(experiment), tmp_path)
    monkeypatch.setattr(browser, "BYTES", 6000)
    part = browser.completions(Study(experiment), tmp_path)
    assert len(part.data["problems"]) < len(whole.data["problems"]) == 16
    assert {problem["task"] for problem in part.data["problems"]} == {"countdown", "sort"}, "some of each task"
    assert f"Shows {len(part.data['problems'])} of 16 problems" in part.text
    assert browser.cut("as long as this", 7) == "as long …" and browser.cut("short", 7) == "short"


def test_final_answers_and_reasons(experiment, tmp_path):
    """As the grader of mathematical answers notes them."""
    shutil.copytree(HERE / "experiment", tmp_path / "experiment")
    grades = tmp_path / "experiment/CE-rl/grades.jsonl"
    rows = [json.loads(line) for line in grades.read_text().splitlines()]
    notes = [
        {"correct": True, "extracted": "1/2", "reason": "equal"},
        {"correct": False, "extracted": "", "reason": "no box"},
    ]
    rows = [
        {**{name: row[name] for name in ("task", "id", "temperature", "index")}, **notes[row["index"] % 2]}
        for row in rows
    ]
    grades.write_text("".join(json.dumps(row) + "\n" for row in rows))
    shown = browser.completions(Study(load_results(tmp_path / "experiment")), tmp_path)
    groups = next(problem for problem in shown.data["problems"] if problem["task"] == "countdown")["cells"][1]
    right = next(group for group in groups if group["verdict"] == "right")
    assert (right["answer"], right["reason"], right["count"]) == ("1/2", "equal", 4)
    assert {group["verdict"] for group in groups} == {"right", "no answer"}


def test_no_texts_no_browser(recall, tmp_path):
    assert browser.completions(Study(recall), tmp_path) is None


@pytest.mark.parametrize("number", [1, 3, 10])
def test_spread(number):
    assert len(browser.spread(list(range(7)), number)) == min(number, 7)
