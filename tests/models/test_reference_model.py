"""Reference models: frozen, untouched by training, without dropout, of the same vocabulary."""

import copy
import warnings

import pytest
import torch
from peft import LoraConfig, PrefixTuningConfig, get_peft_model
from torch import distributed, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import Replicate
from torch.distributed.tensor.parallel import ColwiseParallel, parallelize_module
from transformers import GraniteConfig, GraniteForCausalLM

from batches import padded, sequences
from conftest import tiny_llama
from manypaths.models.lm_head import HeadHook
from manypaths.models.reference_model import adapter_switched_off, frozen, frozen_copy, is_peft, reference_of

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


def unfrozen_norms() -> nn.Module:
    model = lora_model(target_modules=["q_proj"])
    for name, parameter in model.named_parameters():
        if "norm" in name:
            parameter.requires_grad_(True)
    return model


def prefix() -> nn.Module:
    torch.manual_seed(0)
    return get_peft_model(tiny_llama(V), PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3))


def prefix_and_norms() -> nn.Module:
    model = prefix()
    model.get_base_model().model.norm.requires_grad_(True)
    return model


def biased(bias: str) -> nn.Module:
    base = tiny_llama(V, attention_bias=True)
    config = LoraConfig(task_type="CAUSAL_LM", r=4, init_lora_weights=False, target_modules=["q_proj"], bias=bias)
    return get_peft_model(base, config)


ADAPTERS = {
    "adapter alone": (lambda: lora_model(target_modules=["q_proj"]), adapter_switched_off),
    "embeddings and head saved": (
        lambda: lora_model(target_modules=["q_proj"], modules_to_save=["lm_head", "embed_tokens"]), adapter_switched_off
    ),
    "trainable tokens": (lambda: lora_model(target_modules=["q_proj"], trainable_token_indices=[4]), adapter_switched_off),
    "prefix": (prefix, adapter_switched_off),
    "all biases": (lambda: biased("all"), frozen),
    "biases of the adapter": (lambda: biased("lora_only"), frozen),
    "unfrozen norms": (unfrozen_norms, frozen),
    "prefix and a norm": (prefix_and_norms, frozen),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:Careful, disabling adapter layers")
@pytest.mark.parametrize("case", ADAPTERS)
def test_the_reference_of_an_adapter_stays_whatever_trains(case):
    make, kind = ADAPTERS[case]
    model = make()
    flags = [parameter.requires_grad for parameter in model.parameters()]
    with model.disable_adapter():
        expected = hidden(model)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        reference = reference_of(model, None)
    assert reference.func is kind
    assert any("memory" in str(warning.message) for warning in caught) == (kind is frozen)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.5)
    torch.testing.assert_close(reference(model, inputs()).hidden_states, expected, rtol=1e-6, atol=1e-6)
    assert [parameter.requires_grad for parameter in model.parameters()] == flags


def test_a_reference_follows_the_inputs_to_their_device():
    other = tiny_llama(V, seed=5)
    expected, weights = hidden(other), copy.deepcopy(other.state_dict())
    reference = reference_of(tiny_llama(V), other.to("meta"))
    other.model.rotary_emb = tiny_llama(V).model.rotary_emb  # its buffers are no weights
    other.to = lambda device: other.load_state_dict(weights, assign=True)
    torch.testing.assert_close(reference(None, inputs()).hidden_states, expected)


@pytest.fixture
def one_rank():
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


def test_a_head_of_tensor_parallelism_is_refused(one_rank):
    model = tiny_llama(V)
    parallelize_module(model, init_device_mesh("cpu", (1,)), {"lm_head": ColwiseParallel(output_layouts=Replicate())})
    with pytest.raises(ValueError, match="Keep lm_head out of the tensor-parallel plan"):
        HeadHook(model)(lambda: model(**inputs()), lambda projection: ())


def test_the_head_of_a_sharded_reference_outlives_its_forward(one_rank):
    other = fully_shard(tiny_llama(V, seed=1), reshard_after_forward=True)
    reference, expected = (reference_of(tiny_llama(V), model) for model in (other, tiny_llama(V, seed=1)))
    hidden_states, weight = reference(None, inputs())[:2]
    assert weight.untyped_storage().size()  # FSDP frees what it gathered; to read that ends the process
    assert torch.equal(hidden_states, expected(None, inputs()).hidden_states)
    assert torch.equal(weight, expected(None, inputs()).weight)


@pytest.mark.parametrize("seed", range(3))
def test_what_mixed_precision_rounds_is_read_before(one_rank, seed):
    """FSDP2 rounds what the wrapped model returns; neither the logits' scale nor the model's own loss are read off that."""
    torch.manual_seed(seed)
    sizes = dict(vocab_size=V, hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=4)
    model = GraniteForCausalLM(GraniteConfig(**sizes, num_key_value_heads=2, logits_scaling=0.3, pad_token_id=0))
    half = MixedPrecisionPolicy(torch.bfloat16, torch.float32, output_dtype=torch.bfloat16)
    fully_shard(model, mp_policy=half)
    hook = HeadHook(model)
    assert hook(lambda: model(**inputs()), lambda projection: ()).output.logits.dtype == torch.bfloat16
    assert hook.transform == (None, pytest.approx(1 / 0.3, rel=1e-6))


@pytest.mark.parametrize("seed", range(3))
def test_a_models_own_loss_is_checked_though_fsdp_rounds_its_logits(one_rank, seed):
    model = tiny_llama(V, seed, initializer_range=0.3)
    half = MixedPrecisionPolicy(torch.bfloat16, torch.float32, output_dtype=torch.bfloat16)
    fully_shard([model.model.norm, model.lm_head], mp_policy=half)  # as accelerate does
    hook = HeadHook(fully_shard(model, mp_policy=half))
    assert hook(lambda: model(**inputs()), lambda projection: (projection.weight,)).result[0].dtype == torch.bfloat16


def test_a_model_that_zero3_has_partitioned_cannot_be_copied_without_its_engine():
    model = tiny_llama(V)
    model.lm_head.weight.ds_id = 0
    with pytest.raises(ValueError, match="or use SFTTrainer"):
        reference_of(model, None)


def test_a_sharded_model_cannot_be_copied(one_rank):
    model = tiny_llama(V)
    fully_shard(model.lm_head)
    fully_shard(model)
    with pytest.raises(ValueError, match="Attach before fully_shard, pass reference="):
        reference_of(model, None)
    reference = reference_of(model, tiny_llama(V))
    assert torch.equal(reference(None, inputs()).hidden_states, reference_of(tiny_llama(V), None)(None, inputs())[0])
