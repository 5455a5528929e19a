"""The head hook: cross-entropy through it is each architecture's own, to the gradient of every parameter."""

import copy
import math

import pytest
import torch
import transformers as hf
from peft import LoraConfig, get_peft_model
from torch import nn

import manypaths
from batches import padded, sequences
from conftest import tiny_llama
from manypaths.models.lm_head import PROBE, HeadHook, Transform, fit_transform, hidden_states_of, plain_head

V = 61
COMMON = dict(
    vocab_size=V, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
    num_key_value_heads=2, max_position_embeddings=64, pad_token_id=0, bos_token_id=1, eos_token_id=2,
)  # fmt: skip
NO_DROPOUT = dict(attn_pdrop=0, embd_pdrop=0, resid_pdrop=0)
EXPERTS = dict(router_aux_loss_coef=0.05, output_router_logits=True)
ARCHITECTURES = {
    "llama": (hf.LlamaConfig, {}),
    "llama tied": (hf.LlamaConfig, dict(tie_word_embeddings=True)),
    "qwen2": (hf.Qwen2Config, {}),
    "gemma2 softcap": (hf.Gemma2Config, dict(head_dim=8, final_logit_softcapping=3.0)),
    "cohere scale": (hf.CohereConfig, dict(logit_scale=0.25)),
    "granite scale": (hf.GraniteConfig, dict(logits_scaling=8.0)),
    "gpt2": (hf.GPT2Config, dict(n_embd=32, n_layer=2, n_head=4, n_positions=64, **NO_DROPOUT)),
    "mixtral experts": (hf.MixtralConfig, dict(num_local_experts=4, **EXPERTS)),
    "qwen3 experts": (
        hf.Qwen3MoeConfig,
        dict(num_experts=4, num_experts_per_tok=2, moe_intermediate_size=16, decoder_sparse_step=1, **EXPERTS),
    ),
}  # fmt: skip


def build(architecture: str) -> nn.Module:
    config_class, overrides = ARCHITECTURES[architecture]
    torch.manual_seed(0)
    model = hf.AutoModelForCausalLM.from_config(config_class(**{**COMMON, **overrides}))
    if "tied" not in architecture and model.get_output_embeddings().weight is not model.get_input_embeddings().weight:
        nn.init.normal_(model.get_output_embeddings().weight, std=0.5)  # logits large enough for a softcap to bite
    else:
        nn.init.normal_(model.get_output_embeddings().weight, std=0.3)
    return model


def batch(side="right"):
    return padded(sequences(V), side)


def gradients_of(model, loss):
    model.zero_grad()
    loss.backward()
    return {name: parameter.grad for name, parameter in model.named_parameters() if parameter.requires_grad}


