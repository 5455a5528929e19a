"""How a Hugging Face model hands us its hidden states: its head's forward is replaced during its own forward.

The replaced head returns a small probe instead of logits, connected to the graph. Whatever the model does to its
logits afterwards (scale, softcap) it does to the probe, so the transform is read off the model, not assumed from
its config, and checked at every call.
"""

import contextlib
import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..engine import Projection

# Small enough for tanh to be linear, large enough to saturate it, and values between to check the fit.
PROBE = (2.0**-12, 2.0**24, -30.0, -1.0, 0.0, 1.0, 30.0)


class Transform(NamedTuple):
    """logits = softcap * tanh(logit_scale * x / softcap), or logit_scale * x without a softcap."""

    softcap: float | None = None
    logit_scale: float = 1.0


class Captured(NamedTuple):
    output: Any  # the model's own output; its `logits` are the transformed probe
    result: Any  # what `score` returned


def plain_head(model: nn.Module) -> nn.Linear:
    """The linear head whose weight the loss trains.

    Raises:
        ValueError: no output head, or a head with an adapter or a quantised weight: its extra weights would
            silently never train.
    """
    head = model.get_output_embeddings()
    if isinstance(getattr(head, "modules_to_save", None), nn.ModuleDict):  # PEFT's wrapper, peft stays unimported
        disabled = head.disable_adapters or not head.active_adapters
        head = head.original_module if disabled else head.modules_to_save[head.active_adapters[0]]
    if head is None:
        raise ValueError(f"{type(model).__name__} has no output head (get_output_embeddings() is None).")
    if type(head).forward is not nn.Linear.forward:
        raise ValueError(
            f"The output head is a {type(head).__module__}.{type(head).__name__}, not a plain linear layer: an adapter or "
            "a quantised weight there would silently not be trained. Remove 'lm_head' from target_modules "
            "(modules_to_save=['lm_head'] is fine) and from the quantised modules (llm_int8_skip_modules)."
        )
    return head


def fit_transform(probe: Tensor) -> Transform:
    """The scale and softcap that turned PROBE into `probe` [7].

    Raises:
        ValueError: the model does something else to its logits.
    """
    values = probe.double().tolist()
    logit_scale = values[0] / PROBE[0]
    if not logit_scale:
        raise ValueError("This model's logits do not depend on its output head, so there is nothing to train.")
    growth = values[1] / values[0] / (PROBE[1] / PROBE[0])
    softcap = None if abs(growth - 1) < 1e-3 else abs(values[1])
    fitted = Transform(softcap, logit_scale)
    for given, seen in zip(PROBE, values, strict=True):
        expected = apply_transform(given, fitted)
        if not abs(seen - expected) <= 1e-3 * max(abs(expected), 1e-6):
            raise ValueError(
                "This model changes its logits by more than a scale and a tanh softcap "
                f"(head output {given} became {seen}, expected {expected}); its loss cannot be computed from the head."
            )
    return fitted


def apply_transform(x: float, transform: Transform) -> float:
    softcap, logit_scale = transform
    return logit_scale * x if softcap is None else softcap * math.tanh(logit_scale * x / softcap)


@contextlib.contextmanager
def replaced_forward(module: nn.Module, forward: Callable[[Tensor], Tensor]) -> Iterator[None]:
    before = module.__dict__.get("forward")
    module.forward = forward
    try:
        yield
    finally:
        if before is None:
            del module.forward
        else:
            module.forward = before


class HeadHook:
    """Runs a model's own forward with `score(projection)` in the place of its head.

    `model` is the unwrapped model that owns the head; `call` may go through DDP, FSDP or PEFT wrappers of it.
    """

    def __init__(self, model: nn.Module) -> None:
        plain_head(model)
        self.model = model
        self.transform: Transform | None = None

    def __call__(self, call: Callable[[], Any], score: Callable[[Projection], Any]) -> Captured:
        if self.transform is None:
            self.transform = self.read_transform(call)
        captured = self.run(call, score)
        seen = fit_transform(captured.output.logits.detach().reshape(-1, len(PROBE))[0])
        if not all(math.isclose(a or 0, b or 0, rel_tol=1e-3) for a, b in zip(seen, self.transform, strict=True)):
            raise ValueError(f"The model's logit transform changed from {self.transform} to {seen} between calls.")
        return captured

    def read_transform(self, call: Callable[[], Any]) -> Transform:
        """One forward without gradients, before the first; leaves the random state as it was."""
        device = next(self.model.parameters()).device
        with torch.no_grad(), torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            logits = self.run(call, lambda projection: ()).output.logits
        return fit_transform(logits.reshape(-1, len(PROBE))[0])

    def run(self, call: Callable[[], Any], score: Callable[[Projection], Any]) -> Captured:
        head = plain_head(self.model)
        results = []

        def forward(hidden_states: Tensor) -> Tensor:
            weight, bias = head.weight, head.bias
            if torch.is_autocast_enabled(hidden_states.device.type):
                dtype = torch.get_autocast_dtype(hidden_states.device.type)
                hidden_states, weight = hidden_states.to(dtype), weight.to(dtype)
                bias = None if bias is None else bias.to(dtype)
            hidden_states = hidden_states.to(weight.device)
            result = score(Projection(hidden_states, weight, bias, *(self.transform or Transform())))
            results.append(result)
            # Tied to the graph, so that wrappers' backward hooks on the model's output fire
            tie = sum((value.sum() for value in tensors(result)), torch.zeros((), device=weight.device)) * 0.0
            probe = torch.tensor(PROBE, device=weight.device) + tie.float()
            return probe.expand(*hidden_states.shape[:-1], len(PROBE))

        with replaced_forward(head, forward):
            output = call()
        if not results:
            raise ValueError(f"{type(self.model).__name__} never called its output head, so there is nothing to train.")
        return Captured(output, results[-1])


def tensors(result: Any) -> list[Tensor]:
    """The differentiable tensors in a tensor or a flat container of them."""
    if isinstance(result, Tensor):
        return [result] if result.requires_grad else []
    if isinstance(result, dict):
        result = result.values()
    return [value for value in result if isinstance(value, Tensor) and value.requires_grad] if result else []


def hidden_states_of(hook: HeadHook, call: Callable[[], Any]) -> Projection:
    """The hidden states and head of a forward without gradients, detached: what a reference has to give."""
    with torch.no_grad():
        projection = hook(call, lambda projection: projection).result
    return Projection(*(part.detach() if isinstance(part, Tensor) else part for part in projection))
