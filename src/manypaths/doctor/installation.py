"""Whether what is installed here can train: versions, accelerators, the engine's arithmetic, caches, disk."""

import os
import platform
import re
import shutil
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from .checks import Check, judged
from .config import GIB, amount

OPTIONAL = ("vllm", "deepspeed", "bitsandbytes", "flash_attn", "kernels", "ray", "lm_eval", "wandb", "tensorboard")
SCARCE = 20 * GIB  # a model of a few billion weights and its checkpoints


def installation() -> Iterator[Check]:
    """No facts: what is found here concerns every run."""
    yield versions()
    yield optional()
    yield accelerators()
    yield engine()
    yield cache()


def requirements() -> list[tuple[str, bool]]:
    """The requirements of this package, and whether each is one of an extra alone."""
    lines = [line.partition(";") for line in metadata.requires("manypaths") or []]
    return [(re.sub(r"\[.*?\]", "", requirement).strip(), "extra" in marker) for requirement, _, marker in lines]


def versions() -> Check:
    from transformers.utils.versions import require_version

    wrong, seen = [], [f"Python {platform.python_version()}", f"manypaths {metadata.version('manypaths')}"]
    for requirement, extra in requirements():
        name = re.split(r"[<>=!~ ]", requirement)[0]
        try:
            require_version(requirement)
        except (ImportError, metadata.PackageNotFoundError):
            if not extra:
                wrong.append(f"{requirement} ({installed(name) or 'not installed'} here)")
            elif installed(name):
                wrong.append(f"{requirement} ({installed(name)} here, which is optional)")
        if not extra and name in ("torch", "transformers", "trl", "peft", "accelerate", "datasets"):
            seen.append(f"{name} {installed(name)}")
    return judged(
        "versions",
        ", ".join(seen),
        bool(wrong),
        f"Needed: {'; '.join(wrong)}. pip install -c constraints.txt installs what was tested.",
        "fail" if any("optional" not in one for one in wrong) else "warn",
    )


def installed(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def optional() -> Check:
    there = {name: installed(name) for name in OPTIONAL}
    seen = ", ".join(f"{name} {version}" for name, version in there.items() if version) or "none"
    return Check("optional packages", "ok", f"{seen}; not here: {', '.join(n for n, v in there.items() if not v)}")


def accelerators() -> Check:
    import torch
    from transformers.utils import is_torch_bf16_gpu_available

    if not torch.accelerator.is_available():
        built = torch.version.cuda or torch.version.hip
        lost = shutil.which("nvidia-smi") is not None or built is not None
        return judged(
            "accelerator",
            f"none; {os.cpu_count()} CPU threads, {amount(memory_of_machine())}"
            + (f"; torch is built for CUDA or ROCm {built}" if built else ""),
            lost,
            "There should be a GPU, and torch does not see it: compare the driver's version (nvidia-smi) with that of "
            "torch (torch.version.cuda), and look at CUDA_VISIBLE_DEVICES.",
        )
    kind = torch.accelerator.current_accelerator().type
    names = [kind]
    if kind == "cuda":
        cards = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
        names = [f"{card.name} ({amount(card.total_memory)})" for card in cards]
    return judged(
        "accelerator",
        f"{len(names)}: {', '.join(dict.fromkeys(names))}",
        not is_torch_bf16_gpu_available(),
        "It has no bf16: give --bf16 false, and expect more memory and time.",
    )


def memory_of_machine() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def engine() -> Check:
    """A loss and its gradient, fused and by the naive definition, on the device that trains."""
    import torch

    from ..engine import token_statistics
    from ..models.loading import default_device

    generator = torch.Generator().manual_seed(0)
    hidden, weight = (torch.randn(size, 16, generator=generator).to(default_device()) for size in (24, 40))
    labels = torch.arange(24, device=hidden.device)
    found = []
    for backend in ("chunked", "reference"):
        leaf = hidden.clone().requires_grad_()
        statistics = token_statistics(leaf, weight, labels, want=("logprob", "entropy"), backend=backend)
        loss = sum(value.sum() for value in statistics.values())
        found.append(torch.cat([loss.detach()[None], torch.autograd.grad(loss, leaf)[0].flatten()]))
    error = float((found[0] - found[1]).abs().max() / found[1].abs().max())
    return judged(
        "engine",
        f"fused loss and gradient on {hidden.device.type} differ from the naive ones by {error:.1e}",
        error > 1e-4,
        "This installation of torch computes wrongly here; try another version or device.",
        "fail",
    )


def cache() -> Check:
    from huggingface_hub import constants

    folder = Path(constants.HF_HUB_CACHE)
    place = existing(folder)
    free = shutil.disk_usage(place).free
    offline = ", offline (HF_HUB_OFFLINE): nothing is downloaded" if constants.HF_HUB_OFFLINE else ""
    writable = os.access(place, os.W_OK)
    return judged(
        "models' cache",
        f"{amount(free)} free{offline}" if writable else f"{folder} cannot be written",
        not writable or free < SCARCE,
        "Set HF_HOME to a folder on a disk with room." if writable else "Set HF_HOME to a folder of your own.",
        "warn" if writable else "fail",
    )


def existing(path: str | Path) -> Path:
    """The path, or the nearest folder above it that exists."""
    return next(place for place in (Path(path).absolute(), *Path(path).absolute().parents) if place.exists())
