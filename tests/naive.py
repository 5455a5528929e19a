"""Every statistic on full logits, written from its formula and apart from the engine: the oracle of the tests."""

import torch
from torch import Tensor

DIFFERENTIABLE = (
    "logprob",
    "mean_logprob",
    "entropy",
    "normalized_entropy",
    "tempered_logprob",
    "sigmoid_tempered_logprob",
    "kl_policy_ref",
    "kl_ref_policy",
)
CONSTANT = ("topk_mass", "topk_entropy", "sigmoid_tempered_mass", "is_top1")
NAMES = DIFFERENTIABLE + CONSTANT


def logits_of(hidden, weight, bias=None, softcap=None, logit_scale=1.0) -> Tensor:
    z = torch.einsum("td,vd->tv", hidden, weight)
    z = (z if bias is None else z + bias) * logit_scale
    return z if softcap is None else softcap * torch.tanh(z / softcap)


def log_probabilities(z: Tensor) -> Tensor:
    largest = z.detach().max(-1, keepdim=True).values
    return z - largest - (z - largest).exp().sum(-1, keepdim=True).log()


def statistics(z: Tensor, labels: Tensor, z_ref: Tensor | None = None, top_k=3, temperature=0.7) -> dict[str, Tensor]:
    """All statistics of logits z [T, V] at labels [T], by autograd on explicit sums; q and w are held constant."""
    logp = log_probabilities(z)
    p = logp.exp()
    rows = torch.arange(len(z))
    entropy = -(p * logp).sum(-1)
    ranked = p.detach().sort(-1, descending=True).values[:, :top_k]
    share = ranked / ranked.sum(-1, keepdim=True)
    q = log_probabilities(z / temperature).exp().detach()
    w = (1 / (1 + torch.exp(-0.01 * (z - z[rows, labels][:, None])))).detach()
    values = {
        "logprob": logp[rows, labels],
        "mean_logprob": logp.sum(-1) / z.shape[1],
        "entropy": entropy,
        "normalized_entropy": entropy / torch.tensor(float(z.shape[1]), dtype=torch.float64).log().item(),
        "topk_mass": ranked.sum(-1),
        "topk_entropy": -torch.special.xlogy(share, share).sum(-1),
        "tempered_logprob": (q * logp).sum(-1),
        "sigmoid_tempered_logprob": (q * w * logp).sum(-1),
        "sigmoid_tempered_mass": (q * w).sum(-1),
        "is_top1": torch.stack([(row[label] == row.max()).to(z.dtype) for row, label in zip(z, labels, strict=True)])
        if len(z)
        else z.new_zeros(0),
    }
    if z_ref is not None:
        logr = log_probabilities(z_ref).detach()
        values["kl_policy_ref"] = (p * logp).sum(-1) - (p * logr).sum(-1)
        values["kl_ref_policy"] = (logr.exp() * logr).sum(-1) - (logr.exp() * logp).sum(-1)
    return values


def gradient(name: str, z: Tensor, labels: Tensor, z_ref: Tensor | None = None, temperature=0.7) -> Tensor:
    """d statistic / dz [T, V] as the table of statistics writes it."""
    logp = z.log_softmax(-1)
    p = logp.exp()
    e_y = torch.nn.functional.one_hot(labels, z.shape[1]).to(z.dtype)
    q = (z / temperature).softmax(-1)
    w = torch.sigmoid(0.01 * (z - (z * e_y).sum(-1, keepdim=True)))
    entropy = -(p * logp).sum(-1, keepdim=True)
    if name == "logprob":
        return e_y - p
    if name == "mean_logprob":
        return 1 / z.shape[1] - p
    if name in ("entropy", "normalized_entropy"):
        scale = 1.0 if name == "entropy" else 1 / torch.tensor(z.shape[1]).double().log()
        return -p * (logp + entropy) * scale
    if name == "tempered_logprob":
        return q - p
    if name == "sigmoid_tempered_logprob":
        return q * w - (q * w).sum(-1, keepdim=True) * p
    logr = z_ref.log_softmax(-1)
    if name == "kl_policy_ref":
        return p * (logp - logr - (p * (logp - logr)).sum(-1, keepdim=True))
    assert name == "kl_ref_policy"
    return p - logr.exp()
