"""Per-token statistics of a language-model head, differentiable, without the logits."""

import math

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from .autograd import FusedStatistics, apart
from .head_modules import HeadModule
from .reference import naive_statistics
from .statistics import FORBIDDEN, STATISTICS, Projection, Statistic, forbidden_tokens, vocab_size

BACKENDS = ("auto", "chunked", "reference")

__all__ = ["BACKENDS", "STATISTICS", "Projection", "Statistic", "token_statistics", "unpack"]


def token_statistics(
    hidden_states: Tensor,
    weight: Tensor | nn.Module,
    labels: Tensor,
    *,
    want: str | tuple[str, ...] | list[str],
    bias: Tensor | None = None,
    softcap: float | None = None,
    logit_scale: float = 1.0,
    ignore_index: int = -100,
    top_k: int | None = None,
    temperature: float | None = None,
    reference: Projection | tuple | None = None,
    backend: str = "auto",
) -> dict[str, Tensor]:
    """Per-token statistics of softmax(head(hidden_states)) at `labels`.

    Args:
        hidden_states: [T, D], float64, float32, bfloat16 or float16; already shifted, so that row t predicts
            labels[t]. More leading dimensions, [B, S, D], are welcome: T then stands for [B, S] throughout.
        weight: [V, D] head weight of the same dtype, or float32 with bfloat16 or float16 hidden states: it is then
            multiplied in their dtype, as autocast does, and its gradient is not rounded to it. Or the head as a module that
            turns [R, D] hidden states into [R, V] logits, row by row, with V as its `out_features`: its forward is run on
            chunks of tokens, and once more for the gradients, which its parameters get, too.
        labels: [T] integer token ids; rows with `ignore_index` get 0 in every statistic and no gradient.
        want: one or more names from `manypaths.engine.STATISTICS`.
        bias: [V] or None. logits = softcap * tanh(logit_scale * (h W^T + bias) / softcap). A token whose bias is -inf
            is forbidden: it has probability 0, and no statistic or gradient of the others is touched by it.
        top_k: for `topk_mass`, `topk_entropy`; 1 <= top_k < V.
        temperature: for the tempered statistics; > 0.
        reference: `Projection(hidden_states, weight, ...)` of the reference model at the same rows, for the KLs;
            never receives a gradient.
        backend: "chunked" (bounded memory), "reference" (the naive twin, full logits), or "auto" (chunked).

    Returns:
        {name: [T] float32 (float64 for float64 input)}. Differentiable exactly where
        `STATISTICS[name].differentiable`; first derivatives only with the chunked backend.

    Raises:
        ValueError: unknown statistic or backend, missing or bad parameter, label outside the vocabulary or forbidden,
            mismatched shapes or dtypes, NaN or inf in hidden_states (names the first bad row), a module whose logits
            are not [R, out_features] or have no gradient.
        RuntimeError: in the backward pass, where a module's logits are no longer what they were.
    """
    want = (want,) if isinstance(want, str) else tuple(want)
    policy = Projection(hidden_states, weight, finite_bias(bias), softcap, logit_scale)
    reference = None if reference is None else Projection(*reference)
    check_projection(policy, "hidden_states")
    check_request(want, top_k, temperature, reference, backend, vocab_size(policy))
    if labels.shape != hidden_states.shape[:-1]:
        raise ValueError(f"labels must be [T] = {list(hidden_states.shape[:-1])}, got {list(labels.shape)}.")
    valid = labels != ignore_index
    check_labels(labels, valid, policy, ignore_index)
    check_finite(hidden_states, valid)
    if reference is not None:
        check_projection(reference, "reference hidden_states")
        check_reference(policy, reference)

    packed = policy._replace(hidden_states=hidden_states[valid])
    if reference is not None:
        reference = Projection(
            reference.hidden_states[valid].detach(),
            reference.weight.detach() if isinstance(reference.weight, Tensor) else reference.weight,
            None if reference.bias is None else finite_bias(reference.bias.detach()),
            *reference[3:],
        )
        check_forbidden(policy, reference)
    core = tuple(dict.fromkeys("entropy" if name == "normalized_entropy" else name for name in want))
    if backend == "reference":
        values = naive_statistics(packed, labels[valid], core, top_k, temperature, reference)
    else:
        ref_module = reference is not None and isinstance(reference.weight, nn.Module)
        if ref_module:
            reference = reference._replace(
                weight=HeadModule.of(reference.weight, reference.hidden_states, trains=False)
            )
        if isinstance(weight, nn.Module):
            packed = packed._replace(weight=HeadModule.of(weight, packed.hidden_states, trains=torch.is_grad_enabled()))
        elif ref_module:
            packed = packed._replace(weight=HeadModule.of_weight(weight, packed.hidden_states))
        frame, tensors = apart(packed)
        outputs = FusedStatistics.apply(labels[valid], core, top_k, temperature, reference, frame, *tensors)
        values = dict(zip(core, outputs, strict=True))
    if "normalized_entropy" in want:
        values["normalized_entropy"] = values["entropy"] / math.log(vocab_size(policy))
    return {name: unpack(values[name], valid) for name in want}


def finite_bias(bias: Tensor | None) -> Tensor | None:
    """The bias in the statistics' dtype, -inf as the largest negative number that no later step makes infinite."""
    return None if bias is None else bias.to(torch.promote_types(bias.dtype, torch.float32)).clamp(min=FORBIDDEN)


def unpack(values: Tensor, valid: Tensor) -> Tensor:
    """Packed `values` at the places where `valid` is true and 0 elsewhere; keeps the graph of empty `values`."""
    return values.new_zeros(valid.shape).masked_scatter(valid, values)


