"""What an experiment will take, in seconds and bytes: from stages that are finished, else roughly from counted operations."""

import json
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from ..evaluation.benchmarks import Benchmark, resolve_benchmarks
from .stages import STAGE_FILE, ModelOf, Stage

KINDS = ("eval-sft", "eval-rl", "sft", "grpo", "sweep", "average")  # SED-0-eval-rl is an eval-rl
START, STEP, TOKEN = (
    2.0,
    0.05,
    0.01,
)  # seconds that any stage, training step or generated token of a batch takes at least
TEXT = 512  # tokens, where nothing says how many


def estimate(stages: Sequence[Stage], options: Mapping[str, tuple[Any, ...]]) -> tuple[dict[str, float], bool]:
    """Expected seconds of each stage by key, and whether all of them come from stages that have run here without a stop.

    options: the dataclasses of each stage's options by its key.
    """
    seconds: dict[str | None, list[float]] = defaultdict(list)
    for path in stages[0].root.glob(f"*/{STAGE_FILE}"):
        record = json.loads(path.read_text())
        if not record["resumed"]:
            seconds[kind(record["name"])].append(record["seconds"])
    costs = {stage.key: median(seconds[kind(stage.name)]) for stage in stages if kind(stage.name) in seconds}
    measured = len(costs) == len(stages)
    speed = math.nan if measured else operations_per_second()
    return {stage.key: costs.get(stage.key) or rough(stage, options[stage.key], speed) for stage in stages}, measured


def kind(name: str) -> str | None:
    return next((end for end in KINDS if name.endswith(f"-{end}")), None)


def operations_per_second() -> float:
    """Of a matrix product on this machine's accelerator or CPU, less what models usually lose against it."""
    import torch
    from torch.utils.benchmark import Timer

    from ..models.loading import default_device

    device = default_device()
    size, dtype = (1024, torch.float32) if device.type == "cpu" else (4096, torch.bfloat16)
    matrix = torch.ones(size, size, device=device, dtype=dtype)
    return 0.4 * 2 * size**3 / Timer("m @ m", globals={"m": matrix}).blocked_autorange(min_run_time=0.2).median


def rough(stage: Stage, options: tuple[Any, ...], speed: float) -> float:
    """Seconds from counted operations: two for each weight (of two bytes) and token, six where it is trained."""
    token = model_bytes(stage) / speed
    if stage.subcommand == "average":
        return START
    if stage.subcommand == "eval":
        data, config = options
        tokens = 0.0
        for task in resolve_benchmarks(config.benchmarks or []) or [Benchmark("data", str(data.dataset_name))]:
            samples = min(rows(task.source, 500), config.num_prompts or math.inf)
            samples *= (config.num_samples or task.num_samples) * len((config.temperatures or "").split(","))
            tokens += samples * (config.max_new_tokens or task.max_new_tokens)
        return START + tokens * (token + TOKEN / (config.batch_size or 64))
    data, config = options[:2]
    batch = config.per_device_train_batch_size * config.gradient_accumulation_steps
    batch *= stage.launch.get("num_processes", 1)
    steps = config.max_steps
    if steps <= 0:
        steps = math.ceil(math.ceil(rows(str(data.dataset_name), 10_000) / batch) * config.num_train_epochs)
    if stage.subcommand == "sft":
        return START + steps * max(STEP, 3 * token * batch * min(TEXT, config.max_length or TEXT))
    length = config.max_completion_length
    return START + steps * (length * TOKEN + max(STEP, 5 * token * batch * length))


def rows(source: str, unknown: int) -> int:
    """Of a JSONL file; those of anything else are not known."""
    if not source.endswith(".jsonl") or not Path(source).is_file():
        return unknown
    with open(source, "rb") as file:
        return sum(1 for _ in file)


def model_bytes(stage: Stage) -> float:
    """Of the model under the stage, before any training; those of one billion weights where it is not here."""
    model = stage.options.get("model_name_or_path", stage.options.get("base"))
    if isinstance(model, ModelOf):
        return model_bytes(model.stage)
    return sum(file.stat().st_size for file in Path(str(model)).glob("*.safetensors")) or 2e9


def disk_bytes(stages: Sequence[Stage], expendable: frozenset[str]) -> float:
    """Of the models that stay at the end; checkpoints while training come on top."""
    return sum(model_bytes(stage) for stage in stages if stage.subcommand != "eval" and stage.key not in expendable)
