"""The only place that shifts labels, masks ignored tokens, and divides by the number of items.

B sequences of S tokens; T valid tokens, packed. `labels` are aligned with the input, as Hugging Face gives them.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from ..engine import Projection, token_statistics, unpack
from ..functions import told
from ..objectives import Objective

LOGGED = ("logprob", "entropy", "is_top1")  # statistics computed for every objective, at no extra forward


class TokenLosses(NamedTuple):
    """losses: [B, S-1], 0 where ignored; statistics: {name: [T]}; valid: [B, S-1] bool."""

    losses: Tensor
    statistics: dict[str, Tensor]
    valid: Tensor


def shifted(values: Tensor) -> Tensor:
    """Labels [B, S] -> [B, S-1]: position t holds the label that row t predicts."""
    return values[:, 1:]


def predicting(hidden_states: Tensor) -> Tensor:
    """Hidden states [B, S, D] -> [B, S-1, D]: the rows that predict a label."""
    return hidden_states[:, :-1]


def statistics_of(
    policy: Projection,
    labels: Tensor,
    want: tuple[str, ...],
    reference: Projection | None = None,
    **engine_parameters: float,
) -> tuple[dict[str, Tensor], Tensor]:
    """Packed statistics {name: [T]} of a model's hidden states [B, S, D] at labels [B, S], and valid [B, S-1]."""
    if policy.hidden_states.shape[:2] != labels.shape:
        raise ValueError(
            f"The head saw {list(policy.hidden_states.shape[:2])} tokens but labels are {list(labels.shape)}; "
            "logits_to_keep, and prompt tuning's virtual tokens, do not go together with labels."
        )
    if reference is not None:
        reference = reference._replace(hidden_states=predicting(reference.hidden_states))
    labels = shifted(labels).to(policy.hidden_states.device)
    statistics = token_statistics(
        predicting(policy.hidden_states),
        policy.weight,
        labels,
        want=want,
        bias=policy.bias,
        softcap=policy.softcap,
        logit_scale=policy.logit_scale,
        reference=reference,
        **engine_parameters,
    )
    valid = labels != -100
    return {name: values[valid] for name, values in statistics.items()}, valid


def token_losses(
    objective: Objective, policy: Projection, labels: Tensor, reference: Projection | None = None
) -> TokenLosses:
    """The objective at every valid token of a batch."""
    want = tuple(dict.fromkeys((*LOGGED, *objective.statistics)))
    statistics, valid = statistics_of(policy, labels, want, reference, **objective.engine_parameters)
    versions = {name: values._version for name, values in statistics.items()}
    try:
        packed = objective(statistics)
    except Exception as error:
        raise ValueError(f"Objective {objective.name!r} fails: {told(error)}.") from error
    if not isinstance(packed, Tensor) or packed.shape != statistics["logprob"].shape:
        what = list(packed.shape) if isinstance(packed, Tensor) else f"a {type(packed).__name__}"
        raise ValueError(
            f"Objective {objective.name!r} returned {what} for {list(statistics['logprob'].shape)} tokens; "
            "it must return one loss per token and leave the reduction to the trainer."
        )
    changed = [name for name, values in statistics.items() if values._version != versions[name]]
    if changed:
        raise ValueError(
            f"Objective {objective.name!r} changes {', '.join(changed)} in place, which others read, too; "
            "use an operation that returns a new tensor."
        )
    if not packed.is_floating_point():
        raise ValueError(
            f"Objective {objective.name!r} returned {packed.dtype} values; a loss is a floating-point number."
        )
    if statistics["logprob"].requires_grad and not packed.requires_grad:
        raise ValueError(
            f"Objective {objective.name!r} returned a loss without a gradient, which trains nothing; it is detached, or made "
            "of statistics that have none."
        )
    bad = ~torch.isfinite(packed.detach())
    if bad.any():
        token = int(bad.nonzero()[0])
        raise ValueError(
            f"Objective {objective.name!r} gave {float(packed[token])} at trained token {token} of {len(packed)}, where "
            f"logprob is {float(statistics['logprob'][token]):.4g}; check its formula and hyper-parameters there."
        )
    return TokenLosses(unpack(packed, valid), statistics, valid)


def reduce(losses: Tensor, valid: Tensor, num_items_in_batch: Tensor | int | None = None) -> Tensor:
    """The sum over tokens divided by the tokens of the whole step (of this batch when None).

    No valid token gives a zero that is still connected to the graph.
    """
    num_items = valid.sum() if num_items_in_batch is None else num_items_in_batch
    return losses.sum() / torch.as_tensor(num_items, device=losses.device).clamp(min=1)
