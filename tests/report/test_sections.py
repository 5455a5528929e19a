"""Which sections a report has, and what stands in them."""

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from manypaths.evaluation.table import score_frame
from manypaths.report.compare import Study
from manypaths.report.sections import report_of
from manypaths.report.table import Alert, Card, Table
from recorded_results import kept


def made(results):
    return report_of(Study(results), Path())


def section(report, title):
    return next((one for one in report.sections if one.title == title), None)


def cells(table):
    return {
        line.label: [f"{cell.text}{cell.mark} {cell.spread}".strip() for cell in line.cells] for line in table.lines
    }


def test_a_recorded_study(recall):
    report = made(recall)
    assert report.title == "Most problems have many right answers. What does fine-tuning on one of them leave?"
    assert (report.tone, report.badge) == ("bad", "A control does better")
    assert dict(report.facts) == {
        "methods": "5", "controls": "4", "seeds": "6", "problems": "200", "samples each": "64",
    }  # fmt: skip
    assert [one.title for one in report.sections if not one.folded] == [
        "What beats what", "Question by question", "Accuracy and diversity", "One sample and many", "All scores in one place",
        "What was forgotten", "Token scores of given texts", "Training",
    ]  # fmt: skip
    scores = section(report, "All scores in one place").parts[0]
    assert scores.title == "Scores, before RL"
    assert cells(scores)["GEM"] == [
        "39.2 ± 0.8", "71.4 ± 1.3", "89.4 ± 2.1", "2.06 ± 0.08", "87.1 ± 1.1", "0.253 ± 0.005", "0.416 ± 0.017", "80.7 ± 1.7",
    ]  # fmt: skip
    assert cells(scores)["no SFT"][0] == "28.3† ± 2.5", "an untrained row has intervals over problems, and says so"
    assert "† 95 % intervals over test problems" in scores.note


def test_differences_are_marked_after_correction(recall):
    table = section(made(recall), "All scores in one place").parts[3]
    assert table.title == "Differences to CE, after RL"
    assert cells(table)["GEM"][2].startswith("+4.8*")
    assert cells(table)["EKSFT"][0] == "+4.7 ± 2.9", "its interval leaves out zero, the correction does not"
    assert "CE" not in cells(table) and "Holm's correction over the 56 differences" in table.note


def test_what_was_left_out_and_why(coldstart):
    table = section(made(coldstart), "Not run, or failed").parts[0]
    assert {line.label for line in table.lines} == {"no SFT, sharpened"}
    assert any("choose a target in between" in cell.text for cell in table.lines[0].cells)


def test_a_failed_method_links_to_its_log(recall, tmp_path):
    entry = {
        "method": "mine",
        "stage": "sft",
        "seed": 1,
        "reason": "loss is not finite",
        "log": str(tmp_path / "a/log.txt"),
    }
    report = report_of(Study(replace(recall, left_out=[entry])), tmp_path)
    assert section(report, "Not run, or failed").parts[0].lines[0].cells[-1].link == "a/log.txt"


def test_one_seed_is_said_to_be_one(experiment):
    report = made(experiment)
    assert "fewer than three seeds" in report.lead
    titles = [panel.title for part in section(report, "Training").parts[:1] for panel in part.panels]
    assert "reward, RL" in titles and "cross-entropy, SFT" in titles and "loss (of this objective), RL" not in titles
    assert {line.label for line in section(report, "Not run, or failed").parts[0].lines} >= {
        "CE, averaged with the base"
    }


def test_two_evaluations(evaluations):
    report = made(evaluations)
    assert report.title == "Which model does best: base or CE?"
    assert "RL" not in " ".join(
        [
            report.lead,
            report.verdict,
            *(part.title for one in report.sections for part in one.parts if isinstance(part, Card)),
        ]
    )
    matched = section(report, "Diversity is not temperature").parts
    assert [type(part).__name__ for part in matched] == ["Figure", "Table"]
    assert [line.label for line in matched[1].lines] == ["CE"]


def test_a_lone_evaluation(evaluations):
    report = made(kept(evaluations, method=["base"], temperature=[0.6]))
    assert (report.title, report.badge, report.lead) == ("What can base do?", "", "")
    accuracy = section(report, "Accuracy by benchmark").parts[0]
    assert isinstance(accuracy, Table) and len(accuracy.lines) == 1
    assert section(report, "Question by question") is None


def test_a_lone_evaluation_over_temperatures(evaluations):
    report = made(kept(evaluations, method=["CE"]))
    assert section(report, "What may distort the numbers") is None, "other temperatures are what was asked for"
    assert (report.badge, section(report, "Question by question")) == ("", None)
    figure = section(report, "Diversity is not temperature").parts[0]
    assert figure.series == ["CE"], "one line, whose colour and mark are known"
    table = section(report, "All scores in one place").parts[1]
    assert table.title == "Differences to CE, T=0.6" and [line.label for line in table.lines] == [
        "CE, T=1",
        "CE, T=1.4",
    ]


def test_distorted_scores_are_an_alert_and_marked(evaluations):
    scores = evaluations.scores.copy()
    hit = (scores["method"] == "CE") & (scores["temperature"] == 1.4)
    scores.loc[hit, "flags"] = "truncated"
    scores.loc[hit & (scores["metric"] == "truncated"), "value"] = 0.3
    report = made(replace(evaluations, scores=scores))
    alert = section(report, "What may distort the numbers").parts[0]
    assert isinstance(alert, Alert) and "cut off" in alert.title and alert.where == ["CE, T=1.4: Countdown 30%"]
    assert "‡" in cells(section(report, "All scores in one place").parts[0])["CE, T=1.4"][0]


def test_models_that_were_sampled_otherwise_are_told(evaluations):
    tasks = [
        {**task, "sampling": {**task["sampling"], "max_new_tokens": 99}} if task["method"] == "CE" else task
        for task in evaluations.tasks
    ]
    alert = section(made(replace(evaluations, tasks=tasks)), "What may distort the numbers").parts[0]
    assert any("max_new_tokens: 8 (base, T=0.6); 99 (CE, T=0.6)" in line for line in alert.where)


@pytest.fixture
def general(experiment):
    """The experiment with general tasks, as `--forgetting` adds them."""
    rows = []
    for method, change in (("CE", -0.05), ("SED", -0.02)):
        for task, metric, value in (
            ("arc_challenge", "base_score", 0.5), ("arc_challenge", "tuned_score", 0.5 + change),
            ("arc_challenge", "change", change), ("lm-eval", "alignment_tax", -change),
        ):  # fmt: skip
            rows.append({"method": method, "stage": "rl", "seed": 0, "task": task, "metric": metric, "value": value,
                         "low": value - 0.01, "high": value + 0.01, "n": 100, "over": "items", "unit": "share"})  # fmt: skip
    return replace(experiment, scores=pd.concat([experiment.scores, score_frame(rows)], ignore_index=True))


def test_general_tasks(general):
    report = made(general)
    tables = section(report, "What was forgotten").parts
    table = next(part for part in tables if isinstance(part, Table) and part.title.startswith("General tasks"))
    assert cells(table)["SED"] == ["-2.0 ± 1.0", "2.0 ± 1.0"]
    cards = {card.title: card for card in section(report, "Question by question").parts}
    card = cards["Which model forgets least of general tasks after RL?"]
    assert "SED is ahead of CE" in card.text and card.tone == "open"
