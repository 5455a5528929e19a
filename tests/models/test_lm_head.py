"""The head hook: cross-entropy through it is each architecture's own, to the gradient of every parameter."""

import copy
import math
import re
from pathlib import Path

import pytest
import torch
import transformers as hf
from accelerate.hooks import AlignDevicesHook, add_hook_to_module
from peft import LoraConfig, get_peft_model
from torch import nn

import manypaths
from batches import padded, sequences
from conftest import tiny_llama
from manypaths.models.lm_head import PROBE, HeadHook, Transform, fit_transform, hidden_states_of, plain_head
from manypaths.models.refusals import REFUSALS

V = 61
SOURCE = Path(manypaths.__file__).parent
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
    "jetmoe experts": (
        hf.JetMoeConfig,
        dict(kv_channels=8, num_local_experts=4, num_experts_per_tok=2, aux_loss_coef=0.05, output_router_logits=True),
    ),
    "dbrx experts": (
        hf.DbrxConfig,
        dict(d_model=32, n_heads=4, n_layers=2, max_seq_len=64, output_router_logits=True, attn_config=dict(
            kv_n_heads=2, clip_qkv=8.0, rope_theta=1e4),
            ffn_config=dict(ffn_hidden_size=16, moe_num_experts=4, moe_top_k=2, moe_loss_weight=0.05)),
    ),
    "inkling padded head": (
        hf.InklingTextConfig,
        dict(vocab_size=V + 11, unpadded_vocab_size=V, head_dim=8, swa_head_dim=8, swa_num_attention_heads=4,
             swa_num_key_value_heads=2, d_rel=8, moe_intermediate_size=16, dense_intermediate_size=48, n_routed_experts=4,
             num_experts_per_tok=2),
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


class Altered(hf.LlamaForCausalLM):
    """A tiny Llama that does something of its own to its logits, and to its loss."""

    def __init__(self, alter=lambda logits, model: logits, more_loss=lambda loss, logits: loss):
        super().__init__(hf.LlamaConfig(**COMMON))
        self.alter, self.more_loss, self.scale = alter, more_loss, nn.Parameter(torch.tensor([0.7]))

    def forward(self, labels=None, **inputs):
        logits = self.alter(self.lm_head(self.model(**inputs).last_hidden_state), self)
        loss = None
        if labels is not None:
            loss = self.more_loss(self.loss_function(logits, labels, vocab_size=logits.shape[-1]), logits)
        return hf.modeling_outputs.CausalLMOutputWithPast(loss=loss, logits=logits)


def altered(alter=lambda logits, model: logits, **changes):
    torch.manual_seed(0)
    model = Altered(alter, **changes)
    nn.init.normal_(model.lm_head.weight, std=0.5)
    return model


def short_labels(columns: int) -> dict[str, torch.Tensor]:
    """A batch whose labels are below `columns`."""
    inputs = batch()
    return inputs | {"labels": torch.where(inputs["labels"] < columns, inputs["labels"], -100)}


@pytest.mark.parametrize(
    "alter",
    [lambda z, model: z[..., :50], lambda z, model: 3.0 * torch.tanh(z[..., :50] / 6.0), lambda z, model: z.clamp(-1e8, 1e8),
     lambda z, model: z.mul_(0.5)],
    ids=("cut", "cut, scaled and capped", "clamp that never binds", "in place"),
)  # fmt: skip
def test_what_can_be_expressed_trains_exactly(alter):
    model = altered(alter)
    ours = manypaths.attach(copy.deepcopy(model), "nll")
    assert_same_training(model, ours, short_labels(50))
    assert_same_training(model, ours, short_labels(50))


def test_labels_of_columns_that_are_cut_off_are_refused():
    model = manypaths.attach(altered(lambda z, model: z[..., :50]), "nll")
    inputs = batch() | {"labels": torch.where(batch()["labels"] < 0, -100, 50)}
    with pytest.raises(ValueError, match=r"Label 50 at .* is outside the vocabulary of 50"):
        model(**inputs)


def test_a_frozen_scale_is_a_scale():
    model = altered(lambda z, model: z * model.scale)
    model.scale.requires_grad_(False)
    assert_same_training(model, manypaths.attach(copy.deepcopy(model), "nll"), batch())


BY_PLACE = torch.arange(9.0)[None, :, None]  # as long as the batch


@pytest.mark.parametrize(
    ("alter", "name"),
    [
        (lambda z, model: z.masked_fill(torch.arange(V) >= 50, -math.inf), "changed logits"),
        (lambda z, model: z - z.logsumexp(-1, keepdim=True), "changed logits"),
        (lambda z, model: z * (1 + torch.arange(z.shape[1])[:, None]), "changed logits"),
        (lambda z, model: z[..., 5:], "changed logits"),
        (lambda z, model: z.clamp(-1, 1), "changed logits"),
        (lambda z, model: z * (1 + BY_PLACE), "logits of the batch's shape"),
        (lambda z, model: z.expand(3, -1, -1), "logits of the batch's shape"),
        (lambda z, model: z * model.scale, "learned logit transform"),
        (lambda z, model: z + model.lm_head(model.model.norm.weight[None, None]), "head called twice"),
    ],
    ids=("mask", "log-softmax", "scale of a token", "cut in front", "clamp", "scales of the batch", "more rows", "learned",
         "second call"),
)  # fmt: skip
def test_what_cannot_be_expressed_is_refused(alter, name):
    model = manypaths.attach(altered(alter), "nll")
    with pytest.raises(ValueError, match=reason(name)):
        model(**batch())
    assert torch.is_grad_enabled() and "forward" not in vars(model.lm_head)


def reason(name: str) -> str:
    """The beginning of a refusal's last sentence, as a pattern: the text without what depends on the case."""
    return re.escape(REFUSALS[name].instead)


@pytest.mark.parametrize(
    "more_loss",
    [lambda loss, z: loss + 1e-3 * z.logsumexp(-1).square().mean(),
     lambda loss, z: nn.functional.cross_entropy(z.flatten(0, 1), torch.zeros(z.shape[0] * z.shape[1], dtype=torch.long))],
    ids=("z-loss", "labels without a shift"),
)  # fmt: skip
def test_a_loss_that_would_vanish_is_refused(more_loss):
    with pytest.raises(ValueError, match=reason("another loss")):
        manypaths.attach(altered(more_loss=more_loss), "nll")(**batch())


@pytest.mark.parametrize("labels_matter", (False, True), ids=("returns", "fails on other labels"))
def test_a_loss_fused_with_the_head_is_not_asked_for(labels_matter):
    """As Liger's: with labels the model computes its loss from hidden states, without logits."""

    class Fused(Altered):
        def forward(self, labels=None, **inputs):
            if labels is None:
                return super().forward(**inputs)
            assert not labels_matter or labels.shape == inputs["input_ids"].shape
            return hf.modeling_outputs.CausalLMOutputWithPast(loss=torch.zeros(()))

    torch.manual_seed(0)
    model = Fused()
    with pytest.warns(UserWarning, match="Fused leaves its head out: its own loss is not checked"):
        loss = manypaths.attach(copy.deepcopy(model), "nll")(**batch()).loss
    torch.testing.assert_close(loss, Altered.forward(model, **batch()).loss)


def test_wrappers_see_no_gradients_while_the_model_is_read():
    """DDP would wait for a backward pass that never comes."""
    model, seen = altered(lambda z, model: z * model.scale), []
    hook = HeadHook(model)

    def wrapper():
        output = model(input_ids=batch()["input_ids"])
        seen.append(torch.is_grad_enabled())
        return output

    with pytest.raises(ValueError, match=reason("learned logit transform")):
        hook(wrapper, lambda projection: ())
    assert seen == [False]


def lora(**options) -> nn.Module:
    torch.manual_seed(0)
    tied = options.pop("tied", False)
    config = LoraConfig(task_type="CAUSAL_LM", r=4, init_lora_weights=False, **options)
    return get_peft_model(tiny_llama(V, tie_word_embeddings=tied), config)


@pytest.mark.parametrize("dora", (False, True), ids=("lora", "dora"))
def test_an_adapter_on_the_head_is_refused(dora):
    with pytest.raises(ValueError, match=reason("adapter on the head")):
        manypaths.attach(lora(target_modules=["q_proj", "lm_head"], use_dora=dora), "nll")


TOKENS = dict(target_modules=["q_proj"], trainable_token_indices=[5, 6])


def test_trainable_tokens_of_tied_embeddings_are_refused():
    with pytest.raises(ValueError, match=reason("trainable tokens of tied embeddings")):
        HeadHook(lora(tied=True, **TOKENS))


class OtherLinear(nn.Linear):
    def forward(self, x):
        return super().forward(x)


def with_head(make):
    model = tiny_llama(V)
    model.lm_head = make(model.lm_head)
    return model


def patched(head):
    head.forward = lambda x: 2 * nn.Linear.forward(head, x)
    return head


def hooked(head):
    head.register_forward_hook(lambda module, inputs, output: output)
    return head


def with_a_hook_of_trl(head):
    """As activation offloading, which needs an accelerator, leaves it."""
    hook = lambda module, inputs, output: None  # noqa: E731
    hook.__module__ = "trl.models.activation_offloading"
    head.register_forward_hook(hook)
    return head


def quantised(head):
    return type("Linear4bit", (OtherLinear,), {"__module__": "bitsandbytes.nn.modules"})(32, V)


def tiny_t5():
    return hf.T5ForConditionalGeneration(hf.T5Config(vocab_size=V, d_model=8, d_ff=8, d_kv=4, num_layers=1, num_heads=2))


def without_dict():
    model = tiny_llama(V)
    model.config.return_dict = False
    return model


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("another kind of head", lambda: with_head(lambda head: OtherLinear(32, V))),
        ("quantised head", lambda: with_head(quantised)),
        ("patched head", lambda: with_head(patched)),
        ("hooks on the head", lambda: with_head(hooked)),
        ("wrapped model", lambda: nn.DataParallel(tiny_llama(V))),
        ("encoder-decoder", tiny_t5),
        ("tuple outputs", without_dict),
        ("no output head", lambda: tiny_llama(V).model),
    ],
)  # fmt: skip
def test_a_model_is_refused_for_its_true_reason(name, make):
    with pytest.raises(ValueError, match=reason(name)):
        manypaths.attach(make(), "nll")


