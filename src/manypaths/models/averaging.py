"""The weighted average of a model and what it was fine-tuned to (WiSE-FT, arXiv:2109.01903; for reasoning 2504.10478).

Tensor by tensor on safetensors files: memory for one tensor, computed in float64, saved in the tuned model's types. An
adapter is averaged with the base under it by scaling: (1 - w) W + w (W + B A) = W + (w B) A, exactly.
"""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from ..config import helped
from ..run_folder import ADAPTER, RunFolder, base_of_adapter, content_fingerprint
from .loading import check_model

COPIED = (".json", ".jinja", ".model", ".txt")
NOT_COPIED = ("manypaths_run.json", "trainer_state.json", "results.json", "calibration.json")
SCALED, KEPT = ("lora_B", "lora_embedding_B"), ("lora_A", "lora_embedding_A")  # factors of an adapter's product


@dataclass
class AverageConfig:
    """Two models of the same architecture, and the share of the second."""

    base: str | None = helped(None, "The model before fine-tuning: a folder or hub id.")
    tuned: str | None = helped(None, "The model after it: a folder, with full weights or an adapter.")
    weight: float = helped(0.5, "Share of the tuned model: 0 gives the base, 1 the tuned model.")
    output_dir: str = helped("averaged", "Where the average goes.")


def average(config: AverageConfig) -> Path:
    """`average_weights` from options."""
    if config.base is None or config.tuned is None:
        raise ValueError("--base and --tuned are needed: the models before and after fine-tuning.")
    if Path(config.output_dir).resolve() in (Path(config.base).resolve(), Path(config.tuned).resolve()):
        raise ValueError(
            f"The output folder {config.output_dir} is one of the two models; choose another --output_dir."
        )
    models = {"base": content_fingerprint(config.base), "tuned": content_fingerprint(config.tuned)}
    with RunFolder(config.output_dir, "average", {**models, "weight": config.weight}) as run:
        average_weights(config.base, config.tuned, config.weight, run.path)
        run.record()
    print(f"model saved to {config.output_dir}")
    return run.path


def average_weights(base: str | Path, tuned: str | Path, weight: float, output_dir: str | Path) -> Path:
    """Write the model (1 - weight) * base + weight * tuned, with the tuned model's tokenizer and settings.

    Raises ValueError for a weight outside [0, 1], models of different architectures, and adapters that are more than a
    product of two matrices; FileNotFoundError where there is no model in safetensors files.
    """
    if not 0.0 <= weight <= 1.0:
        raise ValueError(f"weight is {weight}; it is the share of the tuned model, from 0 to 1.")
    source, target = model_folder(tuned), Path(output_dir)
    files = weight_files(source)
    if (source / ADAPTER).is_file():
        combine = scaled_adapter(source, base, weight)
    else:
        combine = averaged_with(model_folder(base), source, files, weight)
    target.mkdir(parents=True, exist_ok=True)
    for file in source.iterdir():
        if file.is_file() and file.suffix in COPIED and file.name not in NOT_COPIED:
            shutil.copyfile(file, target / file.name)
    for file in files:
        rewrite(file, target / file.name, combine)
    return target


Combine = Callable[[str, Tensor], Tensor]


def averaged_with(base: Path, tuned: Path, files: list[Path], weight: float) -> Combine:
    """What the average makes of a tensor of the tuned model."""
    places, shapes = {}, {}
    for file in weight_files(base):
        for name, entry in header(file)[1].items():
            places[name], shapes[name] = (file, name), entry["shape"]
    names = {name: entry["shape"] for file in files for name, entry in header(file)[1].items()}
    different = names.keys() ^ places.keys()
    if json.loads((tuned / "config.json").read_text()).get("tie_word_embeddings", False):
        embedding = next((name for name in places if name.endswith("embed_tokens.weight")), None)
        if embedding is not None:
            places.setdefault("lm_head.weight", places[embedding])
            shapes.setdefault("lm_head.weight", shapes[embedding])
        different -= {"lm_head.weight"} & places.keys()
    if different:
        raise ValueError(
            f"{base} and {tuned} are different architectures: only one has {min(different)} ({len(different)} tensors "
            "differ). Average a model with what it was fine-tuned from."
        )
    for name, shape in names.items():
        if shape != shapes[name]:
            raise ValueError(
                f"{name} is {shapes[name]} in {base} and {shape} in {tuned}: different architectures, or a vocabulary that "
                "was resized. Average a model with what it was fine-tuned from."
            )

    def combine(name: str, value: Tensor) -> Tensor:
        place, stored = places[name]
        with safe_open(place, "pt") as file:
            other = file.get_tensor(stored)
        if value.is_floating_point():
            return ((1.0 - weight) * other.double() + weight * value.double()).to(value.dtype)
        if not torch.equal(other, value):
            raise ValueError(f"{name} holds {value.dtype} values that differ; quantised weights cannot be averaged.")
        return value

    return combine


def scaled_adapter(adapter: Path, base: str | Path, weight: float) -> Combine:
    """What the average makes of a tensor of an adapter on `base`."""
    under = base_of_adapter(adapter)
    if under is not None and str(under) != str(base) and Path(under).absolute() != Path(base).absolute():
        raise ValueError(f"{adapter} is an adapter on {under}, not on {base}: it can be averaged with the former only.")

    def combine(name: str, value: Tensor) -> Tensor:
        if any(part in name for part in SCALED):
            return (weight * value.double()).to(value.dtype)
        if any(part in name for part in KEPT):
            return value
        raise ValueError(
            f"{adapter} has {name}, which is not a factor of a low-rank product. Merge the adapter into its base "
            "(merge_and_unload of peft) and average the merged model."
        )

    return combine


def model_folder(name: str | Path) -> Path:
    """The folder of a model; that of a hub id is in the cache."""
    check_model(str(name))
    if Path(name).is_dir():
        return Path(name)
    from huggingface_hub import snapshot_download

    return Path(snapshot_download(str(name), allow_patterns=["*.safetensors", *(f"*{ending}" for ending in COPIED)]))


def weight_files(folder: Path) -> list[Path]:
    files = sorted(path for path in folder.glob("*.safetensors") if not path.name.startswith("consolidated"))
    if not files:
        raise FileNotFoundError(f"{folder} holds no *.safetensors; save the model with save_pretrained first.")
    return files


def header(path: Path) -> tuple[bytes, dict[str, Any]]:
    """The beginning of a safetensors file as it stands there, and {name: {"dtype", "shape", "data_offsets"}} in it."""
    with path.open("rb") as file:
        length = file.read(8)
        text = file.read(int.from_bytes(length, "little"))
    return length + text, {name: entry for name, entry in json.loads(text).items() if name != "__metadata__"}


def rewrite(source: Path, target: Path, combine: Combine) -> None:
    """A file with the same header, in which each tensor is what `combine` makes of it. Whole or not at all."""
    start, entries = header(source)
    beside = target.with_name(target.name + ".part")
    with safe_open(source, "pt") as file, beside.open("wb") as output:
        output.write(start)
        for name in sorted(entries, key=lambda name: entries[name]["data_offsets"]):
            value = combine(name, file.get_tensor(name)).contiguous().reshape(-1)
            output.write(value.view(torch.uint8).numpy().data)
    beside.replace(target)
