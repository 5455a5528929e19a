"""How a Hugging Face model hands us its hidden states: its head's forward is replaced during its own forward.

A plain linear head becomes its weight, any other head (an adapter, a quantised layer) a module that the engine runs.

The replaced head returns a small probe instead of logits, connected to the graph. Whatever the model does to its
logits afterwards (scale, softcap) it does to the probe, so the transform is read off the model, not assumed from
its config, and checked at every call. What seven numbers cannot show, a forward before the first call does: there the
model gets real logits, and labels, of a few tokens, and both its logits and its loss have to be what we compute.
"""

import contextlib
import functools
import warnings
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule, FullyShardedDataParallel
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DataParallel, DistributedDataParallel

from ..engine import Projection
from ..engine.head_modules import HeadModule
from .refusals import refusal

# Small enough for tanh to be linear, large enough to saturate it, and values between to check the fit.
PROBE = (2.0**-12, 2.0**24, -30.0, -1.0, 0.0, 1.0, 30.0)
SAMPLE = 32  # tokens whose logits and loss the model computes itself, once
# Modules whose hooks on a head leave its output alone: FSDP2 and ZeRO-3 gather the weight, TRL's activation offloading
# pauses there
HARMLESS_HOOKS = ("torch.distributed.", "deepspeed.", "trl.")
# Names of the weight of the router loss, in models and in configs
ROUTER_LOSS_WEIGHTS = ("router_aux_loss_coef", "aux_loss_coef")


class Transform(NamedTuple):
    """logits = softcap * tanh(logit_scale * x / softcap), or logit_scale * x without a softcap."""

    softcap: float | None = None
    logit_scale: float = 1.0


class Captured(NamedTuple):
    output: Any  # the model's own output; its `logits` are the transformed probe
    result: Any  # what `score` returned


def is_peft(model: nn.Module) -> bool:
    """Whether this is a PeftModel, without importing peft."""
    return hasattr(model, "get_base_model") and hasattr(model, "disable_adapter")


def base_of(model: nn.Module) -> nn.Module:
    """The Hugging Face model under an adapter."""
    return model.get_base_model() if is_peft(model) else model


def check_model(model: nn.Module) -> None:
    """ValueError for models whose loss is not the fused one, or cannot be reached."""
    if isinstance(model, (DistributedDataParallel, DataParallel, FullyShardedDataParallel)):
        raise refusal("wrapped model", model=type(model).__name__)
    config = getattr(model, "config", None)
    if getattr(config, "is_encoder_decoder", False):
        raise refusal("encoder-decoder", model=type(base_of(model)).__name__)
    if not getattr(config, "return_dict", True):
        raise refusal("tuple outputs")
    output_head(model)


def output_head(model: nn.Module) -> nn.Module:
    """The module whose forward the loss replaces: of a PEFT model the trained copy, or what an adapter switched off wraps.

    ValueError for a head that does more than its own forward, or of unknown size.
    """
    head = model.get_output_embeddings()
    if head is None:
        raise refusal("no output head", model=type(model).__name__)
    if hasattr(head, "disable_adapters"):  # PEFT's layers and wrappers, peft stays unimported
        head = under_adapters(head)
    head = getattr(head, "_orig_mod", head)  # under torch.compile
    if "forward" in vars(head) and not hasattr(head, "_hf_hook"):  # accelerate's moves tensors between devices
        sharded = any(isinstance(parameter, DTensor) for parameter in head.parameters())
        raise refusal("vocabulary-sharded head" if sharded else "patched head")
    for hook in (*head._forward_pre_hooks.values(), *head._forward_hooks.values()):
        if not hook.__module__.startswith(HARMLESS_HOOKS):
            raise refusal("hooks on the head", hook=getattr(hook, "__qualname__", hook))
    vocab_size(head)
    return head


def under_adapters(head: nn.Module) -> nn.Module:
    """What PEFT's layer or wrapper runs: itself with an adapter, the trained copy, or with adapters off the original."""
    if not head.disable_adapters and head.active_adapters:
        copies = getattr(head, "modules_to_save", None)
        return copies[head.active_adapters[0]] if isinstance(copies, nn.ModuleDict) else head
    return head.original_module if hasattr(head, "original_module") else head.base_layer


def is_plain(head: nn.Module) -> bool:
    """Whether it multiplies with a weight, to which a gradient can be given; torchao's weights are no mere tensors."""
    weight = getattr(head, "weight", None)
    known = type(weight) in (Tensor, nn.Parameter) or isinstance(weight, DTensor)
    return type(head).forward is nn.Linear.forward and known


