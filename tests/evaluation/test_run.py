import json
import math

import pytest
import torch

from manypaths.evaluation.run import (
    ks,
    print_scores,
    record,
    sample_evidence,
    token_evidence,
    token_mean,
    write_results,
)
from manypaths.evaluation.sampling import Sample


def row(*probabilities, kl=None):
    logprob = torch.tensor(probabilities).log()
    statistics = {
        "logprob": logprob,
        "entropy": 2 * torch.ones_like(logprob),
        "is_top1": (logprob > -1).float(),
    }
    return statistics if kl is None else {**statistics, "kl_policy_ref": torch.full_like(logprob, kl)}


def samples(*texts):
    return [Sample(text, [1] * (len(text) + 1), text != "cut") for text in texts]


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
    assert token_mean([2.0], [2]) == {"value": 1.0, "low": None, "high": None}


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


def test_samples_with_grades():
    drawn = [samples("a b c d", "a b c d", "x", "cut"), samples("p", "q", "r", "s")]
    found = sample_evidence(drawn, [[1.0, 1.0, 0.5, 0.0], [0.0] * 4])
    scores = {name: score["value"] for name, score in found["scores"].items()}
    assert scores["pass@1"] == pytest.approx(0.25)
    assert scores["pass@2"] == pytest.approx((1 - 1 / 6) / 2)
    assert scores["pass@4"] == 0.5
    assert scores["mean_reward"] == pytest.approx((2.5 / 4 + 0) / 2)
    assert scores["distinct_answers"] == 3.5
    assert scores["finished"] == pytest.approx((0.75 + 1) / 2)
    assert found["per_prompt"]["num_correct"] == [2, 0]
    assert (found["num_prompts"], found["num_samples"]) == (2, 4)
    assert sample_evidence(drawn, [[1.0, 1.0, 0.5, 0.0], [0.0] * 4], correct_at=0.5)["per_prompt"]["num_correct"] == [
        3,
        0,
    ]


def test_samples_without_grades_and_with_a_reader_of_answers():
    found = sample_evidence([samples("so 7", "thus 7")], None, answer_of=lambda text: text[-1])
    assert found["scores"]["distinct_answers"]["value"] == 1
    assert not any(name.startswith("pass@") or name == "mean_reward" for name in found["scores"])
    assert "self_bleu" not in sample_evidence([samples("a")], None)["scores"]


@pytest.mark.parametrize(("n", "expected"), [(1, [1]), (2, [1, 2]), (6, [1, 2, 4, 6]), (8, [1, 2, 4, 8])])
def test_ks_end_with_all_samples(n, expected):
    assert ks(n) == expected


def test_results_file_and_table(tmp_path, capsys):
    part = sample_evidence([samples("a", "b"), samples("c", "d")], [[1.0, 0.0], [0.0, 0.0]])
    results = record({"model": "m"}, samples=part, tokens=None)
    path = write_results(results, tmp_path / "new")
    stored = json.loads(path.read_text())
    assert stored == results and stored["schema"] == 1 and "tokens" not in stored
    assert set(stored["versions"]) >= {"torch", "transformers", "trl"}
    print_scores("samples", part)
    assert "pass@2" in capsys.readouterr().out
