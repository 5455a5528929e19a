"""Shift, mask, pack and divide, each against a loop over tokens."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from batches import padded, sequences
from manypaths.engine import Projection
from manypaths.objectives import resolve
from manypaths.training.reduction import LOGGED, reduce, statistics_of, token_losses

V, D = 19, 6


def head(batch: int, length: int, seed=0) -> Projection:
    make = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=make, dtype=torch.float64).requires_grad_()

    return Projection(normal(batch, length, D), normal(V, D))


def looped(policy: Projection, labels) -> dict[tuple[int, int], torch.Tensor]:
    """{(sequence, position): log-probability of the label at position + 1} by a plain double loop."""
    logp = (policy.hidden_states @ policy.weight.T).log_softmax(-1)
    return {
        (b, s): logp[b, s, int(labels[b, s + 1])]
        for b in range(len(labels))
        for s in range(labels.shape[1] - 1)
        if labels[b, s + 1] != -100
    }


@pytest.mark.parametrize("side", ("left", "right"))
def test_row_t_is_judged_by_label_t_plus_1(side):
    labels = padded(sequences(V), side)["labels"]
    policy = head(*labels.shape)
    scored, expected = token_losses(resolve("nll"), policy, labels), looped(policy, labels)
    assert scored.losses.shape == (3, labels.shape[1] - 1)
    assert {tuple(index) for index in scored.valid.nonzero().tolist()} == set(expected)
    for (b, s), logprob in expected.items():
        torch.testing.assert_close(scored.losses[b, s], -logprob)
    assert not scored.losses[~scored.valid].any()
    packed = torch.stack([expected[tuple(index)] for index in scored.valid.nonzero().tolist()])
    torch.testing.assert_close(scored.statistics["logprob"], packed)


def test_masking_the_row_of_a_token_removes_exactly_the_next_label():
    labels = padded(sequences(V, (8,), prompt=0))["labels"]
    policy = head(1, 8)
    before = token_losses(resolve("nll"), policy, labels).losses
    hidden = policy.hidden_states.detach().clone()
    hidden[0, 3] += 1
    after = token_losses(resolve("nll"), policy._replace(hidden_states=hidden), labels).losses
    assert (before != after).nonzero().tolist() == [[0, 3]]


def test_the_first_label_and_the_last_row_are_never_used():
    labels = padded(sequences(V, (8,), prompt=0))["labels"]
    policy = head(1, 8)
    scored = token_losses(resolve("nll"), policy, labels)
    (d_hidden,) = torch.autograd.grad(scored.losses.sum(), policy.hidden_states)
    assert int(scored.valid.sum()) == 7 and not d_hidden[0, -1].any()


def test_what_is_logged_is_there_for_every_objective():
    labels = padded(sequences(V))["labels"]
    policy = head(*labels.shape)
    for name, hyperparameters in (("nll", {}), ("gem", {}), ("sed", {"threshold": 0.5}), ("eksft", {})):
        objective = resolve(name, **hyperparameters)
        scored = token_losses(objective, policy, labels, policy if objective.needs_reference else None)
        assert set(scored.statistics) == {*LOGGED, *objective.statistics}
        assert all(values.shape == (int(scored.valid.sum()),) for values in scored.statistics.values())


def test_the_reference_is_shifted_with_the_policy():
    labels = padded(sequences(V))["labels"]
    policy, reference = head(*labels.shape), head(*labels.shape, seed=1)
    got = statistics_of(policy, labels, ("kl_policy_ref",), reference)[0]["kl_policy_ref"]
    logp, logr = ((p.hidden_states @ p.weight.T).log_softmax(-1)[:, :-1] for p in (policy, reference))
    expected = (logp.exp() * (logp - logr)).sum(-1)[labels[:, 1:] != -100]
    torch.testing.assert_close(got, expected)


def test_nothing_to_train_is_a_connected_zero():
    labels = torch.full((2, 5), -100)
    policy = head(2, 5)
    for name, hyperparameters in (("nll", {}), ("eksft", {}), ("sed", {"threshold": 0.5}), ("asft", {})):
        objective = resolve(name, **hyperparameters)
        scored = token_losses(objective, policy, labels, policy if objective.needs_reference else None)
        loss = reduce(scored.losses, scored.valid)
        assert loss.item() == 0 and loss.requires_grad
        gradients = torch.autograd.grad(loss, policy[:2])
        assert not any(gradient.any() for gradient in gradients)


def test_an_objective_that_reduces_is_refused():
    labels = padded(sequences(V))["labels"]
    policy = head(*labels.shape)
    with pytest.raises(ValueError, match=r"'mean' returned \[\] for \[15\] tokens; it must return one loss per token"):
        token_losses(resolve(mean), policy, labels)


def mean(logprob):
    return -logprob.mean()


def test_fewer_hidden_states_than_labels_are_refused():
    labels = padded(sequences(V))["labels"]
    policy = head(*labels.shape)
    cut = policy._replace(hidden_states=policy.hidden_states[:, -2:])
    with pytest.raises(ValueError, match=r"The head saw \[3, 2\] tokens but labels are \[3, 9\].*logits_to_keep"):
        token_losses(resolve("nll"), cut, labels)


def test_divisors():
    losses = torch.tensor([[1.0, 2.0, 0.0], [3.0, 0.0, 0.0]])
    valid = losses > 0
    assert reduce(losses, valid).item() == 2
    assert reduce(losses, valid, 12).item() == reduce(losses, valid, torch.tensor(12)).item() == 0.5
    assert reduce(losses * 0, valid & False).item() == 0
    assert reduce(losses * 0, valid, 0).item() == 0


@given(cut=st.integers(1, 5), seed=st.integers(0, 50))
def test_micro_batches_with_a_common_divisor_add_up(cut, seed):
    labels = padded(sequences(V, (4, 6, 5, 8, 3, 7), seed=seed))["labels"]
    policy = head(*labels.shape, seed=seed)
    objective = resolve("dft")
    scored = token_losses(objective, policy, labels)
    whole = reduce(scored.losses, scored.valid)
    parts = sum(
        reduce(*token_losses(objective, policy._replace(hidden_states=policy.hidden_states[rows]), labels[rows])[::2],
               scored.valid.sum())
        for rows in (slice(0, cut), slice(cut, 6))
    )  # fmt: skip
    torch.testing.assert_close(parts, whole)


def test_an_objective_that_gives_nan_is_named():
    def broken(logprob):
        return logprob / torch.where(torch.arange(len(logprob)) == 2, 0.0, 1.0)

    policy = Projection(torch.randn(1, 6, 4), torch.randn(9, 4))
    with pytest.raises(ValueError, match=r"Objective 'broken' gave -inf at trained token 2 of 5"):
        token_losses(resolve(broken), policy, torch.arange(6)[None])


def test_an_objective_that_raises_is_named():
    def broken(logprob):
        raise KeyError("what")

    with pytest.raises(ValueError, match="Objective 'broken' fails: KeyError: 'what'"):
        token_losses(resolve(broken), Projection(torch.randn(1, 6, 4), torch.randn(9, 4)), torch.arange(6)[None])


def detached(logprob):
    return -logprob.detach()


def whole_numbers(logprob):
    return (logprob < -1).long()


def in_place(logprob, entropy):
    return -logprob.mul_(2.0) - entropy


def a_number(logprob):
    return -float(logprob.sum())


def summed(logprob):
    return -logprob.sum()


def broken(logprob):
    return logprob["there is no such thing"]


@pytest.mark.parametrize(
    ("objective", "message"),
    [
        (detached, "'detached' returned a loss without a gradient, which trains nothing"),
        (whole_numbers, "'whole_numbers' returned torch.int64 values; a loss is a floating-point number"),
        (in_place, "'in_place' changes logprob in place"),
        (a_number, "'a_number' returned a float for"),
        (summed, "'summed' returned \\[\\] for"),
        (broken, "'broken' fails: .*\\(test_reduction.py, line [0-9]+: return logprob\\[.there is no such thing.\\]\\)"),
    ],
)
def test_an_objective_that_would_not_train_what_it_says_is_refused_at_once(objective, message):
    labels = padded(sequences(V))["labels"]
    with pytest.raises(ValueError, match=message) as caught:
        token_losses(resolve(objective), head(*labels.shape), labels)
    assert "\n" not in str(caught.value)


def test_a_loss_needs_no_gradient_where_there_is_none():
    labels = padded(sequences(V))["labels"]
    with torch.no_grad():
        scored = token_losses(resolve("nll"), head(*labels.shape), labels)
    assert scored.losses.sum() > 0
