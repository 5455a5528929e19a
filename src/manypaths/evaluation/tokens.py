"""Scores of texts under a model, from the statistics of their tokens: cross-entropy, entropy, KL, quantiles of p(label).

Knows neither trainer nor engine: the statistics come in. The unit that varies is the row of data: intervals
say how far a score holds for other such rows, given this model.
"""

import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from .intervals import student_t_quantile

QUANTILES = {
    "p_label_p10": 0.1,
    "p_label_p25": 0.25,
    "p_label_p50": 0.5,
    "p_label_p75": 0.75,
    "p_label_p90": 0.9,
}
LARGEST_EXPONENT = 700.0  # exp of more overflows a float

Score = dict[str, float | int | None]


def token_evidence(rows: Iterable[dict[str, Tensor]]) -> dict[str, Any]:
    """Scores over all tokens that carry loss, from each row's statistics {name: [tokens of the row]}.

    ce (nats per token), perplexity = exp(ce), entropy (nats), top1 (share of labels that are the likeliest
    token), kl_to_reference (nats, when the rows bring kl_policy_ref), and quantiles of p(label).

    Returns: {"scores": {name: {"value", "low", "high", "n"}}, "num_rows", "num_tokens"}.
    Raises ValueError for no rows.
    """
    rows = list(rows)
    if not rows:
        raise ValueError("No row has a token that carries loss, so there is nothing to measure.")
    counts = [len(row["logprob"]) for row in rows]

    def per_token(name: str, sign: float = 1.0) -> Score:
        return token_mean([sign * float(row[name].double().sum()) for row in rows], counts)

    scores = {"ce": per_token("logprob", -1.0)}
    scores["perplexity"] = exponential(scores["ce"])
    scores |= {"entropy": per_token("entropy"), "top1": per_token("is_top1")}
    if "kl_policy_ref" in rows[0]:
        scores["kl_to_reference"] = per_token("kl_policy_ref")
    probabilities = torch.cat([row["logprob"] for row in rows]).double().exp()
    for name, quantile in QUANTILES.items():
        ordered = probabilities.sort().values
        value = float(ordered[min(int(quantile * len(ordered)), len(ordered) - 1)])
        scores[name] = {"value": value, "low": None, "high": None, "n": len(rows)}
    return {"scores": scores, "num_rows": len(rows), "num_tokens": sum(counts)}


def exponential(score: Score) -> Score:
    """exp of a score and its limits, such as the perplexity of a cross-entropy; large ones stay finite."""
    return {
        key: value if key == "n" or value is None else math.exp(min(value, LARGEST_EXPONENT))
        for key, value in score.items()
    }


def token_mean(sums: Sequence[float], counts: Sequence[int], confidence: float = 0.95) -> Score:
    """Mean per token of rows of unequal length, with the interval of a ratio of means over rows.

    sums, counts: per row. One row has no interval.
    """
    value = math.fsum(sums) / sum(counts)
    if len(sums) < 2:
        return {"value": value, "low": None, "high": None, "n": 1}
    residuals = math.fsum((total - value * count) ** 2 for total, count in zip(sums, counts, strict=True))
    spread = math.sqrt(residuals * len(sums) / (len(sums) - 1)) / sum(counts)
    half = student_t_quantile(confidence, len(sums) - 1) * spread
    return {"value": value, "low": value - half, "high": value + half, "n": len(sums)}
