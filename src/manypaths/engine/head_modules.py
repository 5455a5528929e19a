"""Heads known by their forward alone: adapters, quantised layers, any module that turns [R, D] into [R, V] row by row.

Such a head runs on chunks of tokens, once for the statistics and once more for the gradients, both times with the same
kernels, autocast and random numbers. Its parameters are inputs of the autograd.Function, which calls it with copies of
them that share their memory: hooks on a parameter see one gradient, not one of each chunk.
"""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import get_device_states, set_device_states


class HeadModule(NamedTuple):
    """A module to call with the parameters `names` replaced by `parameters`, under the circumstances of `of`."""

    module: nn.Module
    out_features: int  # V
    names: tuple[str, ...]
    parameters: tuple[Tensor, ...]
    autocast: dict[str, Any]
    random_state: tuple[Tensor, list[int], list[Tensor]]  # of the CPU; other devices and theirs

    @classmethod
    def of(cls, module: nn.Module, hidden_states: Tensor, trains: bool) -> "HeadModule":
        """`module` here and now: its parameters that require a gradient if it trains, autocast, random numbers."""
        named = {name: value for name, value in module.named_parameters() if trains and value.requires_grad}
        kind = hidden_states.device.type
        autocast = dict(
            device_type=kind,
            dtype=torch.get_autocast_dtype(kind),
            enabled=torch.is_autocast_enabled(kind),
            cache_enabled=False,  # casts of a forward without gradients would be used in one with gradients
        )
        random_state = torch.get_rng_state(), *get_device_states(hidden_states)
        return cls(module, module.out_features, tuple(named), tuple(named.values()), autocast, random_state)

    @classmethod
    def of_weight(cls, weight: Tensor, hidden_states: Tensor) -> "HeadModule":
        """A plain head as a module, to be compared with a reference whose head is one: that gives whole rows only."""
        product = cls.of(Product(len(weight)), hidden_states, trains=False)
        return product._replace(names=("weight",), parameters=(weight,))

    def __call__(self, hidden_states: Tensor, needs: Sequence[bool]) -> tuple[Tensor, list[Tensor]]:
        """Logits [R, V] of [R, D] hidden states, and the copies of hidden states and parameters that they are of.

        `needs` says which of those need a gradient.

        Raises:
            ValueError: logits of another shape than [R, out_features], or without a gradient where one is needed.
        """
        inputs = [
            value.detach().requires_grad_(need)
            for value, need in zip((hidden_states, *self.parameters), needs, strict=True)
        ]
        named = dict(zip(self.names, inputs[1:], strict=True))
        with torch.set_grad_enabled(any(needs)), torch.autocast(**self.autocast):
            logits = torch.func.functional_call(self.module, named, (inputs[0],))
        if logits.shape != (len(hidden_states), self.out_features):
            raise ValueError(
                f"The head turned {list(hidden_states.shape)} hidden states into {list(logits.shape)} logits, but has "
                f"out_features = {self.out_features}; set that to the size of its vocabulary."
            )
        if any(needs) and not logits.requires_grad:
            raise ValueError("The head's own forward gives no gradient, neither to its input nor to its parameters.")
        return logits, inputs

    @contextlib.contextmanager
    def random_numbers(self) -> Iterator[None]:
        """Those that came next at `of`, once more."""
        cpu, devices, states = self.random_state
        kind = self.autocast["device_type"]
        with torch.random.fork_rng(devices, device_type=kind):
            torch.set_rng_state(cpu)
            set_device_states(devices, states, device_type=kind)
            yield


def gradients(logits: Tensor, inputs: Sequence[Tensor], d_logits: Tensor) -> list[Tensor | None]:
    """Of those inputs that need one and are used."""
    needed = [value for value in inputs if value.requires_grad]
    found = iter(torch.autograd.grad(logits, needed, d_logits, allow_unused=True) if needed else ())
    return [next(found) if value.requires_grad else None for value in inputs]


class Product(nn.Module):
    """Multiplication with a weight [V, D] that comes with each call."""

    def __init__(self, out_features: int) -> None:
        super().__init__()
        self.out_features = out_features
        self.register_parameter("weight", None)

    def forward(self, hidden_states: Tensor) -> Tensor:
        with torch.autocast(hidden_states.device.type, enabled=False):
            return hidden_states @ self.weight.to(hidden_states.dtype).T
