import pytest
import torch
from datasets import Dataset

from conftest import tiny_llama
from manypaths.training.evidence import prepared_batches, row_statistics


def test_statistics_are_those_of_the_full_logits_row_by_row(tmp_path, model, tokenizer, chats):
    rows = chats.select(range(5))
    batches = prepared_batches(model, tokenizer, rows, 2)
    reference = tiny_llama(len(tokenizer), seed=1)
    found = list(row_statistics(model, batches, reference))
    assert len(found) == 5
    expected = []
    for batch in batches:
        with torch.no_grad():
            logprobs, others = (
                one(batch["input_ids"], attention_mask=batch["attention_mask"]).logits[:, :-1].log_softmax(-1)
                for one in (model, reference)
            )
        kl = (logprobs.exp() * (logprobs - others)).sum(-1)
        labels = batch["labels"][:, 1:]
        for place, wanted in enumerate(labels != -100):
            chosen = logprobs[place, wanted].gather(1, labels[place, wanted][:, None])[:, 0]
            expected.append((chosen, kl[place, wanted]))
    for row, (logprob, kl) in zip(found, expected, strict=True):
        torch.testing.assert_close(row["logprob"], logprob, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(row["kl_policy_ref"], kl, rtol=1e-3, atol=1e-5)


def test_only_completions_carry_loss(model, tokenizer, chats):
    (batch,) = prepared_batches(model, tokenizer, chats.select(range(1)), 8)
    kept = batch["labels"][0][batch["labels"][0] != -100]
    assert kept.tolist() == tokenizer(chats[0]["completion"] + "<eos>")["input_ids"]


def test_the_model_s_own_distance_is_zero_and_other_vocabularies_are_refused(model, tokenizer, chats):
    batches = prepared_batches(model, tokenizer, chats.select(range(2)), 8)
    same = list(row_statistics(model, batches, tiny_llama(len(tokenizer))))
    assert all(row["kl_policy_ref"].abs().max() < 1e-6 for row in same)
    with pytest.raises(ValueError, match="vocabulary"):
        list(row_statistics(model, batches, tiny_llama(len(tokenizer) + 1)))


def test_nothing_to_learn_is_an_error(model, tokenizer):
    rows = Dataset.from_list([{"input_ids": [3, 4], "labels": [-100, -100]}])
    with pytest.raises(ValueError, match="no trained token"):
        prepared_batches(model, tokenizer, rows, 2)
