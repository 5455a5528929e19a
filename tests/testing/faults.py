"""Deliberately wrong trainers and objectives, each with the contract that has to catch it; the right ones beside them.

A trainer is a plain loop over a model's own logits, and most faults change one of its lines.
"""

from collections.abc import Callable
from functools import partial

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

Batch = dict[str, Tensor]
TRAINERS: dict[str, tuple[str, Callable]] = {}  # name -> (the contract that catches it, the wrong step)
OBJECTIVES: dict[str, tuple[str, Callable]] = {}


def caught_by(contract: str, table: dict) -> Callable:
    def register(function: Callable) -> Callable:
        table[function.__name__] = (contract, function)
        return function

    return register


def token_losses(logits: Tensor, labels: Tensor) -> Tensor:
    return F.cross_entropy(logits.float().transpose(1, 2), labels, ignore_index=-100, reduction="none")


def shifted_losses(logits: Tensor, labels: Tensor) -> Tensor:
    return token_losses(logits[:, :-1], labels[:, 1:])


def trained(batch: Batch) -> Tensor:
    return (batch["labels"][:, 1:] != -100).sum()


def sum_over_ranks(model: nn.Module, weight: float = 1.0) -> None:
    if dist.is_initialized():
        for parameter in model.parameters():
            dist.all_reduce(parameter.grad)
            parameter.grad *= weight


def right(
    model: nn.Module,
    batches: list[Batch],
    losses: Callable[[Tensor, Tensor], Tensor] = shifted_losses,
    count: Callable[[Batch], Tensor] = trained,
    forward: Callable = lambda model, batch: model(**batch, use_cache=False),
    router: Callable[[int, Tensor], float] = lambda steps, items: 1 / steps,
    reduce: Callable[[nn.Module], None] = sum_over_ranks,
    add: Callable[[Tensor], Tensor] = torch.sum,
    global_count: bool = True,
) -> Tensor:
    """Sum of the tokens' cross-entropies over the tokens of the whole step, and the router's mean over micro-batches."""
    items = sum(count(batch) for batch in batches)
    if dist.is_initialized() and global_count:
        dist.all_reduce(items)
    total = torch.zeros(())
    for batch in batches:
        output = forward(model, {name: values for name, values in batch.items() if name != "labels"})
        loss = add(losses(output.logits, batch["labels"])) / items.clamp(min=1)
        if getattr(output, "aux_loss", None) is not None:
            loss = loss + model.config.router_aux_loss_coef * router(len(batches), items) * output.aux_loss
        if loss.requires_grad:
            loss.backward()
        total += loss.detach()
    if torch.is_grad_enabled():
        reduce(model)
    return total


def wrong(name: str, contract: str, **changes) -> None:
    TRAINERS[name] = (contract, partial(right, **changes))


def unshifted(logits: Tensor, labels: Tensor) -> Tensor:
    return token_losses(logits, labels)


def shifted_twice(logits: Tensor, labels: Tensor) -> Tensor:
    return token_losses(logits[:, :-2], labels[:, 2:])


def with_masked(logits: Tensor, labels: Tensor) -> Tensor:
    return token_losses(logits[:, :-1], labels[:, 1:].clamp(min=0))


def all_places(batch: Batch) -> Tensor:
    return torch.tensor(batch["labels"].numel())


def attended(batch: Batch) -> Tensor:
    return batch["attention_mask"].sum() if "attention_mask" in batch else all_places(batch)


def without_positions(model: nn.Module, inputs: Batch):
    return model(**{name: values for name, values in inputs.items() if name != "position_ids"}, use_cache=False)


def frozen_body(model: nn.Module, inputs: Batch):
    output = model(**inputs, use_cache=False, output_hidden_states=True)
    output.logits = model.lm_head(output.hidden_states[-1].detach())
    return output


def past_the_adapter(model: nn.Module, inputs: Batch):
    output = model(**inputs, use_cache=False, output_hidden_states=True)
    output.logits = output.hidden_states[-1] @ model.get_output_embeddings().weight.T
    return output


def added_up(values: Tensor, dtype: torch.dtype) -> Tensor:
    total = values.new_zeros((), dtype=dtype)
    for value in values.flatten():
        total = total + value.to(dtype)
    return total.float()


def in_the_models_dtype(logits: Tensor, labels: Tensor) -> Tensor:
    return shifted_losses(logits, labels).to(logits.dtype)


def random_tokens(logits: Tensor, labels: Tensor) -> Tensor:
    losses = shifted_losses(logits, labels)
    return losses * (torch.rand_like(losses) < 0.9) / 0.9


