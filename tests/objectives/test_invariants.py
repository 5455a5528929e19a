"""Where one objective must turn into another, in value or in gradient."""

import pytest
import torch

from manypaths.objectives import resolve


def problem(T=30, V=8, seed=0, spread=2.0):
    make = torch.Generator().manual_seed(seed)
    z, z_ref = (spread * torch.randn(T, V, generator=make, dtype=torch.float64) for _ in range(2))
    return z.requires_grad_(), torch.randint(V, (T,), generator=make), z_ref


def value_and_gradient(losses_of, objective, z, labels, z_ref=None):
    losses = losses_of(objective, z, labels, z_ref)
    upstream = torch.randn(len(losses), generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return losses, torch.autograd.grad((upstream * losses).sum(), z)[0]


SAME = {
    "sed weight 0 is nll": (("sed", dict(threshold=1.0, weight=0.0)), ("nll", {})),
    "sed mask nothing is nll": (("sed", dict(threshold=1e-30)), ("nll", {})),
    "power 0 is nll": (("power", dict(exponent=0)), ("nll", {})),
    "focal 0 is nll": (("focal", dict(exponent=0.0)), ("nll", {})),
    "label_smoothing 0 is nll": (("label_smoothing", dict(smoothing=0.0)), ("nll", {})),
    "eaft 0 is nll": (("eaft", dict(exponent=0.0, top_k=3)), ("nll", {})),
    "entropy_bonus 0 is nll": (("entropy_bonus", dict(entropy_weight=0.0)), ("nll", {})),
    "asft 0 is dft": (("asft", dict(kl_weight=0.0)), ("dft", {})),
    "eksft that drops nothing is nll": (("eksft", dict(entropy_fraction=0.0, kl_fraction=0.0)), ("nll", {})),
}
SAME_GRADIENT = {
    "gem at temperature 1 is nll": (("gem", dict(temperature=1.0)), ("nll", {})),
    "power 1 is dft": (("power", dict(exponent=1.0)), ("dft", {})),
}


@pytest.mark.parametrize("case", SAME)
def test_same_value_and_gradient(case, losses_of):
    z, labels, z_ref = problem()
    (a, a_kwargs), (b, b_kwargs) = SAME[case]
    ours = value_and_gradient(losses_of, resolve(a, **a_kwargs), z, labels, z_ref)
    theirs = value_and_gradient(losses_of, resolve(b, **b_kwargs), z, labels, z_ref)
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("case", SAME_GRADIENT)
def test_same_gradient(case, losses_of):
    z, labels, _ = problem()
    (a, a_kwargs), (b, b_kwargs) = SAME_GRADIENT[case]
    _, ours = value_and_gradient(losses_of, resolve(a, **a_kwargs), z, labels)
    _, theirs = value_and_gradient(losses_of, resolve(b, **b_kwargs), z, labels)
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("exponent", (1e-3, 1e-6, -1e-6))
def test_power_tends_to_nll(exponent, losses_of):
    z, labels, _ = problem()
    ours = value_and_gradient(losses_of, resolve("power", exponent=exponent), z, labels)
    theirs = value_and_gradient(losses_of, resolve("nll"), z, labels)
    torch.testing.assert_close(ours, theirs, rtol=20 * abs(exponent), atol=1e-9)


@pytest.mark.parametrize("temperature", (0.2, 0.7, 1.0, 3.0))
def test_gem_is_cross_entropy_at_its_temperature(temperature, losses_of):
    """d GEM = d (beta CE(z / beta)): so its fixed point is a model that is right when sampled at beta."""
    z, labels, _ = problem()
    _, gem = value_and_gradient(losses_of, resolve("gem", temperature=temperature), z, labels)
    upstream = torch.randn(len(z), generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    ce = temperature * torch.nn.functional.cross_entropy(z / temperature, labels, reduction="none")
    torch.testing.assert_close(gem, torch.autograd.grad((upstream * ce).sum(), z)[0], rtol=1e-11, atol=1e-12)


def test_gem_logsigmoid_is_about_half_of_gem(losses_of):
    """Its weights stay within 0.43 and 0.55 for any logit gap that occurs."""
    z, labels, _ = problem(spread=3.0)
    _, gem = value_and_gradient(losses_of, resolve("gem"), z, labels)
    _, halved = value_and_gradient(losses_of, resolve("gem_logsigmoid"), z, labels)
    assert (halved - 0.5 * gem).norm() < 0.05 * gem.norm()
    assert (halved - 0.5 * gem).norm() > 1e-6 * gem.norm()  # but not half exactly


@pytest.mark.parametrize("name", ("asft", "eksft"))
def test_kl_terms_are_nothing_at_the_reference(name, losses_of):
    z, labels, _ = problem()
    plain, tied = (
        value_and_gradient(losses_of, resolve(name, kl_weight=weight), z, labels, z.detach()) for weight in (0.0, 1e3)
    )
    torch.testing.assert_close(tied, plain, rtol=1e-12, atol=1e-10)


@pytest.mark.parametrize("name", ("asft", "eksft"))
def test_kl_terms_pull_towards_the_reference(name, losses_of):
    z, labels, z_ref = problem()
    (d_z,) = torch.autograd.grad(losses_of(resolve(name, kl_weight=1e6), z, labels, z_ref).sum(), z)

    def distance(z):
        p, r = z.log_softmax(-1), z_ref.log_softmax(-1)
        first, second = (p, r) if name == "eksft" else (r, p)
        return (first.exp() * (first - second)).sum(-1)

    moved = d_z.abs().sum(-1) > 1e3  # EKSFT touches the tokens that drifted most
    step = 1e-3 * d_z / d_z.norm(dim=-1, keepdim=True).clamp(min=1e-12)
    assert moved.sum() == (6 if name == "eksft" else 30)
    assert (distance(z - step) < distance(z))[moved].all()
