"""Memory and operations of a run, counted on a model without weights.

One micro-batch runs forward and backward on fake tensors: shapes and types without values, so that whatever the architecture
does is counted and nothing is computed. What autograd keeps are the activations; matrix products and attention are the
operations. States follow from the weights: ZeRO, arXiv:1910.02054, section 3, for sharded ones; QLoRA, arXiv:2305.14314, for
4-bit weights. The loss head has the engine's own buffers and no logits.
"""

import copy
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from math import prod
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode
from transformers.modeling_layers import GradientCheckpointingLayer

from ..engine.chunked import BLOCK_ELEMENTS, CHUNK_ELEMENTS, MAX_TILE, MIN_TILE, TILE_ELEMENTS, budget
from ..objectives import Objective

aten = torch.ops.aten


class Shape(NamedTuple):
    """A micro-batch: B sequences of S tokens, padding included, T of them trained on; whether it has padding."""

    sequences: int
    length: int
    trained: int
    padded: bool


@dataclass(frozen=True)
class Counted:
    """Of one micro-batch through the body of a model, without its head. Bytes, and operations."""

    activations: int  # kept from forward to backward
    recomputed: int  # with checkpointing: the most that one layer keeps while it is computed again
    copies: int  # weights in the dtype of autocast
    forward: "Operations"
    backward: "Operations"  # with what checkpointing computes again


class Operations(NamedTuple):
    """Those that grow with the number of tokens, and attention's, which grow with its square."""

    products: float
    attention: float

    def at(self, counted: Shape, sequences: float, length: float) -> float:
        """Of another micro-batch than they were counted for."""
        tokens = sequences * length / (counted.sequences * counted.length)
        return tokens * (self.products + self.attention * length / counted.length)

    @classmethod
    def of(cls, counter: FlopCounterMode) -> "Operations":
        total = counter.get_flop_counts().get("Global", {})
        attention = sum(value for function, value in total.items() if "attention" in str(function))
        return cls(sum(total.values()) - attention, attention)


def attention_operations(query, key, value, *_: Any, **__: Any) -> int:
    """Of both products [B, H, S, D] x [B, H, D, S] x [B, H, S, D]; the causal half is not taken off, as is usual."""
    batch, heads, length, size = query
    return 2 * batch * heads * length * key[-2] * (size + value[-1])


def attention_backward_operations(_, query, key, value, *__: Any, **___: Any) -> int:
    """Five products: the scores again, and the gradients of both factors of both."""
    return attention_operations(query, key, value) * 5 // 2


def grouped_operations(a, b, *_: Any, out_shape: Any = None, **__: Any) -> int:
    """Of experts: each row of a [T, K] meets one of the matrices b [E, K, N]; of a [K, T] and b [T, N], their sums."""
    return 2 * prod(a) * b[-1]


ATTENTION = {
    aten._scaled_dot_product_flash_attention_for_cpu: attention_operations,
    aten._scaled_dot_product_flash_attention_for_cpu_backward: attention_backward_operations,
    aten._grouped_mm: grouped_operations,
}


class CastWeights(TorchDispatchMode):
    """Notes which tensors are weights in another dtype, as autocast makes them."""

    def __init__(self, weights: set[int]) -> None:
        super().__init__()
        self.weights, self.made = weights, {}

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        if function is aten._to_copy.default and key(args[0]) in self.weights and key(out) not in self.weights:
            self.made[key(out)] = out.untyped_storage()  # kept, so that no other gets its address
        return out


