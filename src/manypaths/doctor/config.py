"""The option of `doctor` beside those of the recipe, and the devices that it knows."""

from dataclasses import dataclass
from typing import NamedTuple

from ..config import helped
from ..functions import did_you_mean

GIB = 2**30


def amount(size: float) -> str:
    """Bytes as people say them."""
    return f"{size / GIB:.3g} GiB" if size >= GIB else f"{size / 2**20:.3g} MiB"


class Device(NamedTuple):
    """memory in bytes; operations a second that training reaches, from and to; bandwidth of its memory in bytes a second."""

    name: str
    memory: float
    slow: float
    fast: float
    bandwidth: float | None = None
    kind: str = "cuda"


# What runs of many kinds reach of the peak: 38 to 43 % in the training of Llama 3 (arXiv:2407.21783, table 4), less with
# short sequences, padding and small models.
UTILISATION = (0.30, 0.45)

# Memory in GiB as programs see it, dense bf16 operations in 10^12 a second (half of a figure "with sparsity", and with fp32
# accumulation) and bandwidth in 10^12 bytes a second, from the vendors' data sheets: NVIDIA B200 (HGX), H200, H100 (SXM,
# PCIe), A100, L40S, L4, A10G (AWS G5), the Ada and Ampere GA102 whitepapers for GeForce; AMD Instinct MI300X.
GPUS = {
    "B200": (180, 2250, 8.0),
    "H200": (140, 989, 4.8),
    "H100": (80, 989, 3.35),
    "H100-PCIe": (80, 756, 2.0),
    "A100-80GB": (80, 312, 2.0),
    "A100-40GB": (40, 312, 1.56),
    "L40S": (48, 362, 0.864),
    "L4": (24, 121, 0.3),
    "A10G": (24, 70, 0.6),
    "RTX-4090": (24, 165, 1.01),
    "RTX-3090": (24, 71, 0.936),
    "MI300X": (192, 1307, 5.3),
}


def device_of(name: str) -> Device:
    """A GPU of the table by its name, however it is written; ValueError for one that is not there."""
    plain = {known.lower().replace("-", ""): known for known in GPUS}
    known = plain.get("".join(letter for letter in name.lower() if letter.isalnum()))
    if known is None:
        raise ValueError(f"--gpu {name}: not in the table. {did_you_mean(name, GPUS)}Known: {', '.join(GPUS)}.")
    memory, tera, bandwidth = GPUS[known]
    return Device(known, memory * GIB, *(tera * 1e12 * share for share in UTILISATION), bandwidth * 1e12)


@dataclass
class DoctorConfig:
    """What the run is planned for."""

    gpu: str | None = helped(None, f"GPU to plan for, by default this machine's. Any of {', '.join(GPUS)}.")

    def __post_init__(self) -> None:
        if self.gpu is not None:
            device_of(self.gpu)
