"""Supervised fine-tuning of language models without mode collapse."""

from typing import TYPE_CHECKING

from . import objectives
from .engine import STATISTICS, Projection, token_statistics
from .objectives import OBJECTIVES, Objective, resolve
from .training.attachment import attach, detach

if TYPE_CHECKING:
    from .training.sft import SFTConfig, SFTTrainer

__version__ = "0.1.0"
__all__ = [
    "OBJECTIVES",
    "STATISTICS",
    "Objective",
    "Projection",
    "SFTConfig",
    "SFTTrainer",
    "attach",
    "detach",
    "objectives",
    "resolve",
    "token_statistics",
]


def __getattr__(name: str):
    """The trainer on first use: importing manypaths loads neither trl nor triton."""
    if name in ("SFTConfig", "SFTTrainer"):
        from .training import sft

        return getattr(sft, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
