"""SFT -> RL -> evaluation for several objectives and seeds, in stages that survive a kill."""

from .quickstart import quickstart
from .stages import Stage, StageFailed, run_stages

__all__ = ["Stage", "StageFailed", "quickstart", "run_stages"]
