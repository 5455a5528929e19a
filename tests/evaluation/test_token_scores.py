import math

import pytest
import torch
from datasets import Dataset

from conftest import tiny_llama
from manypaths.evaluation.token_scores import (
    TEXT_METRICS,
    prepared_batches,
    reread,
    row_statistics,
    score_texts,
    text_estimates,
)
from manypaths.generation.samples import Sample
from manypaths.training.reduction import LOGGED

WITH_KL = (*LOGGED, "kl_policy_ref")


def logprobs_of(model, ids, temperature=1.0):
    """[S-1, V], by the full logits."""
    with torch.no_grad():
        return (model(torch.tensor([ids])).logits[0, :-1].double() / temperature).log_softmax(-1)


def row(logprobs, **others):
    columns = {"logprob": logprobs, "entropy": [1.0] * len(logprobs), "is_top1": [1.0] * len(logprobs), **others}
    return {name: torch.tensor(values) for name, values in columns.items()}


def test_statistics_are_those_of_the_full_logits_row_by_row(model, tokenizer, chats):
    batches = prepared_batches(model, tokenizer, chats.select(range(5)), 2)
    reference = tiny_llama(len(tokenizer), seed=1)
    rows = list(row_statistics(model, batches, WITH_KL, reference))
    assert len(rows) == 5
    expected = []
    for batch in batches:
        for ids, mask, labels in zip(batch["input_ids"], batch["attention_mask"], batch["labels"], strict=True):
            kept, labels = ids[mask == 1].tolist(), labels[mask == 1][1:]
            mine, other = logprobs_of(model, kept), logprobs_of(reference, kept)
            wanted = labels != -100
            chosen = mine[wanted].gather(1, labels[wanted][:, None])[:, 0]
            expected.append((chosen, (mine.exp() * (mine - other)).sum(-1)[wanted]))
    for statistics, (logprob, kl) in zip(rows, expected, strict=True):
        torch.testing.assert_close(statistics["logprob"].double(), logprob, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(statistics["kl_policy_ref"].double(), kl, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("temperature", [1.0, 0.5, 1.7])
def test_completions_read_again_have_the_entropy_and_kl_of_the_full_logits(model, tokenizer, temperature, monkeypatch):
    monkeypatch.setattr("manypaths.evaluation.token_scores.TOKENS_AT_A_TIME", 20)  # several batches, with padding
    reference = tiny_llama(len(tokenizer), seed=1)
    prompts = [[5, 6, 7], [8, 9], [10] * 6]
    generator = torch.Generator().manual_seed(0)
    samples = [
        [
            Sample("", torch.randint(5, 60, (length,), generator=generator).tolist(), "eos", length)
            for length in (2, 5, 4)
        ]
        for _ in prompts
    ]
    values = reread(model, reference, prompts, samples, temperature, 2)
    for place, prompt in enumerate(prompts):
        entropies, kls = [], []
        for sample in samples[place][:2]:
            ids = [*prompt, *sample.token_ids]
            mine, other = logprobs_of(model, ids, temperature), logprobs_of(reference, ids)
            entropies.append(-(mine.exp() * mine).sum(-1)[len(prompt) - 1 :])
            kls.append((mine.exp() * (mine - other)).sum(-1)[len(prompt) - 1 :])
        assert values["entropy"][place] == pytest.approx(float(torch.cat(entropies).mean()), rel=1e-4)
        assert values["kl_to_reference"][place] == pytest.approx(float(torch.cat(kls).mean()), rel=1e-3)


def test_a_softcap_is_tempered_with_the_logits(tokenizer):
    from transformers import Gemma2Config, Gemma2ForCausalLM

    torch.manual_seed(0)
    config = Gemma2Config(
        vocab_size=50, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=1, head_dim=8, final_logit_softcapping=0.5, pad_token_id=0, eos_token_id=1, bos_token_id=None,
    )  # fmt: skip
    model = Gemma2ForCausalLM(config).eval()
    with torch.no_grad():
        model.lm_head.weight.mul_(40)
    ids = [5, 6, 7, 8]
    values = reread(model, None, [ids[:2]], [[Sample("", ids[2:], "eos", 2)]], 0.3, 16)
    logprobs = logprobs_of(model, ids, 0.3)[1:]
    assert values == {"entropy": [pytest.approx(float(-(logprobs.exp() * logprobs).sum(-1).mean()), rel=1e-4)]}


def test_the_models_own_distance_is_zero_and_other_vocabularies_are_refused(model, tokenizer):
    samples = [[Sample("", [7, 8, 9], "eos", 3)]]
    values = reread(model, tiny_llama(len(tokenizer)), [[5, 6]], samples, 1.0, 16)
    assert abs(values["kl_to_reference"][0]) < 1e-6 and values["entropy"][0] > 0
    with pytest.raises(ValueError, match="vocabulary"):
        reread(model, tiny_llama(len(tokenizer) + 1), [[5, 6]], samples, 1.0, 16)


def test_greedy_answers_and_unknown_tokens_are_not_read_again(model):
    samples = [[Sample("", [7, 8], "eos", 2)], [Sample("x", None, None)]]
    assert reread(model, None, [[5], [6]], samples, 1.0, 16) == {}
    assert reread(model, None, [[5]], samples[:1], 0.0, 16) == {}


def test_only_completions_carry_loss(model, tokenizer, chats):
    (batch,) = prepared_batches(model, tokenizer, chats.select(range(1)), 8)
    kept = batch["labels"][0][batch["labels"][0] != -100]
    assert kept.tolist() == tokenizer(chats[0]["completion"] + "<eos>")["input_ids"]


def test_nothing_to_learn_is_an_error(model, tokenizer):
    rows = Dataset.from_list([{"input_ids": [3, 4], "labels": [-100, -100]}])
    with pytest.raises(ValueError, match="no trained token"):
        prepared_batches(model, tokenizer, rows, 2)


def test_scores_over_tokens_with_limits_over_texts():
    rows = [row([-1.0, -3.0]), row([-2.0]), row([-2.0, -2.0, -2.0])]
    scores = text_estimates(rows)
    assert scores["ce"].value == 2.0 and (scores["ce"].n, scores["ce"].over) == (3, "texts")
    assert scores["ce"].low == scores["ce"].high == 2.0  # every text has the mean
    assert scores["perplexity"].value == pytest.approx(math.exp(2.0))
    assert scores["top1"].value == scores["text_entropy"].value == 1.0
    assert scores["p_label_p10"].value == pytest.approx(math.exp(-3)) and scores["p_label_p10"].low is None
    assert scores["p_label_p90"].value == pytest.approx(math.exp(-1))
    uneven = text_estimates([row([-1.0] * 9), row([-5.0]), row([-2.0])])["ce"]
    assert uneven.value == pytest.approx(16 / 11) and uneven.low < uneven.value < uneven.high


def test_against_a_reference_differences_are_paired():
    rows = [row([-1.0, -1.0], kl_policy_ref=[0.5, 0.1]), row([-4.0], kl_policy_ref=[0.3]),
            row([-2.0], kl_policy_ref=[0.0])]  # fmt: skip
    others = [{"logprob": torch.tensor(values)} for values in ([-0.5, -0.5], [-3.5], [-2.5])]
    scores = text_estimates(rows, others)
    assert set(scores) == set(TEXT_METRICS)
    assert scores["reference_ce"].value == pytest.approx(7 / 4)
    assert scores["ce_increase"].value == pytest.approx((1.0 + 0.5 - 0.5) / 4)
    assert scores["perplexity_ratio"].value == pytest.approx(math.exp(0.25))
    assert scores["text_kl_to_reference"].value == pytest.approx(0.9 / 4)
    assert scores["worse"].value == pytest.approx(2 / 3)


def test_a_hopeless_text_has_a_finite_perplexity():
    assert math.isfinite(text_estimates([row([-2000.0])])["perplexity"].value)


def test_texts_of_data_become_rows_of_the_tables(model, tokenizer, chats):
    part = score_texts("chats", model, tokenizer, chats.select(range(4)), tiny_llama(len(tokenizer), seed=1))
    assert {line["metric"] for line in part.scores} == set(TEXT_METRICS)
    assert {(line["task"], line["over"]) for line in part.scores} == {("chats", "texts")}
    assert [(line["item"], line["metric"]) for line in part.items] == [(str(place), "ce") for place in range(4)]
    counts = [len(tokenizer(chats[place]["completion"] + "<eos>")["input_ids"]) for place in range(4)]
    total = sum(line["value"] * count for line, count in zip(part.items, counts, strict=True))
    assert part.scores[0]["value"] == pytest.approx(total / sum(counts))