def vocab_size(head: nn.Module) -> int:
    """The width of its logits."""
    sizes = [module.out_features for module in head.modules() if hasattr(module, "out_features")]
    weight = getattr(head, "weight", None)
    if not sizes and isinstance(weight, Tensor):
        sizes = [len(weight)]
    if not sizes:
        raise refusal("head of unknown size", head=name_of(head))
    return sizes[0]


def name_of(head: nn.Module) -> str:
    return f"{type(head).__module__}.{type(head).__name__}"


@contextlib.contextmanager
def in_modes(training: dict[nn.Module, bool]) -> Iterator[None]:
    """Each module in that mode, train or eval, and afterwards as it was."""
    before = {module: module.training for module in training}
    try:
        for module, mode in training.items():
            module.training = mode
        yield
    finally:
        for module, mode in before.items():
            module.training = mode


class OwnForward(nn.Module):
    """A head as the engine runs it later: in the mode it is in now (train or eval), with nothing around its forward, and
    without the columns that the model cuts off.
    """

    def __init__(self, head: nn.Module, columns: int | None) -> None:
        super().__init__()
        self.head, self.columns, self.out_features = head, columns, columns or vocab_size(head)
        self.modes = {module: module.training for module in head.modules()}

    def forward(self, hidden_states: Tensor) -> Tensor:
        with in_modes(self.modes):
            return type(self.head).forward(self.head, hidden_states)[..., : self.columns]


def checked_logits(head: OwnForward, hidden_states: Tensor) -> Tensor:
    """Logits [1, R, V] of [R, D] hidden states.

    ValueError unless each row's logits depend on that row alone, and on no weight that trains but the head's parameters.
    """
    same_dropout = HeadModule.of(head, hidden_states, trains=False).random_numbers
    middle = len(hidden_states) // 2
    alone = torch.zeros_like(hidden_states)
    alone[middle] = hidden_states[middle]
    with same_dropout():
        logits = head(hidden_states[None])
    with same_dropout():
        single = head(alone)[middle]
    tolerance = torch.finfo(single.dtype).eps ** 0.5
    if not torch.allclose(logits[0, middle], single, rtol=tolerance, atol=tolerance):
        raise refusal("head that mixes tokens", head=name_of(head.head))
    parameters = {name: value.detach() for name, value in head.named_parameters() if value.requires_grad}
    with same_dropout(), torch.enable_grad():
        if torch.func.functional_call(head, parameters, (hidden_states,)).requires_grad:
            raise refusal("weights that the head hides", head=name_of(head.head))
    return logits


def check_not_packed(model: nn.Module) -> None:
    """ValueError for 4-bit weights in bitsandbytes' layout for inference on CPUs, whose kernel has no gradient."""
    for name, parameter in model.named_parameters():
        if getattr(getattr(parameter, "quant_state", None), "packing_format_for_cpu", False):
            raise refusal("weights packed for inference", name=name)


def fit_transform(probe: Tensor) -> Transform:
    """The scale and softcap that turned PROBE into `probe` [7]; ValueError where they alone did not."""
    small, large = probe.double()[:2].tolist()
    logit_scale = small / PROBE[0]
    if not logit_scale:
        raise refusal("logits without the head")
    linear = abs(large / small / (PROBE[1] / PROBE[0]) - 1) < 1e-3
    fitted = Transform(None if linear else abs(large), logit_scale)
    check_transform(torch.tensor(PROBE, dtype=torch.double), probe.double().cpu(), fitted)
    return fitted


def check_transform(given: Tensor, seen: Tensor, transform: Transform) -> None:
    """ValueError unless `transform` turned `given` into `seen`, of the same shape; what was NaN before is passed over."""
    wrong = unlike(given, seen, transform)
    if wrong.any():
        first = tuple(wrong.nonzero()[0].tolist())
        expected = transformed(given, transform)
        given, seen, expected = (f"{float(values[first]):.6g}" for values in (given, seen, expected))
        raise refusal("changed logits", given=given, seen=seen, expected=expected)


def transformed(logits: Tensor, transform: Transform) -> Tensor:
    scaled = transform.logit_scale * logits
    return scaled if transform.softcap is None else transform.softcap * torch.tanh(scaled / transform.softcap)


def unlike(given: Tensor, seen: Tensor, transform: Transform, tolerance: float = 1e-3) -> Tensor:
    """Where `seen` is not what `transform` makes of `given`, relatively; bool, of the same shape."""
    expected = transformed(given, transform)
    return ~torch.isclose(seen.to(expected.dtype), expected, rtol=tolerance, atol=1e-9) & ~given.isnan()


