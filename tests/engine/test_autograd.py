"""The autograd.Function: gradcheck, gradients only where they are needed, calls that share nothing."""

import pytest
import torch

from heads import gradients, random_head, weighted_sum
from naive import DIFFERENTIABLE, NAMES

TRULY_DIFFERENTIABLE = (
    "logprob", "mean_logprob", "entropy", "normalized_entropy", "kl_policy_ref", "kl_ref_policy"
)  # the tempered ones hold q constant, so finite differences disagree by design  # fmt: skip


@pytest.mark.parametrize("options", [{}, {"softcap": 4.0, "logit_scale": 0.7, "bias": True, "ignored": 1}])
@pytest.mark.parametrize("names", [*((name,) for name in TRULY_DIFFERENTIABLE), TRULY_DIFFERENTIABLE], ids="+".join)
def test_gradcheck(names, options, small_blocks):
    head = random_head(4, 9, spread=1.0, **options)
    small_blocks(4, 9)

    def outputs(hidden, weight, *bias):
        other = head._replace(hidden=hidden, weight=weight, bias=bias[0] if bias else None)
        return tuple(other.engine(names).values())

    assert torch.autograd.gradcheck(outputs, head.leaves())


@pytest.mark.parametrize("backend", ("chunked", "reference"))
@pytest.mark.parametrize("frozen", [("weight",), ("hidden",), ("bias",), ("weight", "bias"), ("hidden", "weight")])
def test_gradients_only_where_needed(frozen, backend):
    head = random_head(bias=True, softcap=5.0)
    names = ("hidden", "weight", "bias")
    expected = dict(zip(names, gradients(head.engine(DIFFERENTIABLE), head.leaves()), strict=True))
    for name in frozen:
        getattr(head, name).requires_grad_(False)
    weighted_sum(head.engine(DIFFERENTIABLE, backend)).backward()
    for name in names:
        got = getattr(head, name).grad
        if name in frozen:
            assert got is None
        else:
            torch.testing.assert_close(got, expected[name], rtol=1e-10, atol=1e-11)


def test_everything_frozen_or_no_grad_builds_no_graph():
    head = random_head()
    with torch.no_grad():
        assert not any(values.requires_grad for values in head.engine(NAMES).values())
    for leaf in head.leaves():
        leaf.requires_grad_(False)
    assert not any(values.requires_grad for values in head.engine(NAMES).values())


@pytest.mark.parametrize("used", DIFFERENTIABLE)
def test_unused_statistics_change_nothing(used):
    head = random_head(bias=True)
    alone = gradients({used: head.engine((used,))[used]}, head.leaves())
    among = gradients({used: head.engine(NAMES)[used]}, head.leaves())
    for a, b in zip(alone, among, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-13)


def test_two_calls_share_nothing():
    head, other = random_head(softcap=5.0), random_head(seed=5, softcap=5.0)
    expected = gradients(head.engine(DIFFERENTIABLE), head.leaves())
    first = head.engine(DIFFERENTIABLE)
    gradients(other.engine(DIFFERENTIABLE), other.leaves())  # between the forward and its backward
    for a, b in zip(gradients(first, head.leaves()), expected, strict=True):
        assert torch.equal(a, b)
    logprob, again = head.engine(("logprob",)), head.engine(("logprob",))
    both = gradients({"logprob": logprob["logprob"] + again["logprob"]}, head.leaves())
    for a, b in zip(both, gradients(head.engine(("logprob",)), head.leaves()), strict=True):
        torch.testing.assert_close(a, 2 * b)


def test_backward_twice_through_a_kept_graph():
    head = random_head(bias=True)
    total = sum(v.sum() for v in head.engine(DIFFERENTIABLE).values())
    first = torch.autograd.grad(total, head.leaves(), retain_graph=True)
    second = torch.autograd.grad(total, head.leaves())
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_second_derivatives_are_refused_not_wrong():
    head = random_head()
    squared = head.engine(("logprob",))["logprob"].square().sum()
    with pytest.raises(RuntimeError, match="first derivatives only; use backend='reference'"):
        torch.autograd.grad(squared, head.hidden, create_graph=True)


def test_statistics_compose_with_any_autograd_function():
    head = random_head(softcap=5.0)

    def objective(s):
        return -s["logprob"] * s["logprob"].exp() + 0.3 * s["entropy"] * s["tempered_logprob"] + s["kl_policy_ref"] ** 2

    def of(statistics):
        return torch.autograd.grad(objective(statistics).sum(), head.leaves())

    for a, b in zip(of(head.engine(DIFFERENTIABLE)), of(head.naive()), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-11)


def test_inputs_are_not_changed():
    head = random_head(bias=True, softcap=5.0)
    tensors = (*head.leaves(), head.labels, *head.reference[:3])
    before = [t.detach().clone() for t in tensors]
    gradients(head.engine(DIFFERENTIABLE), head.leaves())
    assert all(torch.equal(a, b) for a, b in zip(tensors, before, strict=True))
