"""Gates: what weight each objective puts on a token of probability p."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from manypaths.objectives import dft, eaft, focal, power


def gate(function, p: float, *others, **hyperparameters) -> float:
    logprob = torch.tensor([math.log(p)], dtype=torch.float64, requires_grad=True)
    constants = [torch.tensor([value], dtype=torch.float64) for value in others]
    return -float(torch.autograd.grad(function(logprob, *constants, **hyperparameters).sum(), logprob)[0])


@given(p=st.floats(1e-30, 1.0), exponent=st.just(0.0) | st.floats(1e-6, 10))
def test_gates_are_powers_of_the_probability(p, exponent):
    assert gate(power, p, exponent=exponent) == pytest.approx(p**exponent, rel=1e-9)
    assert gate(dft, p) == pytest.approx(p, rel=1e-12)


@given(p=st.floats(1e-30, 1 - 1e-9), exponent=st.floats(1, 5))
def test_focal_prefers_what_dft_mutes(p, exponent):
    got = gate(focal, p, exponent=exponent)
    assert got == pytest.approx(
        (1 - p) ** exponent - exponent * p * (1 - p) ** (exponent - 1) * math.log(p), rel=1e-6, abs=1e-9
    )
    assert got >= 0


def test_power_keeps_digits_at_small_exponents_and_certain_labels():
    """(1 - p^alpha) / alpha would lose everything to cancellation in float32."""
    logprob = torch.tensor([-1e-6, -2.0])
    assert power(logprob, exponent=1e-4).tolist() == pytest.approx([1e-6, 2.0], rel=1e-3)


@given(top_k=st.integers(2, 50), share=st.floats(0, 1), exponent=st.floats(0, 3))
def test_eaft_gate_is_the_share_of_the_largest_possible_entropy(top_k, share, exponent):
    """log top_k, not the released 3.0: the gate is 1 for a flat top-k at every top_k."""
    got = gate(eaft, 0.3, share * math.log(top_k), top_k=top_k, exponent=exponent)
    assert got == pytest.approx(share**exponent, rel=1e-9, abs=1e-12)


def test_eaft_survives_an_entropy_below_zero_by_rounding():
    logprob = torch.tensor([-1.0], requires_grad=True)
    assert eaft(logprob, torch.tensor([-1e-9]), exponent=0.5).item() == 0


@pytest.mark.parametrize("exponent", (0.25, 0.5, 2.0))
def test_eaft_and_dft_hold_their_gates_constant(exponent):
    """With the gate's own gradient DFT would be weighed p (1 + log p), negative for p < 1/e."""
    assert gate(dft, 0.1) > 0 and gate(eaft, 0.1, 1.0, exponent=exponent) > 0
    entropy = torch.tensor([1.0], requires_grad=True)
    loss = eaft(torch.tensor([-1.0], requires_grad=True), entropy, exponent=exponent)
    assert torch.autograd.grad(loss.sum(), entropy, allow_unused=True) == (None,)