def nothing(model: nn.Module) -> None:
    """Every rank keeps its own gradients."""


def averaged(model: nn.Module) -> None:
    sum_over_ranks(model, 1 / dist.get_world_size() if dist.is_initialized() else 1.0)


SHIFT = "the_label_is_predicted_from_the_token_before_it"
LEARNS = "every_parameter_learns"
ALONE = "weights_and_batches_are_left_alone"
ACCUMULATION = "micro_batches_train_as_one_batch"
PACKED = "a_packed_row_trains_as_its_documents"
PADDING = "padding_is_inert"
MASKED = "masked_tokens_are_inert"
EMPTY = "a_micro_batch_without_a_trained_token_is_nothing"
EVALUATION = "evaluation_is_the_training_loss"
PURE = "the_step_depends_on_weights_and_batches_alone"
HALF = "bf16_weights_train_nearly_as_fp32_weights"
ADAPTER = "an_adapter_on_the_head_trains_or_is_refused"
ROUTER = "the_router_loss_counts_once"
RANKS = "two_ranks_train_as_one"

wrong("no shift", SHIFT, losses=unshifted)
wrong("shifted twice", SHIFT, losses=shifted_twice)
wrong("loss on masked tokens", MASKED, losses=with_masked)
wrong("loss on padding", PADDING, losses=with_masked)
wrong("padding in the divisor", PADDING, count=all_places)
wrong("prompt in the divisor", MASKED, count=attended)
wrong("position_ids dropped", PACKED, forward=without_positions)
wrong("body detached", LEARNS, forward=frozen_body)
wrong("head adapter passed by", ADAPTER, forward=past_the_adapter)
wrong("sum in bf16", ACCUMULATION, add=lambda values: added_up(values, torch.bfloat16))
wrong("sum in the weights' dtype", HALF, losses=in_the_models_dtype, add=lambda values: added_up(values, values.dtype))
wrong("random tokens", PURE, losses=random_tokens)
wrong("router loss dropped", ROUTER, router=lambda steps, items: 0.0)
wrong("router loss for every micro-batch", ROUTER, router=lambda steps, items: 1.0)
wrong("router loss divided by tokens", ROUTER, router=lambda steps, items: 1.0 / float(items))
wrong("divided by the world size twice", RANKS, reduce=averaged)
wrong("tokens of this rank only", RANKS, global_count=False, reduce=averaged)
wrong("gradients not reduced", RANKS, reduce=nothing)


@caught_by(ACCUMULATION, TRAINERS)
def mean_per_micro_batch(model: nn.Module, batches: list[Batch]) -> Tensor:
    return sum(right(model, [batch]) for batch in batches) / len(batches)


@caught_by(ACCUMULATION, TRAINERS)
def gradients_of_the_last_micro_batch(model: nn.Module, batches: list[Batch]) -> Tensor:
    items = sum(trained(batch) for batch in batches)
    total = torch.zeros(())
    for batch in batches:
        model.zero_grad()
        total += right(model, [batch], count=lambda _: items.clone())
    return total


@caught_by(ACCUMULATION, TRAINERS)
def tokens_of_the_first_micro_batch(model: nn.Module, batches: list[Batch]) -> Tensor:
    return sum(right(model, [batch], count=lambda _: trained(batches[0])) for batch in batches)


@caught_by(EMPTY, TRAINERS)
def nan_without_tokens(model: nn.Module, batches: list[Batch]) -> Tensor:
    items = sum(trained(batch) for batch in batches)
    total = torch.zeros(())
    for batch in batches:
        loss = model(**batch, use_cache=False).loss * trained(batch) / items
        if loss.requires_grad:
            loss.backward()
        total += loss.detach()
    return total


@caught_by(EMPTY, TRAINERS)
def empty_micro_batch_skipped(model: nn.Module, batches: list[Batch]) -> Tensor:
    full = [batch for batch in batches if trained(batch)]
    return right(model, full) if full else torch.zeros(())


@caught_by(ALONE, TRAINERS)
def labels_written_in_place(model: nn.Module, batches: list[Batch]) -> Tensor:
    for batch in batches:
        batch["labels"][:, 0] = -1
    return right(model, batches)


@caught_by(ALONE, TRAINERS)
def weights_stepped(model: nn.Module, batches: list[Batch]) -> Tensor:
    loss = right(model, batches)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter -= 1e-3 * (0 if parameter.grad is None else parameter.grad)
    return loss


