"""Tokens with a bias of -inf: the statistics and gradients of the others are those of a head without them."""

import pytest
import torch

from heads import gradients, random_head
from manypaths import attach, resolve
from manypaths.objectives.registry import OBJECTIVES
from model_families import BATCH, tiny_model
from naive import DIFFERENTIABLE, NAMES

FORBIDDEN = [0, 7, 8, 30]
SETTINGS = {"power": {"exponent": 0.5}, "sed": {"threshold": 0.5}, "eaft": {"top_k": 5}}
BACKENDS = ("chunked", "reference")


def heads(V=37, **options):
    """A head that forbids some tokens, the same without their rows, and which rows these are."""
    head = random_head(V=V, bias=True, **options)
    allowed = torch.tensor([i not in FORBIDDEN for i in range(V)])
    allowed_ids = allowed.nonzero()[:, 0]
    with torch.no_grad():
        head.bias[~allowed] = -torch.inf
    reference = head.reference._replace(bias=head.reference.bias.masked_fill(~allowed, -torch.inf), softcap=None)
    labels = torch.arange(len(head.labels)) % len(allowed_ids)
    weight, bias = (leaf.detach()[allowed].requires_grad_() for leaf in (head.weight, head.bias))
    smaller = head._replace(
        weight=weight, bias=bias, labels=labels,
        reference=reference._replace(weight=reference.weight[allowed], bias=reference.bias[allowed]),
    )  # fmt: skip
    return head._replace(labels=allowed_ids[labels], reference=reference), smaller, allowed


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("options", [{}, {"logit_scale": 8.0}, {"dtype": torch.bfloat16}, {"dtype": torch.float16}], ids=str)
def test_the_others_do_not_notice_them(options, backend, small_blocks):
    small_blocks(13, 37)
    head, smaller, allowed = heads(**options)
    want = [name for name in NAMES if name != "normalized_entropy"]  # that one is relative to log V
    ours, expected = head.engine(want, backend), smaller.engine(want, backend)
    rtol, atol = (1e-9, 1e-10) if head.hidden.dtype == torch.float64 else (1e-4, 1e-4)
    for name in want:
        torch.testing.assert_close(ours[name], expected[name], rtol=rtol, atol=atol, msg=lambda m, n=name: f"{n}: {m}")
    differentiable = [name for name in DIFFERENTIABLE if name in want]
    got, others = (
        gradients({name: values[name] for name in differentiable}, one.leaves())
        for one, values in ((head, ours), (smaller, expected))
    )
    assert not any(g[~allowed].any() for g in got[1:])
    rtol, atol = (1e-9, 1e-10) if head.hidden.dtype == torch.float64 else (0.05, 0.02 * float(others[0].float().abs().max()))
    for g, e in zip((got[0], got[1][allowed], got[2][allowed]), others, strict=True):
        torch.testing.assert_close(g, e, rtol=rtol, atol=atol)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_every_objective_has_finite_losses_and_gradients(name):
    head, _, _ = heads(dtype=torch.float32)
    objective = resolve(name, **SETTINGS.get(name, {}))
    losses = objective(head.engine(objective.statistics, **objective.engine_parameters))
    assert losses.isfinite().all()
    assert all(g.isfinite().all() for g in torch.autograd.grad(losses.sum(), head.leaves()))


@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_model_that_forbids_tokens_trains(name):
    model = tiny_model("gptj")
    with torch.no_grad():
        model.lm_head.bias[60:] = -torch.inf  # the batch has none of these
    own = model.eval()(**BATCH).loss.item()
    loss = attach(model, name, SETTINGS.get(name))(**BATCH).loss
    loss.backward()
    assert loss.isfinite() and (name != "nll" or loss.item() == pytest.approx(own, rel=1e-6))
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters() if parameter.grad is not None)


def test_a_forbidden_label_is_named():
    head, _, _ = heads()
    head.labels[3] = 7
    with pytest.raises(ValueError, match="Label 7 at row 3 is a token whose bias is -inf"):
        head.engine(("logprob",))
    head.labels[3] = -100
    assert head.engine(("logprob",))["logprob"].isfinite().all()


def test_a_reference_that_forbids_other_tokens_is_refused():
    head, _, _ = heads()
    with torch.no_grad():
        head.bias[7] = 0.0
    with pytest.raises(ValueError, match="Token 7 has a bias of -inf in the model or in the reference only"):
        head.engine(("kl_policy_ref",))


def test_a_softcap_makes_their_logits_finite():
    head, _, _ = heads(softcap=5.0)
    head.labels[3] = 7
    values, reference = head.engine(NAMES, reference=head.reference._replace(softcap=3.0)), head.reference
    expected = head._replace(reference=reference._replace(softcap=3.0)).naive()
    for name in NAMES:
        torch.testing.assert_close(values[name], expected[name], rtol=1e-9, atol=1e-10)
