"""Whether the settings fit the data and the device: steps, learning rate, threshold, memory, time, disk."""

import math
import random
import shutil
from collections.abc import Generator, Iterator, Mapping
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

import torch
import yaml
from trl import ModelConfig

from ..data.sources import one_line
from ..experiment.estimate import operations_per_second
from ..functions import duration
from ..models.loading import check_model, default_device, load_config
from ..models.refusals import refusal
from ..objectives import Objective
from ..objectives.registry import CALIBRATED
from ..training.config import GRPOConfig, SFTConfig
from .checks import Check, judged
from .config import UTILISATION, Device, amount, device_of
from .cost import OPTIMIZERS, Counted, Job, Shape, Sharding, count, head_of, memory, step_operations, weights_of
from .installation import existing, memory_of_machine
from .rows import Tokens, trained

# Learning rates that are usual with Adam: full fine-tuning, and adapters, which want about ten times as much
USUAL_RATES = {False: (5e-7, 1e-4), True: (2e-5, 2e-3)}
FULL = 0.9  # of a GPU's memory: the rest goes to CUDA's context and the gaps between blocks
ENOUGH = 0.05  # by which the share below a calibrated threshold may be off, at two standard errors


class Batches(NamedTuple):
    """What the steps consist of. Micro-batches are those of one device."""

    steps: int
    per_step: int  # micro-batches that a device adds up for one step
    largest: Shape
    sequences: float  # of a usual micro-batch
    length: float
    trained: float


def device(gpu: str | None) -> Device:
    """The named GPU, or what this machine trains on, with the speed of a matrix product measured."""
    if gpu is not None:
        return device_of(gpu)
    kind = default_device().type
    size, name = memory_of_machine(), f"this {kind.upper()}"
    if kind == "cuda":
        card = torch.cuda.get_device_properties(0)
        size, name = card.total_memory, card.name
    peak = operations_per_second() / 0.4  # it says what is left after usual losses
    return Device(name, size, *(peak * share for share in UTILISATION), kind=kind)


def sharding(accelerate_config: str | None, num_processes: int | None) -> Sharding:
    """From an accelerate configuration, a file or one of TRL's names."""
    options: dict[str, Any] = {}
    if accelerate_config is not None:
        path = Path(accelerate_config)
        if not path.is_file():
            path = resources.files("trl.accelerate_configs").joinpath(f"{accelerate_config}.yaml")
        if not path.is_file():
            raise ValueError(f"--accelerate_config {accelerate_config}: neither a file nor one of TRL's names.")
        options = yaml.safe_load(path.read_text(encoding="utf-8"))
    devices = num_processes or options.get("num_processes") or max(torch.cuda.device_count(), 1)
    kind = str(options.get("distributed_type", "MULTI_GPU" if devices > 1 else "NO"))
    if kind == "FSDP":
        version = (options.get("fsdp_config") or {}).get("fsdp_version", 1)
        return Sharding(f"FSDP{version}", devices, 3)
    if kind == "DEEPSPEED":
        stage = (options.get("deepspeed_config") or {}).get("zero_stage", 2)
        return Sharding(f"DeepSpeed ZeRO-{stage}", devices, stage, deepspeed=True)
    return Sharding("DDP" if devices > 1 else "one device", devices)


def parallel(config: Any, processes: Any, gpu: str | None) -> Generator[Check, None, Mapping[str, Any]]:
    """Facts: the sharding and the device."""
    found = sharding(processes.accelerate_config, processes.num_processes)
    planned = device(gpu)
    speed = f"{planned.slow / 1e12:.3g} to {planned.fast / 1e12:.3g} TFLOP/s in training"
    yield Check("devices", "ok", f"{found.devices} x {planned.name}, {amount(planned.memory)}, {speed}; {found.name}")
    yield judged(
        "precision",
        "bf16" if config.bf16 else "fp16" if config.fp16 else "float32",
        planned.kind == "cuda" and not (config.bf16 or config.fp16),
        "On a GPU --bf16 true is several times faster and takes less memory.",
    )
    return {"sharding": found, "device": planned}