@caught_by(EVALUATION, TRAINERS)
def evaluation_by_rows(model: nn.Module, batches: list[Batch]) -> Tensor:
    if model.training:
        return right(model, batches)
    rows = [{name: values[i : i + 1] for name, values in b.items()} for b in batches for i in range(len(b["labels"]))]
    return mean_per_micro_batch(model, rows)


HISTORY: list[float] = []


@caught_by(PURE, TRAINERS)
def running_scale(model: nn.Module, batches: list[Batch]) -> Tensor:
    loss = right(model, batches)
    HISTORY.append(float(loss))
    scale = sum(HISTORY) / len(HISTORY)
    for parameter in model.parameters():
        if parameter.grad is not None:
            parameter.grad /= scale
    return loss / scale


# Objectives

ONE, NEIGHBOURS = "an_objective_gives_one_loss_per_token", "a_token_does_not_look_at_its_neighbours"
INPUTS, GRADIENT = "an_objective_leaves_its_statistics_alone", "an_objective_has_a_gradient"
FUNCTION, EDGES = "an_objective_is_a_function", "an_objective_is_finite_at_the_edges"
SINGLE, DERIVATIVE = "an_objective_is_as_good_in_fp32_as_in_fp64", "an_objectives_gradient_is_its_derivative"


@caught_by(ONE, OBJECTIVES)
def mean_inside(logprob: Tensor) -> Tensor:
    return -logprob.mean()


@caught_by(ONE, OBJECTIVES)
def column(logprob: Tensor) -> Tensor:
    return -logprob[:, None]


@caught_by(ONE, OBJECTIVES)
def whole_numbers(logprob: Tensor) -> Tensor:
    return (logprob < -1).long()


@caught_by(ONE, OBJECTIVES)
def fails_without_tokens(logprob: Tensor) -> Tensor:
    return -logprob * (logprob <= logprob.max()).float()


@caught_by(NEIGHBOURS, OBJECTIVES)
def mean_for_everybody(logprob: Tensor) -> Tensor:
    return -logprob.mean().expand_as(logprob)


@caught_by(NEIGHBOURS, OBJECTIVES)
def weights_of_mean_one(logprob: Tensor) -> Tensor:
    weight = logprob.exp().detach()
    return -logprob * weight / weight.mean()


@caught_by(INPUTS, OBJECTIVES)
def clamps_in_place(logprob: Tensor) -> Tensor:
    return -logprob.data.clamp_(min=-1) * 0 - logprob


@caught_by(INPUTS, OBJECTIVES)
def assigns(logprob: Tensor, entropy: Tensor) -> Tensor:
    entropy.detach()[:1] = 0.0
    return -logprob - 0.1 * entropy


@caught_by(GRADIENT, OBJECTIVES)
def detached(logprob: Tensor) -> Tensor:
    return -logprob.detach()


@caught_by(GRADIENT, OBJECTIVES)
def without_grad(logprob: Tensor, entropy: Tensor) -> Tensor:
    with torch.no_grad():
        return -logprob - 0.1 * entropy


@caught_by(FUNCTION, OBJECTIVES)
def drops_tokens(logprob: Tensor) -> Tensor:
    return -logprob * (torch.rand_like(logprob) < 0.5)


CALLS: list[int] = []


@caught_by(FUNCTION, OBJECTIVES)
def warms_up(logprob: Tensor) -> Tensor:
    CALLS.append(len(logprob))
    return -logprob * min(1.0, len(CALLS) / 1000)


@caught_by(EDGES, OBJECTIVES)
def log_of_the_miss(logprob: Tensor) -> Tensor:
    return (1 - logprob.exp()).log()


@caught_by(EDGES, OBJECTIVES)
def square_root(logprob: Tensor) -> Tensor:
    return (-logprob).sqrt()


@caught_by(EDGES, OBJECTIVES)
def divides_by_p(logprob: Tensor) -> Tensor:
    return 1 / logprob.exp().square()


@caught_by(SINGLE, OBJECTIVES)
def casts_to_bf16(logprob: Tensor) -> Tensor:
    return -logprob.bfloat16().float() if logprob.dtype == torch.float32 else -logprob


class HalfTheGradient(torch.autograd.Function):
    @staticmethod
    def forward(context, logprob: Tensor) -> Tensor:
        return -logprob

    @staticmethod
    def backward(context, upstream: Tensor) -> Tensor:
        return -upstream / 2


@caught_by(DERIVATIVE, OBJECTIVES)
def wrong_backward(logprob: Tensor) -> Tensor:
    return HalfTheGradient.apply(logprob)
