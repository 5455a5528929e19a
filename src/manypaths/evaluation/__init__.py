"""Measuring a model from its samples: grading, accuracy at k, voting, diversity, and honest intervals."""

from ..grading import Verdict, grade, grade_many
from .diversity import (
    corpus_diversity,
    distinct_n,
    embedding_diversity,
    self_bleu,
    self_bleu_single_reference,
    vendi_score,
)
from .intervals import (
    Interval,
    bootstrap_interval,
    macro_paired_test,
    mean_interval,
    paired_interval,
    paired_test,
    share_interval,
)
from .metrics import (
    answer_entropy,
    avg_at_k,
    best_of_n,
    distinct_answers,
    expected_max,
    pass_at_k,
    pass_at_k_curve,
    samples_to_match,
)
from .voting import answer_classes, maj_at_k

__all__ = [
    "Interval",
    "Verdict",
    "answer_classes",
    "answer_entropy",
    "avg_at_k",
    "best_of_n",
    "bootstrap_interval",
    "corpus_diversity",
    "distinct_answers",
    "distinct_n",
    "embedding_diversity",
    "expected_max",
    "grade",
    "grade_many",
    "macro_paired_test",
    "maj_at_k",
    "mean_interval",
    "paired_interval",
    "paired_test",
    "pass_at_k",
    "pass_at_k_curve",
    "samples_to_match",
    "self_bleu",
    "self_bleu_single_reference",
    "share_interval",
    "vendi_score",
]
