"""The reference model of KL statistics: a frozen copy, or the model itself with its adapter switched off."""

import copy
from collections.abc import Callable
from typing import Any

from torch import nn

from ..engine import Projection
from .lm_head import HeadHook, hidden_states_of, plain_head
from .loading import evaluating

Reference = Callable[[nn.Module, dict[str, Any]], Projection]  # (the wrapped policy, its inputs) -> [B, S, D] and head


def is_peft(model: nn.Module) -> bool:
    """Whether this is a PeftModel, without importing peft."""
    return hasattr(model, "get_base_model") and hasattr(model, "disable_adapter")


def frozen_copy(model: nn.Module) -> nn.Module:
    """A copy that never trains. A forward patched onto the model is dropped: it would run the original."""
    reference = copy.deepcopy(model)
    for owner in (reference, reference.get_base_model() if is_peft(reference) else reference):
        owner.__dict__.pop("forward", None)
        owner.__dict__.pop("_manypaths", None)
    return reference.requires_grad_(False).eval()


def reference_of(model: nn.Module, path: str | None) -> Reference:
    """How to get the reference's hidden states for the inputs of `model`.

    `path` is a hub id or folder; None means the starting point of `model`: the base under its adapter for a PEFT
    model (no memory), a frozen copy otherwise (the memory of one more set of weights).

    Raises:
        ValueError: a reference of another vocabulary.
    """
    if path is None and is_peft(model):
        return adapter_switched_off(model)
    if path is None:
        frozen = frozen_copy(model)
    else:
        from transformers import AutoModelForCausalLM

        dtype = next(model.parameters()).dtype
        frozen = AutoModelForCausalLM.from_pretrained(path, dtype=dtype).requires_grad_(False).eval()
        check_same_vocabulary(model, frozen)
    hook = HeadHook(frozen)

    def hidden_states(_: nn.Module, inputs: dict[str, Any]) -> Projection:
        frozen.to(inputs["input_ids"].device)
        return hidden_states_of(hook, lambda: frozen(**inputs))

    return hidden_states


def adapter_switched_off(model: nn.Module) -> Reference:
    hook = HeadHook(model)

    def hidden_states(wrapped: nn.Module, inputs: dict[str, Any]) -> Projection:
        with evaluating(wrapped), model.disable_adapter():  # dropout belongs to the policy
            return hidden_states_of(hook, lambda: wrapped(**inputs))

    return hidden_states


def check_same_vocabulary(model: nn.Module, reference: nn.Module) -> None:
    sizes = len(plain_head(model).weight), len(plain_head(reference).weight)
    if sizes[0] != sizes[1]:
        raise ValueError(
            f"The reference's vocabulary has {sizes[1]} entries, the model's {sizes[0]}: the KL is undefined. "
            "Use a reference with the same tokenizer and head size."
        )