def router_loss_weight(model: nn.Module) -> float:
    """What the model multiplies the router loss with that it adds to its own; 0 where it keeps no such weight."""
    base = base_of(model)
    places = ((owner, name) for owner in (base, base.config.get_text_config()) for name in ROUTER_LOSS_WEIGHTS)
    return next((getattr(owner, name) for owner, name in places if hasattr(owner, name)), 0.0)


def check_loss(model: nn.Module, output: Any, labels: Tensor) -> None:
    """ValueError unless the model's own loss at `labels` is the cross-entropy of its logits and its router loss."""
    if getattr(output, "loss", None) is None:
        return
    logits = output.logits.to(torch.promote_types(output.logits.dtype, torch.float32))
    expected = F.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten().to(logits.device))
    if getattr(output, "aux_loss", None) is not None:
        expected = expected + router_loss_weight(model) * output.aux_loss
    if not torch.isclose(output.loss.double(), expected.double(), rtol=1e-4, atol=1e-6, equal_nan=True):
        raise refusal("another loss", model=type(base_of(model)).__name__)


@contextlib.contextmanager
def replaced_forward(module: nn.Module, forward: Callable[..., Any]) -> Iterator[None]:
    before = module.__dict__.get("forward")
    module.forward = forward
    try:
        yield
    finally:
        if before is None:
            del module.forward
        else:
            module.forward = before


def multiplied(head: nn.Module, hidden_states: Tensor, columns: int | None) -> Projection:
    """What the engine multiplies: of a plain head in the dtypes of autocast, and `columns` of the head if not all."""
    if not is_plain(head):
        if any(hasattr(parameter, "ds_id") for parameter in head.parameters()):
            raise refusal("partitioned head", head=name_of(head))
        return Projection(hidden_states, OwnForward(head, columns))
    weight, bias = head.weight, head.bias
    if columns is not None:
        weight, bias = weight[:columns], None if bias is None else bias[:columns]
    if torch.is_autocast_enabled(hidden_states.device.type):
        dtype = torch.get_autocast_dtype(hidden_states.device.type)
        hidden_states = hidden_states.to(dtype)
        if weight.dtype != torch.float32:  # an fp32 weight stays, so that its gradient is not rounded
            weight, bias = weight.to(dtype), None if bias is None else bias.to(dtype)
    return Projection(hidden_states, weight, bias)