def test_weights_that_were_never_loaded_are_refused():
    with torch.device("meta"):
        model = manypaths.attach(tiny_llama(V), "nll")
    with pytest.raises(ValueError, match=r"model\.embed_tokens\.weight is on the meta device"):
        model(**batch())


@pytest.mark.parametrize(
    "make",
    [pytest.param(lambda head: torch.compile(head, backend="eager"), marks=pytest.mark.slow),
     lambda head: add_hook_to_module(head, AlignDevicesHook("cpu")), with_a_hook_of_trl],
    ids=("compiled", "dispatched by accelerate", "offloading activations"),
)  # fmt: skip
def test_a_head_that_is_linear_underneath_is_fine(make):
    model = tiny_llama(V)
    ours = copy.deepcopy(model)
    ours.lm_head = make(ours.lm_head)
    manypaths.attach(ours, "nll")
    torch.testing.assert_close(ours(**batch()).loss, model(**batch()).loss)


def test_every_refusal_is_raised_somewhere():
    source = "".join(path.read_text() for path in SOURCE.rglob("*.py") if path.name != "refusals.py")
    assert not [name for name in REFUSALS if f'"{name}"' not in source]


@pytest.mark.parametrize(
    "options",
    [dict(target_modules=["q_proj", "v_proj"]), dict(target_modules=["q_proj"], modules_to_save=["lm_head"]), TOKENS,
     dict(target_modules=["q_proj"], modules_to_save=["embed_tokens"], ensure_weight_tying=True, tied=True)],
    ids=("adapter in the body", "trained copy of the head", "trainable tokens", "trained copy of tied embeddings"),
)  # fmt: skip
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
