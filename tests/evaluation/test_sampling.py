import json

import pytest
import torch

from conftest import tiny_llama
from manypaths.evaluation.sampling import Sampling, encode_prompts, prompt_hash, sample, write_samples

PROMPTS = ["one two", "one two three four five six", "seven"]


def texts(drawn):
    return [[one.token_ids for one in row] for row in drawn]


def test_order_shape_and_length(model, tokenizer):
    drawn = sample(model, tokenizer, PROMPTS, Sampling(num_samples=3, max_new_tokens=4), batch_size=2)
    assert [len(row) for row in drawn] == [3, 3, 3]
    assert all(len(one.token_ids) <= 4 for row in drawn for one in row)


def test_greedy_in_a_padded_batch_is_greedy_alone(model, tokenizer):
    how = Sampling(temperature=0, max_new_tokens=6)
    together = sample(model, tokenizer, PROMPTS, how)
    alone = [sample(model, tokenizer, [prompt], how)[0] for prompt in PROMPTS]
    assert texts(together) == texts(alone)


def test_the_seed_decides_and_nothing_else_changes(model, tokenizer):
    model.train()
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    first = sample(model, tokenizer, PROMPTS, Sampling(num_samples=2, max_new_tokens=6, seed=1))
    assert model.training
    assert torch.equal(before, torch.random.get_rng_state())
    torch.randn(3)
    assert texts(sample(model, tokenizer, PROMPTS, Sampling(num_samples=2, max_new_tokens=6, seed=1))) == texts(first)
    assert texts(sample(model, tokenizer, PROMPTS, Sampling(num_samples=2, max_new_tokens=6, seed=2))) != texts(first)


def always(model, token):
    """A model whose every next token is `token`."""
    with torch.no_grad():
        model.lm_head.weight.zero_()
        model.model.norm.weight.fill_(1.0)
    bias = torch.full((model.config.vocab_size,), -1e4)
    bias[token] = 1e4
    model.lm_head = torch.nn.Linear(model.config.hidden_size, model.config.vocab_size)
    with torch.no_grad():
        model.lm_head.weight.zero_()
        model.lm_head.bias.copy_(bias)
    return model


def test_finished_means_an_end_token_came(model, tokenizer):
    ends, goes_on = always(tiny_llama(len(tokenizer)), tokenizer.eos_token_id), always(model, 20)
    (one,) = sample(ends, tokenizer, ["one"], Sampling(max_new_tokens=5))[0]
    assert (one.finished, one.token_ids, one.text) == (True, [tokenizer.eos_token_id], "")
    (other,) = sample(goes_on, tokenizer, ["one"], Sampling(max_new_tokens=5))[0]
    assert (other.finished, other.token_ids) == (False, [20] * 5)


def test_every_end_token_of_the_model_counts(model, tokenizer):
    model = always(model, 20)
    model.generation_config.eos_token_id = [tokenizer.eos_token_id, 20]
    (one,) = sample(model, tokenizer, ["one"], Sampling(max_new_tokens=5))[0]
    assert one.finished and one.token_ids == [20]


def test_defaults_of_the_model_file_do_not_cut_the_distribution(model, tokenizer):
    model.generation_config.top_k = 1
    model.generation_config.repetition_penalty = 9.0
    drawn = sample(model, tokenizer, ["one"], Sampling(num_samples=30, max_new_tokens=1))
    assert len({one.token_ids[0] for one in drawn[0]}) > 5


def test_conversations_get_the_template_with_the_answer_opened(tokenizer):
    (chat,) = encode_prompts(tokenizer, [[{"role": "user", "content": "one"}]])
    assert tokenizer.decode(chat).startswith("<|user|>")
    assert tokenizer.convert_tokens_to_ids("<|assistant|>") in chat
    assert encode_prompts(tokenizer, [[3, 4]]) == [[3, 4]]


def test_errors(model, tokenizer):
    with pytest.raises(ValueError, match="no prompt"):
        sample(model, tokenizer, [], Sampling())
    with pytest.raises(ValueError, match="Prompt 2 is empty"):
        sample(model, tokenizer, ["one", ""], Sampling())
    with pytest.raises(ValueError, match="3 equal samples"):
        Sampling(num_samples=3, temperature=0)
    with pytest.raises(ValueError, match="top_p must lie in"):
        Sampling(top_p=0)
    with pytest.raises(ValueError, match="num_samples must be at least 1, got 0"):
        Sampling(num_samples=0)
    template, tokenizer.chat_template = tokenizer.chat_template, None
    try:
        with pytest.raises(ValueError, match="no chat template"):
            sample(model, tokenizer, [[{"role": "user", "content": "one"}]], Sampling())
    finally:
        tokenizer.chat_template = template


def test_raw_texts_are_kept_with_their_grades(tmp_path, model, tokenizer):
    drawn = sample(model, tokenizer, PROMPTS, Sampling(num_samples=2, max_new_tokens=3))
    write_samples(tmp_path / "samples.jsonl", PROMPTS, drawn, [[1.0, 0.0]] * 3)
    rows = [json.loads(line) for line in (tmp_path / "samples.jsonl").read_text().splitlines()]
    assert [row["prompt"] for row in rows] == PROMPTS
    assert rows[1]["samples"][0]["text"] == drawn[1][0].text
    assert rows[1]["grades"] == [1.0, 0.0]


def test_the_hash_names_the_tokens(tokenizer):
    assert prompt_hash(tokenizer, PROMPTS) == prompt_hash(tokenizer, list(PROMPTS))
    assert prompt_hash(tokenizer, PROMPTS) != prompt_hash(tokenizer, PROMPTS[:2])


def test_the_models_own_generation_settings_stay_out_and_come_back(model, tokenizer):
    how = Sampling(num_samples=2, max_new_tokens=6, seed=3)
    plain = texts(sample(model, tokenizer, PROMPTS, how))
    model.generation_config.epsilon_cutoff = 0.5
    model.generation_config.encoder_repetition_penalty = 3.0
    model.generation_config.min_new_tokens = 6
    assert texts(sample(model, tokenizer, PROMPTS, how)) == plain
    assert model.generation_config.epsilon_cutoff == 0.5
