"""`attach`: the model's own loss becomes the objective, and nothing else about the model changes."""

import copy
import math

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model

import manypaths
from batches import padded, sequences
from conftest import tiny_llama
from manypaths.objectives import OBJECTIVES, resolve
from naive import statistics as naive_statistics

V = 61
HYPERPARAMETERS = {"power": {"exponent": 0.5}, "sed": {"threshold": 0.2}}
PAIRS = sequences(V)


def attached(name, seed=0, **overrides):
    return manypaths.attach(tiny_llama(V, seed, **overrides), name, HYPERPARAMETERS.get(name))


def gradients_of(model):
    return {name: parameter.grad for name, parameter in model.named_parameters()}


def assert_close(got: dict, expected: dict, rtol=2e-5, atol=2e-7):
    assert set(got) == set(expected)
    for name in expected:
        torch.testing.assert_close(got[name], expected[name], rtol=rtol, atol=atol, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("name", OBJECTIVES)
def test_loss_and_gradients_are_those_of_full_logits(name):
    """The whole path once more from the model's logits: shift, pack, naive statistics, objective, mean."""
    model, batch = tiny_llama(V), padded(PAIRS)
    reference = tiny_llama(V, seed=1)
    objective = resolve(name, **HYPERPARAMETERS.get(name, {}))
    ours = manypaths.attach(copy.deepcopy(model), objective, reference=reference if objective.needs_reference else None)

    inputs = {key: values for key, values in batch.items() if key != "labels"}
    valid = batch["labels"][:, 1:] != -100
    z, z_ref = (m(**inputs).logits[:, :-1][valid] for m in (model, reference))
    labels = batch["labels"][:, 1:][valid]
    top_k = objective.hyperparameters.get("top_k", 3)
    loss = objective(naive_statistics(z, labels, z_ref.detach(), top_k)).mean()
    loss.backward()

    output = ours(**batch)
    output.loss.backward()
    torch.testing.assert_close(output.loss, loss, rtol=1e-5, atol=1e-6)
    assert_close(gradients_of(ours), gradients_of(model), rtol=1e-4, atol=1e-6)
    assert not any(parameter.requires_grad for parameter in reference.parameters()) or not objective.needs_reference


@pytest.mark.parametrize("name", OBJECTIVES)
@pytest.mark.parametrize("side", ("left", "right"))
def test_padding_does_not_matter(name, side):
    """A padded batch trains as its sequences alone do, with the divisor of all of them."""
    together, alone = attached(name), attached(name)
    together(**padded(PAIRS, side)).loss.backward()
    if not resolve(name, **HYPERPARAMETERS.get(name, {})).row_local:
        batch = padded(PAIRS, "left" if side == "right" else "right")
        alone(**batch).loss.backward()  # its selection sees the batch, so the same batch, padded on the other side
    else:
        total = sum(int((labels[1:] != -100).sum()) for _, labels in PAIRS)
        for ids, labels in PAIRS:
            alone(input_ids=ids[None], labels=labels[None], num_items_in_batch=total).loss.backward()
    assert_close(gradients_of(together), gradients_of(alone), rtol=1e-4, atol=2e-6)


def test_num_items_in_batch_is_the_divisor():
    model, batch = attached("nll"), padded(PAIRS)
    tokens = int((batch["labels"][:, 1:] != -100).sum())
    loss = model(**batch).loss
    for items in (2 * tokens, torch.tensor(2 * tokens)):
        assert model(**batch, num_items_in_batch=items).loss.item() == pytest.approx(loss.item() / 2)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_nothing_to_train_is_a_connected_zero(name):
    model, batch = attached(name), padded(PAIRS)
    batch["labels"] = torch.full_like(batch["labels"], -100)
    loss = model(**batch).loss
    loss.backward()
    assert loss.item() == 0
    assert all(g is not None and not g.any() for g in gradients_of(model).values())


def test_logits_are_never_built():
    output = attached("dft")(**padded(PAIRS))
    assert output.logits is None and output["loss"] is output.loss


def test_calls_without_labels_and_generation_are_untouched():
    model = tiny_llama(V).eval()
    ids = PAIRS[0][0][None]
    logits, text = model(ids).logits, model.generate(ids, max_new_tokens=8, do_sample=False)
    manypaths.attach(model, "gem")
    assert torch.equal(model(ids).logits, logits) and model(ids).loss is None
    assert torch.equal(model.generate(ids, max_new_tokens=8, do_sample=False), text)


def test_detach_gives_the_model_back():
    model, batch = tiny_llama(V), padded(PAIRS)
    before, keys = model(**batch), set(vars(model))
    manypaths.attach(model, "dft")
    assert model(**batch).loss != before.loss
    assert manypaths.detach(model) is model
    after = model(**batch)
    assert torch.equal(after.loss, before.loss) and torch.equal(after.logits, before.logits)
    assert set(vars(model)) == keys
    manypaths.attach(model, "nll")  # and again


def test_detach_keeps_an_earlier_patch():
    model = tiny_llama(V)
    model.forward = patch = lambda *args, **kwargs: type(model).forward(model, *args, **kwargs)
    manypaths.attach(model, "nll")
    model(**padded(PAIRS))
    assert manypaths.detach(model).forward is patch


def test_the_default_reference_is_the_model_as_attached():
    """So KL terms are nothing at first, and something once the model has moved."""
    model, batch = attached("asft"), padded(PAIRS)
    dft = attached("dft")
    assert model(**batch).loss.item() == pytest.approx(dft(**batch).loss.item(), rel=1e-6)
    with torch.no_grad():
        for m in (model, dft):
            m.lm_head.weight.mul_(3)
    assert model(**batch).loss.item() > dft(**batch).loss.item() + 1e-3


def test_training_lowers_each_loss():
    batch = padded(PAIRS)
    for name in ("nll", "sed", "gem", "eksft"):
        model = attached(name)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        losses = []
        for _ in range(4):
            losses.append(model(**batch).loss)
            optimizer.zero_grad()
            losses[-1].backward()
            optimizer.step()
        if name != "gem":  # its value is a game's, not a measure
            assert losses[-1] < losses[0], name
        with torch.no_grad():
            ce = manypaths.detach(model)(**batch).loss
        assert ce < tiny_llama(V)(**batch).loss, name


def test_state_dict_has_no_trace_of_it():
    model = tiny_llama(V)
    names = list(model.state_dict())
    assert list(manypaths.attach(model, "asft").state_dict()) == names


def test_refusals():
    model = attached("nll")
    with pytest.raises(ValueError, match="attached already; call"):
        manypaths.attach(model, "dft")
    with pytest.raises(ValueError, match="No objective is attached"):
        manypaths.detach(tiny_llama(V))
    with pytest.raises(ValueError, match=r"'sed' needs threshold: pass it in objective_kwargs.*SFTTrainer"):
        manypaths.attach(tiny_llama(V), "sed")
    with pytest.raises(ValueError, match="Did you mean sed"):
        manypaths.attach(tiny_llama(V), "sedd")
    with pytest.raises(ValueError, match=r"top_k = 61 .* must be below the vocabulary size 61"):
        manypaths.attach(tiny_llama(V), "eaft", {"top_k": V})
    with pytest.raises(ValueError, match="reference's vocabulary has 62 entries"):
        manypaths.attach(tiny_llama(V), "asft", reference=tiny_llama(V + 1))
    failed = tiny_llama(V)
    with pytest.raises(ValueError):
        manypaths.attach(failed, "sedd")
    assert "forward" not in vars(failed)


def test_labels_outside_the_vocabulary_name_their_place():
    model, batch = attached("nll"), padded(PAIRS)
    batch["labels"][1, 4] = V
    with pytest.raises(ValueError, match=f"Label {V} at sequence 1, position 3 is outside the vocabulary"):
        model(**batch)


def test_a_model_that_has_diverged_is_named():
    model = attached("nll")
    with torch.no_grad():
        model.model.norm.weight[0] = float("nan")
    with pytest.raises(ValueError, match="NaN or inf, first at sequence 0, position 1"):
        model(**padded(PAIRS))


def test_a_copy_of_an_attached_model_computes_with_its_own_weights():
    model = manypaths.attach(tiny_llama(50), "nll")
    ids = torch.randint(50, (2, 7))
    copied = copy.deepcopy(model)
    for parameter in copied.parameters():
        parameter.data.zero_()
    assert copied(input_ids=ids, labels=ids).loss.item() == pytest.approx(math.log(50), rel=1e-6)
    assert model(input_ids=ids, labels=ids).loss.item() != pytest.approx(math.log(50), rel=1e-4)
    assert manypaths.detach(copied)(input_ids=ids).logits.abs().max() == 0


def test_what_would_overlook_labels_or_corrupt_a_cache_is_refused():
    model = manypaths.attach(tiny_llama(50), "nll")
    ids = torch.randint(50, (2, 7))
    with pytest.raises(ValueError, match="by name"):
        model(ids, None, None, None, None, ids)
    cache = model(input_ids=ids, use_cache=True).past_key_values
    with pytest.raises(ValueError, match="past_key_values"):
        model(input_ids=ids, labels=ids, past_key_values=cache)
    with pytest.raises(ValueError, match="Pass labels aligned with input_ids and leave shift_labels out"):
        model(input_ids=ids, shift_labels=ids)
    with pytest.raises(ValueError, match="Leave return_dict at True"):
        model(input_ids=ids, labels=ids, return_dict=False)
    with pytest.raises(ValueError, match="The reference is the model itself"):
        other = tiny_llama(50)
        manypaths.attach(other, "asft", reference=other)


def test_input_ids_may_be_positional():
    model, ids = attached("asft"), PAIRS[0][0][None]
    assert torch.equal(model(ids, labels=ids).loss, model(input_ids=ids, labels=ids).loss)


def adapted(bias: str = "none") -> PeftModel:
    torch.manual_seed(0)
    config = LoraConfig(task_type="CAUSAL_LM", r=4, init_lora_weights=False, target_modules=["q_proj"], bias=bias)
    return get_peft_model(tiny_llama(V, attention_bias=True), config)


@pytest.mark.filterwarnings("ignore:Careful, disabling adapter", "ignore:.*takes the memory")
@pytest.mark.parametrize("bias", ("none", "all"))
def test_the_default_reference_of_an_adapter_is_the_base_it_started_on(bias):
    """An adapter that has learned something already, three steps on; a deep copy of the model trains alike."""
    with_base = manypaths.attach(adapted(bias), "asft", {"kl_weight": 10.0}, reference=tiny_llama(V, attention_bias=True))
    by_default = manypaths.attach(adapted(bias), "asft", {"kl_weight": 10.0})
    models, losses = (with_base, by_default, copy.deepcopy(by_default)), []
    for model in models:
        weights = [parameter for parameter in model.parameters() if parameter.requires_grad]
        optimizer = torch.optim.SGD(weights, lr=0.5)
        for _ in range(3):
            optimizer.zero_grad()
            losses.append(model(**padded(PAIRS)).loss)
            losses[-1].backward()
            optimizer.step()
    for start, model in ((3, models[1]), (6, models[2])):
        torch.testing.assert_close(losses[start : start + 3], losses[:3], rtol=1e-6, atol=1e-6)
        assert_close(gradients_of(model), gradients_of(with_base), rtol=1e-6, atol=1e-6)
