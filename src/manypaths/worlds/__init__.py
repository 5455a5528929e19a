"""The built-in worlds: a task, a tiny base model made from nothing, and all that is measured on it."""

from .data import rl_dataset, sft_dataset
from .evaluate import evaluate
from .model import load_base
from .reward import countdown_reward
from .sharpness import match_sharpness, sharpen, success_probability
from .world import WORLDS, World

__all__ = [
    "WORLDS",
    "World",
    "countdown_reward",
    "evaluate",
    "load_base",
    "match_sharpness",
    "rl_dataset",
    "sft_dataset",
    "sharpen",
    "success_probability",
]
