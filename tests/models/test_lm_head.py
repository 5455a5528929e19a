"""The head hook: cross-entropy through it is each architecture's own, to the gradient of every parameter."""

import copy
import math
import re
import types
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
from manypaths.models.lm_head import PROBE, HeadHook, Transform, fit_transform, hidden_states_of, output_head
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


TOKENS = dict(target_modules=["q_proj"], trainable_token_indices=[5, 6])
ON_HEAD = ["q_proj", "lm_head"]


def head_gradients(model) -> dict[str, torch.Tensor]:
    named = model.get_output_embeddings().named_parameters()
    return {name: parameter.grad for name, parameter in named if parameter.requires_grad}


@pytest.mark.parametrize(
    "options",
    [dict(target_modules=ON_HEAD), dict(target_modules=ON_HEAD, use_dora=True), dict(target_modules=["lm_head"], tied=True),
     dict(tied=True, **TOKENS)],
    ids=("lora", "dora", "lora, tied", "trainable tokens, tied"),
)  # fmt: skip
def test_an_adapter_on_the_head_trains_as_without_the_hook(options):
    model = lora(**options)
    ours = manypaths.attach(copy.deepcopy(model), "nll")
    assert_same_training(model, ours, batch())
    assert len(head_gradients(ours)) > 0 and all(gradient.any() for gradient in head_gradients(ours).values())


def test_of_two_adapters_on_the_head_the_active_one_trains():
    model = lora(target_modules=ON_HEAD)
    model.add_adapter("other", LoraConfig(task_type="CAUSAL_LM", r=2, target_modules=ON_HEAD, init_lora_weights=False))
    ours = manypaths.attach(copy.deepcopy(model), "nll")
    for name in ("other", "default"):
        model.set_adapter(name)
        ours.set_adapter(name)
        assert_same_training(model, ours, batch())
        assert all(name in parameter for parameter in head_gradients(ours))


def test_an_adapter_merged_and_unmerged_trains_again():
    model = lora(target_modules=ON_HEAD)
    ours = manypaths.attach(copy.deepcopy(model), "nll")
    model.merge_adapter()
    ours.merge_adapter()
    with torch.no_grad():
        torch.testing.assert_close(ours(**batch()).loss, model(**batch()).loss)
    with pytest.raises(ValueError, match="gives no gradient"):  # merged, nothing trains
        ours(**batch())
    model.unmerge_adapter()
    ours.unmerge_adapter()
    assert_same_training(model, ours, batch())
    assert all(gradient.any() for gradient in head_gradients(ours).values())


@pytest.mark.parametrize("options", [dict(target_modules=ON_HEAD), dict(tied=True, **TOKENS)], ids=("lora", "tokens, tied"))
@pytest.mark.parametrize("merged", (False, True))
def test_the_reference_without_the_adapter_has_the_head_without_it(options, merged):
    """And a merged adapter, which PEFT takes out of the weights for that, trains from then on in the head, too."""
    model, inputs = lora(**options), batch()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter))
    plain = copy.deepcopy(model)
    with torch.no_grad(), plain.disable_adapter():
        reference = plain(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]).logits
    logits = plain(**inputs).logits
    valid = inputs["labels"][:, 1:] != -100
    logp, logr = (z[:, :-1][valid].log_softmax(-1) for z in (logits, reference))
    kl = (logp.exp() * (logp - logr)).sum(-1).mean()
    if merged:
        model.merge_adapter()
    ours = manypaths.attach(model, lambda kl_policy_ref: kl_policy_ref)
    loss = ours(**inputs).loss
    assert kl > 1e-3
    torch.testing.assert_close(loss, kl, rtol=1e-4, atol=1e-6)
    theirs, mine = gradients_of(plain, kl), gradients_of(ours, loss)
    for name, gradient in theirs.items():
        torch.testing.assert_close(mine[name], gradient, rtol=1e-4, atol=1e-6)