def key(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata


def count(model: nn.Module, shape: Shape, autocast: torch.dtype | None, checkpointing: bool) -> Counted:
    """One micro-batch through the body of `model`, which has no weights, in training mode.

    Raises RuntimeError and others for a model that decides by values, which fake tensors do not have.
    """
    counter = FlopCounterMode(display=False, custom_mapping=ATTENTION)
    kept: dict[int, Any] = {}
    inputs: dict[int, Any] = {}  # of layers
    spans: list[int] = []  # bytes that each layer keeps
    cast = nullcontext() if autocast is None else torch.autocast("cpu", autocast)
    model = copy.deepcopy(model)
    with FakeTensorMode(allow_non_fake_inputs=True):
        model.to_empty(device="cpu")
        layers = [layer for layer in model.modules() if isinstance(layer, GradientCheckpointingLayer)]
        weights = {key(weight) for weight in model.parameters()}
        casts = CastWeights(weights)

        def keep(tensor: Tensor) -> Tensor:
            if key(tensor) not in weights:
                kept[key(tensor)] = tensor.untyped_storage()
            return tensor

        def held(exclude: dict[int, Any]) -> int:
            return sum(storage.nbytes() for where, storage in kept.items() if where not in exclude)

        def enter(_: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
            given = [value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)]
            inputs.update({key(value): value.untyped_storage() for value in given})
            spans.append(-held(casts.made))

        def leave(*_: Any) -> None:
            spans[-1] += held(casts.made)

        for layer in layers:
            layer.register_forward_pre_hook(enter, with_kwargs=True)
            layer.register_forward_hook(leave)
        model.train()
        model.gradient_checkpointing_disable()
        ids = torch.zeros(shape.sequences, shape.length, dtype=torch.long)
        mask = {"attention_mask": torch.ones_like(ids)} if shape.padded else {}
        with cast, counter, casts, torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            output = body_of(model)(input_ids=ids, **mask, use_cache=False)[0]
        forward = Operations.of(counter)
        with counter:  # counts anew
            output.sum().backward()
        backward = Operations.of(counter)
        total = held(casts.made)
        copies = sum(storage.nbytes() for storage in casts.made.values())
        if not (checkpointing and layers):
            return Counted(total, 0, copies, forward, backward)
        outside = total - sum(spans) + sum(storage.nbytes() for storage in inputs.values())
        again = Operations(*map(sum, zip(forward, backward, strict=True)))
        return Counted(outside, max(spans), copies, forward, again)


def body_of(model: nn.Module) -> nn.Module:
    """The model without its head; the adapters that PEFT puts into it are in there."""
    model = model.get_base_model() if hasattr(model, "get_base_model") else model
    return model.base_model


class Weights(NamedTuple):
    """Numbers of weights, and bytes they are stored in."""

    total: int
    trainable: int
    bytes: float
    trainable_bytes: int
    largest_layer: int
    outside_layers: int
    head: tuple[int, int]  # [V, D]
    head_trains: bool
    tied: bool


def head_of(model: nn.Module) -> tuple[tuple[int, int], bool]:
    """[V, D], and whether the head trains, also where an adapter or a trained copy is on it."""
    parameters = list(model.get_output_embeddings().parameters())
    return tuple(parameters[0].shape), any(weight.requires_grad for weight in parameters)


def weights_of(model: nn.Module, bits: int | None = None) -> Weights:
    """`bits`: linear layers of the body are quantised to 4 or 8."""
    parameters = list(model.parameters())
    head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
    layers = [
        sum(weight.numel() for weight in layer.parameters())
        for layer in model.modules()
        if isinstance(layer, GradientCheckpointingLayer)
    ]
    total = sum(weight.numel() for weight in parameters)
    stored = sum(weight.numel() * weight.element_size() for weight in parameters)
    if bits is not None:  # with a scale in fp32 for 64 weights
        quantised = [
            module.weight
            for module in model.modules()
            if isinstance(module, nn.Linear) and module is not head and not module.weight.requires_grad
        ]
        stored += sum(weight.numel() * (bits / 8 + 4 / 64 - weight.element_size()) for weight in quantised)
    trainable = [weight for weight in parameters if weight.requires_grad]
    return Weights(
        total,
        sum(weight.numel() for weight in trainable),
        stored,
        sum(weight.numel() * weight.element_size() for weight in trainable),
        max(layers, default=0),
        total - sum(layers),
        *head_of(model),
        next(head.parameters()) is next(embedding.parameters()),
    )


# Bytes of an optimizer's states for each trained weight, given the bytes of the weight
OPTIMIZERS: dict[str, Callable[[float], float]] = {
    **dict.fromkeys(("adamw_torch", "adamw_torch_fused", "adamw_apex_fused"), lambda size: 2 * size),
    **dict.fromkeys(("adamw_8bit", "adamw_bnb_8bit", "paged_adamw_8bit", "ademamix_8bit"), lambda size: 2.0),
    **dict.fromkeys(("paged_adamw", "paged_adamw_32bit", "adamw_torch_xla"), lambda size: 8.0),
    **dict.fromkeys(("lion", "lion_32bit", "paged_lion_32bit", "rmsprop", "adagrad"), lambda size: size),
    **dict.fromkeys(("lion_8bit", "paged_lion_8bit"), lambda size: 1.0),
    **dict.fromkeys(("adafactor", "sgd"), lambda size: 0.0),  # adafactor: a row and a column of each matrix
}


@dataclass(frozen=True)
class Sharding:
    """How many devices share, and what: `stage` of ZeRO, which FSDP is 3 of; 0 for DDP or one device."""

    name: str
    devices: int = 1
    stage: int = 0
    deepspeed: bool = False

    def part(self, of_stage: int) -> int:
        return self.devices if self.stage >= of_stage else 1


class Job(NamedTuple):
    """What a step of training needs to be counted."""

    weights: Weights
    sharding: Sharding
    objective: Objective | None  # None: GRPO's loss, whose head is TRL's
    optimizer: str
    accumulates: bool
    compute: int  # bytes of a number in the products
    kind: str  # of device, "cuda" or "cpu"
    compares: bool = False  # with a reference
    reference: float = 0.0  # its bytes
    other: float = 0.0  # bytes kept for other programs, such as vLLM in the same process


def memory(job: Job, counted: Counted, shape: Shape) -> dict[str, float]:
    """Bytes on each device by part, at the moment when most is there: at the loss, in a layer's backward, or at the update."""
    weights, sharding = job.weights, job.sharding
    itemsize = weights.trainable_bytes / max(weights.trainable, 1)
    states = OPTIMIZERS[job.optimizer](itemsize)
    stored = weights.bytes
    if sharding.deepspeed and job.compute == 2:  # DeepSpeed keeps 16-bit weights, and fp32 ones with the optimizer
        stored, itemsize, states = 2 * weights.total, 2, states + 4
    gathered = 0
    if sharding.stage == 3:  # the layer at work, the next one, and what belongs to no layer
        gathered = (2 * weights.largest_layer + weights.outside_layers) * job.compute
    gradients = weights.trainable * itemsize / sharding.part(2)
    parts = {
        "weights": stored / sharding.part(3),
        "weights gathered at once": gathered,
        "optimizer states": weights.trainable * states / sharding.part(1),
        "reference": job.reference,
        "vLLM": job.other,
    }
    if sharding.devices > 1 and sharding.stage == 0:
        parts["buckets of DDP"] = gradients
    kept = {
        "weights cast by autocast": 0 if sharding.stage else counted.copies,
        "activations": counted.activations,
    }
    before = gradients if job.accumulates or sharding.stage == 3 else 0  # of earlier micro-batches
    head = prod(weights.head) * itemsize * weights.head_trains
    once_more = head * (weights.tied or job.accumulates)  # the embedding's gradient before it is added
    roots = weights.trainable * itemsize * (job.optimizer == "adamw_torch")  # that the fused one does not keep
    moments = (
        {"gradients": before, **kept, "loss head": head_buffers(job, shape)},
        {"gradients": max(before, head), **kept, "layer computed again": counted.recomputed},
        {"gradients": gradients, "end of backward and update": max(once_more, roots)},
    )
    moment = max(moments, key=lambda one: sum(one.values()))
    return {name: size for name, size in (parts | moment).items() if size}


def head_buffers(job: Job, shape: Shape) -> float:
    """Bytes that `engine.chunked` takes for T tokens, the larger of forward and backward; kept row scalars are left out.

    With the gradient of the head's weight, if it trains, and copies of hidden states.
    """
    (V, D), T, size = job.weights.head, shape.trained, job.compute
    statistics = () if job.objective is None else job.objective.statistics
    reference = job.compares
    tempered = sum("tempered_logprob" in name for name in statistics)
    device = torch.device(job.kind)
    chunk = min(max(T, 1), budget(CHUNK_ELEMENTS, device, V))
    block = min(chunk, budget(BLOCK_ELEMENTS, device, V))
    low = size < 4
    forward = 4 * block * V * (2 + low + low * reference) + size * chunk * V * (1 + reference)
    tile = min(V, MAX_TILE, max(MIN_TILE, budget(TILE_ELEMENTS, device, T)))
    backward = T * tile * (8 + size * low + 4 * tempered + (4 + size * low) * reference) + 4 * T * D
    backward += V * D * 4 * job.weights.head_trains
    hidden = size * D * (T * (1 + reference) + shape.sequences * shape.length)
    return max(forward, backward) + hidden


def step_operations(
    job: Job, counted: Counted, counted_for: Shape, sequences: float, length: float, trained: float
) -> float:
    """Of a micro-batch of so many sequences of this length: the body, the head's products, the reference's forward."""
    products = 3 + job.weights.head_trains + 2 * job.compares  # once forward, once again, then the gradients
    head = 2 * trained * prod(job.weights.head) * products
    forward = counted.forward.at(counted_for, sequences, length) * (1 + job.compares)
    return forward + counted.backward.at(counted_for, sequences, length) + head
