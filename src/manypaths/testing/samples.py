"""Tiny models and batches, made on the spot, and what one step on them gives."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

VOCABULARY = 64
Batch = dict[str, Tensor]
Step = Callable[[nn.Module, list[Batch]], Tensor | float]


class Taken(NamedTuple):
    """What a step left behind: gradients in fp32 by parameter name, zero where there was none."""

    loss: float
    gradients: dict[str, Tensor]


def llama(seed: int = 0, **overrides) -> nn.Module:
    """Two layers with weights large enough for attention and logits to matter; fp32, no dropout."""
    from transformers import LlamaConfig, LlamaForCausalLM

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return LlamaForCausalLM(LlamaConfig(**sizes(), **overrides))


def mixtral(router_aux_loss_coef: float, seed: int = 0) -> nn.Module:
    from transformers import MixtralConfig, MixtralForCausalLM

    router = dict(num_local_experts=4, router_aux_loss_coef=router_aux_loss_coef, output_router_logits=True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return MixtralForCausalLM(MixtralConfig(**sizes(), **router))


def sizes() -> dict:
    return dict(
        vocab_size=VOCABULARY, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=512, tie_word_embeddings=False, initializer_range=0.2,
        bos_token_id=None, eos_token_id=1, pad_token_id=0,
    )  # fmt: skip


def sequences(lengths: tuple[int, ...], prompt: int = 2, seed: int = 0) -> list[tuple[Tensor, Tensor]]:
    """(input_ids [S], labels [S]) of random tokens; the labels of the first `prompt` tokens are -100."""
    make = torch.Generator().manual_seed(seed)
    ids = [torch.randint(3, VOCABULARY, (length,), generator=make) for length in lengths]
    return [(row, torch.where(torch.arange(len(row)) < prompt, -100, row)) for row in ids]


def padded(pairs: list[tuple[Tensor, Tensor]], extra: int = 0, filler: int = 0) -> Batch:
    """One batch, padded on the right with `filler` to the longest sequence and `extra` columns more."""
    width = max(len(ids) for ids, _ in pairs) + extra

    def stack(rows: list[Tensor], value: int) -> Tensor:
        return torch.stack([nn.functional.pad(row, (0, width - len(row)), value=value) for row in rows])

    return {
        "input_ids": stack([ids for ids, _ in pairs], filler),
        "attention_mask": stack([torch.ones_like(ids) for ids, _ in pairs], 0),
        "labels": stack([labels for _, labels in pairs], -100),
    }


def packed(pairs: list[tuple[Tensor, Tensor]]) -> Batch:
    """One row of all documents, told apart by their positions; no document's first token is trained."""
    first_untrained = [torch.where(torch.arange(len(labels)) < 1, -100, labels) for _, labels in pairs]
    return {
        "input_ids": torch.cat([ids for ids, _ in pairs])[None],
        "position_ids": torch.cat([torch.arange(len(ids)) for ids, _ in pairs])[None],
        "labels": torch.cat(first_untrained)[None],
    }


def take(step: Step, model: nn.Module, batches: list[Batch]) -> Taken:
    """One training step on copies of `batches`, from zero gradients."""
    model.train()
    model.zero_grad()
    loss = float(step(model, [{name: values.clone() for name, values in batch.items()} for batch in batches]))
    gradients = {
        name: torch.zeros_like(p, dtype=torch.float32) if p.grad is None else p.grad.detach().float().clone()
        for name, p in model.named_parameters()
        if p.requires_grad
    }
    return Taken(loss, gradients)


def distance(a: Taken, b: Taken) -> float:
    """The larger relative difference of two steps: of their losses, or of their gradients as one vector."""
    difference = sum(float((a.gradients[name] - b.gradients[name]).square().sum()) for name in b.gradients) ** 0.5
    norm = sum(float(gradient.square().sum()) for gradient in b.gradients.values()) ** 0.5
    return max(abs(a.loss - b.loss) / max(abs(b.loss), 1e-6), difference / max(norm, 1e-6))
