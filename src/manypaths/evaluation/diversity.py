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
ORDERS = (1, 2, 3)  # of distinct_n

Encoder = str | Callable[[list[str]], Any]


def distinct_n(texts: Sequence[str], n: int) -> float:
    """Share of distinct n-grams among all n-grams of the texts, in [0, 1]; 0 when there are none.

    Words are split at white space. The value falls with text length and with the number of texts.
    Raises ValueError for n < 1 or no texts.
    """
    if n < 1:
        raise ValueError(f"n is {n}; n-grams have at least one word.")
    if not texts:
        raise ValueError("distinct_n got no texts; pass at least one.")
    ngrams = []
    for text in texts:
        words = text.split()
        ngrams.extend(tuple(words[start : start + n]) for start in range(len(words) - n + 1))
    return len(set(ngrams)) / len(ngrams) if ngrams else 0.0


def mean_distinct_n(texts: Sequence[str], orders: Sequence[int] = ORDERS) -> float:
    """Mean of distinct_n over n = 1, 2, 3. Raises ValueError as distinct_n does."""
    return fmean(distinct_n(texts, n) for n in orders)


def embed(texts: Sequence[str], encoder: Encoder | Any) -> np.ndarray:
    """Embeddings [texts, D] in float64.

    encoder: what `named_encoder` takes, a function from a list of texts to a matrix, or the matrix itself. Whether
    long texts are cut is the encoder's business: many sentence encoders read 128 to 512 tokens.

    Raises ValueError when sentence-transformers is missing, or the matrix has not one row of finite numbers per text.
    """
    if isinstance(encoder, str):
        encoder = named_encoder(encoder)
    rows = encoder(list(texts)) if callable(encoder) else encoder
    matrix = np.asarray(rows.detach().float().cpu() if hasattr(rows, "detach") else rows, dtype=np.float64)
    if matrix.ndim != 2 or len(matrix) != len(texts):
        raise ValueError(f"The embeddings have shape {matrix.shape}; {len(texts)} texts need one row each.")
    _unit_rows(matrix)
    return matrix


def embedding_diversity(embeddings: Any) -> float:
    """1 - mean cosine over all pairs of the k embeddings [k, D] of one prompt: 0 when all point one way, at most 2.

    Raises ValueError for fewer than two rows, or rows that are zero or not finite.
    """
    rows = _at_least_two_rows(embeddings)
    k = len(rows)
    pairs = float(np.sum(rows.sum(axis=0) ** 2)) - k  # the squared length of the sum holds every ordered pair
    return min(max(1.0 - pairs / (k * (k - 1)), 0.0), 2.0)


def vendi_score(embeddings: Any) -> float:
    """Effective number of different texts, from 1 (all alike) to k: exp of the entropy of the cosine matrix / k.

    The Vendi score of arXiv:2210.02410 with the plain cosine kernel of embeddings [k, D]. The spectrum does not see
    signs: opposite vectors count as alike (score 1), while `embedding_diversity` calls them farthest apart (2).

    Raises ValueError as embedding_diversity does.
    """
    rows = _at_least_two_rows(embeddings)
    shares = np.linalg.svd(rows, compute_uv=False) ** 2 / len(rows)
    shares = shares[shares > 1e-12]
    return min(max(math.exp(-float(np.sum(shares * np.log(shares)))), 1.0), float(len(rows)))


def diversity_per_prompt(
    texts_per_prompt: Sequence[Sequence[str]], encoder: Encoder | Any = None
) -> dict[str, list[float | None]]:
    """Every measure for every prompt: {name: [P values]}, None where a measure does not exist.

    self_bleu, self_bleu_single_reference (0 to 100), distinct_n (mean over n = 1, 2, 3), words (mean length) and,
    with an `encoder`, embedding_diversity and vendi. A prompt with fewer than two texts has no value at all; one
    whose texts all have fewer than four tokens has no Self-BLEU, which would be 0 however alike they are.

    encoder: see `embed`; it gets the texts of all prompts at once, and a matrix has its rows in that order.
    Raises ValueError as embed does.
    """
    measures: dict[str, Callable[[Sequence[str]], float | None]] = {
        "self_bleu": lambda texts: self_bleu(texts) if has_four_tokens(texts) else None,
        "self_bleu_single_reference": lambda texts: (
            self_bleu_single_reference(texts) if has_four_tokens(texts) else None
        ),
        "distinct_n": mean_distinct_n,
        "words": lambda texts: fmean(len(text.split()) for text in texts),
    }
    values = {
        name: [measure(texts) if len(texts) > 1 else None for texts in texts_per_prompt]
        for name, measure in measures.items()
    }
    if encoder is not None:
        matrix = embed([text for texts in texts_per_prompt for text in texts], encoder)
        ends = np.cumsum([len(texts) for texts in texts_per_prompt])
        parts = np.split(matrix, ends[:-1])
        values["embedding_diversity"] = [embedding_diversity(part) if len(part) > 1 else None for part in parts]
        values["vendi"] = [vendi_score(part) if len(part) > 1 else None for part in parts]
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
            "or pass a function or a matrix."
        ) from error
    return SentenceTransformer(name).encode


def _unit_rows(embeddings: Any) -> np.ndarray:
    rows = np.asarray(embeddings, dtype=np.float64)
    if rows.ndim != 2:
        raise ValueError(f"The embeddings have shape {rows.shape}; pass one row per text.")
    lengths = np.linalg.norm(rows, axis=1)
    bad = np.flatnonzero(~np.isfinite(lengths) | (lengths == 0.0))
    if len(bad):
        raise ValueError(f"Embedding {bad[0] + 1} has length {lengths[bad[0]]}; its cosine to others is undefined.")
    return rows / lengths[:, None]


def _at_least_two_rows(embeddings: Any) -> np.ndarray:
    rows = _unit_rows(embeddings)
    if len(rows) < 2:
        raise ValueError(f"There are {len(rows)} embeddings; diversity compares samples, so pass at least two.")
    return rows
