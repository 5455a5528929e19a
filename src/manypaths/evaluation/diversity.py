"""How different are the samples of one prompt? Overlap of words, distance of embeddings, and both over many prompts.

A measure takes the k texts of ONE prompt, answers only: a shared prompt text would raise every overlap. Values for
different k, lengths or tokenizers are not comparable, so fix the first and report the others; `TOKENIZERS` names what
cuts texts into words.
"""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from ..functions import import_function
from .bleu import has_four_tokens, self_bleu, self_bleu_single_reference

TOKENIZERS = {
    "self_bleu": "sacrebleu 13a, case kept",
    "self_bleu_single_reference": "sacrebleu 13a, case kept",
    "distinct_n": "white space",
    "words": "white space",
}

Encoder = Callable[[list[str]], Any]


def distinct_n(texts: Sequence[str], n: int) -> float:
    """Share of distinct n-grams among all n-grams of the texts, in [0, 1]; 0 when there are none.

    Words are split at white space. The value falls with text length and with the number of texts.
    """
    ngrams = []
    for text in texts:
        words = text.split()
        ngrams.extend(tuple(words[start : start + n]) for start in range(len(words) - n + 1))
    return len(set(ngrams)) / len(ngrams) if ngrams else 0.0


def embed(texts: Sequence[str], encoder: Encoder) -> np.ndarray:
    """Embeddings [texts, D] in float64. Whether long texts are cut is the encoder's business: many read 128 to 512 tokens.

    Raises ValueError unless the encoder gives one row per text.
    """
    rows = encoder(list(texts))
    matrix = np.asarray(rows.detach().float().cpu() if hasattr(rows, "detach") else rows, dtype=np.float64)
    if matrix.ndim != 2 or len(matrix) != len(texts):
        raise ValueError(f"The embeddings have shape {matrix.shape}; {len(texts)} texts need one row each.")
    return matrix


def embedding_diversity(embeddings: Any) -> float:
    """1 - mean cosine over all pairs of the k embeddings [k, D] of one prompt: 0 when all point one way, at most 2.

    Raises ValueError for fewer than two rows, or rows that are zero or not finite.
    """
    rows = _unit_rows(embeddings)
    k = len(rows)
    pairs = float(np.sum(rows.sum(axis=0) ** 2)) - k  # the squared length of the sum holds every ordered pair
    return min(max(1.0 - pairs / (k * (k - 1)), 0.0), 2.0)


def vendi_score(embeddings: Any) -> float:
    """Effective number of different texts, from 1 (all alike) to k: exp of the entropy of the cosine matrix / k.

    The Vendi score of arXiv:2210.02410 with the plain cosine kernel of embeddings [k, D]. The spectrum does not see
    signs: opposite vectors count as alike (score 1), while `embedding_diversity` calls them farthest apart (2).

    Raises ValueError as embedding_diversity does.
    """
    rows = _unit_rows(embeddings)
    shares = np.linalg.svd(rows, compute_uv=False) ** 2 / len(rows)
    shares = shares[shares > 1e-12]
    return min(max(math.exp(-float(np.sum(shares * np.log(shares)))), 1.0), float(len(rows)))


def diversity_per_prompt(
    texts_per_prompt: Sequence[Sequence[str]], encoder: Encoder | None = None
) -> dict[str, list[float | None]]:
    """Every measure for every prompt of two or more texts: {name: [P values]}.

    self_bleu, self_bleu_single_reference (0 to 100), distinct_n (mean over n = 1, 2, 3), words (mean length) and,
    with an `encoder`, which gets the texts of all prompts at once, embedding_diversity and vendi. A prompt whose texts all
    have fewer than four tokens has None for Self-BLEU, which would be 0 however alike they are.
    """
    long_enough = [texts if has_four_tokens(texts) else None for texts in texts_per_prompt]
    values: dict[str, list[float | None]] = {
        "self_bleu": [texts and self_bleu(texts) for texts in long_enough],
        "self_bleu_single_reference": [texts and self_bleu_single_reference(texts) for texts in long_enough],
        "distinct_n": [fmean(distinct_n(texts, n) for n in (1, 2, 3)) for texts in texts_per_prompt],
        "words": [fmean(len(text.split()) for text in texts) for texts in texts_per_prompt],
    }
    if encoder is not None:
        matrix = embed([text for texts in texts_per_prompt for text in texts], encoder)
        parts = np.split(matrix, np.cumsum([len(texts) for texts in texts_per_prompt])[:-1])
        values["embedding_diversity"] = [embedding_diversity(part) for part in parts]
        values["vendi"] = [vendi_score(part) for part in parts]
    return values


def named_encoder(name: str) -> Callable[[list[str]], Any]:
    """A sentence-transformers model by name or folder, or "module:function"; ValueError where there is none."""
    if ":" in name and not Path(name).exists():
        return import_function(name, "embedding model")
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError as error:
        raise ValueError(
            f"The encoder {name!r} needs the package sentence-transformers: pip install sentence-transformers; "
            "or give a function of your own as module:function."
        ) from error
    return SentenceTransformer(name).encode


def _unit_rows(embeddings: Any) -> np.ndarray:
    rows = np.asarray(embeddings, dtype=np.float64)
    lengths = np.linalg.norm(rows, axis=-1, keepdims=True)
    if rows.ndim != 2 or len(rows) < 2 or not (np.isfinite(lengths) & (lengths > 0.0)).all():
        raise ValueError(
            f"Diversity needs two or more rows of finite numbers that are not all 0, got {embeddings!r:.200}."
        )
    return rows / lengths
