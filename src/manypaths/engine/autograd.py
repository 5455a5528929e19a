"""The one autograd.Function: statistics forward in token chunks, gradients from recomputed logits.

Saved: the inputs and up to nine scalars per row; never logits. One upstream vector arrives per
statistic, None where nobody used it. Gradients flow to the policy's hidden states and head only: its weight and bias, or
the parameters of the module that it is.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from . import chunked
from .head_modules import HeadModule
from .statistics import STATISTICS, Projection


class Frame(NamedTuple):
    """What is left of a projection without its tensors."""

    module: HeadModule | None
    softcap: float | None
    logit_scale: float

    def projection(self, hidden_states: Tensor, weight: Tensor | None, bias: Tensor | None, *parameters: Tensor):
        head = weight if self.module is None else self.module._replace(parameters=parameters)
        return Projection(hidden_states, head, bias, self.softcap, self.logit_scale)


def apart(projection: Projection) -> tuple[Frame, tuple[Tensor | None, ...]]:
    """A projection as its frame and what to call `Frame.projection` with."""
    hidden_states, head, bias, softcap, logit_scale = projection
    if isinstance(head, HeadModule):
        frame = Frame(head._replace(parameters=()), softcap, logit_scale)
        return frame, (hidden_states, None, bias, *head.parameters)
    return Frame(None, softcap, logit_scale), (hidden_states, head, bias)


class FusedStatistics(torch.autograd.Function):
    @staticmethod
    def forward(ctx, labels, want, top_k, temperature, reference: Projection | None, frame: Frame, *tensors):
        with torch.autocast(labels.device.type, enabled=False):
            policy = frame.projection(*tensors)
            statistics, rows = chunked.forward(policy, labels, want, top_k, temperature, reference)
        ref_frame, ref_tensors = (None, ()) if reference is None else apart(reference)
        ctx.save_for_backward(labels, *rows, *ref_tensors, *tensors)
        ctx.options = (want, temperature, ref_frame, len(ref_tensors), frame)
        ctx.mark_non_differentiable(*(statistics[name] for name in want if not STATISTICS[name].differentiable))
        ctx.set_materialize_grads(False)
        return tuple(statistics[name] for name in want)

    @staticmethod
    def backward(ctx, *upstream: Tensor | None):
        if torch.is_grad_enabled():  # only under create_graph=True
            raise RuntimeError(
                "The chunked backend has first derivatives only; use backend='reference' for second ones."
            )
        want, temperature, ref_frame, ref_count, frame = ctx.options
        labels, *saved = ctx.saved_tensors
        rows, saved = saved[: len(chunked.Rows._fields)], saved[len(chunked.Rows._fields) :]
        ref_tensors, tensors = saved[:ref_count], saved[ref_count:]
        grads = {
            name: grad
            for name, grad in zip(want, upstream, strict=True)
            if grad is not None and STATISTICS[name].differentiable
        }
        backward = chunked.backward if frame.module is None else chunked.backward_of_module
        with torch.autocast(labels.device.type, enabled=False):
            gradients = backward(
                frame.projection(*tensors),
                labels,
                chunked.Rows(*rows),
                grads,
                temperature,
                None if ref_frame is None else ref_frame.projection(*ref_tensors),
                ctx.needs_input_grad[-len(tensors) :],
            )
        return *(None,) * 6, *gradients