def assert_same_training(plain, ours, inputs, rtol=2e-5, atol=2e-6):
    expected = plain(**inputs).loss
    got = ours(**inputs).loss
    torch.testing.assert_close(got, expected, rtol=rtol, atol=atol)
    theirs, mine = gradients_of(plain, expected), gradients_of(ours, got)
    assert set(theirs) == set(mine)
    for name, gradient in theirs.items():
        if gradient is None:
            assert mine[name] is None, name
        else:
            torch.testing.assert_close(mine[name], gradient, rtol=rtol, atol=atol, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("side", ("right", "left"))
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_nll_through_the_hook_is_the_models_own_loss(architecture, side):
    model = build(architecture)
    ours = manypaths.attach(copy.deepcopy(model), "nll")
    inputs = batch(side)
    assert_same_training(model, ours, inputs)
    assert_same_training(model, ours, inputs)  # the second call, after the transform is known
    if model.config.get_text_config().to_dict().get("output_router_logits"):
        output = ours(**inputs)
        aux = EXPERTS["router_aux_loss_coef"] * output.aux_loss
        assert aux > 0.01 and output.loss > aux


@pytest.mark.parametrize("architecture", ("llama", "gemma2 softcap"))
def test_gradient_checkpointing_changes_nothing(architecture):
    model = build(architecture).train()
    ours = manypaths.attach(copy.deepcopy(model), "nll")
    ours.gradient_checkpointing_enable()
    assert_same_training(model, ours, batch())


@pytest.mark.parametrize("architecture", ("llama", "gemma2 softcap", "cohere scale"))
def test_bf16_and_autocast_stay_near_the_models_own(architecture):
    inputs = batch()
    low = build(architecture).bfloat16()
    expected = low(**inputs).loss.item()
    assert manypaths.attach(low, "nll")(**inputs).loss.item() == pytest.approx(expected, rel=5e-3)
    model = build(architecture)
    ours = manypaths.attach(copy.deepcopy(model), "nll")
    with torch.autocast("cpu", torch.bfloat16):
        assert ours(**inputs).loss.item() == pytest.approx(model(**inputs).loss.item(), rel=5e-3)
    assert ours(**inputs).loss.dtype == torch.float32


@pytest.mark.parametrize("logit_scale", (1.0, 0.0625, 1 / 9, 0.30078125, 8.0, -0.5, 12.75))
@pytest.mark.parametrize("softcap", (None, 1.0, 3.0, 15.0, 30.0, 1000.0))
def test_fit_transform_reads_scale_and_softcap(softcap, logit_scale):
    probe = torch.tensor(PROBE) * logit_scale
    probe = probe if softcap is None else torch.tanh(probe / softcap) * softcap
    fitted = fit_transform(probe)
    assert fitted.logit_scale == pytest.approx(logit_scale, rel=1e-5)
    assert fitted.softcap is None if softcap is None else fitted.softcap == pytest.approx(softcap, rel=1e-5)


@pytest.mark.parametrize(
    "change",
    [lambda x: x + 1, torch.relu, torch.sigmoid, lambda x: x * x, lambda x: x * math.nan, torch.atan,
     lambda x: x.clamp(-20, 20)],
    ids=("offset", "relu", "sigmoid", "square", "nan", "atan", "clamp"),
)  # fmt: skip
def test_fit_transform_refuses_what_it_cannot_express(change):
    with pytest.raises(ValueError, match="more than a scale and a tanh softcap"):
        fit_transform(change(torch.tensor(PROBE)))


@pytest.mark.parametrize(
    ("architecture", "transform"),
    [("llama", Transform()), ("gemma2 softcap", Transform(3.0, 1.0)), ("cohere scale", Transform(None, 0.25)),
     ("granite scale", Transform(None, 0.125))],
)  # fmt: skip
def test_the_transform_is_read_off_the_model(architecture, transform):
    hook = HeadHook(build(architecture))
    projection = hidden_states_of(hook, lambda: hook.model(input_ids=batch()["input_ids"]))
    assert hook.transform == pytest.approx(transform, rel=1e-6) if transform.softcap else hook.transform == transform
    assert projection[3:] == tuple(hook.transform) and projection.weight.shape == (V, 32)
    assert not projection.hidden_states.requires_grad and not projection.weight.requires_grad


def test_a_transform_that_changes_between_calls_is_noticed():
    model = manypaths.attach(build("granite scale"), "nll")
    model(**batch())
    model.config.logits_scaling = 4.0
    with pytest.raises(ValueError, match="transform changed from"):
        model(**batch())


def test_reading_the_transform_does_not_move_the_random_numbers():
    model = tiny_llama(V, attention_dropout=0.5).train()
    manypaths.attach(model, "nll")
    torch.manual_seed(3)
    first = model(**batch()).loss
    torch.manual_seed(3)
    assert torch.equal(model(**batch()).loss, first)
    torch.manual_seed(4)
    assert not torch.equal(model(**batch()).loss, first)  # dropout was on


def lora(**options) -> nn.Module:
    torch.manual_seed(0)
    return get_peft_model(tiny_llama(V), LoraConfig(task_type="CAUSAL_LM", r=4, init_lora_weights=False, **options))


@pytest.mark.parametrize("dora", (False, True), ids=("lora", "dora"))
def test_an_adapter_on_the_head_is_refused(dora):
    with pytest.raises(ValueError, match=r"not a plain linear layer.*Remove 'lm_head' from target_modules"):
        manypaths.attach(lora(target_modules=["q_proj", "lm_head"], use_dora=dora), "nll")


class QuantisedLinear(nn.Linear):
    def forward(self, x):
        return super().forward(x)


def test_a_head_with_a_forward_of_its_own_is_refused():
    model = tiny_llama(V)
    model.lm_head = QuantisedLinear(32, V)
    with pytest.raises(ValueError, match="QuantisedLinear, not a plain linear layer"):
        HeadHook(model)


@pytest.mark.parametrize(
    "options",
    [dict(target_modules=["q_proj", "v_proj"]), dict(target_modules=["q_proj"], modules_to_save=["lm_head"])],
    ids=("adapter in the body", "trained copy of the head"),
)
def test_peft_models_train_as_without_the_hook(options):
    model = lora(**options)
    assert_same_training(model, manypaths.attach(copy.deepcopy(model), "nll"), batch())


def test_the_trained_copy_of_a_head_and_the_original_are_told_apart():
    model = lora(target_modules=["q_proj"], modules_to_save=["lm_head"])
    wrapper = model.get_output_embeddings()
    assert plain_head(model) is wrapper.modules_to_save["default"]
    with model.disable_adapter():
        assert plain_head(model) is wrapper.original_module


class Headless(nn.Module):
    """Owns a head that its forward never calls."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(4, V)

    def get_output_embeddings(self):
        return self.head

    def forward(self, **inputs):
        return hf.modeling_outputs.CausalLMOutput(logits=torch.zeros(1, 2, V))


def test_a_model_that_never_calls_its_head_raises():
    with pytest.raises(ValueError, match="Headless never called its output head"):
        manypaths.attach(Headless(), "nll")(labels=torch.zeros(1, 2, dtype=torch.long))


def test_a_model_without_a_head_raises():
    with pytest.raises(ValueError, match="LlamaModel has no output head"):
        HeadHook(tiny_llama(V).model)


def test_the_head_is_itself_again_after_a_call_and_after_an_error():
    model = tiny_llama(V)
    hook, ids = HeadHook(model), batch()["input_ids"]

    def fail(projection):
        raise RuntimeError("in the objective")

    hidden_states_of(hook, lambda: model(input_ids=ids))
    assert "forward" not in vars(model.lm_head)
    with pytest.raises(RuntimeError, match="in the objective"):
        hook(lambda: model(input_ids=ids), fail)
    assert "forward" not in vars(model.lm_head)
