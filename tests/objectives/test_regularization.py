"""EKSFT: who is selected, what selection does, and the released code's two departures from the paper."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from manypaths.engine import Projection, token_statistics
from manypaths.objectives import eksft, resolve
from manypaths.objectives.regularization import KL_FLOOR, top_fraction
from manypaths.training.reduction import token_losses


def apply(entropy, kl, logprob=None, **hyperparameters):
    """Losses of tokens with the given statistics, log-probability -1 each unless given."""
    logprob = [-1.0] * len(entropy) if logprob is None else logprob
    tensors = [torch.tensor(values, dtype=torch.float64) for values in (logprob, entropy, kl)]
    return eksft(*tensors, **hyperparameters).tolist()


PLAIN = dict(entropy_weight=0.0, kl_weight=0.0)  # only the dropping is left


def test_the_uncertain_and_the_drifted_are_dropped():
    losses = apply([0.1, 0.9, 0.2, 0.3], [0.0, 0.0, 0.5, 0.4], entropy_fraction=0.25, kl_fraction=0.25, **PLAIN)
    assert losses == pytest.approx([2, 0, 0, 2])  # the mean over the two kept tokens, times 4 / 4


def test_a_token_can_be_both():
    losses = apply([0.1, 0.9, 0.2, 0.3], [0.0, 0.7, 0.5, 0.4], entropy_fraction=0.25, kl_fraction=0.25, **PLAIN)
    assert losses == pytest.approx([4 / 3, 0, 4 / 3, 4 / 3])
    both = apply([0.1, 0.9], [0.1, 0.7], entropy_fraction=0.5, kl_fraction=0.5, entropy_weight=0.1, kl_weight=0.2)
    assert both == pytest.approx([2.0, 2 * (-0.1 * 0.9 + 0.2 * 0.7)])


def test_ties_go_to_the_earlier_token():
    losses = apply([0.5] * 5, [0.0] * 5, entropy_fraction=0.4, kl_fraction=0.0, **PLAIN)
    assert [loss == 0 for loss in losses] == [True, True, False, False, False]
    losses = apply([0.0] * 5, [0.5] * 5, entropy_fraction=0.0, kl_fraction=0.4, **PLAIN)
    assert [loss == 0 for loss in losses] == [True, True, False, False, False]


@pytest.mark.parametrize(("fraction", "count"), [(0.0, 0), (0.2, 2), (0.29, 2), (0.3, 3), (0.99, 9), (1.0, 10)])
def test_fractions_round_down_but_not_by_rounding_errors(fraction, count):
    assert int(top_fraction(torch.arange(10.0), fraction).sum()) == count
    assert int(top_fraction(torch.arange(100.0), fraction).sum()) == round(100 * fraction)  # 0.29 * 100 < 29 in binary


@given(n=st.integers(0, 300), share=st.integers(0, 100))
def test_fraction_counts(n, share):
    chosen = top_fraction(torch.rand(n, generator=torch.Generator().manual_seed(n)), share / 100)
    assert int(chosen.sum()) == n * share // 100


def test_everything_dropped_imitates_nothing():
    losses = apply([0.1, 0.9], [0.0, 0.0], entropy_fraction=1.0, entropy_weight=0.5, kl_weight=0.5)
    assert losses == pytest.approx([-0.5 * 0.1, -0.5 * 0.9])
    logprob = torch.tensor([-1.0, -2.0], requires_grad=True)
    loss = eksft(logprob, torch.tensor([0.1, 0.9]), torch.zeros(2), entropy_fraction=1.0)
    assert torch.autograd.grad(loss.sum(), logprob)[0].tolist() == [0, 0]


def test_a_policy_that_has_not_moved_drops_no_drifted_token():
    losses = apply([0.1, 0.2, 0.3], [0.0, KL_FLOOR / 2, 0.0], entropy_fraction=0.0, kl_fraction=1.0, **PLAIN)
    assert losses == pytest.approx([1, 1, 1])
    losses = apply([0.1, 0.2, 0.3], [0.0, KL_FLOOR * 2, 0.0], entropy_fraction=0.0, kl_fraction=1.0, **PLAIN)
    assert losses == pytest.approx([1.5, 0, 1.5])


def test_the_mean_over_all_tokens_is_the_sum_of_the_three_means():
    make = torch.Generator().manual_seed(0)
    logprob, entropy, kl = -torch.rand(3, 40, generator=make, dtype=torch.float64).mul(
        torch.tensor([[3.0], [-1], [-2]])
    )
    losses = eksft(logprob, entropy, kl, entropy_fraction=0.25, kl_fraction=0.1, entropy_weight=0.3, kl_weight=0.7)
    a, b = set(entropy.topk(10).indices.tolist()), set(kl.topk(4).indices.tolist())
    kept = sorted(set(range(40)) - a - b)
    expected = -logprob[kept].mean() - 0.3 * entropy[sorted(a)].mean() + 0.7 * kl[sorted(b)].mean()
    assert float(losses.mean()) == pytest.approx(float(expected))


def test_selection_is_a_constant():
    """The gradient of the choice itself would be infinite or zero; only the chosen terms carry gradients."""
    tensors = [torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in ([-1.0, -2.0], [0.1, 0.9], [0.3, 0.2])]
    loss = eksft(*tensors, entropy_fraction=0.5, kl_fraction=0.5, entropy_weight=0.1, kl_weight=0.2)
    d_logprob, d_entropy, d_kl = torch.autograd.grad(loss.sum(), tensors)
    assert d_logprob.tolist() == [0, 0] and d_entropy.tolist() == [0, -0.2] and d_kl.tolist() == [0.4, 0]


@pytest.mark.parametrize("position", (0, 2, 4))
def test_the_row_that_predicts_a_label_decides_about_it(position):
    """The released code reads the row of the label itself, one token late: it drops the token before the unsure one."""
    V, S = 7, 6
    labels = torch.tensor([[1, 2, 3, 4, 5, 6]])
    z = torch.zeros(1, S, V, dtype=torch.float64)
    for t in range(S - 1):
        z[0, t, labels[0, t + 1]] = 5.0
    z[0, position] = 0.0  # the model cannot tell what follows the token at `position`
    policy = Projection(z, torch.eye(V, dtype=torch.float64))
    objective = resolve("eksft", entropy_fraction=0.2, kl_fraction=0.2, entropy_weight=0.0, kl_weight=0.0)
    losses = token_losses(objective, policy, labels, policy).losses[0]
    assert (losses == 0).tolist() == [t == position for t in range(S - 1)]


def test_prompt_tokens_are_not_candidates():
    V = 7
    labels = torch.tensor([[-100, -100, -100, 4, 5, 6]])
    z = torch.zeros(1, 6, V, dtype=torch.float64)  # prompt rows are flat, hence the most uncertain of all
    for t, strength in ((2, 3.0), (3, 5.0), (4, 4.0)):
        z[0, t, labels[0, t + 1]] = strength
    policy = Projection(z, torch.eye(V, dtype=torch.float64))
    objective = resolve("eksft", entropy_fraction=0.34, kl_fraction=0.0, entropy_weight=0.0)
    losses = token_losses(objective, policy, labels, policy).losses[0]
    assert (losses == 0).tolist() == [True, True, True, False, False]


def test_the_true_kl_does_not_lower_entropy_at_the_reference():
    """The released regulariser, sum p (p - log r), has a gradient at p = r, and it lowers the entropy there."""
    z = 2 * torch.randn(100, 20, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    z.requires_grad_()
    eye = torch.eye(20, dtype=torch.float64)
    kl = token_statistics(
        z, eye, torch.zeros(100, dtype=torch.long), want=("kl_policy_ref",), reference=Projection(z.detach(), eye)
    )["kl_policy_ref"]
    (ours,) = torch.autograd.grad(kl.sum(), z)
    assert ours.abs().max() < 1e-12

    p = z.softmax(-1)
    (released,) = torch.autograd.grad((p * (p - z.detach().log_softmax(-1))).sum(), z)

    def entropy(z):
        return -(z.softmax(-1) * z.log_softmax(-1)).sum(-1)

    assert (entropy(z - 1e-3 * released) < entropy(z)).all()


def test_normalized_entropy_is_what_is_weighed():
    """The bonus is in units of log V, so a uniform row earns exactly `entropy_weight`."""
    V = 50
    eye, z = torch.eye(V, dtype=torch.float64), torch.zeros(1, V, dtype=torch.float64)
    objective = resolve("eksft", entropy_fraction=1.0, entropy_weight=0.25)
    statistics = token_statistics(z, eye, torch.tensor([0]), want=objective.statistics, reference=Projection(z, eye))
    assert objective(statistics).item() == pytest.approx(-0.25)
    assert statistics["logprob"].item() == pytest.approx(-math.log(V))
