"""SED: its gate, its strict mask, and the fixed point that exists only for weights above 1."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from manypaths.objectives import resolve, sed


def gate(p: float, weight: float, threshold: float = 1.0) -> float:
    """-d loss / d logprob at label probability p; the top-k mass is 0.9."""
    logprob = torch.tensor([math.log(p)], dtype=torch.float64, requires_grad=True)
    mass = torch.tensor([0.9], dtype=torch.float64)
    loss = sed(logprob, mass, threshold=threshold, weight=weight)
    return -float(torch.autograd.grad(loss.sum(), logprob)[0])


@pytest.mark.parametrize("weight", (0.0, 0.3, 1.0, 4.0))
@given(p=st.floats(1e-6, 1.0))
def test_gate(p, weight):
    assert gate(p, weight) == pytest.approx(1 - 2 * weight * (p - 0.5) * p, rel=1e-9, abs=1e-12)
    assert gate(p, weight, threshold=0.5) == pytest.approx(1)


@given(p=st.floats(1e-6, 1.0), weight=st.floats(0, 1))
def test_weights_up_to_1_only_brake(p, weight):
    assert -1e-12 <= gate(p, weight) <= 1.125 + 1e-12


def test_weight_1_is_a_focal_like_brake():
    """(1 - p)(1 + 2p): 1 at 0, at most 9/8 at 1/4, 1 at 1/2, 0 at 1. It never pulls p towards 1/2."""
    assert [gate(p, 1.0) for p in (1e-12, 0.25, 0.5, 1.0)] == pytest.approx([1, 1.125, 1, 0])


@pytest.mark.parametrize(("weight", "optimum"), [(2, 0.809), (4, 0.683), (1000, 0.5005)])
def test_weights_above_1_have_an_optimum_inside(weight, optimum):
    best = (1 + math.sqrt(1 + 8 / weight)) / 4
    assert best == pytest.approx(optimum, abs=5e-4)
    assert gate(best, weight) == pytest.approx(0, abs=1e-9)
    assert gate(best - 0.01, weight) > 0 > gate(best + 0.01, weight)


def test_a_mass_equal_to_the_threshold_is_not_masked():
    mass = torch.tensor([0.8, 0.8 - 1e-6, 0.8 + 1e-6], dtype=torch.float64)
    logprob = torch.full((3,), math.log(0.9), dtype=torch.float64)
    extra = sed(logprob, mass, threshold=0.8) + logprob
    assert extra.tolist() == pytest.approx([0, 0.16, 0])


def test_the_mask_is_a_constant_even_if_the_mass_is_not():
    mass = torch.tensor([0.5], requires_grad=True)
    loss = sed(torch.tensor([-1.0], requires_grad=True), mass, threshold=0.8)
    assert torch.autograd.grad(loss.sum(), mass, allow_unused=True) == (None,)


def test_the_mask_picks_flat_rows_not_sure_ones(losses_of):
    """Rows with a wide top-2 are regularised; a circulating description has it the wrong way round."""
    z = torch.tensor([[8.0, 0, 0, 0, 0], [0.1, 0, 0, 0, 0]], dtype=torch.float64)
    labels = torch.tensor([0, 0])
    extra = losses_of(resolve("sed", threshold=0.9), z, labels) - losses_of(resolve("nll"), z, labels)
    assert extra[0] == 0 and extra[1] > 0


def test_mass_of_more_words_masks_fewer_rows(losses_of):
    """Why the mask must use the top_k that its threshold was calibrated with."""
    z = 2 * torch.randn(200, 30, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    labels = torch.zeros(200, dtype=torch.long)
    nll = losses_of(resolve("nll"), z, labels)
    masked = [int((losses_of(resolve("sed", threshold=0.8, top_k=k), z, labels) != nll).sum()) for k in (2, 10)]
    assert masked[0] > 2 * masked[1] > 0
