"""Every per-token statistic the engine can produce: its formula, gradient, units and range.

Tokens whose bias is -inf have probability 0 and are left out of the mean over the vocabulary.

Notation, for one supervised token: z [V] the final logits (after scale and softcap), y the label,
p = softmax(z), r = softmax(z_ref), q = softmax(z / temperature), e_y the one-hot of the label,
w_i = sigmoid(0.01 (z_i - z_y)), V the vocabulary size. Gradients are with respect to z and sum to
zero over the vocabulary.

A new need is a new row here, then a few lines in reference.py (the definition) and chunked.py.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

FORBIDDEN = -1e30  # in place of a bias of -inf: exp() gives 0, but 0 times it is 0 and not NaN
GEM_SIGMOID_SLOPE = 0.01  # slope of h = logsigmoid in the released code of GEM, arXiv:2408.16673


class Projection(NamedTuple):
    """Hidden states and the head that turns them into logits.

    logits = softcap * tanh(logit_scale * (hidden_states @ weight.T + bias) / softcap), or without the
    tanh when `softcap` is None.

    hidden_states: [T, D]; weight: [V, D], same dtype or float32 for low-precision hidden states; bias: [V] or None.
    In the place of the weight may stand a module whose forward gives hidden_states @ weight.T + bias, or what it has
    instead; `out_features` is its V.
    """

    hidden_states: Tensor
    weight: Tensor | nn.Module
    bias: Tensor | None = None
    softcap: float | None = None
    logit_scale: float = 1.0


def vocab_size(projection: Projection) -> int:
    weight = projection.weight
    return len(weight) if isinstance(weight, Tensor) else weight.out_features


def forbidden_tokens(projection: Projection) -> Tensor:
    """[V] bool: the tokens whose logit is -inf; a softcap makes the logit of a bias of -inf finite."""
    bias = projection.bias
    if bias is None or projection.softcap is not None:
        return torch.zeros(vocab_size(projection), dtype=torch.bool, device=projection.hidden_states.device)
    return bias.detach() <= FORBIDDEN


def token_shares(projection: Projection) -> Tensor:
    """[V] in the statistics' dtype: 1 / V, or 0 for a forbidden token and the same for each of the others."""
    allowed = ~forbidden_tokens(projection)
    return allowed.to(torch.promote_types(projection.hidden_states.dtype, torch.float32)) / allowed.sum()


@dataclass(frozen=True)
class Statistic:
    """One number per token. `gradient` is None where the statistic is a constant for autograd."""

    name: str
    formula: str
    gradient: str | None
    units: str
    range: str
    parameters: tuple[str, ...] = ()
    needs_reference: bool = False

    @property
    def differentiable(self) -> bool:
        return self.gradient is not None


STATISTICS: dict[str, Statistic] = {
    statistic.name: statistic
    for statistic in (
        Statistic("logprob", "log p_y", "e_y - p", "nats", "(-inf, 0]"),
        Statistic("mean_logprob", "(1/V) sum_i log p_i", "1/V - p", "nats", "(-inf, -log V]"),
        Statistic("entropy", "H = -sum_i p_i log p_i", "-p (log p + H)", "nats", "[0, log V]"),
        Statistic("normalized_entropy", "H / log V", "-p (log p + H) / log V", "1", "[0, 1]"),
        Statistic("topk_mass", "sum of the top_k largest p_i", None, "probability", "[top_k / V, 1]", ("top_k",)),
        Statistic(
            "topk_entropy",
            "entropy of the top_k largest p_i, renormalised to sum to 1",
            None,
            "nats",
            "[0, log top_k]",
            ("top_k",),
        ),
        Statistic(
            "tempered_logprob",
            "E_q[log p] = sum_i sg(q_i) log p_i",
            "q - p  (q held constant)",
            "nats",
            "(-inf, 0]",
            ("temperature",),
        ),
        Statistic(
            "sigmoid_tempered_logprob",
            "sum_i sg(q_i w_i) log p_i",
            "q w - (q.w) p  (q and w held constant)",
            "nats",
            "(-inf, 0]",
            ("temperature",),
        ),
        Statistic("sigmoid_tempered_mass", "q.w = sum_i q_i w_i", None, "1", "(0, 1)", ("temperature",)),
        Statistic("is_top1", "1 where z_y is the largest logit (ties count)", None, "0 or 1", "{0, 1}"),
        Statistic(
            "kl_policy_ref",
            "KL(p || r) = sum_i p_i (log p_i - log r_i)",
            "p (log p - log r - KL)",
            "nats",
            "[0, inf)",
            needs_reference=True,
        ),
        Statistic(
            "kl_ref_policy",
            "KL(r || p) = sum_i r_i (log r_i - log p_i)",
            "p - r",
            "nats",
            "[0, inf)",
            needs_reference=True,
        ),
    )
}
