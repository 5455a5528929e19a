"""`attach`: after it, `model(**batch).loss` is the objective, in anybody's training loop."""

import functools
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from ..objectives import Objective, resolve
from .lm_head import HeadHook, hidden_states_of, plain_head
from .reduction import reduce, token_losses
from .reference_model import check_same_vocabulary, frozen_copy


def attach(
    model: nn.Module,
    objective: str | Callable[..., Tensor] | Objective,
    objective_kwargs: dict[str, Any] | None = None,
    reference: nn.Module | None = None,
) -> nn.Module:
    """Make `model(input_ids=..., labels=...).loss` the mean of the objective over the labelled tokens.

    Calls without `labels`, such as generation, are untouched. `num_items_in_batch` replaces the divisor. The
    output's `logits` are None: they are never built. Mixture-of-experts auxiliary losses are added as the model
    itself would. Undo with `detach(model)`.

    Args:
        model: a causal language model with a plain linear head.
        objective: a name (`manypaths.objectives`), "module:function", or a function of statistics.
        objective_kwargs: its hyper-parameters, e.g. {"threshold": 0.9} for `sed`.
        reference: the model that `kl_*` statistics compare with; a frozen copy of `model` now, if None.

    Raises:
        ValueError: unknown objective, missing or impossible hyper-parameter, an adapter on the head, a reference of
            another vocabulary, a model that is attached already.
    """
    if hasattr(model, "_manypaths_forward"):
        raise ValueError("This model has an objective attached already; call manypaths.detach(model) first.")
    resolved = resolve(objective, **(objective_kwargs or {}))
    if resolved.missing:
        raise ValueError(
            f"Objective {resolved.name!r} needs {resolved.missing[0]}: pass it in objective_kwargs (a quantile of the "
            "starting model's statistic), or train with manypaths.SFTTrainer, which calibrates it."
        )
    check_head(model, resolved)
    hook = HeadHook(model)
    reference_hook = None
    if resolved.needs_reference:
        reference = frozen_copy(model) if reference is None else reference.requires_grad_(False).eval()
        check_same_vocabulary(model, reference)
        reference_hook = HeadHook(reference)
    original = model.forward

    @functools.wraps(original)
    def forward(*args: Any, labels: Tensor | None = None, num_items_in_batch: Any = None, **kwargs: Any) -> Any:
        if labels is None:
            return original(*args, **kwargs)
        kwargs["return_dict"] = True
        target = None
        if reference_hook is not None:
            target = hidden_states_of(reference_hook, lambda: reference_hook.model(*args, **kwargs))
        output, scored = hook(
            lambda: original(*args, **kwargs), lambda policy: token_losses(resolved, policy, labels, target)
        )
        loss = reduce(scored.losses, scored.valid, num_items_in_batch) + 0.0 * output.logits.sum()
        if getattr(output, "aux_loss", None) is not None:
            loss = loss + model.config.get_text_config().router_aux_loss_coef * output.aux_loss
        output["loss"] = loss
        output["logits"] = None
        return output

    model._manypaths_forward = model.__dict__.get("forward")
    model.forward = forward
    return model


def detach(model: nn.Module) -> nn.Module:
    """Give the model its own forward back."""
    if not hasattr(model, "_manypaths_forward"):
        raise ValueError("No objective is attached to this model.")
    before = model._manypaths_forward
    del model._manypaths_forward, model.forward
    if before is not None:
        model.forward = before
    return model


def check_head(model: nn.Module, objective: Objective) -> None:
    """Refuses at construction what the engine would refuse at the first step."""
    vocab_size = len(plain_head(model).weight)
    top_k = objective.hyperparameters.get("top_k")
    if "top_k" in objective.engine_parameters and top_k >= vocab_size:
        raise ValueError(
            f"top_k = {top_k} of objective {objective.name!r} must be below the vocabulary size {vocab_size}: "
            "the mass of all tokens is always 1."
        )
