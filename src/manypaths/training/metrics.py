"""What is logged at every step, from statistics that are there anyway."""

import torch
from torch import Tensor

from ..objectives import Objective
from ..objectives.selection import below

QUANTILES = {"p_label_p10": 0.1, "p_label_p50": 0.5, "p_label_p90": 0.9}


def gates(objective: Objective, statistics: dict[str, Tensor]) -> Tensor:
    """-d loss / d logprob of every token [T]: 1 for cross-entropy, 0 where nothing is imitated."""
    leaves = {name: values.detach() for name, values in statistics.items()}
    with torch.enable_grad():
        logprob = leaves["logprob"].requires_grad_()
        loss = objective(leaves).sum()
        (gradient,) = torch.autograd.grad(loss, logprob, allow_unused=True) if loss.requires_grad else (None,)
    return torch.zeros_like(logprob) if gradient is None else -gradient


def sums(objective: Objective, statistics: dict[str, Tensor]) -> dict[str, Tensor]:
    """Sums over the tokens of this rank, ready to be added over ranks."""
    statistics = {name: values.detach() for name, values in statistics.items()}
    gate = gates(objective, statistics)
    logprob = statistics["logprob"]
    totals = {
        "tokens": torch.tensor(float(len(logprob)), device=logprob.device),
        "ce": -logprob.sum(),
        "objective": objective(statistics).sum(),
        "gate": gate.sum(),
        "gate_squared": gate.square().sum(),
        "kept": (gate != 0).sum(),
    }
    if "topk_mass" in statistics and "threshold" in objective.hyperparameters:
        totals["masked"] = below(statistics["topk_mass"], objective.hyperparameters["threshold"]).sum()
    for name in ("kl_policy_ref", "kl_ref_policy"):
        if name in statistics:
            totals[name] = statistics[name].sum()
    return {name: value.float() for name, value in totals.items()}


def means(totals: dict[str, float]) -> dict[str, float]:
    """The logged metrics from summed totals. Empty without a token."""
    tokens = totals.get("tokens", 0)
    if not tokens:
        return {}
    squared = totals["gate_squared"]
    metrics = {
        "ce": totals["ce"] / tokens,
        "objective": totals["objective"] / tokens,
        "gate_mean": totals["gate"] / tokens,
        "effective_token_share": totals["gate"] ** 2 / (tokens * squared) if squared else 0.0,
        "kept_share": totals["kept"] / tokens,
    }
    if "masked" in totals:
        metrics["mask_rate"] = totals["masked"] / tokens
    for name in ("kl_policy_ref", "kl_ref_policy"):
        if name in totals:
            metrics[name] = totals[name] / tokens
    return metrics


def label_probability_quantiles(logprob: Tensor) -> dict[str, float]:
    """Quantiles of p(label) over the tokens of this rank. Empty without a token."""
    if not len(logprob):
        return {}
    ordered = logprob.detach().exp().sort().values
    index = [min(int(q * len(ordered)), len(ordered) - 1) for q in QUANTILES.values()]
    return dict(zip(QUANTILES, ordered[index].tolist(), strict=True))
