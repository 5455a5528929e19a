"""bf16 inputs judged three ways: float64 truth, eager in the same dtype, ours. Ours may not be worse than eager."""

import pytest
import torch

from heads import Head, gradients, random_head
from manypaths.engine import Projection
from manypaths.objectives.regularization import KL_FLOOR
from naive import DIFFERENTIABLE, NAMES, statistics


def in_double(head: Head) -> Head:
    def double(t):
        return None if t is None else t.detach().double().requires_grad_()

    reference = Projection(*(t.double() for t in head.reference[:3]), *head.reference[3:])
    return head._replace(
        hidden=double(head.hidden), weight=double(head.weight), bias=double(head.bias), reference=reference
    )


def eager(head: Head):
    """Full logits multiplied in the inputs' dtype, then float32, as a training loop without the engine does it."""

    def logits(hidden, weight, bias, softcap, logit_scale):
        z = (hidden @ weight.T).float()
        z = (z if bias is None else z + bias.float()) * logit_scale
        return z if softcap is None else softcap * torch.tanh(z / softcap)

    z = logits(head.hidden, head.weight, head.bias, head.softcap, head.logit_scale)
    return statistics(z, head.labels, logits(*head.reference), 3, 0.7)


def error(got, truth):
    return float(((got.double() - truth).norm() / truth.norm().clamp(min=1e-30)).detach())


@pytest.mark.parametrize("dtype", (torch.bfloat16, torch.float32))
@pytest.mark.parametrize("blocks", ("one block", "small blocks"))
@pytest.mark.parametrize("options", [{}, {"softcap": 5.0, "bias": True, "logit_scale": 0.5}], ids=("plain", "all"))
def test_no_worse_than_eager(options, blocks, dtype, small_blocks):
    head = random_head(96, 701, dtype=dtype, D=32, spread=1.2, **options)
    if blocks == "small blocks":
        small_blocks(96, 701)
    truth = in_double(head)
    true_values, eager_values, our_values = truth.naive(), eager(head), head.engine(NAMES)
    floor = 2e-5 if dtype == torch.bfloat16 else 2e-6
    for name in NAMES:
        ours, theirs = error(our_values[name], true_values[name]), error(eager_values[name], true_values[name])
        assert ours <= 1.05 * theirs + floor, f"{name}: {ours:.2e} against eager's {theirs:.2e}"

    # In small blocks each of 88 tiles' products with the weight is rounded to bf16 before it is added
    for name in DIFFERENTIABLE:
        expected = gradients({name: true_values[name]}, truth.leaves())
        theirs = gradients({name: eager_values[name]}, head.leaves())
        ours = gradients({name: our_values[name]}, head.leaves())
        for leaf, e, a, b in zip(("hidden", "weight", "bias"), expected, theirs, ours, strict=False):
            limit = 1.15 * error(a, e) + floor
            assert error(b, e) <= limit, f"{name} d_{leaf}: {error(b, e):.2e} against eager's {error(a, e):.2e}"
        true_values, eager_values, our_values = truth.naive(), eager(head), head.engine(NAMES)  # graphs are freed


@pytest.mark.parametrize("blocks", ("one block", "small blocks"))
@pytest.mark.parametrize(
    "names",
    [("logprob", *others) for others in ((), ("mean_logprob",), ("entropy",), ("tempered_logprob",), ("kl_policy_ref",))],
    ids="+".join,
)
def test_the_hidden_gradient_of_every_objective_is_better_than_eagers(names, blocks, small_blocks):
    """All objectives hold the label's log-probability, whose part is added in float32."""
    head = random_head(96, 701, dtype=torch.bfloat16, D=32, spread=1.2)
    if blocks == "small blocks":
        small_blocks(96, 701)
    truth = in_double(head)
    exact, theirs, ours = (
        gradients({name: values[name] for name in names}, [one.hidden])[0]
        for one, values in ((truth, truth.naive()), (head, eager(head)), (head, head.engine(names)))
    )
    assert error(ours, exact) < error(theirs, exact)


def test_topk_mass_keeps_more_than_bf16_can_tell():
    """bf16 knows a handful of values just below 1; a threshold there needs float32 masses."""
    head = random_head(400, 64, dtype=torch.bfloat16, D=16, spread=2.5)
    mass = head.engine(("topk_mass",))["topk_mass"]
    high = mass[mass > 0.95]
    assert len(high) > 100 and len(high.unique()) > 0.9 * len(high)
    assert len(high.bfloat16().unique()) < 20


@pytest.mark.parametrize("name", ("kl_policy_ref", "kl_ref_policy"))
@pytest.mark.parametrize("step", (1e-4, 3e-3))
def test_float32_noise_of_a_small_kl_stays_below_the_selection_floor(step, name):
    """A KL near 0 is a difference of large sums; EKSFT must not select tokens by its rounding."""
    head = random_head(50, 300, dtype=torch.float32, D=16)
    moved, weight = head.hidden.detach() * (1 + step), head.weight.detach()
    got = head.engine((name,), reference=Projection(moved, weight))[name].detach().double()
    z, z_ref = (h.double() @ weight.double().T for h in (head.hidden.detach(), moved))
    expected = statistics(z, head.labels, z_ref)[name]
    assert expected.min() > 0 and expected.max() < 20 * step**2
    torch.testing.assert_close(got, expected, rtol=1e-3, atol=KL_FLOOR / 2)


def test_logit_gradients_at_large_logits():
    """At logits near 100 the saved row scalars still give probabilities as good as eager's."""
    make = torch.Generator().manual_seed(0)
    z = (100 + 3 * torch.randn(50, 40, generator=make)).requires_grad_()
    head = Head(z, torch.eye(40), None, torch.randint(40, (50,), generator=make), None, None, 1.0)
    names = ("logprob", "entropy", "tempered_logprob")
    ours = head.engine(names)
    z_true = z.detach().double().requires_grad_()
    truth = statistics(z_true, head.labels)
    for name in names:
        (expected,) = gradients({name: truth[name]}, [z_true])
        truth = statistics(z_true, head.labels)
        (got,) = gradients({name: ours[name]}, [z])
        ours = head.engine(names)
        assert error(got, expected) < 1e-4
