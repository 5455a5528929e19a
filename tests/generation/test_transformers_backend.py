import copy
import math
from collections import Counter

import numpy as np
import pytest
import torch
from transformers import LogitsProcessorList, TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from conftest import tiny_llama
from manypaths.generation.prompts import encode_prompts
from manypaths.generation.samples import (
    Request,
    Sampling,
    check_context,
    cut_batches,
    request_seed,
    requests_for,
    uniforms,
)
from manypaths.generation.transformers_backend import (
    DrawFromStreams,
    cut_distribution,
    sample,
    suitable_batch_size,
    transformers_backend,
)

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


def test_errors(model, tokenizer):
    with pytest.raises(ValueError, match="Prompt 2 is empty"):
        sample(model, tokenizer, ["one", ""], Sampling())
    with pytest.raises(ValueError, match="3 equal samples"):
        Sampling(num_samples=3, temperature=0)
    with pytest.raises(ValueError, match="top_p must lie in"):
        Sampling(top_p=0)
    with pytest.raises(ValueError, match="num_samples must be at least 1, got 0"):
        Sampling(num_samples=0)


def test_the_models_own_generation_settings_stay_out_and_come_back(model, tokenizer):
    how = Sampling(num_samples=2, max_new_tokens=6, seed=3)
    plain = texts(sample(model, tokenizer, PROMPTS, how))
    model.generation_config.epsilon_cutoff = 0.5
    model.generation_config.encoder_repetition_penalty = 3.0
    model.generation_config.min_new_tokens = 6
    assert texts(sample(model, tokenizer, PROMPTS, how)) == plain
    assert model.generation_config.epsilon_cutoff == 0.5


def requests(tokenizer, sampling, prompts=PROMPTS):
    return requests_for(encode_prompts(tokenizer, prompts), sampling)


def in_order(backend, wanted, done=()):
    return [one for _, one in sorted(backend.draw(wanted, done), key=lambda pair: pair[0])]


def test_draws_depend_on_no_batch_and_no_neighbour(model, tokenizer):
    how = Sampling(num_samples=4, max_new_tokens=8, seed=3)
    wanted = requests(tokenizer, how)
    together = in_order(transformers_backend(model, tokenizer, 64), wanted)
    assert len({tuple(one.token_ids) for one in together}) > 9
    for size in (1, 2, 5):
        again = in_order(transformers_backend(model, tokenizer, size), wanted)
        assert [one.token_ids for one in again] == [one.token_ids for one in together]
        assert [one.logprob for one in again] == pytest.approx([one.logprob for one in together], rel=1e-5)
    for position in (0, 7):
        (alone,) = in_order(transformers_backend(model, tokenizer, 3), [wanted[position]])
        assert alone.token_ids == together[position].token_ids


def test_a_run_that_goes_on_draws_exactly_the_rest_in_the_same_batches(model, tokenizer):
    wanted = requests(tokenizer, Sampling(num_samples=3, max_new_tokens=5))
    backend = transformers_backend(model, tokenizer, 4)
    whole = list(backend.draw(wanted, ()))
    done = {position for position, _ in whole[:6]}  # the second batch was half written
    calls = []
    generate, model.generate = (
        model.generate,
        lambda **given: calls.append(len(given["input_ids"])) or generate(**given),
    )
    rest = list(backend.draw(wanted, done))
    assert rest == whole[6:]  # to the last bit of the log-probabilities
    assert calls == [4, 1]
    assert list(backend.draw(wanted, set(range(9)))) == []


def test_requests_of_several_kinds_are_batched_apart(model, tokenizer):
    cool, hot = (
        Sampling(num_samples=2, temperature=0.5, max_new_tokens=4),
        Sampling(num_samples=2, temperature=1.5, max_new_tokens=6),
    )
    mixed = [one for pair in zip(requests(tokenizer, cool), requests(tokenizer, hot), strict=True) for one in pair]
    assert [len(batch) for batch in cut_batches(mixed, 4)] == [4, 2, 4, 2]
    order = [position for batch in cut_batches(mixed, 4)[:2] for position in batch]
    assert [mixed[position].index for position in order] == [0, 0, 0, 1, 1, 1]
    lengths = [len(mixed[position].prompt_ids) for position in order]
    assert lengths == 2 * sorted(lengths[:3], reverse=True)

    drawn = in_order(transformers_backend(model, tokenizer, 4), mixed)
    assert [one.token_ids for one in drawn[::2]] == [
        one.token_ids for one in in_order(transformers_backend(model, tokenizer, 4), requests(tokenizer, cool))
    ]


def test_more_samples_leave_the_batches_of_earlier_ones_as_they_are(tokenizer):
    def batches(number):
        wanted = requests(tokenizer, Sampling(num_samples=number, max_new_tokens=4))
        return [
            [(len(wanted[place].prompt_ids), wanted[place].index) for place in batch]
            for batch in cut_batches(wanted, 3)
        ]

    assert batches(4)[:2] == batches(2) and len(batches(2)) == 2


