"""Objectives that weigh cross-entropy by how much the model already believes, or how unsure it is."""

import math

from torch import Tensor


def dft(logprob: Tensor) -> Tensor:
    """Dynamic Fine-Tuning: cancels the implicit 1 / p_y weight of cross-entropy.

    Paper: arXiv:2508.05629
    Formula: -sg(p_y) log p_y
    Gradient: p_y (p - e_y)
    """
    return -logprob.exp().detach() * logprob


def power(logprob: Tensor, *, exponent: float) -> Tensor:
    """The family between cross-entropy (exponent 0) and DFT (exponent 1), and beyond.

    Paper: arXiv:2510.00526 (f_alpha; its maths runs use alpha = 10, -p_y is alpha = 1, so none is the default)
    Formula: (1 - p_y^alpha) / alpha, and -log p_y at alpha = 0
    Gradient: p_y^alpha (p - e_y)
    """
    if exponent == 0:
        return -logprob
    return -(exponent * logprob).expm1() / exponent


def eaft(logprob: Tensor, topk_entropy: Tensor, *, top_k: int = 20, exponent: float = 1.0) -> Tensor:
    """Entropy-Adaptive Fine-Tuning: trusts the label where the model is unsure, mutes confident conflicts.

    Paper: arXiv:2601.02151 (the gate is detached as in its released code, which divides by 3.0 for log 20)
    Formula: -sg((H_topk / log top_k)^a) log p_y, H_topk the entropy of the renormalised top_k
    Gradient: (H_topk / log top_k)^a (p - e_y)
    """
    gate = (topk_entropy / math.log(top_k)).clamp(min=0).pow(exponent)
    return -gate.detach() * logprob
