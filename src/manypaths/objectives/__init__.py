"""Objectives: pure functions from per-token statistics [T] to a per-token loss [T].

The signature is the declaration. Positional parameters name statistics of the engine, keyword-only
parameters are hyper-parameters, and `top_k` and `temperature` are handed to the statistics too. An objective
sees valid tokens only, already shifted and packed; it never sees logits, masks or denominators.
"""

from .likelihood import focal, label_smoothing, nll
from .registry import OBJECTIVES, Objective, describe, resolve
from .regularization import asft, eksft, entropy_bonus
from .reweighting import dft, eaft, power
from .selection import sed
from .tempering import gem, gem_logsigmoid

__all__ = [
    "OBJECTIVES",
    "Objective",
    "asft",
    "describe",
    "dft",
    "eaft",
    "eksft",
    "entropy_bonus",
    "focal",
    "gem",
    "gem_logsigmoid",
    "label_smoothing",
    "nll",
    "power",
    "resolve",
    "sed",
]