def test_every_seed_prompt_and_index_has_its_own_stream():
    def stream(prompt=(1, 2, 3), seed=0, index=0, most=50):
        return uniforms(Request(prompt, Sampling(9, max_new_tokens=most, seed=seed), index)).tolist()

    streams = [stream(), stream(seed=1), stream(index=1), stream((1, 2)), stream((12, 3)), stream(seed=10, index=0)]
    assert len({number for numbers in streams for number in numbers}) == 300
    assert stream(most=80)[:50] == stream((1, 2, 3)) == stream([1, 2, 3])
    assert stream()[:2] == [0.7804991885803425, 0.9258436109269166]  # the same on every machine and for ever
    many = [number for index in range(40) for number in stream(index=index)]
    assert min(many) >= 0 and max(many) < 1 and sum(many) / len(many) == pytest.approx(0.5, abs=0.03)
    seeds = {request_seed(Request([1], Sampling(99), index)) for index in range(99)}
    assert len(seeds) == 99 and all(0 <= seed < 2**63 for seed in seeds)


def biased(model, logits):
    """A model whose next token always has these logits."""
    head = torch.nn.Linear(model.config.hidden_size, model.config.vocab_size)
    with torch.no_grad():
        head.weight.zero_()
        head.bias.copy_(logits)
    model.lm_head = head
    return model


def logits_of(size, probabilities):
    logits = torch.full((size,), -torch.inf)
    for token, probability in probabilities.items():
        logits[token] = math.log(probability)
    return logits


def test_frequencies_are_those_of_the_distribution(model, tokenizer):
    wanted = {20: 0.5, 21: 0.25, 30: 0.2, 40: 0.05}
    biased(model, logits_of(len(tokenizer), wanted))
    how = Sampling(num_samples=400, max_new_tokens=10, seed=1)
    (drawn,) = sample(model, tokenizer, ["one"], how, batch_size=400)
    counts = Counter(token for one in drawn for token in one.token_ids)
    assert set(counts) == set(wanted)
    total = sum(counts.values())
    chi_square = sum((counts[token] - total * p) ** 2 / (total * p) for token, p in wanted.items())
    assert total == 4000 and chi_square < 11.3  # 99 % quantile with 3 degrees of freedom
    first, second = ([one.token_ids[place] for one in drawn] for place in (0, 1))
    both = Counter(zip(first, second, strict=True))
    assert both[20, 20] / 400 == pytest.approx(0.25, abs=0.07)  # one token does not tell the next


@pytest.mark.parametrize("temperature, top_k, top_p", [(0.7, 0, 1.0), (1.0, 7, 1.0), (1.3, 0, 0.8), (0.9, 9, 0.5)])
def test_the_distribution_is_cut_as_transformers_cuts_it(temperature, top_k, top_p):
    torch.manual_seed(0)
    scores = 3 * torch.randn(50, 200)
    scores[:, 5] = scores[:, 4]  # a tie
    warpers = LogitsProcessorList([TemperatureLogitsWarper(temperature)])
    warpers += [TopKLogitsWarper(top_k)] if top_k else []
    warpers += [TopPLogitsWarper(top_p)] if top_p < 1 else []
    cut = cut_distribution(None, scores, Sampling(temperature=temperature, top_k=top_k, top_p=top_p))
    assert torch.equal(cut, warpers(None, scores))
    assert top_k == 0 or int(cut.isfinite().sum(dim=-1).max()) <= top_k + 1


def test_cuts_reach_the_draws(model, tokenizer):
    biased(model, logits_of(len(tokenizer), {20: 0.4, 21: 0.3, 30: 0.2, 40: 0.1}))

    def tokens(**how):
        (drawn,) = sample(model, tokenizer, ["one"], Sampling(num_samples=60, max_new_tokens=4, **how))
        return {token for one in drawn for token in one.token_ids}

    assert tokens() == {20, 21, 30, 40}
    assert tokens(top_k=2) == {20, 21}
    assert tokens(top_p=0.65) == {20, 21}
    assert tokens(top_p=0.3) == tokens(temperature=0.01) == {20}


@pytest.mark.parametrize("top_k, top_p", [(0, 1.0), (12, 0.9)])
def test_logprob_is_that_of_the_distribution_drawn_from(model, tokenizer, top_k, top_p):
    model.generation_config.eos_token_id = list(range(1, 16))  # so that some answers end early
    how = Sampling(num_samples=4, temperature=0.8, top_k=top_k, top_p=top_p, max_new_tokens=6)
    stops = set()
    for prompt, drawn in zip(PROMPTS, sample(model, tokenizer, PROMPTS, how), strict=True):
        ids = tokenizer(prompt)["input_ids"]
        for one in drawn:
            logits = model(torch.tensor([ids + one.token_ids])).logits[0, len(ids) - 1 : -1]
            logprobs = cut_distribution(None, logits, how).double().log_softmax(dim=-1)
            again = logprobs.gather(1, torch.tensor(one.token_ids)[:, None]).sum()
            assert one.logprob == pytest.approx(again.item(), rel=1e-4)
            assert one.num_tokens == len(one.token_ids)
            stops.add(one.stop)
    assert stops == {"eos", "length"}


