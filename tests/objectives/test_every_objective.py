"""Every registered objective on a five-word vocabulary: value and gradient as its docstring writes them."""

import inspect
import math
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from manypaths.engine import token_statistics
from manypaths.objectives import OBJECTIVES, resolve
from manypaths.objectives.registry import docstring_fields

V = 5
HYPERPARAMETERS = {
    "power": {"exponent": 0.5},
    "sed": {"top_k": 2, "threshold": 0.8},
    "eaft": {"top_k": 3},
    "eksft": {"entropy_fraction": 0.3, "kl_fraction": 0.3, "entropy_weight": 0.7, "kl_weight": 0.9},
}


def row(z, y, z_ref) -> SimpleNamespace:
    """All a closed form needs of one row, in plain floats."""

    def softmax(values):
        exps = [math.exp(v - max(values)) for v in values]
        return [e / sum(exps) for e in exps]

    p, r = softmax(z), softmax(z_ref)
    entropy = -sum(a * math.log(a) for a in p)
    kl = sum(a * math.log(a / b) for a, b in zip(p, r, strict=True))
    return SimpleNamespace(
        z=z, y=y, p=p, r=r, logp=[math.log(a) for a in p], H=entropy, KL=kl, py=p[y],
        e=[float(i == y) for i in range(V)], softmax=softmax, top=sorted(p, reverse=True),
        KL_ref=sum(b * math.log(b / a) for a, b in zip(p, r, strict=True)),
    )  # fmt: skip


def imitation(s, gate):
    return [gate * (p - e) for p, e in zip(s.p, s.e, strict=True)]


def tempered(s, weigh=lambda s, i: 1.0):
    return [q * weigh(s, i) for i, q in enumerate(s.softmax([z / 0.7 for z in s.z]))]


def sigmoid_weight(s, i):
    return 1 / (1 + math.exp(-0.01 * (s.z[i] - s.z[s.y])))


def eaft_gate(s):
    share = [p / sum(s.top[:3]) for p in s.top[:3]]
    return -sum(a * math.log(a) for a in share) / math.log(3)


def sed_mask(s):
    return float(sum(s.top[:2]) < 0.8)


# name: (value of a row, gradient of a row), each written from its paper's formula
ROW_LOCAL = {
    "nll": (lambda s: -s.logp[s.y], lambda s: imitation(s, 1)),
    "label_smoothing": (
        lambda s: -0.9 * s.logp[s.y] - 0.1 / V * sum(s.logp),
        lambda s: [p - 0.9 * e - 0.1 / V for p, e in zip(s.p, s.e, strict=True)],
    ),
    "entropy_bonus": (
        lambda s: -s.logp[s.y] - 0.1 * s.H,
        lambda s: [p - e + 0.1 * p * (lp + s.H) for p, e, lp in zip(s.p, s.e, s.logp, strict=True)],
    ),
    "focal": (
        lambda s: -((1 - s.py) ** 2) * math.log(s.py),
        lambda s: imitation(s, (1 - s.py) ** 2 - 2 * s.py * (1 - s.py) * math.log(s.py)),
    ),
    "power": (lambda s: (1 - s.py**0.5) / 0.5, lambda s: imitation(s, s.py**0.5)),
    "dft": (lambda s: -s.py * math.log(s.py), lambda s: imitation(s, s.py)),
    "eaft": (lambda s: -eaft_gate(s) * math.log(s.py), lambda s: imitation(s, eaft_gate(s))),
    "sed": (
        lambda s: -math.log(s.py) + sed_mask(s) * (s.py - 0.5) ** 2,
        lambda s: imitation(s, 1 - 2 * sed_mask(s) * (s.py - 0.5) * s.py),
    ),
    "gem": (
        lambda s: -sum(q * (math.log(s.py) - lp) for q, lp in zip(tempered(s), s.logp, strict=True)),
        lambda s: [q - e for q, e in zip(tempered(s), s.e, strict=True)],
    ),
    "gem_logsigmoid": (
        lambda s: -sum(q * (math.log(s.py) - lp) for q, lp in zip(tempered(s, sigmoid_weight), s.logp, strict=True)),
        lambda s: [
            qw - sum(tempered(s, sigmoid_weight)) * e for qw, e in zip(tempered(s, sigmoid_weight), s.e, strict=True)
        ],
    ),
    "asft": (
        lambda s: -s.py * math.log(s.py) + 0.1 * s.KL_ref,
        lambda s: [s.py * (p - e) + 0.1 * (p - r) for p, e, r in zip(s.p, s.e, s.r, strict=True)],
    ),
}


def eksft_closed_form(rows):
    """Losses and gradients of every row, scaled so that their mean over all rows is the paper's sum of means."""
    n, count = len(rows), int(0.3 * len(rows))

    def largest(key):
        return set(sorted(range(n), key=lambda t: (-key(rows[t]), t))[:count])

    uncertain, drifted = largest(lambda s: s.H), largest(lambda s: s.KL)
    kept = set(range(n)) - uncertain - drifted
    losses, gradients = [], []
    for t, s in enumerate(rows):
        loss, gradient = 0.0, [0.0] * V
        if t in kept:
            loss, gradient = -math.log(s.py) * n / len(kept), imitation(s, n / len(kept))
        if t in uncertain:
            scale = 0.7 * n / count / math.log(V)
            loss -= scale * s.H
            gradient = [g + scale * p * (lp + s.H) for g, p, lp in zip(gradient, s.p, s.logp, strict=True)]
        if t in drifted:
            scale = 0.9 * n / count
            loss += scale * s.KL
            gradient = [g + scale * p * (math.log(p / r) - s.KL) for g, p, r in zip(gradient, s.p, s.r, strict=True)]
        losses.append(loss)
        gradients.append(gradient)
    return losses, gradients