def test_dropout_on_the_head_is_the_adapters_own():
    model = lora(target_modules=["lm_head"], lora_dropout=0.5).train()
    inputs, seen = batch(), []
    head = model.get_output_embeddings()
    handle = head.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    model(**inputs)
    handle.remove()
    valid = inputs["labels"][:, 1:] != -100
    torch.manual_seed(3)
    expected = nn.functional.cross_entropy(head(seen[0][:, :-1][valid]), inputs["labels"][:, 1:][valid])
    theirs = gradients_of(model, expected)
    ours = manypaths.attach(model, "nll")
    for _ in range(2):  # reading the model moves nothing
        torch.manual_seed(3)
        loss = ours(**inputs).loss
        torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-6)
        mine = gradients_of(ours.eval(), loss)  # the mode is that of the forward
        ours.train()
        for name, gradient in theirs.items():
            torch.testing.assert_close(mine[name], gradient, rtol=2e-5, atol=2e-6)
    assert not torch.equal(ours(**inputs).loss, ours(**inputs).loss)


@pytest.mark.parametrize("architecture", ("gemma2 softcap", "cohere scale", "inkling padded head"))
def test_an_adapter_on_the_head_under_a_transform(architecture):
    model = get_peft_model(build(architecture), LoraConfig(r=4, init_lora_weights=False, target_modules=["lm_head"]))
    assert_same_training(model, manypaths.attach(copy.deepcopy(model), "nll"), batch())


def test_an_adapter_on_the_head_under_autocast_and_in_bf16():
    inputs = batch()
    model = lora(target_modules=ON_HEAD)
    ours = manypaths.attach(copy.deepcopy(model), "nll")
    with torch.autocast("cpu", torch.bfloat16):
        losses = model(**inputs).loss, ours(**inputs).loss
    theirs, mine = (gradients_of(*pair) for pair in zip((model, ours), losses, strict=True))
    size = max(float(gradient.abs().max()) for gradient in theirs.values())
    assert losses[1].item() == pytest.approx(losses[0].item(), rel=5e-3)
    assert max(float((mine[name] - theirs[name]).abs().max()) for name in theirs) < 0.02 * size
    low = lora(target_modules=ON_HEAD).bfloat16()
    expected = low(**inputs).loss.item()
    assert manypaths.attach(low, "nll")(**inputs).loss.item() == pytest.approx(expected, rel=5e-3)


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


class Mixing(OtherLinear):
    def forward(self, x):
        return super().forward(x + 0.1 * x.mean(-2, keepdim=True))


class Hiding(OtherLinear):
    def forward(self, x):
        self.__dict__.setdefault("scale", nn.Parameter(torch.tensor(2.0)))
        return super().forward(x) * self.__dict__["scale"]


def tiny_t5():
    return hf.T5ForConditionalGeneration(hf.T5Config(vocab_size=V, d_model=8, d_ff=8, d_kv=4, num_layers=1, num_heads=2))


def without_dict():
    model = tiny_llama(V)
    model.config.return_dict = False
    return model


def partitioned(head):
    """As ZeRO-3 marks weights."""
    head = OtherLinear(32, V)
    head.weight.ds_id = 0
    return head


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("partitioned head", lambda: with_head(partitioned)),
        ("head of unknown size", lambda: with_head(lambda head: nn.Identity())),
        ("head that mixes tokens", lambda: with_head(lambda head: Mixing(32, V))),
        ("weights that the head hides", lambda: with_head(lambda head: Hiding(32, V))),
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
        manypaths.attach(make(), "nll")(**batch())


class Bottleneck(nn.Sequential):
    """A head that is no layer of PEFT or torch."""

    def __init__(self):
        super().__init__(nn.Linear(32, 8), nn.Tanh(), nn.Linear(8, V))
        self.out_features = V


@pytest.mark.parametrize("make", (lambda head: OtherLinear(32, V), lambda head: Bottleneck()), ids=("linear", "layers"))
def test_any_head_that_treats_each_token_alone_trains_exactly(make):
    model = with_head(make)
    assert_same_training(model, manypaths.attach(copy.deepcopy(model), "nll"), batch())


def test_weights_packed_for_inference_are_refused():
    """As bitsandbytes leaves them on a CPU with AVX512-BF16; no gradient passes its kernel for them."""
    model = manypaths.attach(tiny_llama(V), "nll")
    with torch.no_grad():
        model(**batch())
    weight = model.model.layers[1].mlp.up_proj.weight
    weight.quant_state = types.SimpleNamespace(packing_format_for_cpu=True)
    with torch.no_grad():
        model(**batch())
    with pytest.raises(ValueError, match=reason("weights packed for inference")):
        model(**batch())


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
    assert output_head(model) is wrapper.modules_to_save["default"]
    with model.disable_adapter():
        assert output_head(model) is wrapper.original_module


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
