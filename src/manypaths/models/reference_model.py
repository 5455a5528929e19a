"""The reference model of KL statistics: a frozen model, or the policy itself with its adapter switched off."""

import copy
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

from torch import Tensor, nn

from ..engine import Projection
from .lm_head import (
    HeadHook,
    base_of,
    hidden_states_of,
    is_peft,
    output_head,
    sharded,
    under_fsdp2,
    under_zero3,
    vocab_size,
)
from .loading import evaluating
from .refusals import refusal

Reference = Callable[[Callable[..., Any], dict[str, Any]], Projection]  # (the policy, its inputs) -> [B, S, D] and head
Shard = Callable[[nn.Module], nn.Module]  # a model -> what to call in its place, its weights spread over the ranks


def whole(model: nn.Module) -> nn.Module:
    """The Shard that leaves every rank a whole copy."""
    return model


def reference_of(model: nn.Module, source: nn.Module | str | None, shard: Shard = whole) -> Reference:
    """How to get the reference's hidden states for the inputs of `model`.

    `source` is a model, a hub id or a folder; None means the starting point of `model`: for a PEFT model the base
    under its adapter, which takes no memory as long as nothing of it trains; a frozen copy otherwise, which takes
    that of one more set of weights, on every rank, unless `shard` spreads them.

    Raises:
        ValueError: a reference of another vocabulary, or the model itself.
    """
    if source is model:
        raise ValueError("The reference is the model itself; leave reference out to get its starting point.")
    if source is None:
        return starting_point(model, shard)
    if isinstance(source, str):
        from transformers import AutoModelForCausalLM

        source = AutoModelForCausalLM.from_pretrained(source, dtype=next(model.parameters()).dtype)
    check_same_vocabulary(model, source)
    return reference_to(source.requires_grad_(False).eval(), shard)


def reference_to(model: nn.Module, shard: Shard) -> Reference:
    hook = HeadHook(model)
    return partial(frozen, hook, shard(model))


def starting_point(model: nn.Module, shard: Shard) -> Reference:
    if not is_peft(model):
        return reference_to(frozen_copy(model, shard), shard)
    trained = trained_under_the_adapter(model)
    if not trained:
        return partial(adapter_switched_off, HeadHook(model))
    warnings.warn(
        f"{trained[0]} and {len(trained) - 1} more weights under the adapter train, too, so the reference is a frozen "
        "copy of the base model and takes the memory of one.",
        stacklevel=2,
    )
    copied = frozen_copy(model, shard)
    if not copied.active_peft_config.is_prompt_learning:
        copied.base_model.disable_adapter_layers()
    return reference_to(copied.get_base_model(), shard)


def trained_under_the_adapter(model: nn.Module) -> list[str]:
    """The weights that train and that a PEFT model uses with its adapter switched off, too."""
    with model.disable_adapter():  # freezes the adapter's own
        return [name for name, parameter in model.get_base_model().named_parameters() if parameter.requires_grad]


def frozen_copy(model: nn.Module, shard: Shard = whole) -> nn.Module:
    """A copy that never trains. A forward patched onto the model is dropped: it would run the original."""
    if under_fsdp2(model) or (under_zero3(model) and shard is whole):
        raise refusal("sharded starting model")
    reference = copy.deepcopy(model)
    if under_zero3(model):
        copy_partitioned(model, reference)
    for owner in (reference, base_of(reference)):
        owner.__dict__.pop("forward", None)
        owner.__dict__.pop("_manypaths", None)
    return reference.requires_grad_(False).eval()


def copy_partitioned(model: nn.Module, twin: nn.Module) -> None:
    """The weights of a model that ZeRO-3 has partitioned into its twin, one module at a time, partitioned there, too."""
    import deepspeed

    for module, copied in reversed([*zip(model.modules(), twin.modules(), strict=True)]):  # children first
        own, of_twin = (list(part.parameters(recurse=False)) for part in (module, copied))
        with deepspeed.zero.GatheredParameters(own):
            for parameter, empty in zip(own, of_twin, strict=True):
                empty.data = parameter.data.clone()
        deepspeed.zero.Init(copied)


def frozen(hook: HeadHook, model: nn.Module, _: Callable[..., Any], inputs: dict[str, Any]) -> Projection:
    """The Reference of another model, which follows the inputs to their device where it is whole."""
    device = next(value.device for value in inputs.values() if isinstance(value, Tensor))
    if not sharded(hook.model) and next(hook.model.parameters()).device != device:
        hook.model.to(device)
    return hidden_states_of(hook, lambda: model(**inputs))


def adapter_switched_off(hook: HeadHook, policy: Callable[..., Any], inputs: dict[str, Any]) -> Projection:
    """The Reference of a PEFT model whose adapter alone trains."""
    with evaluating(hook.model), hook.model.disable_adapter():  # dropout belongs to the policy
        return hidden_states_of(hook, lambda: policy(**inputs))


def check_same_vocabulary(model: nn.Module, reference: nn.Module) -> None:
    sizes = vocab_size(output_head(model)), vocab_size(output_head(reference))
    if sizes[0] != sizes[1]:
        raise refusal("reference of another vocabulary", model=sizes[0], reference=sizes[1])
