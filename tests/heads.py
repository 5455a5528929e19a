"""Random heads for the engine's tests, with the oracle of tests/naive.py beside the engine's own call."""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from manypaths.engine import Projection, token_statistics
from naive import logits_of, statistics

TOP_K, TEMPERATURE = 3, 0.7


class Head(NamedTuple):
    """T tokens, hidden size D, vocabulary V; hidden, weight and bias are leaves that require gradients."""

    hidden: Tensor
    weight: Tensor
    bias: Tensor | None
    labels: Tensor
    reference: Projection
    softcap: float | None
    logit_scale: float

    def leaves(self) -> list[Tensor]:
        return [leaf for leaf in (self.hidden, self.weight, self.bias) if leaf is not None]

    def engine(self, want, backend: str = "chunked", **overrides: Any) -> dict[str, Tensor]:
        options = dict(
            want=want, bias=self.bias, softcap=self.softcap, logit_scale=self.logit_scale, top_k=TOP_K,
            temperature=TEMPERATURE, reference=self.reference, backend=backend,
        )  # fmt: skip
        return token_statistics(self.hidden, self.weight, self.labels, **{**options, **overrides})

    def naive(self) -> dict[str, Tensor]:
        """The oracle's statistics [T], 0 where ignored."""
        valid = self.labels != -100
        z = logits_of(self.hidden, self.weight, self.bias, self.softcap, self.logit_scale)[valid]
        packed = statistics(z, self.labels[valid], logits_of(*self.reference)[valid], TOP_K, TEMPERATURE)
        return {name: values.new_zeros(valid.shape).masked_scatter(valid, values) for name, values in packed.items()}


def random_head(
    T=13, V=37, *, softcap=None, logit_scale=1.0, bias=False, ignored=0, dtype=torch.float64, seed=0, D=6, spread=2.0
) -> Head:
    """A head whose logits have a standard deviation of about spread^2; its reference has softcap, scale and bias."""
    make = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=make, dtype=torch.float64).mul_(spread / D**0.25).to(dtype)

    labels = torch.randint(V, (T,), generator=make)
    labels[torch.randperm(T, generator=make)[:ignored]] = -100
    reference = Projection(normal(T, D + 1), normal(V, D + 1), normal(V), softcap=3.0, logit_scale=0.5)
    leaf = normal(V).requires_grad_() if bias else None
    return Head(
        normal(T, D).requires_grad_(), normal(V, D).requires_grad_(), leaf, labels, reference, softcap, logit_scale
    )


def weighted_sum(outputs: dict[str, Tensor]) -> Tensor:
    """sum(upstream * statistic) with random upstreams, the same for a statistic wherever it comes from."""
    total = 0.0
    for name, values in outputs.items():
        make = torch.Generator().manual_seed(sum(map(ord, name)))
        total = total + (torch.randn(values.shape, generator=make, dtype=torch.float64).to(values.dtype) * values).sum()
    return total


def gradients(outputs: dict[str, Tensor], leaves: list[Tensor]) -> list[Tensor]:
    return list(torch.autograd.grad(weighted_sum(outputs), leaves))


class LargestTensor(TorchDispatchMode):
    """Records the most elements that any operation returns, views aside: they have no memory of their own."""

    def __init__(self) -> None:
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, torch.Tensor):
                self.elements = max(self.elements, leaf.numel())
        return out
