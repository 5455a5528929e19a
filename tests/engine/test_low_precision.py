"""float32 weights with bf16 hidden states, autocast, fp16 with a loss scale: what eager computes, and nothing rounded more."""

import pytest
import torch
import torch.nn.functional as F

from batches import padded, sequences
from conftest import tiny_llama
from heads import gradients, random_head
from manypaths import attach
from manypaths.engine import Projection, token_statistics
from naive import DIFFERENTIABLE, NAMES, gradient

LOW = (torch.bfloat16, torch.float16)


def mixed_head(dtype, **options):
    """Hidden states in `dtype`, weight and bias in float32, of policy and reference."""
    head = random_head(40, 211, dtype=torch.float32, D=16, spread=1.2, **options)
    hidden, reference = head.hidden.detach().to(dtype).requires_grad_(), head.reference
    return head._replace(hidden=hidden, reference=reference._replace(hidden_states=reference.hidden_states.to(dtype)))


@pytest.mark.parametrize("dtype", LOW)
@pytest.mark.parametrize("backend", ("chunked", "reference"))
def test_a_float32_weight_is_multiplied_in_the_hidden_states_dtype(dtype, backend, small_blocks):
    small_blocks(40, 211)
    head = mixed_head(dtype, softcap=5.0, logit_scale=0.5, bias=True)
    reference = head.reference._replace(weight=head.reference.weight.to(dtype))
    low = head._replace(weight=head.weight.detach().to(dtype).requires_grad_(), reference=reference)
    ours, expected = head.engine(NAMES, backend), low.engine(NAMES, backend)
    for name in NAMES:
        assert torch.equal(ours[name], expected[name])
    got, rounded = (
        gradients({name: values[name] for name in DIFFERENTIABLE}, one.leaves())
        for one, values in ((head, ours), (low, expected))
    )
    assert [g.dtype for g in got] == [dtype, torch.float32, torch.float32]
    for a, b in zip(got, rounded, strict=True):
        torch.testing.assert_close(a.float(), b.float(), rtol=0.02, atol=0.02 * float(b.float().abs().max()))


@pytest.mark.parametrize("dtype", LOW)
def test_the_float32_weights_gradient_is_not_rounded(dtype, small_blocks):
    """Autocast casts the weight, so its gradient arrives rounded to bf16; here it is a float32 product."""
    head = mixed_head(dtype)
    small_blocks(40, 211)
    hidden, weight = head.hidden, head.weight
    (ours,) = torch.autograd.grad(head.engine(("logprob",))["logprob"].sum(), weight)
    with torch.autocast("cpu", dtype):
        logits = F.linear(hidden, weight)
    (eager,) = torch.autograd.grad(-F.cross_entropy(logits.float(), head.labels, reduction="sum"), weight)
    exact = gradient("logprob", logits.detach().double(), head.labels).T @ hidden.detach().double()

    def off(got):
        return float((got.double() - exact).norm() / exact.norm())

    assert off(ours) < 1e-6 < 2e-4 < off(eager)


def test_autocast_trains_a_float32_model_as_eager_does_but_for_that_rounding():
    model = tiny_llama(61, initializer_range=0.3)
    batch = padded(sequences(61))
    losses, grads = [], []
    for prepare in (lambda: model, lambda: attach(model, "nll")):
        model.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            loss = prepare()(**batch).loss
        loss.backward()
        losses.append(loss.item())
        grads.append({name: parameter.grad.clone() for name, parameter in model.named_parameters()})
    assert losses[1] == pytest.approx(losses[0], rel=1e-6)
    for name, eager in grads[0].items():
        torch.testing.assert_close(grads[1][name], eager, rtol=0.02, atol=0.02 * float(eager.abs().max()))
    head = [grad["lm_head.weight"] for grad in grads]
    rounded = [torch.equal(grad, grad.bfloat16().float()) for grad in head]
    assert rounded == [True, False]


@pytest.mark.parametrize("weight_dtype", (torch.float16, torch.float32))
def test_a_loss_scale_keeps_small_fp16_gradients(weight_dtype):
    """Without a scale, gradients below 6e-8 are 0 in fp16; with one they are as good as eager's."""
    head = random_head(64, 301, dtype=torch.float16, D=16, spread=1.2)
    weight = head.weight.detach().to(weight_dtype).requires_grad_()
    true = [leaf.detach().double().requires_grad_() for leaf in (head.hidden, head.weight)]
    loss = 1e-5 * F.cross_entropy(true[0] @ true[1].T, head.labels)
    exact = torch.autograd.grad(loss, true)

    def off(logprobs, leaves, scale):
        got = torch.autograd.grad(-1e-5 * scale * logprobs.mean(), leaves)
        return [float((g.double() / scale - e).norm() / e.norm()) for g, e in zip(got, exact, strict=True)]

    def ours(scale):
        statistics = token_statistics(head.hidden, weight, head.labels, want="logprob")
        return off(statistics["logprob"], (head.hidden, weight), scale)

    def eager(scale):
        logits = head.hidden @ weight.to(torch.float16).T
        return off(-F.cross_entropy(logits.float(), head.labels, reduction="none"), (head.hidden, weight), scale)

    for scaled, theirs in zip(ours(2.0**16), eager(2.0**16), strict=True):
        assert scaled <= 1.05 * theirs and scaled < 2e-3
    assert min(eager(1.0)) > 0.02 and ours(1.0)[0] > 0.02


def test_weights_of_fewer_digits_than_the_hidden_states_are_refused():
    head = random_head(dtype=torch.float32)
    with pytest.raises(ValueError, match=r"float32\) and weight \(torch.bfloat16\) must have the same dtype"):
        token_statistics(head.hidden, head.weight.bfloat16(), head.labels, want="logprob")
    with pytest.raises(ValueError, match=r"reference hidden_states .* must have the same dtype"):
        head.engine(("kl_ref_policy",), reference=Projection(head.hidden, head.weight.half()))
