"""Objectives that treat some tokens differently: SED's mask by exploration space."""

from torch import Tensor


def sed(logprob: Tensor, topk_mass: Tensor, *, top_k: int = 2, threshold: float, weight: float = 1.0) -> Tensor:
    """Selective Entropy-Diversity SFT: a pull of p_y towards 1/2 where the model sees several ways on.

    Paper: arXiv:2602.07464 (lambda = 1, k = 2; the threshold is a quantile of the starting model, so it
        comes from calibration and has no default)
    Formula: -log p_y + lambda m (p_y - 1/2)^2, m = 1 where the top_k mass is below the threshold
    Gradient: (1 - 2 lambda m (p_y - 1/2) p_y) (p - e_y)
    """
    pull = (logprob.exp() - 0.5).square()
    return -logprob + weight * below(topk_mass.detach(), threshold).to(logprob.dtype) * pull


def below(mass: Tensor, threshold: float) -> Tensor:
    """Where a probability is below the threshold; everywhere at 1, though rounding can put a mass there."""
    return mass < (threshold if threshold < 1 else float("inf"))
