"""A reference on disk: the same KL and gradient as a live one, for the documents and the model that it was made of alone."""

import json

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import distributed
from torch.distributed.fsdp import fully_shard
from torch.nn.functional import pad

from batches import padded, sequences
from conftest import tiny_llama
from manypaths.engine import Projection, token_statistics
from manypaths.models.lm_head import HeadHook, hidden_states_of
from manypaths.models.reference_cache import HEAD, RECORD, ROWS, ReferenceCache, documents, identity_of

V = 61
DATA = {"documents": 3, "trained_tokens": 14}
KLS = ("kl_policy_ref", "kl_ref_policy")


def packed(pairs) -> dict[str, torch.Tensor]:
    """All sequences in one row, without padding."""
    ids, labels = (torch.cat(parts)[None] for parts in zip(*pairs, strict=True))
    positions = torch.cat([torch.arange(len(ids)) for ids, _ in pairs])[None]
    return {"input_ids": ids, "position_ids": positions, "labels": labels.where(positions > 0, -100)}


def split(batch) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    return {name: values for name, values in batch.items() if name != "labels"}, batch["labels"]


def live_projection(model, batch) -> Projection:
    inputs, _ = split(batch)
    return hidden_states_of(HeadHook(model.eval()), lambda: model(**inputs, use_cache=False))  # packed stay apart


def stored(folder, model, batch) -> ReferenceCache:
    cache = ReferenceCache(folder, identity_of(model))
    folder.mkdir(exist_ok=True)
    found, trained = documents(*split(batch))
    live = live_projection(model, batch)
    cache.write_head(live)
    cache.add(found, live.hidden_states[trained])
    cache.flush()
    cache.write_record(DATA, complete=True)
    cache.read()
    cache.load_head(model, torch.device("cpu"))
    return cache


def statistics(policy: Projection, reference: Projection, labels) -> tuple[dict, list[torch.Tensor]]:
    """The KLs of the policy's rows [B, S - 1] to the reference's, and their gradients at its hidden states and head."""
    hidden, weight = (part.detach().clone().requires_grad_() for part in (policy.hidden_states[:, :-1], policy.weight))
    target = reference._replace(hidden_states=reference.hidden_states[:, :-1])
    values = token_statistics(hidden, weight, labels[:, 1:], want=KLS, reference=target)
    make = torch.Generator().manual_seed(3)
    total = sum((torch.randn(value.shape, generator=make) * value).sum() for value in values.values())
    return values, list(torch.autograd.grad(total, (hidden, weight)))


def test_a_document_is_known_in_every_batch():
    pairs = sequences(V)
    expected, trained = documents(*split(padded(pairs)))
    assert len(expected) == 3 and sum(document.rows for document in expected) == int(trained.sum()) == 15
    assert documents(*split(padded(pairs, side="left")))[0] == expected
    assert documents(*split(packed(pairs)))[0] == expected
    assert documents(*split(padded(pairs[::-1])))[0] == expected[::-1]
    assert documents(*split(padded(pairs[1:2])))[0] == expected[1:2]
    plain = {name: values for name, values in padded(pairs).items() if name != "position_ids"}
    assert documents(*split(plain))[0] == expected


def test_another_mask_or_token_is_another_document():
    ((ids, labels),) = sequences(V, lengths=(6,))
    (document,), _ = documents(*split(padded([(ids, labels)])))
    fewer = labels.clone()
    fewer[3] = -100
    for other in ((ids, fewer), (ids[:-1], labels[:-1]), (ids.flip(0), labels)):
        assert documents(*split(padded([other])))[0] != [document]
    assert documents(*split(padded([(ids, torch.full_like(ids, -100))])))[0] == []


def test_a_label_behind_padding_is_refused():
    batch = padded(sequences(V, lengths=(3, 5)), side="left")
    batch["labels"] = batch["input_ids"].where(batch["attention_mask"].bool(), -100)
    with pytest.raises(ValueError, match="A label stands right behind padding"):
        documents(*split(batch))


@pytest.mark.parametrize("dtype", (torch.float32, torch.bfloat16))
@pytest.mark.parametrize("side", ("right", "left"))
def test_what_is_stored_is_what_the_live_reference_gave(dtype, side, tmp_path):
    """To the bit. Arranged in another batch a live one rounds otherwise."""
    model, policy = tiny_llama(V).to(dtype), tiny_llama(V, seed=1).to(dtype)
    before, now = packed(sequences(V)), padded(sequences(V), side)
    cache = stored(tmp_path / "cache", model, before)
    first, cached = live_projection(model, before), cache.projection(*split(before))
    assert torch.equal(cached.weight, first.weight) and cached[2:] == first[2:]
    rows = live_projection(policy, before)
    for expected, got in zip(*(statistics(rows, each, before["labels"]) for each in (first, cached)), strict=True):
        torch.testing.assert_close(got, expected, rtol=0, atol=0)

    live, cached = live_projection(model, now), cache.projection(*split(now))
    trained = {id(batch): pad(batch["labels"][:, 1:] != -100, (0, 1)) for batch in (before, now)}
    assert torch.equal(cached.hidden_states[trained[id(now)]], first.hidden_states[trained[id(before)]])
    rows = live_projection(policy, now)
    tolerance = {"rtol": 1e-4, "atol": 1e-6} if dtype == torch.float32 else {"rtol": 0.02, "atol": 0.02}
    for expected, got in zip(*(statistics(rows, each, now["labels"]) for each in (live, cached)), strict=True):
        torch.testing.assert_close(got, expected, **tolerance)