class HeadHook:
    """Runs a model's own forward with `score(projection)` in the place of its head.

    `model` is the unwrapped model that owns the head; `call` may go through DDP, FSDP or PEFT wrappers of it.
    """

    def __init__(self, model: nn.Module) -> None:
        check_model(model)
        self.model = model
        self.transform: Transform | None = None
        self.columns: int | None = None  # how many of the head's the model keeps, if not all

    def __call__(self, call: Callable[[], Any], score: Callable[[Projection], Any]) -> Captured:
        if self.transform is None:
            self.transform, self.columns = self.read_model(call)
        if torch.is_grad_enabled():
            check_not_packed(self.model)
        results = []

        def answer(projection: Projection) -> Tensor:
            results.append(score(projection))
            # Tied to the graph, so that wrappers' backward hooks on the model's output fire
            zero = torch.zeros((), device=projection.hidden_states.device)
            tie = sum((value.sum() for value in tensors(results[0])), zero) * 0.0
            probe = torch.tensor(PROBE, device=zero.device) + tie.float()
            return probe.repeat(*projection.hidden_states.shape[:-1], 1)

        output = self.run(call, answer)
        seen = output.logits.detach().reshape(-1, len(PROBE))[0].cpu()
        rounding = torch.finfo(seen.dtype).eps  # FSDP2's mixed precision rounds what the model returns
        if unlike(torch.tensor(PROBE, dtype=torch.double), seen, self.transform, max(1e-3, rounding)).any():
            raise refusal("changing logit transform", before=self.transform, now=fit_transform(seen))
        return Captured(output, results[0])

    def read_model(self, call: Callable[[], Any]) -> tuple[Transform, int | None]:
        """What the model does to its logits, and how many columns of them it keeps if not all.

        One forward without gradients, before the first; leaves the random state as it was. The head answers with the
        real logits of SAMPLE tokens of the first sequence, PROBE in the last of them. They are a constant, and from
        there to the end of the model's forward gradients are on: only a learned transform can use them. Weights that
        autocast cast on the way are forgotten: some versions of torch would train none of them.
        """
        base, given, own = base_of(self.model), [], []
        own_forward = base.forward
        meta = next((name for name, value in self.model.named_parameters() if value.is_meta), None)
        if meta is not None:
            raise refusal("weights on the meta device", name=meta)
        device = next(self.model.parameters()).device
        labels = torch.zeros(1, SAMPLE, dtype=torch.long, device=device)

        @functools.wraps(own_forward)
        def with_labels(*args: Any, **kwargs: Any) -> Any:
            try:
                own.append(own_forward(*args, **{**kwargs, "labels": labels}))
            except Exception as error:
                if given:
                    raise refusal("logits of the batch's shape", tokens=SAMPLE, error=error) from error
            if given:
                return own[-1]
            own.append(own_forward(*args, **kwargs))
            if given:
                name = type(base).__name__
                warnings.warn(f"With labels {name} leaves its head out: its own loss is not checked.", stacklevel=2)
            return own[-1]

        def answer(projection: Projection) -> Tensor:
            hidden_states = projection.hidden_states
            sequence = hidden_states.reshape(-1, *hidden_states.shape[-2:])[0]
            places = torch.arange(SAMPLE, device=sequence.device) * len(sequence) // SAMPLE
            if isinstance(projection.weight, Tensor):
                logits = F.linear(sequence[places][None], projection.weight, projection.bias)
            else:
                logits = checked_logits(projection.weight, sequence[places])
            logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
            logits[0, -1, : len(PROBE)] = torch.tensor(PROBE)
            given.append(logits)
            torch.set_grad_enabled(True)
            return logits.clone()

        with (
            torch.random.fork_rng(devices=[device] if device.type == "cuda" else []),
            torch.no_grad(),
            replaced_forward(base, with_labels),
            replaced_forward(self.model, torch.no_grad()(self.model.forward)),  # gradients are off again for wrappers
        ):
            returned = self.run(call, answer)
        # What the model returned before FSDP2 rounded it. PEFT calls a model whose prefix is off past `base`.
        output = own[-1] if own else returned
        torch.clear_autocast_cache()
        seen, columns = output.logits, output.logits.shape[-1]
        if seen.shape[:-1] != given[0].shape[:-1] or columns > given[0].shape[-1]:
            raise refusal("logits of the batch's shape", tokens=SAMPLE, error=f"it made them {list(seen.shape)}.")
        if seen.requires_grad:
            raise refusal("learned logit transform")
        transform = fit_transform(seen[0, -1, : len(PROBE)])
        check_transform(given[0][..., :columns], seen, transform)
        check_loss(self.model, output, labels)
        return transform, columns if columns < given[0].shape[-1] else None

    def run(self, call: Callable[[], Any], answer: Callable[[Projection], Tensor]) -> Any:
        """The model's output with `answer` in the place of its head."""
        head = output_head(self.model)
        calls = 0

        def forward(hidden_states: Tensor) -> Tensor:
            nonlocal calls
            calls += 1
            if any(isinstance(parameter, DTensor) for parameter in head.parameters()):
                raise refusal("vocabulary-sharded head")
            hidden_states = hidden_states.to(next(head.parameters()).device)
            projection = multiplied(head, hidden_states, self.columns)
            return answer(Projection(*projection[:3], *(self.transform or Transform())))

        with replaced_forward(head, forward):
            output = call()
        if calls != 1:
            raise refusal("head called twice" if calls else "head never called", model=type(self.model).__name__)
        return output


def tensors(result: Any) -> list[Tensor]:
    """The differentiable tensors in a tensor or a flat container of them."""
    if isinstance(result, Tensor):
        return [result] if result.requires_grad else []
    if isinstance(result, dict):
        result = result.values()
    return [value for value in result if isinstance(value, Tensor) and value.requires_grad] if result else []


def under_fsdp2(model: nn.Module) -> bool:
    return any(isinstance(module, FSDPModule) for module in model.modules())


def under_zero3(model: nn.Module) -> bool:
    return any(hasattr(parameter, "ds_id") for parameter in model.parameters())


def sharded(model: nn.Module) -> bool:
    """Whether an engine gathers this model's weights for its forwards and frees them afterwards."""
    return under_fsdp2(model) or under_zero3(model)


def hidden_states_of(hook: HeadHook, call: Callable[[], Any]) -> Projection:
    """The hidden states and head of a forward without gradients, detached: what a reference has to give.

    A sharded head is copied while it is whole: it has to outlive this forward.
    """
    kept = Tensor.clone if sharded(hook.model) else Tensor.detach

    def read(projection: Projection) -> Projection:
        if sharded(hook.model) and not isinstance(projection.weight, Tensor):
            raise refusal("sharded reference head", head=name_of(projection.weight.head))
        hidden_states, *head = projection
        return Projection(hidden_states, *(kept(part) if isinstance(part, Tensor) else part for part in head))

    with torch.no_grad():
        projection = hook(call, read).result
    torch.clear_autocast_cache()
    return projection