def reference_model(
    config: SFTConfig, model_config: Any, objective: Objective, sharding: Sharding
) -> Generator[Check, None, None]:
    """The model that KL objectives compare with."""
    if not objective.needs_reference:
        return
    if config.reference is None:
        yield Check("reference", "ok", "the starting model")
        return
    check_model(config.reference)
    other = load_config(config.reference).get_text_config().vocab_size
    own = model_config.get_text_config().vocab_size
    if other != own:
        raise refusal("reference of another vocabulary", model=own, reference=other)
    yield Check("reference", "ok", f"{config.reference}, a vocabulary of {other} as the model's")


def batches(
    total: int | None, fed: Tokens, full: Tokens, config: SFTConfig, sharding: Sharding
) -> Generator[Check, None, Mapping[str, Any]]:
    """Facts: `plan`, the Batches. Lengths of usual micro-batches are those of shuffled rows."""
    size, flat = config.per_device_train_batch_size, config.packing or config.padding_free
    shuffled = random.Random(0).sample(fed, len(fed))
    groups = [shuffled[start : start + size] for start in range(0, len(shuffled), size)]
    widths = [sum(len(ids) for ids, _ in group) if flat else max(len(ids) for ids, _ in group) for group in groups]
    rows = 1 if flat else size
    longest = max(widths) if flat else max(len(ids) for ids, _ in fed)
    most = sorted((trained(labels) for _, labels in fed), reverse=True)
    largest = Shape(rows, longest, min(size * most[0], rows * longest), padded=rows > 1)
    count = None if total is None else math.ceil(total * len(fed) / len(full))
    steps = yield from schedule(count, config, sharding)
    width = sum(widths) / len(widths)
    if flat:  # attention stays inside of documents
        sizes = [min(len(ids), config.max_length or longest) for ids, _ in full]
        document = sum(length**2 for length in sizes) / sum(sizes)
        rows, width = width / document, document
    learned = size * sum(most) / len(fed)
    return {"plan": Batches(steps, config.gradient_accumulation_steps, largest, rows, width, learned)}


def schedule(rows: int | None, config: Any, sharding: Sharding, name: str = "rows") -> Generator[Check, None, int]:
    """The number of steps; `rows` are what an epoch has, None for a stream, and `name` what they are called."""
    size = config.per_device_train_batch_size * config.gradient_accumulation_steps * sharding.devices
    steps, what = config.max_steps, f"steps of {size} {name}"
    if rows is not None:
        micro = math.ceil(rows / (config.per_device_train_batch_size * sharding.devices))
        an_epoch = max(math.ceil(micro / config.gradient_accumulation_steps), 1)
        steps = config.max_steps if config.max_steps > 0 else math.ceil(an_epoch * config.num_train_epochs)
        what += f", {steps / an_epoch:.3g} epochs of {rows} {name}"
    yield judged(
        "steps",
        f"{steps} {what}",
        rows is not None and size > rows,
        f"One step takes more than all {rows} {name}: lower --gradient_accumulation_steps or the batch size.",
    )
    warming = config.get_warmup_steps(steps)
    yield judged(
        "warm-up",
        f"{warming} of {steps} steps",
        warming >= steps > 1,
        f"The learning rate of {config.learning_rate:g} would never be reached: lower --warmup_steps (below 1 it is a share).",
        "fail",
    )
    return steps


def learning_rate(config: Any, model: ModelConfig) -> Iterator[Check]:
    low, high = USUAL_RATES[model.use_peft]
    rate, kind = config.learning_rate, "an adapter" if model.use_peft else "full fine-tuning"
    adam = any(name in str(getattr(config.optim, "value", config.optim)) for name in ("adam", "lion"))
    yield judged(
        "learning rate",
        f"{rate:g}; {low:g} to {high:g} is usual for {kind}",
        adam and not low <= rate <= high,
        f"Far {'above: expect the model to break' if rate > high else 'below: expect it to learn next to nothing'}, "
        "unless it is meant.",
    )