@pytest.mark.parametrize("size", (1e-4, 1e-2, 1.0, 30.0))
def test_what_wrong_hidden_states_cost_is_bounded(size):
    """docs/reference_cache.md: where they move a token's logits by errors of range rho, KL(p || r) is wrong by rho at most,

    and the gradient of either KL in the policy's logits by rho / 2 at most, summed over the vocabulary.
    """
    make = torch.Generator().manual_seed(0)
    z, right, error = (torch.randn(200, V, generator=make, dtype=torch.float64) * scale for scale in (3, 3, size))
    error[:50, 1:] = 0  # all of it at one token
    rho = error.amax(-1) - error.amin(-1)
    z.requires_grad_()
    p, logp = z.softmax(-1), z.log_softmax(-1)
    forward, backward = (
        [
            (p * (logp - logr)).sum(-1)
            if name == "kl_policy_ref"
            else (logr.exp() * (logr - logp)).sum(-1)
            for logr in (right.log_softmax(-1), (right + error).log_softmax(-1))
        ]
        for name in KLS
    )
    assert ((forward[0] - forward[1]).abs() <= rho + 1e-12).all()
    for kls in (forward, backward):
        first, second = (torch.autograd.grad(kl.sum(), z, retain_graph=True)[0] for kl in kls)
        apart = (first - second).abs().sum(-1)
        assert (apart <= rho / 2 + 1e-12).all() and apart.max() > 0.1 * min(size, 1)


def test_the_identity_is_that_of_the_starting_model():
    base = identity_of(tiny_llama(V))
    model = tiny_llama(V)
    model.config.name_or_path = "moved/elsewhere"
    assert identity_of(model) == base
    with torch.no_grad():
        model.model.layers[0].self_attn.q_proj.weight[0, 0] += 1e-6
    assert identity_of(model)["weights"] != base["weights"]
    assert identity_of(tiny_llama(V, rms_norm_eps=1e-5))["config"] != base["config"]
    assert identity_of(tiny_llama(V).bfloat16())["weights"] != base["weights"]
    adapter = LoraConfig(
        task_type="CAUSAL_LM", target_modules=["q_proj"], modules_to_save=["lm_head"], init_lora_weights=False
    )
    assert identity_of(get_peft_model(tiny_llama(V), adapter)) == base


def test_sharded_weights_are_refused():
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    try:
        with pytest.raises(ValueError, match=r"A cached reference .* model\.embed_tokens\.weight is sharded already"):
            identity_of(fully_shard(tiny_llama(V)))
    finally:
        distributed.destroy_process_group()


def test_a_head_that_never_trains_is_not_held_twice(tmp_path):
    model, batch = tiny_llama(V), padded(sequences(V))
    cache = stored(tmp_path / "cache", model, batch)
    assert cache.head.weight.data_ptr() != model.lm_head.weight.data_ptr()
    model.requires_grad_(False)
    cache.load_head(model, torch.device("cpu"))
    assert cache.head.weight.data_ptr() == model.lm_head.weight.data_ptr()
    with torch.no_grad():
        model.lm_head.weight.add_(1)
    cache.load_head(model, torch.device("cpu"))
    assert cache.head.weight.data_ptr() != model.lm_head.weight.data_ptr()


def test_another_model_or_batch_is_refused(tmp_path):
    model, batch = tiny_llama(V), padded(sequences(V))
    cache = stored(tmp_path / "cache", model, batch)
    with pytest.raises(ValueError, match=r"another reference \(weights: there '\w+', now '\w+'\)"):
        ReferenceCache(cache.folder, identity_of(tiny_llama(V, seed=1)))
    with pytest.raises(ValueError, match=r"another reference \(config\.rms_norm_eps: there 1e-06, now 1e-05;"):
        ReferenceCache(cache.folder, {**identity_of(tiny_llama(V, rms_norm_eps=1e-5)), "weights": ""})
    with pytest.raises(ValueError, match="1 of the 2 documents of this batch are not in"):
        cache.projection(*split(padded([*sequences(V)[:1], *sequences(V, lengths=(6,), seed=4)])))


def test_a_damaged_folder_is_refused(tmp_path):
    model, batch = tiny_llama(V), padded(sequences(V))
    cache = stored(tmp_path / "cache", model, batch)
    (rows,) = cache.folder.glob(ROWS)
    whole = rows.read_bytes()
    rows.write_bytes(whole[:-10])
    with pytest.raises(ValueError, match="is damaged or missing"):
        ReferenceCache(cache.folder, identity_of(model))
    rows.write_bytes(whole)
    (cache.folder / HEAD).unlink()
    with pytest.raises(ValueError, match=r"head\.safetensors is damaged or missing"):
        cache.load_head(model, torch.device("cpu"))
    (cache.folder / RECORD).unlink()
    with pytest.raises(ValueError, match=r"holds hidden states but no reference\.json"):
        ReferenceCache(cache.folder, identity_of(model))


def test_broken_hidden_states_are_not_stored(tmp_path):
    cache = ReferenceCache(tmp_path, identity_of(tiny_llama(V)))
    with pytest.raises(ValueError, match="The reference's hidden states hold NaN or inf"):
        cache.add([], torch.full((1, 4), torch.inf))


def test_the_record_says_what_it_is_of(tmp_path):
    cache = stored(tmp_path / "cache", tiny_llama(V), padded(sequences(V)))
    record = json.loads((cache.folder / RECORD).read_text())
    assert record["data"] == DATA and record["complete"]
