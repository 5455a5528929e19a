import json

import pytest

from manypaths.worlds import evaluate, load_base
from manypaths.worlds.world import WORLDS

SMALL = dict(num_prompts=60, num_samples=16)


@pytest.fixture(scope="module")
def results():
    return {world: evaluate(load_base(world)[0], world, **SMALL) for world in WORLDS}


def value(result, name):
    return result["scores"][name]["value"]


def test_recall_base_is_diverse_but_inaccurate(results):
    recall = results["recall"]
    assert 0.18 < value(recall, "pass@1") < 0.36
    assert value(recall, "pass@16") > 0.8
    assert 1.5 < value(recall, "distinct_correct") < 4.5
    assert 0.4 < value(recall, "entropy") < 0.7
    assert value(recall, "side_tasks") > 0.8
    assert 0.45 < value(recall, "base_countdown_loss") < 0.65
    assert recall["sampling"]["truncated"] < 0.02


def test_coldstart_base_fails_in_the_new_notation_and_knows_the_old(results):
    coldstart = results["coldstart"]
    assert not any(coldstart["per_prompt"]["num_correct"])
    assert value(coldstart, "pass@16") == value(coldstart, "greedy") == 0.0
    assert 0.15 < value(coldstart, "old_pass@1") < 0.36
    assert value(coldstart, "old_pass@16") > 0.8
    assert value(coldstart, "side_translate") > 0.95


@pytest.mark.parametrize("world", WORLDS)
def test_result_has_the_promised_form(results, world):
    result = results[world]
    scores = (
        {f"pass@{k}" for k in (1, 2, 4, 8, 16)}
        | {
            "greedy",
            "distinct_correct",
            "self_bleu",
            "entropy",
            "kl_to_base",
            "side_tasks",
            "base_countdown_loss",
        }
        | {f"side_{task}" for task in WORLDS[world].mixture if task != "countdown"}
    )
    if world == "coldstart":
        scores |= {"old_pass@1", "old_pass@16"}
    assert set(result["scores"]) == scores
    for score in result["scores"].values():
        assert score["low"] <= score["value"] <= score["high"]
    for name in ("num_correct", "num_distinct", "greedy", "entropy", "kl_to_base"):
        assert len(result["per_prompt"][name]) == 60
    assert len(result["prompt_hash"]) == 64
    assert json.loads(json.dumps(result)) == result


def test_base_has_no_distance_to_itself_but_to_another_world(results):
    assert value(results["recall"], "kl_to_base") == pytest.approx(0.0, abs=1e-5)
    model, other = load_base("recall")[0], load_base("coldstart")[0]
    assert value(evaluate(model, "recall", base=other, num_prompts=5, num_samples=4), "kl_to_base") > 0.01


def test_same_seed_same_result_other_seed_other_samples(results):
    model = load_base("recall")[0]
    assert evaluate(model, "recall", **SMALL) == results["recall"]
    other = evaluate(model, "recall", seed=1, **SMALL)
    assert other["per_prompt"]["num_correct"] != results["recall"]["per_prompt"]["num_correct"]
    assert other["prompt_hash"] == results["recall"]["prompt_hash"]
    for name in ("greedy", "side_tasks", "base_countdown_loss"):
        assert other["scores"][name] == results["recall"]["scores"][name]


def test_heat_raises_entropy_and_lowers_self_bleu(results):
    hot = evaluate(load_base("recall")[0], "recall", temperature=1.5, **SMALL)
    assert value(hot, "entropy") > value(results["recall"], "entropy") + 0.1
    assert value(hot, "self_bleu") < value(results["recall"], "self_bleu")
    assert value(hot, "greedy") == value(results["recall"], "greedy")


@pytest.mark.parametrize("wrong", [dict(num_samples=1), dict(temperature=0.0), dict(num_prompts=294)])
def test_impossible_requests_are_refused(wrong):
    with pytest.raises(ValueError, match=r"num_samples|num_prompts"):
        evaluate(load_base("recall")[0], "recall", **wrong)