def calibration(objective: Objective, config: SFTConfig, full: Tokens, empty: Any) -> Iterator[Check]:
    """Whether a threshold selects what is asked, and enough tokens are there to find it."""
    name = next((name for name in CALIBRATED if name in (*objective.missing, *objective.hyperparameters)), None)
    if name is None:
        return
    statistic, (vocabulary, _) = CALIBRATED[name], head_of(empty)[0]
    if name in objective.hyperparameters:
        threshold, lowest = objective.hyperparameters[name], objective.hyperparameters.get("top_k", 1) / vocabulary
        yield judged(
            "threshold",
            f"{name} {threshold:g} is given; {statistic} is never below {lowest:.2g}",
            threshold <= lowest,
            f"It selects no token, so that {objective.name} would be cross-entropy. Leave it out to have it calibrated.",
            "fail",
        )
        return
    fraction = config.calibration_fraction
    sequences = min(config.calibration_sequences, len(full))
    tokens = sequences * sum(trained(labels) for _, labels in full) / len(full)
    error = 2 * math.sqrt(fraction * (1 - fraction) / max(tokens, 1))
    yield judged(
        "calibration",
        f"{name} of {objective.name}: the {fraction:.0%} quantile of {statistic} on {sequences} rows, "
        f"about {tokens:.0f} trained tokens, which finds the share to within {error:.1%}",
        error > ENOUGH or fraction in (0, 1),
        "A fraction of 0 selects nothing, 1 everything." if fraction in (0, 1) else
        "Too few tokens: raise --calibration_sequences, or give the threshold in objective_kwargs.",
    )  # fmt: skip


def sft_cost(
    empty: Any,
    objective: Objective,
    config: SFTConfig,
    model: ModelConfig,
    plan: Batches,
    sharding: Sharding,
    device: Device,
) -> Generator[Check, None, Mapping[str, Any]]:
    """Facts: `parts`, memory by part. A reference of its own takes one more set of weights."""
    separate = objective.needs_reference and (config.reference is not None or not model.use_peft)
    job = job_of(empty, config, model, sharding, device, objective, objective.needs_reference, separate)
    return (yield from cost(job, empty, config, plan, device))


def job_of(
    empty: Any, config: Any, model: ModelConfig, sharding: Sharding, device: Device, objective: Objective | None,
    compares: bool, separate: bool, other: float = 0.0,
) -> Job:  # fmt: skip
    """`separate`: the reference is a model of its own; its size is that of the one that trains."""
    weights = weights_of(empty, 4 if model.load_in_4bit else 8 if model.load_in_8bit else None)
    half = config.bf16 or config.fp16 or weights.bytes / weights.total <= 2
    optimizer = str(getattr(config.optim, "value", config.optim))
    return Job(
        weights, sharding, objective, optimizer, config.gradient_accumulation_steps > 1, 2 if half else 4, device.kind,
        compares, weights.bytes * separate, other,
    )  # fmt: skip


def cost(job: Job, empty: Any, config: Any, plan: Batches, device: Device) -> Generator[Check, None, Mapping[str, Any]]:
    """Memory and time, counted."""
    if job.optimizer not in OPTIMIZERS:
        yield Check("optimizer", "warn", job.optimizer, "Its states are not known here; those of AdamW are counted.")
        job = job._replace(optimizer="adamw_torch_fused")
    autocast = torch.bfloat16 if config.bf16 or config.fp16 else None
    try:
        counted = count(empty, plan.largest, autocast, config.gradient_checkpointing)
    except Exception as error:  # whatever an architecture does with values that are not there
        yield Check(
            "memory", "warn", f"not counted: {one_line(error)}", "Start with a few steps and see what they take."
        )
        return {"job": job}
    parts = memory(job, counted, plan.largest)
    peak = sum(parts.values())
    rows, length = plan.largest.sequences, plan.largest.length
    yield judged(
        "memory",
        f"{amount(peak)} at the peak of {amount(device.memory)} on each device, with {rows} x {length} tokens",
        peak > FULL * device.memory,
        advice_on(parts, config, job.sharding),
        "fail" if peak > device.memory else "warn",
    )
    yield from time(job, counted, plan, device)
    return {"parts": parts, "job": job}


