"""`attach`: after it, `model(**batch).loss` is the objective, in anybody's training loop."""

import functools
import inspect
import types
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from ..models.lm_head import HeadHook, base_of, output_head, replaced_forward, router_loss_weight, vocab_size
from ..models.reference_model import Reference, reference_of
from ..models.refusals import refusal
from ..objectives import Objective, resolve
from .reduction import reduce, token_losses


def attach(
    model: nn.Module,
    objective: str | Callable[..., Tensor] | Objective,
    objective_kwargs: dict[str, Any] | None = None,
    reference: nn.Module | None = None,
) -> nn.Module:
    """Make `model(input_ids=..., labels=...).loss` the mean of the objective over the labelled tokens.

    Calls without `labels`, such as generation, are untouched. `num_items_in_batch` replaces the divisor. The output's
    `logits` are None: they are never built. A mixture of experts' router loss is added as the model itself would, with
    `num_items_in_batch` by this batch's share of the items. Undo with `detach(model)`. In a `transformers.Trainer`, leave
    label_smoothing_factor and compute_loss_func alone: with either the Trainer asks for logits and computes another loss.

    Args:
        model: a causal language model. Where its head is an adapter, or quantised, its own forward is run on chunks.
        objective: a name (`manypaths.objectives`), "module:function", or a function of statistics.
        objective_kwargs: its hyper-parameters, e.g. {"threshold": 0.9} for `sed`.
        reference: the model that `kl_*` statistics compare with. None is `model` as it is now, without its adapter
            if it has one: a frozen copy, or no copy where only an adapter trains.

    Raises:
        ValueError: unknown objective, missing or impossible hyper-parameter, a reference of another vocabulary, a model
            that is attached already, and every model of `manypaths.models.refusals`, some at the first call.
    """
    if "_manypaths" in model.__dict__:
        raise ValueError("This model has an objective attached already; call manypaths.detach(model) first.")
    resolved = resolve(objective, **(objective_kwargs or {}))
    if resolved.missing:
        raise ValueError(
            f"Objective {resolved.name!r} needs {resolved.missing[0]}: pass it in objective_kwargs (a quantile of the "
            "starting model's statistic), or train with manypaths.SFTTrainer, which calibrates it."
        )
    hook = HeadHook(model)
    check_head(model, resolved)
    compared = reference_of(model, reference) if resolved.needs_reference else None
    model._manypaths = Attachment(resolved, hook, compared, model.forward, model.__dict__.get("forward"))

    # Bound to the model, with the state on the model: a deep copy then computes with the copy's weights
    @functools.wraps(type(model).forward)
    def forward(
        self: nn.Module, *args: Any, labels: Tensor | None = None, num_items_in_batch: Any = None, **kwargs: Any
    ):
        if labels is None and kwargs.get("shift_labels") is None and len(args) < 2:
            return self._manypaths.original(*args, **kwargs)
        return self._manypaths.loss_output(args, kwargs, labels, num_items_in_batch)

    model.forward = types.MethodType(forward, model)
    return model


@dataclass
class Attachment:
    """What an attached model needs at every call; `own` is a forward that somebody else had put on the instance."""

    objective: Objective
    hook: HeadHook
    reference: Reference | None
    original: Callable[..., Any]
    own: Callable[..., Any] | None

    def loss_output(self, args: tuple, kwargs: dict[str, Any], labels: Tensor | None, num_items_in_batch: Any) -> Any:
        """The model's output with the objective as its loss and no logits."""
        if len(args) > 1:
            raise ValueError("Pass the inputs of an attached model by name: labels among them would be overlooked.")
        if kwargs.get("past_key_values") is not None:
            raise ValueError("labels and past_key_values do not go together: the loss needs the whole sequence.")
        if kwargs.get("shift_labels") is not None:
            raise refusal("shift_labels")
        model = self.hook.model
        if kwargs.setdefault("return_dict", True) is False:
            raise refusal("tuple outputs")
        if args:
            kwargs[next(iter(inspect.signature(base_of(model).forward).parameters))] = args[0]
        kwargs.setdefault("use_cache", False)  # beside a cache, transformers lets packed documents see each other
        target = None
        with replaced_forward(model, self.original):  # its own while we compute: it is called, and replaced, in there
            if self.reference is not None:
                target = self.reference(lambda **inputs: model.forward(**inputs), kwargs)
            output, scored = self.hook(
                lambda: model.forward(**kwargs), lambda policy: token_losses(self.objective, policy, labels, target)
            )
        loss = reduce(scored.losses, scored.valid, num_items_in_batch) + 0.0 * output.logits.sum()
        if getattr(output, "aux_loss", None) is not None:
            part = reduce(scored.valid, scored.valid, num_items_in_batch)  # of the step, so that it counts once in all
            loss = loss + router_loss_weight(model) * part * output.aux_loss
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
    check_top_k(objective, vocab_size(output_head(model)))


def check_top_k(objective: Objective, vocab_size: int) -> None:
    top_k = objective.hyperparameters.get("top_k")
    if "top_k" in objective.engine_parameters and top_k >= vocab_size:
        raise ValueError(
            f"top_k = {top_k} of objective {objective.name!r} must be below the vocabulary size {vocab_size}: "
            "the mass of all tokens is always 1."
        )
