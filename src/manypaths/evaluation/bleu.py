"""Self-BLEU: how much the samples of one prompt repeat one another, by sacrebleu's definition of BLEU.

Every text is tokenised and counted once, for all its roles as hypothesis and as reference, so the cost grows with
the number of n-grams and not with the square of the number of samples.

Shapes: k texts of one prompt, N tokens in all of them together.
"""

import math
from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from sacrebleu.tokenizers.tokenizer_13a import Tokenizer13a

MAX_ORDER = 4
ACROSS_WORDS = ("<skipped>", "-\n")  # what the 13a tokenizer removes first and which can join words


class Counts(NamedTuple):
    """How often each n-gram of one order stands in each text: an entry per pair that occurs, ordered by n-gram."""

    ngram: np.ndarray  # [entries] 0, 1, ...: the same number for the same n-gram
    text: np.ndarray  # [entries] index of the text
    count: np.ndarray  # [entries] at least 1
    start: np.ndarray  # [n-grams] first entry of each n-gram


def self_bleu(texts: Sequence[str]) -> float:
    """Mean BLEU of each text against all the others: 100 for equal texts, near 0 for unrelated ones.

    Equal to sacrebleu's sentence BLEU (13a tokens, case kept, orders 1 to 4, exp smoothing, effective order
    off) with the k - 1 other texts as references. The order of the texts does not matter.

    BLEU needs four tokens: a shorter text scores 0 even against its own copy; see `has_four_tokens`.
    Raises ValueError for fewer than two texts, where no other text exists.
    """
    ids = _token_ids(texts)
    lengths = [len(row) for row in ids]
    length_counts = Counter(lengths)
    sorted_lengths = sorted(length_counts)
    matched = [_matched_by_any_other(counts, len(ids)) for counts in _count_ngrams(ids)]
    scores = [
        _bleu([own[i] for own in matched], length, _closest_length(length, length_counts, sorted_lengths))
        for i, length in enumerate(lengths)
    ]
    return math.fsum(scores) / len(scores)


def self_bleu_single_reference(texts: Sequence[str]) -> float:
    """Mean BLEU of each text against ONE other: the first text, or the second where the first is the hypothesis.

    This is what the evaluation script published with GEM (arXiv:2408.16673) computes: it hands the other texts to
    sacrebleu's corpus BLEU as one reference stream, of which only the first segment meets the hypothesis. The value
    depends on the order of the samples and is far below `self_bleu`; use it only beside numbers of that script.

    Raises ValueError for fewer than two texts.
    """
    ids = _token_ids(texts)
    tables = _count_ngrams(ids)
    by_first, by_second = ([_matched_by(counts, len(ids), text) for counts in tables] for text in (0, 1))
    scores = [_bleu([own[0] for own in by_second], len(ids[0]), len(ids[1]))]
    scores += [_bleu([own[i] for own in by_first], len(ids[i]), len(ids[0])) for i in range(1, len(ids))]
    return math.fsum(scores) / len(scores)


def has_four_tokens(texts: Sequence[str]) -> bool:
    """True when some text is long enough for BLEU; where none is, Self-BLEU is 0 however alike the texts are."""
    return any(len(tokens_13a(text)) >= MAX_ORDER for text in texts)


def tokens_13a(text: str) -> list[str]:
    """The tokens that sacrebleu's 13a tokenizer makes of a text.

    Pieces are looked up by themselves, and the tokenizer's own memory of recent lines makes that fast.
    """
    tokenize = _tokenizer()
    return [token for piece in _pieces(text) for token in tokenize(piece).split()]


def _pieces(text: str) -> list[str]:
    """What can be tokenised by itself: single words, or the whole text where some words may be joined."""
    text = text.rstrip()
    return [text] if any(mark in text for mark in ACROSS_WORDS) else text.split()


@lru_cache(maxsize=1)
def _tokenizer() -> Tokenizer13a:
    return Tokenizer13a()


def _token_ids(texts: Sequence[str]) -> list[list[int]]:
    """The tokens of each text as numbers: equal numbers for equal tokens, 0, 1, ... in order of appearance."""
    if len(texts) < 2:
        raise ValueError(f"Self-BLEU got {len(texts)} texts; it compares samples, so pass at least two.")
    tokenize = _tokenizer()
    numbers: dict[str, int] = {}
    known: dict[str, list[int]] = {}
    rows = []
    for text in texts:
        row: list[int] = []
        for piece in _pieces(text):
            ids = known.get(piece)
            if ids is None:
                ids = known[piece] = [numbers.setdefault(token, len(numbers)) for token in tokenize(piece).split()]
            row += ids
        rows.append(row)
    return rows


