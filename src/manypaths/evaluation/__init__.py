"""Measuring a model from its samples: accuracy at k, diversity, and honest intervals."""

from manypaths.evaluation.diversity import distinct_n, self_bleu
from manypaths.evaluation.intervals import Interval, mean_interval, paired_interval
from manypaths.evaluation.metrics import pass_at_k, pass_at_k_curve, samples_to_match

__all__ = [
    "Interval",
    "distinct_n",
    "mean_interval",
    "paired_interval",
    "pass_at_k",
    "pass_at_k_curve",
    "samples_to_match",
    "self_bleu",
]
