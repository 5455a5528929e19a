"""The built-in worlds: a task, a tiny base model made from nothing, and all that is measured on it."""

from manypaths.playground.data import rl_dataset, sft_dataset
from manypaths.playground.evaluate import evaluate
from manypaths.playground.model import load_base
from manypaths.playground.reward import countdown_reward
from manypaths.playground.sharpness import match_sharpness, sharpen, success_probability
from manypaths.playground.world import WORLDS, World

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
