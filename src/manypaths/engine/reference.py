"""The naive twin: full logits, plain autograd. The specification of every statistic, never optimised.

Shapes: T tokens, D hidden size, V vocabulary, K top-k.
"""

import torch
from torch import Tensor

from .statistics import GEM_SIGMOID_SLOPE, Projection, token_shares


def full_logits(projection: Projection) -> Tensor:
    """[T, V] logits in fp32 (fp64 for fp64 input), multiplied in the dtype of the input."""
    hidden_TD, weight_VD, bias_V, softcap, logit_scale = projection
    is_module = not isinstance(weight_VD, Tensor)
    logits_TV = weight_VD(hidden_TD) if is_module else hidden_TD @ weight_VD.to(hidden_TD.dtype).T
    logits_TV = logits_TV.to(torch.promote_types(logits_TV.dtype, torch.float32))
    if bias_V is not None:
        logits_TV = logits_TV + bias_V
    logits_TV = logits_TV * logit_scale
    return logits_TV if softcap is None else softcap * torch.tanh(logits_TV / softcap)


def naive_statistics(
    policy: Projection,
    labels: Tensor,
    want: tuple[str, ...],
    top_k: int | None = None,
    temperature: float | None = None,
    reference: Projection | None = None,
) -> dict[str, Tensor]:
    """The statistics named in `want`, each [T], for labels [T] that are all valid."""
    z_TV = full_logits(policy)
    logp_TV = z_TV.log_softmax(-1)
    p_TV = logp_TV.exp()
    z_y_T1 = z_TV.gather(-1, labels[:, None])
    out: dict[str, Tensor] = {"logprob": logp_TV.gather(-1, labels[:, None])[:, 0]}
    if "mean_logprob" in want:
        out["mean_logprob"] = logp_TV @ token_shares(policy)
    if "entropy" in want:
        out["entropy"] = -(p_TV * logp_TV).sum(-1)
    if top_k is not None:
        topk_TK = logp_TV.detach().topk(top_k).values
        out["topk_mass"] = topk_TK.exp().sum(-1)
        topk_logp_TK = topk_TK.log_softmax(-1)
        out["topk_entropy"] = -(topk_logp_TK.exp() * topk_logp_TK).sum(-1)
    if temperature is not None:
        q_TV = (z_TV / temperature).softmax(-1).detach()
        qw_TV = q_TV * torch.sigmoid(GEM_SIGMOID_SLOPE * (z_TV - z_y_T1)).detach()
        out["tempered_logprob"] = (q_TV * logp_TV).sum(-1)
        out["sigmoid_tempered_logprob"] = (qw_TV * logp_TV).sum(-1)
        out["sigmoid_tempered_mass"] = qw_TV.sum(-1)
    out["is_top1"] = (z_y_T1 >= z_TV.amax(-1, keepdim=True))[:, 0].to(z_TV.dtype)
    if reference is not None:
        logr_TV = full_logits(reference).log_softmax(-1).detach()
        out["kl_policy_ref"] = (p_TV * (logp_TV - logr_TV)).sum(-1)
        out["kl_ref_policy"] = (logr_TV.exp() * (logr_TV - logp_TV)).sum(-1)
    return {name: out[name] for name in want}
