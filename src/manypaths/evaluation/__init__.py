"""Measuring a model from its samples: grading, accuracy at k, voting, diversity, and honest intervals."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..grading import Verdict, grade, grade_many
    from .config import EvalConfig
    from .diversity import distinct_n, embedding_diversity, self_bleu, self_bleu_single_reference, vendi_score
    from .metrics import answer_entropy, best_of_n, distinct_answers, expected_max, pass_at_k
    from .pipeline import evaluate
    from .table import Results, load_items, load_results, load_scores
    from .voting import answer_classes, maj_at_k

HOMES = {
    "..grading": ("Verdict", "grade", "grade_many"),
    ".config": ("EvalConfig",),
    ".diversity": ("distinct_n", "embedding_diversity", "self_bleu", "self_bleu_single_reference", "vendi_score"),
    ".metrics": ("answer_entropy", "best_of_n", "distinct_answers", "expected_max", "pass_at_k"),
    ".pipeline": ("evaluate",),
    ".table": ("Results", "load_items", "load_results", "load_scores"),
    ".voting": ("answer_classes", "maj_at_k"),
}
__all__ = [
    "EvalConfig",
    "Results",
    "Verdict",
    "answer_classes",
    "answer_entropy",
    "best_of_n",
    "distinct_answers",
    "distinct_n",
    "embedding_diversity",
    "evaluate",
    "expected_max",
    "grade",
    "grade_many",
    "load_items",
    "load_results",
    "load_scores",
    "maj_at_k",
    "pass_at_k",
    "self_bleu",
    "self_bleu_single_reference",
    "vendi_score",
]


def __getattr__(name: str):
    """Names load on first use, so that options can be read without loading what measures."""
    for home, names in HOMES.items():
        if name in names:
            return getattr(import_module(home, __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
