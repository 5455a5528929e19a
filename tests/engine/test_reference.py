"""The naive twin against closed forms: distributions whose statistics are known by hand."""

import math

import pytest
import torch

from manypaths.engine import Projection
from manypaths.engine.reference import full_logits, naive_statistics

HALVES = (0.5, 0.25, 0.125, 0.0625, 0.0625)  # entropy 1.875 log 2
NAMES = ("logprob", "mean_logprob", "entropy", "topk_mass", "topk_entropy", "tempered_logprob", "is_top1")


def of(probabilities, labels, want, reference=None, **parameters):
    """Statistics of a head whose softmax is `probabilities`, for each of `labels`."""

    def projection(p):
        z = torch.tensor([p] * len(labels), dtype=torch.float64).log()
        return Projection(z, torch.eye(len(p), dtype=torch.float64))

    values = naive_statistics(
        projection(probabilities), torch.tensor(labels), want,
        reference=None if reference is None else projection(reference), **parameters,
    )  # fmt: skip
    return {name: vector.tolist() for name, vector in values.items()}


def test_a_geometric_distribution():
    log2 = math.log(2)
    values = of(HALVES, [0, 2, 4], NAMES, top_k=2, temperature=0.5)
    assert values["logprob"] == pytest.approx([-log2, -3 * log2, -4 * log2])
    assert values["mean_logprob"] == pytest.approx([-14 / 5 * log2] * 3)
    assert values["entropy"] == pytest.approx([1.875 * log2] * 3)
    assert values["topk_mass"] == pytest.approx([0.75] * 3)
    assert values["topk_entropy"] == pytest.approx([math.log(3) - 2 / 3 * log2] * 3)  # of (2/3, 1/3)
    squares = [p * p for p in HALVES]  # temperature 1/2 squares the probabilities
    expected = sum(s * math.log(p) for s, p in zip(squares, HALVES, strict=True)) / sum(squares)
    assert values["tempered_logprob"] == pytest.approx([expected] * 3)
    assert values["is_top1"] == [1, 0, 0]


def test_the_uniform_distribution():
    values = of([0.2] * 5, [3], NAMES, top_k=3, temperature=0.7)
    assert values["entropy"] == pytest.approx([math.log(5)])
    assert values["mean_logprob"] == pytest.approx([-math.log(5)])
    assert values["logprob"] == pytest.approx([-math.log(5)])
    assert values["topk_mass"] == pytest.approx([0.6])
    assert values["topk_entropy"] == pytest.approx([math.log(3)])
    assert values["tempered_logprob"] == pytest.approx([-math.log(5)])


def test_sigmoid_weights():
    """Of a flat row every weight is sigmoid(0) = 1/2; beside a label 100 lower the others weigh sigmoid(1)."""
    flat = of([0.2] * 5, [3], ("sigmoid_tempered_mass", "sigmoid_tempered_logprob"), temperature=0.7)
    assert flat["sigmoid_tempered_mass"] == pytest.approx([0.5])
    assert flat["sigmoid_tempered_logprob"] == pytest.approx([-0.5 * math.log(5)])
    low = math.exp(-100)
    steep = of([1 - low, low], [1], ("sigmoid_tempered_mass",), temperature=1.0)
    assert steep["sigmoid_tempered_mass"] == pytest.approx([1 / (1 + math.exp(-1))])


def test_divergences_of_two_coins():
    want = ("kl_policy_ref", "kl_ref_policy")
    values = of([0.75, 0.25], [0], want, reference=[0.5, 0.5])
    assert values["kl_policy_ref"] == pytest.approx([0.75 * math.log(1.5) + 0.25 * math.log(0.5)])
    assert values["kl_ref_policy"] == pytest.approx([0.5 * math.log(2 / 3) + 0.5 * math.log(2)])
    assert of(HALVES, [0], want, reference=HALVES) == {name: [0.0] for name in want}


def test_logits_are_biased_scaled_then_capped():
    hidden, weight = torch.tensor([[2.0]]), torch.tensor([[1.0], [3.0]])
    logits = full_logits(Projection(hidden, weight, torch.tensor([1.0, -1.0]), softcap=2.0, logit_scale=0.5))
    torch.testing.assert_close(logits, torch.tensor([[2 * math.tanh(0.75), 2 * math.tanh(1.25)]]))


def test_logits_are_multiplied_in_the_inputs_dtype_and_kept_in_float32():
    hidden = torch.tensor([[1.0, 2.0**-9]], dtype=torch.bfloat16)
    logits = full_logits(Projection(hidden, torch.ones(1, 2, dtype=torch.bfloat16)))
    assert logits.dtype == torch.float32 and logits.item() == 1.0  # the sum is not a bf16
    assert full_logits(Projection(hidden.double(), torch.ones(1, 2).double())).dtype == torch.float64


def test_the_reference_is_held_constant():
    hidden = torch.randn(3, 4, requires_grad=True)
    policy, reference = Projection(hidden.detach() + 1, torch.eye(4)), Projection(hidden, torch.eye(4))
    values = naive_statistics(policy, torch.zeros(3, dtype=torch.long), ("kl_policy_ref",), reference=reference)
    assert not values["kl_policy_ref"].requires_grad
