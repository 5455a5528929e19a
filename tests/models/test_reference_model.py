"""Reference models: frozen, untouched by training, without dropout, of the same vocabulary."""

import copy

import pytest
import torch
from peft import LoraConfig, get_peft_model

from batches import padded, sequences
from conftest import tiny_llama
from manypaths.models.reference_model import frozen_copy, is_peft, reference_of

V = 61


def inputs() -> dict[str, torch.Tensor]:
    return {name: values for name, values in padded(sequences(V)).items() if name != "labels"}


def hidden(model) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(**inputs(), output_hidden_states=True).hidden_states[-1]


def lora_model(attention_dropout=0.0, **options):
    torch.manual_seed(0)
    config = LoraConfig(task_type="CAUSAL_LM", r=4, init_lora_weights=False, lora_dropout=0.5, **options)
    return get_peft_model(tiny_llama(V, attention_dropout=attention_dropout), config)


def test_a_frozen_copy_shares_nothing_and_never_trains():
    model = tiny_llama(V).train()
    frozen = frozen_copy(model)
    before = copy.deepcopy(frozen.state_dict())
    assert not frozen.training and not any(parameter.requires_grad for parameter in frozen.parameters())
    assert model.training and all(parameter.requires_grad for parameter in model.parameters())
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1)
    assert all(torch.equal(before[name], value) for name, value in frozen.state_dict().items())


def test_a_patched_forward_is_not_copied():
    """An instance's forward is bound to the original: a copy of it would follow the training."""
    model = tiny_llama(V)
    model.forward = lambda *args, **kwargs: pytest.fail("the original's forward ran")
    frozen_copy(model)(**inputs())


def test_the_reference_stays_where_the_model_started():
    model = tiny_llama(V)
    expected = hidden(model)
    reference = reference_of(model, None)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.5)
    projection = reference(model, inputs())
    torch.testing.assert_close(projection.hidden_states, expected)
    assert not projection.hidden_states.requires_grad and not projection.weight.requires_grad


def test_dropout_belongs_to_the_policy():
    model = tiny_llama(V, attention_dropout=0.5).train()
    reference = reference_of(model, None)
    assert torch.equal(reference(model, inputs()).hidden_states, reference(model, inputs()).hidden_states)
    peft = lora_model(attention_dropout=0.5, target_modules=["q_proj"]).train()
    reference = reference_of(peft, None)
    assert torch.equal(reference(peft, inputs()).hidden_states, reference(peft, inputs()).hidden_states)
    assert peft.training


def test_of_a_peft_model_the_base_under_the_adapter():
    base, model = tiny_llama(V), lora_model(target_modules=["q_proj", "v_proj"])
    assert is_peft(model) and not is_peft(base)
    reference = reference_of(model, None)
    projection = reference(model, inputs())
    torch.testing.assert_close(projection.hidden_states, hidden(base))
    torch.testing.assert_close(projection.weight, base.lm_head.weight.detach())
    assert not torch.allclose(hidden(model), hidden(base), atol=1e-3)  # and the adapter is on again


def test_of_a_peft_model_with_its_own_head_the_original_head():
    base, model = tiny_llama(V), lora_model(target_modules=["q_proj"], modules_to_save=["lm_head"])
    with torch.no_grad():
        model.get_output_embeddings().modules_to_save["default"].weight.add_(1)
    projection = reference_of(model, None)(model, inputs())
    torch.testing.assert_close(projection.weight, base.lm_head.weight.detach())
    torch.testing.assert_close(projection.hidden_states, hidden(base))


def test_a_reference_from_a_folder(tmp_path):
    other = tiny_llama(V, seed=5)
    other.save_pretrained(tmp_path)
    projection = reference_of(tiny_llama(V), str(tmp_path))(None, inputs())
    torch.testing.assert_close(projection.hidden_states, hidden(other))


def test_a_reference_takes_the_models_dtype(tmp_path):
    tiny_llama(V, seed=5).save_pretrained(tmp_path)
    projection = reference_of(tiny_llama(V).bfloat16(), str(tmp_path))(None, inputs())
    assert projection.hidden_states.dtype == projection.weight.dtype == torch.bfloat16


def test_another_vocabulary_is_refused(tmp_path):
    tiny_llama(V + 3).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="reference's vocabulary has 64 entries, the model's 61: the KL is undefined"):
        reference_of(tiny_llama(V), str(tmp_path))