def advice_on(parts: Mapping[str, float], config: Any, sharding: Sharding) -> str:
    """What makes the largest part smaller."""
    largest = max(parts, key=parts.__getitem__)
    if largest == "activations" and not config.gradient_checkpointing:
        return "Most are activations: --gradient_checkpointing true, or a smaller --per_device_train_batch_size."
    if largest in ("activations", "loss head", "layer computed again"):
        return (
            f"Most is {largest}: lower --per_device_train_batch_size or --max_length, and raise accumulation instead."
        )
    shard = "" if sharding.stage == 3 else " or --accelerate_config fsdp2 on several GPUs"
    return f"Most is {largest}: --use_peft true{shard}, or --dtype bfloat16, makes it smaller."


def time(job: Job, counted: Counted, plan: Batches, device: Device) -> Iterator[Check]:
    micro = step_operations(job, counted, plan.largest, plan.sequences, plan.length, plan.trained)
    step = micro * plan.per_step
    seconds = [plan.steps * step / speed for speed in (device.fast, device.slow)]
    tokens = plan.sequences * plan.length * plan.per_step * job.sharding.devices
    yield Check(
        "time",
        "ok",
        f"{duration(seconds[0])} to {duration(seconds[1])}: {plan.steps} steps of {tokens:.3g} tokens, "
        f"{step:.3g} operations a device and step; loading, evaluation and saving come on top",
    )


def disk(config: Any, job: Job, plan: Batches) -> Iterator[Check]:
    """The final model and all checkpoints that are there at once, one more than the limit while it is applied."""
    weights = job.weights
    saved = weights.trainable_bytes if weights.trainable < weights.total else weights.bytes
    itemsize = weights.trainable_bytes / max(weights.trainable, 1)
    states = 0 if config.save_only_model else weights.trainable * OPTIMIZERS[job.optimizer](itemsize)
    saves = saves_of(config, plan.steps)
    kept = saves if config.save_total_limit is None else min(saves, config.save_total_limit + 1)
    needed = saved + kept * (saved + states)
    free = shutil.disk_usage(existing(config.output_dir)).free
    yield judged(
        "disk",
        f"{amount(needed)} for {kept} checkpoint{'s' * (kept != 1)} and the model, {amount(free)} free at {config.output_dir}",
        needed > free,
        "Give --save_total_limit 1, a larger --save_steps, --save_only_model true, or another --output_dir.",
        "fail",
    )


def saves_of(config: Any, steps: int) -> int:
    strategy = str(getattr(config.save_strategy, "value", config.save_strategy))
    if strategy in ("no", "best"):
        return strategy == "best"
    if strategy == "epoch":
        return math.ceil(config.num_train_epochs) if config.max_steps <= 0 else 1
    every = config.save_steps if config.save_steps >= 1 else max(math.ceil(steps * config.save_steps), 1)
    return math.ceil(steps / every)


def grpo_batches(
    total: int, fed: Tokens, config: GRPOConfig, sharding: Sharding
) -> Generator[Check, None, Mapping[str, Any]]:
    """Facts: `plan`. Sequences are completions, counted as long as they may get."""
    size, most = config.per_device_train_batch_size, config.max_completion_length
    prompts = [len(ids) for ids, _ in fed]
    largest = Shape(size, max(prompts) + most, size * most, padded=True)
    steps = yield from schedule(total * config.num_generations, config, sharding, "completions")
    length = sum(prompts) / len(prompts) + most
    return {"plan": Batches(steps, config.gradient_accumulation_steps, largest, size, length, size * most)}


def grpo_cost(
    empty: Any, config: GRPOConfig, model: ModelConfig, plan: Batches, sharding: Sharding, device: Device
) -> Generator[Check, None, Mapping[str, Any]]:
    """Facts: `parts`. With vLLM in the same process its share of the memory is taken."""
    compares, shared = config.beta > 0, config.use_vllm and config.vllm_mode == "colocate"
    other = config.vllm_gpu_memory_utilization * device.memory * shared
    job = job_of(empty, config, model, sharding, device, None, compares, compares and not model.use_peft, other)
    facts = yield from cost(job, empty, config, plan, device)
    if device.bandwidth is not None:
        rollouts = plan.steps * plan.per_step / config.steps_per_generation
        reading = rollouts * config.max_completion_length * job.weights.total * 2 / device.bandwidth
        yield Check("generation", "ok", f"at least {duration(reading)} more: weights read once a token of a batch")
    return facts
