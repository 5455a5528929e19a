"""The logged metrics against their definitions, token by token."""

import math

import pytest
import torch

from manypaths.objectives import OBJECTIVES, resolve
from manypaths.training.metrics import gates, label_probability_quantiles, means, sums

HYPERPARAMETERS = {"power": {"exponent": 2.0}, "sed": {"threshold": 0.8, "weight": 4.0}}


def random_statistics(T=20, seed=0):
    make = torch.Generator().manual_seed(seed)

    def uniform():
        return torch.rand(T, generator=make, dtype=torch.float64)

    return {
        "logprob": -3 * uniform(), "mean_logprob": -5 * uniform(), "entropy": 2 * uniform(),
        "normalized_entropy": uniform(), "topk_mass": uniform(), "topk_entropy": 2 * uniform(),
        "tempered_logprob": -uniform(), "sigmoid_tempered_logprob": -uniform(), "sigmoid_tempered_mass": uniform(),
        "is_top1": (uniform() > 0.5).double(), "kl_policy_ref": uniform(), "kl_ref_policy": uniform(),
    }  # fmt: skip


def expected_gates(name, s):
    p = s["logprob"].exp()
    if name == "label_smoothing":
        return torch.full_like(p, 0.9)
    if name == "focal":
        return (1 - p) ** 2 - 2 * p * (1 - p) * s["logprob"]
    if name == "power":
        return p**2
    if name in ("dft", "asft"):
        return p
    if name == "eaft":
        return s["topk_entropy"] / math.log(20)
    if name == "sed":
        return 1 - 8 * (s["topk_mass"] < 0.8) * (p - 0.5) * p
    if name == "gem_logsigmoid":
        return s["sigmoid_tempered_mass"]
    if name == "eksft":
        dropped = {i for key in ("normalized_entropy", "kl_policy_ref") for i in s[key].topk(4).indices.tolist()}
        gate = torch.full_like(p, 20 / (20 - len(dropped)))
        gate[list(dropped)] = 0
        return gate
    return torch.ones_like(p)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_gates_and_sums(name):
    objective = resolve(name, **HYPERPARAMETERS.get(name, {}))
    statistics = random_statistics()
    gate = expected_gates(name, statistics)
    torch.testing.assert_close(gates(objective, statistics), gate)

    metrics = means({key: value.item() for key, value in sums(objective, statistics).items()})
    loss = objective(statistics)
    expected = {
        "ce": -statistics["logprob"].mean(),
        "objective": loss.mean(),
        "gate_mean": gate.mean(),
        "effective_token_share": gate.sum() ** 2 / (20 * (gate**2).sum()),
        "kept_share": (gate != 0).double().mean(),
    }
    for divergence in ("kl_policy_ref", "kl_ref_policy"):
        expected[divergence] = statistics[divergence].mean()
    if name == "sed":
        expected["mask_rate"] = (statistics["topk_mass"] < 0.8).double().mean()
    assert metrics == pytest.approx({key: float(value) for key, value in expected.items()}, rel=1e-5)


def test_metrics_touch_neither_the_statistics_nor_the_graph():
    statistics = {name: values.requires_grad_() for name, values in random_statistics().items()}
    with torch.no_grad():
        assert gates(resolve("dft"), statistics).isfinite().all()  # evaluation runs without gradients
    totals = sums(resolve("sed", threshold=0.5), statistics)
    assert not any(value.requires_grad for value in totals.values())
    assert all(values.requires_grad and values.grad is None for values in statistics.values())


def test_sums_of_parts_add_up():
    objective, statistics = resolve("dft"), random_statistics()
    whole = sums(objective, statistics)
    parts = [sums(objective, {k: v[rows] for k, v in statistics.items()}) for rows in (slice(0, 7), slice(7, 20))]
    added = {name: float(sum(part[name] for part in parts)) for name in whole}
    assert added == pytest.approx({name: float(value) for name, value in whole.items()})


def test_no_token_no_metrics():
    empty = {name: values[:0] for name, values in random_statistics().items()}
    for name in ("nll", "eksft", "gem"):
        assert means({key: value.item() for key, value in sums(resolve(name), empty).items()}) == {}
    assert label_probability_quantiles(empty["logprob"]) == {}


def test_everything_muted_has_no_effective_token():
    totals = {"tokens": 4.0, "ce": 1.0, "objective": 0.0, "gate": 0.0, "gate_squared": 0.0, "kept": 0.0}
    metrics = means(totals)
    assert metrics["effective_token_share"] == metrics["kept_share"] == metrics["gate_mean"] == 0


def test_an_objective_without_the_label_probability_imitates_nothing():
    objective = resolve(lambda entropy, logprob: entropy * 1.0)
    assert gates(objective, random_statistics()).tolist() == [0.0] * 20


def test_quantiles_of_the_label_probability():
    logprob = (torch.randperm(100, generator=torch.Generator().manual_seed(0)) / 100 + 0.001).log()
    assert label_probability_quantiles(logprob) == pytest.approx(
        {"p_label_p10": 0.101, "p_label_p50": 0.501, "p_label_p90": 0.901}, rel=1e-5
    )
    assert list(label_probability_quantiles(torch.tensor([-1.0])).values()) == pytest.approx([math.exp(-1)] * 3)