def closed_form(name, rows):
    if name == "eksft":
        return eksft_closed_form(rows)
    value, gradient = ROW_LOCAL[name]
    return [value(s) for s in rows], [gradient(s) for s in rows]


def problem(T=12, spread=2.0, seed=0):
    make = torch.Generator().manual_seed(seed)
    z, z_ref = (spread * torch.randn(T, V, generator=make, dtype=torch.float64) for _ in range(2))
    return z.requires_grad_(), torch.randint(V, (T,), generator=make), z_ref


def ready(name):
    return resolve(name, **HYPERPARAMETERS.get(name, {}))


def test_every_objective_has_a_closed_form():
    assert {*ROW_LOCAL, "eksft"} == set(OBJECTIVES)
    assert {name for name in OBJECTIVES if not ready(name).row_local} == {"eksft"}


@pytest.mark.parametrize("name", OBJECTIVES)
def test_docstring_names_paper_formula_and_gradient(name):
    fields = docstring_fields(OBJECTIVES[name])
    assert set(fields) == {"Paper", "Formula", "Gradient"}
    assert all(len(text) > 4 for text in fields.values())
    assert inspect.getdoc(OBJECTIVES[name]).splitlines()[0].endswith(".")


@pytest.mark.parametrize("name", OBJECTIVES)
@pytest.mark.parametrize("seed", range(3))
def test_value_and_gradient_are_the_closed_form(name, seed, losses_of):
    z, labels, z_ref = problem(seed=seed)
    losses = losses_of(ready(name), z, labels, z_ref)
    values, gradients = closed_form(
        name, [row(a, b, c) for a, b, c in zip(z.tolist(), labels.tolist(), z_ref.tolist(), strict=True)]
    )
    torch.testing.assert_close(losses, torch.tensor(values, dtype=torch.float64), rtol=1e-11, atol=1e-12)
    upstream = torch.randn(12, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
    (d_z,) = torch.autograd.grad((upstream * losses).sum(), z)
    expected = upstream[:, None] * torch.tensor(gradients, dtype=torch.float64)
    torch.testing.assert_close(d_z, expected, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_gradients_of_a_row_sum_to_zero(name, losses_of):
    z, labels, z_ref = problem(40, seed=3)
    (d_z,) = torch.autograd.grad(losses_of(ready(name), z, labels, z_ref).sum(), z)
    assert d_z.sum(-1).abs().max() < 1e-12 and d_z.abs().max() > 1e-3


@pytest.mark.parametrize("name", OBJECTIVES)
@pytest.mark.parametrize("size", (10.0, 90.0, 1e4))
def test_finite_when_the_label_is_certain_or_impossible(name, size, losses_of):
    """p_y from 0 to 1 to the last bit of float32."""
    z = torch.zeros(7, V)
    z[:, 0] = torch.tensor([size, size, -size, -size, 0, size, -size])
    z[5, 1] = size
    labels = torch.tensor([0, 1, 0, 1, 0, 0, 4])
    z.requires_grad_()
    losses = losses_of(ready(name), z, labels, torch.zeros(7, V))
    (d_z,) = torch.autograd.grad(losses.sum(), z)
    assert losses.isfinite().all() and d_z.isfinite().all()


@pytest.mark.parametrize("name", OBJECTIVES)
def test_no_token_gives_no_loss_and_no_error(name, losses_of):
    z = torch.zeros(0, V, dtype=torch.float64, requires_grad=True)
    losses = losses_of(ready(name), z, torch.zeros(0, dtype=torch.long), z.detach())
    assert losses.shape == (0,) and losses.requires_grad


@pytest.mark.parametrize("name", OBJECTIVES)
def test_splitting_the_batch_matters_only_where_declared(name, losses_of):
    z, labels, z_ref = problem(12, seed=5)
    objective = ready(name)
    whole = losses_of(objective, z, labels, z_ref)
    parts = torch.cat([losses_of(objective, z[i : i + 4], labels[i : i + 4], z_ref[i : i + 4]) for i in (0, 4, 8)])
    if objective.row_local:
        torch.testing.assert_close(parts, whole, rtol=1e-13, atol=1e-14)
    else:
        assert not torch.allclose(parts, whole)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_statistics_are_not_changed_in_place(name):
    z, labels, z_ref = problem()
    objective = ready(name)
    eye = torch.eye(V, dtype=torch.float64)
    statistics = token_statistics(
        z, eye, labels, want=objective.statistics, reference=(z_ref, eye), **objective.engine_parameters
    )
    before = {key: value.detach().clone() for key, value in statistics.items()}
    objective(statistics)
    assert all(torch.equal(statistics[key], before[key]) for key in before)


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_a_constant_added_to_the_logits_changes_nothing(data):
    name = data.draw(st.sampled_from(sorted(OBJECTIVES)))
    shift = data.draw(st.floats(-50, 50))
    z, labels, z_ref = problem(6, seed=data.draw(st.integers(0, 100)))
    objective, eye = ready(name), torch.eye(V, dtype=torch.float64)

    def losses(z, z_ref):
        want, parameters = objective.statistics, objective.engine_parameters
        return objective(token_statistics(z, eye, labels, want=want, reference=(z_ref, eye), **parameters))

    torch.testing.assert_close(losses(z + shift, z_ref - shift), losses(z, z_ref), rtol=1e-9, atol=1e-10)
