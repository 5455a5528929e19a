"""The one autograd.Function: statistics forward in token chunks, gradients by recomputed vocabulary tiles.

Saved: the inputs and up to nine scalars per row; never logits. One upstream vector arrives per
statistic, None where nobody used it. Gradients flow to the policy's hidden states, weight and bias only.
"""

import torch
from torch import Tensor

from . import chunked
from .statistics import STATISTICS, Projection


class FusedStatistics(torch.autograd.Function):
    @staticmethod
    def forward(ctx, hidden_states, weight, bias, labels, want, softcap, logit_scale, top_k, temperature, reference):
        policy = Projection(hidden_states, weight, bias, softcap, logit_scale)
        with torch.autocast(hidden_states.device.type, enabled=False):
            statistics, rows = chunked.forward(policy, labels, want, top_k, temperature, reference)
        ref_tensors = (None, None, None) if reference is None else reference[:3]
        ctx.save_for_backward(hidden_states, weight, bias, labels, *ref_tensors, *rows)
        ctx.options = (want, softcap, logit_scale, temperature, None if reference is None else reference[3:])
        ctx.mark_non_differentiable(*(statistics[name] for name in want if not STATISTICS[name].differentiable))
        ctx.set_materialize_grads(False)
        return tuple(statistics[name] for name in want)

    @staticmethod
    def backward(ctx, *upstream: Tensor | None):
        if torch.is_grad_enabled():  # only under create_graph=True
            raise RuntimeError(
                "The chunked backend has first derivatives only; use backend='reference' for second ones."
            )
        hidden_states, weight, bias, labels, ref_hidden, ref_weight, ref_bias, *rows = ctx.saved_tensors
        want, softcap, logit_scale, temperature, ref_options = ctx.options
        grads = {
            name: grad
            for name, grad in zip(want, upstream, strict=True)
            if grad is not None and STATISTICS[name].differentiable
        }
        with torch.autocast(hidden_states.device.type, enabled=False):
            gradients = chunked.backward(
                Projection(hidden_states, weight, bias, softcap, logit_scale),
                labels,
                chunked.Rows(*rows),
                grads,
                temperature,
                None if ref_options is None else Projection(ref_hidden, ref_weight, ref_bias, *ref_options),
                ctx.needs_input_grad[:3],
            )
        return *gradients, *(None,) * 7
