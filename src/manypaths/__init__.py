"""Supervised fine-tuning of language models without mode collapse."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from . import objectives
    from .engine import STATISTICS, Projection, token_statistics
    from .objectives import OBJECTIVES, Objective, resolve
    from .training.attachment import attach, detach
    from .training.calibration import calibrate
    from .training.config import SFTConfig
    from .training.sft import SFTTrainer

__version__ = "0.1.0"
__all__ = [
    "OBJECTIVES",
    "STATISTICS",
    "Objective",
    "Projection",
    "SFTConfig",
    "SFTTrainer",
    "attach",
    "calibrate",
    "detach",
    "objectives",
    "resolve",
    "token_statistics",
]
HOMES = {
    "engine": ("STATISTICS", "Projection", "token_statistics"),
    "objectives": ("OBJECTIVES", "Objective", "resolve"),
    "training.attachment": ("attach", "detach"),
    "training.calibration": ("calibrate",),
    "training.config": ("SFTConfig",),
    "training.sft": ("SFTTrainer",),
}


def __getattr__(name: str):
    """Names load on first use, so that importing manypaths is immediate and loads neither torch nor trl."""
    if name == "objectives":
        return import_module(".objectives", __name__)
    for home, names in HOMES.items():
        if name in names:
            return getattr(import_module(f".{home}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*globals(), *__all__]
