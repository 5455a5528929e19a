"""GEM: only the rivals that a sharpened copy of the model singles out give up mass."""

from torch import Tensor


def gem(logprob: Tensor, tempered_logprob: Tensor, *, temperature: float = 0.7) -> Tensor:
    """GEM with linear h: the game whose gradient is softmax(z / beta) minus the one-hot.

    Paper: arXiv:2408.16673 (beta = 0.7); the gradient equals that of beta * CE(z / beta)
    Formula: -log p_y + E_q[log p], q = softmax(z / beta) held constant
    Gradient: q - e_y
    """
    return tempered_logprob - logprob


def gem_logsigmoid(
    logprob: Tensor,
    sigmoid_tempered_logprob: Tensor,
    sigmoid_tempered_mass: Tensor,
    *,
    temperature: float = 0.7,
) -> Tensor:
    """GEM with h = logsigmoid, as its released scripts run it: close to half of `gem`.

    Paper: arXiv:2408.16673 (beta = 0.7; slope 0.01 from the released code)
    Formula: -sum_i sg(q_i w_i) (log p_y - log p_i), w_i = sigmoid(0.01 (z_i - z_y))
    Gradient: q w - (q.w) e_y
    """
    return sigmoid_tempered_logprob - sigmoid_tempered_mass.detach() * logprob
