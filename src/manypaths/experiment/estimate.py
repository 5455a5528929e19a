"""What an experiment will take, in seconds and bytes: from stages that are finished, else roughly from counted operations."""

import json
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from ..config import read_recipe
from ..models.averaging import header
from .stages import STAGE_FILE, Chosen, ModelOf, Stage

START, STEP, DECODING_STEP = 2.0, 0.05, 0.01  # seconds that any stage, training step or generated token takes at least
TOKENS = 512  # of a text, where nothing says how many
BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}


def estimate(stages: Sequence[Stage]) -> tuple[dict[str, float], bool]:
    """Expected seconds of each stage by key, and whether all of them come from stages that have run here."""
    known = finished_seconds(stages[0].root) if stages else {}
    costs = {stage.key: known.get(kind(stage.name)) for stage in stages}
    measured = all(cost is not None for cost in costs.values())
    if not measured:
        speed = operations_per_second()
        costs = {stage.key: rough(stage, speed) if costs[stage.key] is None else costs[stage.key] for stage in stages}
    return costs, measured


KINDS = ("eval-sft", "eval-rl", "sft", "grpo", "sweep", "average")


def kind(name: str) -> str:
    """What the names of like stages end in: SED-0-eval-rl is an eval-rl."""
    return next((end for end in KINDS if name.endswith(f"-{end}")), name)


def finished_seconds(root: Path) -> dict[str, float]:
    """The usual seconds of the stages of each kind that have run without a stop."""
    seconds: dict[str, list[float]] = {}
    for path in root.glob(f"*/{STAGE_FILE}"):
        record = json.loads(path.read_text())
        if not record["resumed"]:
            seconds.setdefault(kind(record["name"]), []).append(record["seconds"])
    return {name: median(values) for name, values in seconds.items()}


def operations_per_second(lasting: float = 0.3) -> float:
    """Of a matrix product on this machine's accelerator or CPU, less what models usually lose against it."""
    import torch

    from ..models.loading import default_device

    device = default_device()
    size = 1024 if device.type == "cpu" else 4096
    matrix = torch.ones(size, size, device=device, dtype=torch.float32 if device.type == "cpu" else torch.bfloat16)
    count, started = 0, time.perf_counter()
    while time.perf_counter() - started < lasting:
        float((matrix @ matrix)[0, 0])  # waits for the device
        count += 1
    return 0.4 * count * 2 * size**3 / (time.perf_counter() - started)


def rough(stage: Stage, speed: float) -> float:
    """Seconds from the operations of the stage: two for each weight and token, six where it is trained."""
    options = stage.options
    size = number_of_weights(starting_model(stage))[0]
    if stage.subcommand == "average":
        return START
    if stage.subcommand == "eval":
        samples, tokens, batches = 0.0, 0.0, 0.0
        for benchmark in options.get("benchmarks") or [None]:
            of = read_recipe(benchmark) if benchmark and Path(benchmark).is_file() else {}
            source = Path(benchmark).parent / str(of.get("source")) if of else Path(str(options.get("dataset_name")))
            problems = min(rows_of(source) or 500, number(options, "num_prompts") or math.inf)
            count = problems * (number(options, "num_samples") or of.get("num_samples") or 1)
            length = number(options, "max_new_tokens") or of.get("max_new_tokens") or TOKENS
            count *= len(str(options.get("temperatures", "1")).split(","))
            samples, tokens = samples + count, tokens + count * length
            batches += math.ceil(count / (number(options, "batch_size") or 64)) * length
        return START + 2 * size * tokens / speed + DECODING_STEP * min(batches, tokens)
    batch = (number(options, "per_device_train_batch_size") or 8) * (
        number(options, "gradient_accumulation_steps") or 1
    )
    batch *= number(stage.launch, "num_processes") or 1
    per_epoch = math.ceil((rows_of(Path(str(options.get("dataset_name")))) or 10_000) / batch)
    steps = number(options, "max_steps") or math.ceil(per_epoch * float(options.get("num_train_epochs", 3)))
    if stage.subcommand == "sft":
        return START + steps * max(
            STEP, 6 * size * batch * min(TOKENS, number(options, "max_length") or TOKENS) / speed
        )
    length = number(options, "max_completion_length") or 256
    return START + steps * (length * DECODING_STEP + max(STEP, (2 + 8) * size * batch * length / speed))


def number(options: Mapping[str, Any], name: str) -> float | None:
    """A positive number given as an option."""
    value = options.get(name)
    return float(value) if isinstance(value, (int, float)) and value > 0 else None


def rows_of(path: Path) -> int | None:
    """Rows of a JSONL file; None for anything else."""
    if path.suffix != ".jsonl" or not path.is_file():
        return None
    with path.open("rb") as file:
        return sum(1 for _ in file)


def starting_model(stage: Stage) -> str:
    """The model under the stage, before any training."""
    model = stage.options.get("model_name_or_path", stage.options.get("base"))
    while isinstance(model, (ModelOf, Chosen)):
        parent = model.stages[0]
        model = parent.options.get("model_name_or_path", parent.options.get("base"))
    return str(model)


def number_of_weights(name: str) -> tuple[int, int]:
    """Weights of a model and their bytes, from the headers of its files; those of one billion where they are not here."""
    entries = [
        entry for file in Path(name).glob("*.safetensors") for entry in header(file)[1].values() if "shape" in entry
    ]
    if not entries:
        return 10**9, 2 * 10**9
    weights = sum(math.prod(entry["shape"]) for entry in entries)
    return weights, sum(math.prod(entry["shape"]) * BYTES.get(entry["dtype"], 1) for entry in entries)


def disk_bytes(stages: Sequence[Stage], expendable: frozenset[str]) -> int:
    """Of the models that stay at the end; checkpoints while training come on top."""
    makers = [stage for stage in stages if stage.subcommand != "eval" and stage.key not in expendable]
    return sum(number_of_weights(starting_model(stage))[1] for stage in makers)


def duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