def check_request(want, top_k, temperature, reference, backend, V) -> None:
    if backend not in BACKENDS:
        raise ValueError(f"Unknown backend {backend!r}; choose one of {', '.join(BACKENDS)}.")
    for name in want:
        if name not in STATISTICS:
            raise ValueError(f"Unknown statistic {name!r}; the engine offers {', '.join(STATISTICS)}.")
        parameters = STATISTICS[name].parameters
        if "top_k" in parameters and top_k is None:
            raise ValueError(f"{name} needs top_k, the number of largest probabilities to add; pass top_k=...")
        if "temperature" in parameters and temperature is None:
            raise ValueError(f"{name} needs temperature; pass temperature=...")
        if STATISTICS[name].needs_reference and reference is None:
            raise ValueError(
                f"{name} needs the reference model's hidden states and head; pass reference=Projection(...)"
            )
    if top_k is not None and not 1 <= top_k < V:
        raise ValueError(f"top_k must be at least 1 and below the vocabulary size {V}, got {top_k}.")
    if temperature is not None and not temperature > 0:
        raise ValueError(f"temperature must be above 0, got {temperature}.")


def check_projection(projection: Projection, name: str) -> None:
    hidden_states, weight, bias, softcap, logit_scale = projection
    if isinstance(weight, nn.Module):
        if hidden_states.dim() < 2 or not isinstance(getattr(weight, "out_features", None), int):
            raise ValueError(
                f"{name} must be [T, D] and a head module must have out_features, the size of its vocabulary; "
                f"got {list(hidden_states.shape)} and a {type(weight).__name__}."
            )
    else:
        check_weight(hidden_states, weight, name)
    if bias is not None and bias.shape != (vocab_size(projection),):
        raise ValueError(f"bias must be [V] = [{vocab_size(projection)}], got {list(bias.shape)}.")
    if softcap is not None and not softcap > 0:
        raise ValueError(f"softcap must be above 0 or None, got {softcap}.")
    if not math.isfinite(logit_scale) or logit_scale == 0:
        raise ValueError(f"logit_scale must be finite and not 0, got {logit_scale}.")


def check_weight(hidden_states: Tensor, weight: Tensor, name: str) -> None:
    if isinstance(weight, DTensor):
        raise ValueError(
            "The head weight is sharded over devices (DTensor). Vocabulary-sharded heads are not supported: "
            "gather it first, or keep lm_head out of the tensor-parallel plan."
        )
    if hidden_states.dim() < 2 or weight.dim() != 2 or hidden_states.shape[-1] != weight.shape[1]:
        raise ValueError(
            f"{name} must be [T, D] and weight [V, D] with the same D, "
            f"got {list(hidden_states.shape)} and {list(weight.shape)}."
        )
    if weight.dtype not in (hidden_states.dtype, torch.promote_types(hidden_states.dtype, torch.float32)):
        raise ValueError(
            f"{name} ({hidden_states.dtype}) and weight ({weight.dtype}) must have the same dtype; beside bfloat16 and "
            "float16 the weight may be float32."
        )


def check_reference(policy: Projection, reference: Projection) -> None:
    sizes = vocab_size(reference), vocab_size(policy)
    if sizes[0] != sizes[1]:
        raise ValueError(
            f"The reference's vocabulary has {sizes[0]} entries, the model's {sizes[1]}: "
            "the KL is undefined. Use a reference with the same tokenizer and head size."
        )
    if reference.hidden_states.shape[:-1] != policy.hidden_states.shape[:-1]:
        raise ValueError(
            f"The reference's hidden states are {list(reference.hidden_states.shape)}, "
            f"the model's {list(policy.hidden_states.shape)}; they must be of the same tokens."
        )


def check_forbidden(policy: Projection, reference: Projection) -> None:
    different = forbidden_tokens(policy) != forbidden_tokens(reference)
    if different.any():
        raise ValueError(
            f"Token {int(different.nonzero()[0])} has a bias of -inf in the model or in the reference only, so the KL is "
            "infinite. Forbid the same tokens in both."
        )


def check_labels(labels: Tensor, valid: Tensor, policy: Projection, ignore_index: int) -> None:
    outside = valid & ((labels < 0) | (labels >= vocab_size(policy)))
    if outside.any():
        first = outside.nonzero()[0].tolist()
        raise ValueError(
            f"Label {int(labels[tuple(first)])} at {place(first)} is outside the vocabulary of {vocab_size(policy)}; "
            f"ignored tokens must be {ignore_index}."
        )
    forbidden = valid & forbidden_tokens(policy)[labels.where(valid, 0)]
    if forbidden.any():
        first = forbidden.nonzero()[0].tolist()
        raise ValueError(
            f"Label {int(labels[tuple(first)])} at {place(first)} is a token whose bias is -inf, so its loss is infinite; "
            f"ignore it ({ignore_index}) or allow it."
        )


def check_finite(hidden_states: Tensor, valid: Tensor) -> None:
    bad = valid & ~torch.isfinite(hidden_states.detach()).all(-1)
    if bad.any():
        raise ValueError(
            f"hidden_states hold NaN or inf, first at {place(bad.nonzero()[0].tolist())} "
            f"({int(bad.sum())} of {int(valid.sum())} trained tokens): the model has diverged or its input is broken."
        )


def place(index: list[int]) -> str:
    """Where a token stands, in words: `row 5` of [T], `sequence 1, position 5` of [B, S]."""
    if len(index) == 2:
        return f"sequence {index[0]}, position {index[1]}"
    return f"row {index[0]}" if len(index) == 1 else f"index {index}"
