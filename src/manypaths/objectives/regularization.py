"""Objectives with an entropy bonus, or tied to a reference model by a KL."""

import torch
from torch import Tensor

KL_FLOOR = 1e-6  # nats; a token that has not moved from the reference is never selected for having moved


def entropy_bonus(logprob: Tensor, entropy: Tensor, *, entropy_weight: float = 0.1) -> Tensor:
    """Cross-entropy minus a bonus for entropy.

    Paper: arXiv:2408.16673 (the CE + entropy baseline, 0.1)
    Formula: -log p_y - lambda H
    Gradient: (p - e_y) + lambda p (log p + H)
    """
    return -logprob - entropy_weight * entropy


def asft(logprob: Tensor, kl_ref_policy: Tensor, *, kl_weight: float = 0.1) -> Tensor:
    """Anchored SFT: DFT held near the starting model.

    Paper: arXiv:2509.23753 (equation 6; 0.1 in its released script, 0.05 in its README)
    Formula: -sg(p_y) log p_y + lambda KL(r || p), r the reference
    Gradient: p_y (p - e_y) + lambda (p - r)
    """
    return -logprob.exp().detach() * logprob + kl_weight * kl_ref_policy


def eksft(
    logprob: Tensor,
    normalized_entropy: Tensor,
    kl_policy_ref: Tensor,
    *,
    entropy_fraction: float = 0.2,
    kl_fraction: float = 0.2,
    entropy_weight: float = 0.05,
    kl_weight: float = 0.05,
) -> Tensor:
    """EKSFT: do not imitate the most uncertain and the most drifted tokens.

    Over the N tokens of the batch: A holds the floor(entropy_fraction N) tokens of highest entropy, B the
    floor(kl_fraction N) of highest KL; ties go to the earlier token; tokens whose KL is below 1e-6 nats never
    enter B, so B is empty while the policy equals the reference. Tokens of A or B are dropped from imitation.
    The mean over an empty set is 0. Values are scaled so that the mean over all N tokens is the formula.
    Entropy and KL are those of the row that predicts the label, and the KL is the true one; the released code
    selects one token early and regularises CE(p, r) + sum p^2 instead.

    Paper: arXiv:2605.29303 (fractions 0.2, weights 0.05, union: its README and script)
    Formula: mean_{not A, not B} -log p_y - lambda_H mean_A H / log V + lambda_K mean_B KL(p || r)
    Gradient: (p - e_y) / |kept|; + lambda_H p (log p + H) / (|A| log V) on A; + lambda_K p (log(p/r) - KL) / |B| on B
    """
    uncertain = top_fraction(normalized_entropy, entropy_fraction)
    drifted = top_fraction(kl_policy_ref, kl_fraction) * (kl_policy_ref.detach() > KL_FLOOR)
    kept = (1 - uncertain) * (1 - drifted)
    return (
        -logprob * share(kept)
        - entropy_weight * normalized_entropy * share(uncertain)
        + kl_weight * kl_policy_ref * share(drifted)
    )


eksft.row_local = False  # quantiles over the tokens it is given


def top_fraction(values: Tensor, fraction: float) -> Tensor:
    """1 for the floor(fraction * N) largest of `values` [N], else 0; equal values in order of position."""
    chosen = torch.zeros_like(values, requires_grad=False)
    order = values.detach().argsort(descending=True, stable=True)
    chosen[order[: int(fraction * len(values) + 1e-9)]] = 1
    return chosen


def share(chosen: Tensor) -> Tensor:
    """Weights that turn a mean over all tokens into a mean over the chosen ones; zeros when none is."""
    return chosen * (len(chosen) / chosen.sum().clamp(min=1))