def test_greedy_answers_were_not_drawn_and_have_no_logprob(model, tokenizer):
    (one,) = sample(model, tokenizer, ["one"], Sampling(temperature=0, max_new_tokens=3))[0]
    assert one.logprob is None and one.stop in ("eos", "length")


def test_a_tokenizer_without_pad_token_and_a_stop_in_mid_batch(model, tokenizer):
    bare = copy.deepcopy(tokenizer)
    bare.pad_token = None
    how = Sampling(num_samples=3, max_new_tokens=8)
    model.generation_config.eos_token_id = list(range(1, 16))
    assert sample(model, bare, PROMPTS, how) == sample(model, tokenizer, PROMPTS, how)
    lengths = {one.num_tokens for row in sample(model, bare, PROMPTS, how) for one in row}
    assert len(lengths) > 2
    bare.eos_token, model.generation_config.eos_token_id = None, None
    with pytest.raises(ValueError, match="no answer could ever end"):
        transformers_backend(model, bare)


def test_unusual_logits_and_memory_are_errors(model, tokenizer, monkeypatch):
    for how in (Sampling(), Sampling(temperature=0)):
        broken = biased(tiny_llama(len(tokenizer)), torch.full((len(tokenizer),), torch.nan))
        with pytest.raises(ValueError, match="logits are not numbers"):
            sample(broken, tokenizer, ["one"], how)

    def full(**given):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(model, "generate", full)
    own = model.generation_config
    with pytest.raises(ValueError, match=r"Out of memory with 2 samples at once .* lower --batch_size"):
        sample(model, tokenizer, PROMPTS, Sampling(), batch_size=2)
    assert model.generation_config is own


def test_the_longest_prompt_beyond_the_context_is_named(model, tokenizer):
    wanted = requests_for([[3] * 10, [3] * 250, [3] * 252], Sampling(max_new_tokens=7))
    names = ["of aime24 5", "of aime24 6", "of aime24 7"]
    check_context(model.config, wanted[:1], names)
    with pytest.raises(
        ValueError,
        match=r"Prompt of aime24 7 has 252 .* 256 .* \(2 prompts are too long\): set .* to 4 or",
    ):
        check_context(model.config, wanted, names)
    long = requests_for([[3] * 256], Sampling(max_new_tokens=7))
    with pytest.raises(ValueError, match=r"Prompt of aime24 7 has 256 tokens.* shorten or leave the prompt out"):
        check_context(model.config, long, names[2:])
    check_context(model.config, requests_for([[3] * 250], Sampling(max_new_tokens=6)), names)
    del model.config.max_position_embeddings
    check_context(model.config, wanted, names)


def test_mode_and_random_states_are_left_alone_between_batches(model, tokenizer):
    model.train()
    model.lm_head.eval()
    own, torch_state, numpy_state = model.generation_config, torch.get_rng_state(), np.random.get_state()[1].copy()
    for _ in transformers_backend(model, tokenizer, 2).draw(
        requests(tokenizer, Sampling(num_samples=2, max_new_tokens=3)), ()
    ):
        assert model.training and not model.lm_head.training and model.generation_config is own
        assert torch.equal(torch_state, torch.get_rng_state())
        assert np.array_equal(numpy_state, np.random.get_state()[1])


def test_the_ends_of_the_unit_interval_never_draw_an_impossible_token():
    torch.manual_seed(0)
    scores = torch.randn(200, 60)
    scores[:, :7] = scores[:, -9:] = -torch.inf
    batch = [Request([5], Sampling(num_samples=200, max_new_tokens=1), index) for index in range(200)]
    for point, place in ((0.0, 7), (1 - 2.0**-53, 50)):
        drawing = DrawFromStreams(batch, 1, [1], torch.device("cpu"))
        drawing.uniforms = torch.full((200, 1), point, dtype=torch.float64)
        left = drawing(torch.zeros(200, 1, dtype=torch.long), scores)
        assert left.argmax(dim=-1).tolist() == [place] * 200
        assert (left.isfinite().sum(dim=-1) == 1).all() and drawing.logprob.isfinite().all()


def test_a_model_in_training_mode_draws_without_dropout(tokenizer):
    model = tiny_llama(len(tokenizer), attention_dropout=0.9)
    how = Sampling(num_samples=3, max_new_tokens=6)
    expected = texts(sample(model.eval(), tokenizer, PROMPTS, how))
    assert texts(sample(model.train(), tokenizer, PROMPTS, how)) == expected


def test_small_models_get_large_batches(model, tokenizer):
    requests = requests_for([[5, 6]], Sampling(max_new_tokens=8))
    assert suitable_batch_size(model, requests) == 1024
    model.config.vocab_size = 20_000
    assert suitable_batch_size(model, requests) == 1024
    model.config.vocab_size = 200_000
    assert suitable_batch_size(model, requests) == 128
    model.config.vocab_size = 2_000_000
    assert suitable_batch_size(model, requests) == 64
