import math

import pytest
import torch

from manypaths.evaluation.tokens import token_evidence, token_mean


def row(*probabilities, kl=None):
    logprob = torch.tensor(probabilities).log()
    statistics = {
        "logprob": logprob,
        "entropy": 2 * torch.ones_like(logprob),
        "is_top1": (logprob > -1).float(),
    }
    return statistics if kl is None else {**statistics, "kl_policy_ref": torch.full_like(logprob, kl)}


def test_token_scores_weigh_every_token_alike():
    found = token_evidence([row(0.5, 0.25), row(0.125)])
    ce = (1 + 2 + 3) * math.log(2) / 3
    scores = found["scores"]
    assert scores["ce"]["value"] == pytest.approx(ce)
    assert scores["perplexity"]["value"] == pytest.approx(math.exp(ce))
    assert scores["perplexity"]["low"] == pytest.approx(math.exp(scores["ce"]["low"]))
    assert scores["top1"]["value"] == pytest.approx(1 / 3)
    assert scores["entropy"]["value"] == pytest.approx(2.0)
    assert scores["p_label_p50"]["value"] == pytest.approx(0.25)
    assert (found["num_rows"], found["num_tokens"]) == (2, 3)
    assert "kl_to_reference" not in scores
    assert token_evidence([row(0.5, kl=0.25)])["scores"]["kl_to_reference"]["value"] == pytest.approx(0.25)


def test_interval_of_equal_rows_is_that_of_their_means():
    found = token_mean([2.0, 4.0, 6.0], [2, 2, 2])
    half = 4.302653 / math.sqrt(3)  # t quantile for 2 degrees of freedom, deviation 1
    assert (found["value"], found["low"], found["high"]) == pytest.approx((2.0, 2 - half, 2 + half), rel=1e-5)
    assert token_mean([2.0], [2]) == {"value": 1.0, "low": None, "high": None, "n": 1}


def test_interval_covers_the_truth_for_rows_of_unequal_length():
    generator = torch.Generator().manual_seed(0)
    covered = 0
    for _ in range(400):
        counts = torch.randint(1, 30, (40,), generator=generator).tolist()
        level = torch.randn(40, generator=generator).tolist()  # rows differ, and longer rows weigh more
        found = token_mean([mean * count for mean, count in zip(level, counts, strict=True)], counts)
        covered += found["low"] <= 0 <= found["high"]
    assert 0.91 <= covered / 400 <= 0.98


def test_no_tokens_is_an_error():
    with pytest.raises(ValueError, match="nothing to measure"):
        token_evidence([])
