"""`attach`: after it, `model(**batch).loss` is the objective, in anybody's training loop."""

import functools
import types
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from ..models.lm_head import HeadHook, hidden_states_of, plain_head
from ..models.reference_model import check_same_vocabulary, frozen_copy
from ..objectives import Objective, resolve
from .reduction import reduce, token_losses


def attach(
    model: nn.Module,
    objective: str | Callable[..., Tensor] | Objective,
    objective_kwargs: dict[str, Any] | None = None,
    reference: nn.Module | None = None,
) -> nn.Module:
    """Make `model(input_ids=..., labels=...).loss` the mean of the objective over the labelled tokens.

    Calls without `labels`, such as generation, are untouched. `num_items_in_batch` replaces the divisor. The
    output's `logits` are None: they are never built. Mixture-of-experts auxiliary losses are added as the model
    itself would. Undo with `detach(model)`. In a `transformers.Trainer`, leave label_smoothing_factor and
    compute_loss_func alone: with either the Trainer asks for logits and computes another loss.

    Args:
        model: a causal language model with a plain linear head.
        objective: a name (`manypaths.objectives`), "module:function", or a function of statistics.
        objective_kwargs: its hyper-parameters, e.g. {"threshold": 0.9} for `sed`.
        reference: the model that `kl_*` statistics compare with; a frozen copy of `model` now, if None.

    Raises:
        ValueError: unknown objective, missing or impossible hyper-parameter, an adapter on the head, a reference of
            another vocabulary, a model that is attached already.
    """
    if "_manypaths" in model.__dict__:
        raise ValueError("This model has an objective attached already; call manypaths.detach(model) first.")
    resolved = resolve(objective, **(objective_kwargs or {}))
    if resolved.missing:
        raise ValueError(
            f"Objective {resolved.name!r} needs {resolved.missing[0]}: pass it in objective_kwargs (a quantile of the "
            "starting model's statistic), or train with manypaths.SFTTrainer, which calibrates it."
        )
    check_head(model, resolved)
    reference_hook = None
    if resolved.needs_reference:
        if reference is model:
            raise ValueError("The reference is the model itself; leave reference out to get a frozen copy of it.")
        reference = frozen_copy(model) if reference is None else reference.requires_grad_(False).eval()
        check_same_vocabulary(model, reference)
        reference_hook = HeadHook(reference)
    model._manypaths = Attachment(
        resolved, HeadHook(model), reference_hook, model.forward, model.__dict__.get("forward")
    )

    # Bound to the model, with the state on the model: a deep copy then computes with the copy's weights
    @functools.wraps(type(model).forward)
    def forward(
        self: nn.Module, *args: Any, labels: Tensor | None = None, num_items_in_batch: Any = None, **kwargs: Any
    ):
        if labels is None and len(args) < 2:
            return self._manypaths.original(*args, **kwargs)
        return self._manypaths.loss_output(args, kwargs, labels, num_items_in_batch)

    model.forward = types.MethodType(forward, model)
    return model


@dataclass
class Attachment:
    """What an attached model needs at every call; `own` is a forward that somebody else had put on the instance."""

    objective: Objective
    hook: HeadHook
    reference_hook: HeadHook | None
    original: Callable[..., Any]
    own: Callable[..., Any] | None

    def loss_output(self, args: tuple, kwargs: dict[str, Any], labels: Tensor | None, num_items_in_batch: Any) -> Any:
        """The model's output with the objective as its loss and no logits."""
        if len(args) > 1:
            raise ValueError("Pass the inputs of an attached model by name: labels among them would be overlooked.")
        if kwargs.get("past_key_values") is not None:
            raise ValueError("labels and past_key_values do not go together: the loss needs the whole sequence.")
        kwargs["return_dict"] = True
        target = None
        if self.reference_hook is not None:
            target = hidden_states_of(self.reference_hook, lambda: self.reference_hook.model(*args, **kwargs))
        output, scored = self.hook(
            lambda: self.original(*args, **kwargs), lambda policy: token_losses(self.objective, policy, labels, target)
        )
        loss = reduce(scored.losses, scored.valid, num_items_in_batch) + 0.0 * output.logits.sum()
        if getattr(output, "aux_loss", None) is not None:
            loss = loss + self.hook.model.config.get_text_config().router_aux_loss_coef * output.aux_loss
        output["loss"] = loss
        output["logits"] = None
        return output


def detach(model: nn.Module) -> nn.Module:
    """Give the model its own forward back."""
    if "_manypaths" not in model.__dict__:
        raise ValueError("No objective is attached to this model.")
    own = model._manypaths.own
    del model._manypaths, model.forward
    if own is not None:
        model.forward = own
    return model


def check_head(model: nn.Module, objective: Objective) -> None:
    """Refuses at construction what the engine would refuse at the first step."""
    check_top_k(objective, len(plain_head(model).weight))


def check_top_k(objective: Objective, vocab_size: int) -> None:
    top_k = objective.hyperparameters.get("top_k")
    if "top_k" in objective.engine_parameters and top_k >= vocab_size:
        raise ValueError(
            f"top_k = {top_k} of objective {objective.name!r} must be below the vocabulary size {vocab_size}: "
            "the mass of all tokens is always 1."
        )
