"""Objectives of the label's log-probability alone, and label smoothing."""

from torch import Tensor


def nll(logprob: Tensor) -> Tensor:
    """Cross-entropy: the negative log-likelihood of the demonstration.

    Paper: the baseline of all others
    Formula: -log p_y
    Gradient: p - e_y
    """
    return -logprob


def label_smoothing(logprob: Tensor, mean_logprob: Tensor, *, smoothing: float = 0.1) -> Tensor:
    """Cross-entropy to a target that gives `smoothing` of its mass to all tokens alike.

    Paper: arXiv:1512.00567 (section 7; 0.1 is its setting)
    Formula: -(1 - s) log p_y - (s / V) sum_i log p_i
    Gradient: p - (1 - s) e_y - s / V
    """
    return -(1 - smoothing) * logprob - smoothing * mean_logprob


def focal(logprob: Tensor, *, exponent: float = 2.0) -> Tensor:
    """Focal loss: less weight on tokens the model already predicts.

    Paper: arXiv:1708.02002 (equation 4; gamma = 2 is its setting)
    Formula: -(1 - p_y)^gamma log p_y
    Gradient: ((1 - p_y)^gamma - gamma p_y (1 - p_y)^(gamma - 1) log p_y) (p - e_y)
    """
    miss = -logprob.expm1()  # 1 - p_y, accurate near p_y = 1
    return -miss.clamp(min=1e-12).pow(exponent) * logprob
