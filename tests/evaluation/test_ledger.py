import math

import numpy as np
import pytest
import torch

from manypaths.evaluation.ledger import ledger
from manypaths.evaluation.tokens import token_mean

LENGTHS = (3, 7, 1, 12, 5, 9)


def rows(lengths=LENGTHS, seed=0):
    generator = torch.Generator().manual_seed(seed)
    base = [{"logprob": -3 * torch.rand(length, generator=generator)} for length in lengths]
    tuned = [
        {
            "logprob": row["logprob"] - 0.4 * torch.rand(len(row["logprob"]), generator=generator) + 0.1,
            "kl_policy_ref": torch.rand(len(row["logprob"]), generator=generator),
        }
        for row in base
    ]
    return tuned, base


def test_values_equal_the_naive_computation_over_all_tokens():
    tuned, base = rows()
    after = -torch.cat([row["logprob"] for row in tuned]).double().mean().item()
    before = -torch.cat([row["logprob"] for row in base]).double().mean().item()
    kl = torch.cat([row["kl_policy_ref"] for row in tuned]).double().mean().item()
    worse = [t["logprob"].double().sum() < b["logprob"].double().sum() for t, b in zip(tuned, base, strict=True)]
    found = ledger(tuned, base)
    expected = {
        "base_perplexity": math.exp(before),
        "tuned_perplexity": math.exp(after),
        "difference": after - before,
        "perplexity_ratio": math.exp(after - before),
        "kl_to_base": kl,
        "worse": sum(map(float, worse)) / len(worse),
    }
    assert {name: score["value"] for name, score in found["scores"].items()} == pytest.approx(expected, rel=1e-12)
    assert all(score["n"] == len(LENGTHS) for score in found["scores"].values())
    assert (found["num_texts"], found["num_tokens"]) == (len(LENGTHS), sum(LENGTHS))


def test_the_difference_is_paired_over_texts():
    tuned, base = rows()
    sums = [float((b["logprob"] - t["logprob"]).double().sum()) for t, b in zip(tuned, base, strict=True)]
    expected = token_mean(sums, LENGTHS)
    scores = ledger(tuned, base)["scores"]
    assert scores["difference"]["low"] == pytest.approx(expected["low"], rel=1e-5)
    assert scores["perplexity_ratio"]["high"] == pytest.approx(math.exp(expected["high"]), rel=1e-5)
    width = scores["difference"]["high"] - scores["difference"]["low"]
    alone = np.log([scores["base_perplexity"][limit] for limit in ("low", "high")])
    assert width < 0.5 * (alone[1] - alone[0])  # the texts' own spread has dropped out


def test_the_same_model_is_exactly_even():
    _, base = rows()
    tuned = [{**row, "kl_policy_ref": torch.zeros(len(row["logprob"]))} for row in base]
    scores = ledger(tuned, base)["scores"]
    for name, value in (("difference", 0.0), ("perplexity_ratio", 1.0), ("kl_to_base", 0.0)):
        assert [scores[name][part] for part in ("value", "low", "high")] == [value] * 3
    assert scores["worse"]["value"] == scores["worse"]["low"] == 0.0
    assert scores["worse"]["high"] == pytest.approx(1 - 0.025 ** (1 / 6))  # the exact limit for 0 of 6


def test_a_single_text_has_no_interval():
    tuned, base = rows((4,))
    scores = ledger(tuned, base)["scores"]
    worse = scores.pop("worse")
    assert (
        worse["high"] - worse["low"] == pytest.approx(0.975) and worse["n"] == 1
    )  # one yes or no says next to nothing
    for score in scores.values():
        assert (score["low"], score["high"], score["n"]) == (None, None, 1)


def test_an_enormous_perplexity_stays_a_number():
    base = [{"logprob": torch.full((2,), -2000.0)}, {"logprob": torch.full((2,), -1000.0)}]
    tuned = [{**row, "kl_policy_ref": torch.zeros(2)} for row in base]
    assert math.isfinite(ledger(tuned, base)["scores"]["base_perplexity"]["high"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tuned, base: (tuned.clear(), base.clear()), "There is no text"),
        (lambda tuned, base: base.pop(), "scored 6 texts and the base 5"),
        (lambda tuned, base: base[1].update(logprob=torch.zeros(8)), "Text 2 has 7 tokens for the tuned model, 8 for"),
        (lambda tuned, base: tuned[1].update(kl_policy_ref=torch.zeros(6)), "and 6 KL values"),
        (lambda tuned, base: tuned[0].pop("kl_policy_ref"), "Text 1 of the tuned model has no kl_policy_ref"),
        (lambda tuned, base: base[2].update(logprob=torch.tensor([-math.inf])), "Text 3 of the base model has a logp"),
        (lambda tuned, base: tuned[2].update(kl_policy_ref=torch.tensor([math.nan])), "kl_policy_ref that is not fin"),
    ],
)
def test_rows_that_do_not_match_are_refused(change, message):
    tuned, base = rows()
    change(tuned, base)
    with pytest.raises(ValueError, match=message):
        ledger(tuned, base)


def test_texts_without_tokens_are_refused():
    empty = torch.zeros(0)
    with pytest.raises(ValueError, match="Text 1 has 0 tokens"):
        ledger([{"logprob": empty, "kl_policy_ref": empty}], [{"logprob": empty}])
