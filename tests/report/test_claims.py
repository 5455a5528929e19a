"""Verdicts on the recorded study, and how they turn when rows of its table are changed."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from manypaths.report import claims
from manypaths.report.compare import Study
from recorded_results import kept, moved, renamed

CONTROLS = ["CE, stopped early", "CE, matched temperature", "no SFT", "no SFT, sharpened"]


def asked(study, short):
    return next(question for question in claims.questions(study) if question.short == short)


def verdicts(results, short):
    study = Study(results)
    return {claim.row.method: claim.verdict for claim in claims.claims(study, asked(study, short))}


def test_questions_of_a_study(recall, coldstart):
    assert [question.short for question in claims.questions(Study(recall))] == [
        "accuracy before RL", "different right answers before RL", "solved in 64 tries before RL", "accuracy after RL",
        "solved in 64 tries after RL", "side tasks after RL",
    ]  # fmt: skip
    assert "old notation after RL" in [question.short for question in claims.questions(Study(coldstart))]


def test_nothing_is_said_about_rl_that_did_not_run(recall):
    study = Study(kept(recall, stage=["sft"]))
    made = [claims.claims(study, question) for question in claims.questions(study)]
    cards = [claims.card(study, question, own) for question, own in zip(claims.questions(study), made, strict=True)]
    said = " ".join([*(card.title + card.text + card.note for card in cards), *claims.overall(study, made)])
    assert cards and "RL" not in said


def test_verdicts_of_the_recorded_study(recall):
    assert verdicts(recall, "accuracy before RL") == {
        "SED": "behind", "GEM": "behind", "DFT": "clear", "EKSFT": "same",
    }  # fmt: skip
    assert set(verdicts(recall, "accuracy after RL").values()) == {"same"}, (
        "no gain in accuracy survives the correction"
    )
    assert verdicts(recall, "solved in 64 tries after RL")["GEM"] == "beaten"
    assert claims.overall(
        Study(recall), [claims.claims(Study(recall), one) for one in claims.questions(Study(recall))]
    )[1] == ("A control does better")


def test_the_family_is_every_comparison_of_the_question(recall):
    """Holm by hand over four methods, each against the baseline and three controls, after RL."""
    study = Study(recall)
    made = claims.claims(study, asked(study, "solved in 64 tries after RL"))
    table = recall.scores[(recall.scores["stage"] == "rl") & (recall.scores["metric"] == "pass@64")]
    table = table[table["task"] == "countdown"].pivot(index="seed", columns="method", values="value")
    others = ["CE", "CE, stopped early", "no SFT", "no SFT, sharpened"]
    pairs = [(method, other) for method in ("SED", "GEM", "DFT", "EKSFT") for other in others]
    p = np.array([stats.ttest_rel(table[method], table[other]).pvalue for method, other in pairs])
    order = np.argsort(p)
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(1, np.maximum.accumulate(p[order] * (len(p) - np.arange(len(p)))))
    for claim in made:
        differences = {study.baseline: claim.to_baseline} | {row.method: one for row, one in claim.to_controls.items()}
        for other, difference in differences.items():
            assert difference.adjusted == pytest.approx(adjusted[pairs.index((claim.row.method, other))])


def test_a_control_decides(recall):
    """GEM is ahead of CE in coverage after RL. What that is called depends on the controls alone."""
    short = "solved in 64 tries after RL"
    weak = recall
    for control in CONTROLS:
        weak = moved(weak, control, "rl", "pass@64", -0.3)
    assert verdicts(weak, short)["GEM"] == "clear"
    equal = moved(weak, "CE, stopped early", "rl", "pass@64", 0.3 - 0.023)
    assert verdicts(equal, short)["GEM"] == "matched"
    assert verdicts(recall, short)["GEM"] == "beaten"
    alone = kept(recall, method=["CE", "SED", "GEM", "DFT", "EKSFT"])
    assert verdicts(alone, short)["GEM"] == "unchecked"
    assert verdicts(moved(weak, "GEM", "rl", "pass@64", -0.3), short)["GEM"] == "behind"


def test_badges_follow_the_verdicts(recall):
    weak = recall
    for control in CONTROLS:
        weak = moved(weak, control, "rl", "pass@64", -0.3)
    study = Study(weak)
    question = asked(study, "solved in 64 tries after RL")
    card = claims.card(study, question, claims.claims(study, question))
    assert (card.tone, card.badge) == ("good", "Clear gain")
    assert "GEM" in card.text and "ahead of CE and of every control" in card.text
    made = [claims.claims(study, one) for one in claims.questions(study)]
    assert claims.overall(study, made)[:2] == ("good", "Clear gain in part")


def test_less_is_better_for_loss(experiment):
    """A method whose loss on given texts grows less is ahead, and untrained models are no control of forgetting."""
    study = Study(experiment)
    question = next(one for one in claims.questions(study) if one.metric == "ce_increase")
    assert question.better == -1
    assert not {study.controls[row.method] for row in claims.controls_of(study, question)} & set(claims.UNTRAINED)
    best = claims.leader(study, question, [row for row in study.main_rows if not study.is_control(row)])
    values = {row: study.estimate(row, question.stage, question.task, "ce_increase").value for row in study.rows[:2]}
    assert values[best] == min(values.values())


def test_ones_own_methods_get_verdicts_too(recall):
    own = renamed(recall, {"GEM": "my loss", "CE": "usual"})
    assert verdicts(own, "accuracy before RL")["my loss"] == "behind"
    study = Study(own)
    question = asked(study, "accuracy before RL")
    assert "usual" in claims.card(study, question, claims.claims(study, question)).text


def test_what_beats_what(recall):
    study = Study(recall)
    table = claims.what_beats_what(study, claims.questions(study))
    rows = {line.label: [cell.text for cell in line.cells] for line in table.lines}
    assert rows["accuracy after RL"][0] == "EKSFT" and rows["accuracy after RL"][1] == "CE, stopped early"
    assert rows["accuracy after RL"][3] == "cannot be told apart"
    assert rows["solved in 64 tries after RL"][3] == "no SFT is ahead"
    assert claims.what_beats_what(Study(kept(recall, method=["CE", "GEM"])), claims.questions(study)) is None


def test_untestable_differences_are_no_gain(recall):
    """Without limits and values per problem nothing can be told apart."""
    scores = recall.scores[recall.scores["seed"].isin([0.0])].assign(low=float("nan"), high=float("nan"))
    bare = replace(kept(recall, seed=[0]), scores=scores, items=recall.items.iloc[:0])
    assert set(verdicts(bare, "accuracy before RL").values()) == {"same"}