def _count_ngrams(ids: Sequence[Sequence[int]]) -> list[Counts]:
    """Counts of the orders 1 to 4.

    Names of n-grams are whole numbers made of the names of their parts. Those of pairs are renumbered, which keeps
    all of them below k N^2 and so within 64 bits.
    """
    tokens = np.concatenate([np.asarray(row, dtype=np.int64) for row in ids])  # [N]
    text = np.repeat(np.arange(len(ids)), [len(row) for row in ids])  # [N]
    vocabulary = int(tokens.max(initial=0)) + 1
    pairs = tokens[:-1] * vocabulary + tokens[1:]
    pairs = np.unique(pairs, return_inverse=True)[1]
    names = [tokens, pairs, pairs[:-1] * vocabulary + tokens[2:], pairs[:-2] * (len(pairs) + 1) + pairs[2:]]
    return [_count(name, text, order, len(ids)) for order, name in enumerate(names, start=1)]


def _count(names: np.ndarray, text: np.ndarray, order: int, num_texts: int) -> Counts:
    """names: [N - order + 1] of the n-gram that starts at each token; those that end in another text are left out."""
    places = max(len(text) - order + 1, 0)
    inside = text[:places] == text[order - 1 :][:places]
    keys = np.sort(names[inside] * num_texts + text[:places][inside])
    first = np.flatnonzero(np.diff(keys, prepend=-1))
    count = np.diff(first, append=len(keys))
    name, own_text = np.divmod(keys[first], num_texts)
    new = np.diff(name, prepend=-1) != 0
    return Counts(np.cumsum(new) - 1, own_text, count, np.flatnonzero(new))


def _matched_by_any_other(counts: Counts, num_texts: int) -> list[tuple[int, int]]:
    """Per text: (n-grams clipped to the largest count in another text, n-grams).

    A count is clipped only where its text is the single owner of the largest one; then to the second largest.
    """
    ngram, text, count, start = counts
    total = np.bincount(text, count, num_texts)
    if len(count) == 0:
        return [(0, 0)] * num_texts
    largest = np.maximum.reduceat(count, start)
    is_largest = count == largest[ngram]
    second = np.maximum.reduceat(np.where(is_largest, 0, count), start)
    alone = is_largest & (np.bincount(ngram, is_largest)[ngram] == 1)
    excess = np.bincount(text[alone], (largest - second)[ngram[alone]], num_texts)
    return [(int(all_of_it - lost), int(all_of_it)) for all_of_it, lost in zip(total, excess, strict=True)]


def _matched_by(counts: Counts, num_texts: int, reference: int) -> list[tuple[int, int]]:
    """Per text: (n-grams clipped to their count in the text `reference`, n-grams)."""
    in_reference = np.zeros(len(counts.start), dtype=np.int64)
    own = counts.text == reference
    in_reference[counts.ngram[own]] = counts.count[own]
    matched = np.bincount(counts.text, np.minimum(counts.count, in_reference[counts.ngram]), num_texts)
    total = np.bincount(counts.text, counts.count, num_texts)
    return [(int(found), int(all_of_it)) for found, all_of_it in zip(matched, total, strict=True)]


def _closest_length(length: int, length_counts: Counter, sorted_lengths: list[int]) -> int:
    """The length of another text that lies nearest to this text's; the shorter one of a tie."""
    if length_counts[length] > 1:
        return length
    place = bisect_left(sorted_lengths, length)
    neighbours = sorted_lengths[max(place - 1, 0) : place] + sorted_lengths[place + 1 : place + 2]
    return min(neighbours, key=lambda other: (abs(other - length), other))


def _bleu(matched_and_total: Sequence[tuple[int, int]], length: int, reference_length: int) -> float:
    """BLEU of one text in percent from its clipped matches; a missing order doubles the smoothing divisor."""
    if not any(match for match, _ in matched_and_total) or matched_and_total[-1][1] == 0:
        return 0.0
    logs, divisor = 0.0, 1.0
    for match, count in matched_and_total:
        if match == 0:
            divisor *= 2.0
        logs += math.log(100.0 * (match or 1.0 / divisor) / count)
    brevity = math.exp(1.0 - reference_length / length) if length < reference_length else 1.0
    return brevity * math.exp(logs / MAX_ORDER)
