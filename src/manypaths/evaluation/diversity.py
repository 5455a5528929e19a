"""How different are the samples of one prompt? Self-BLEU and distinct-n.

Every function takes the k texts of ONE prompt, answers only (a shared prompt text would raise every overlap).
Average over prompts yourself; values for different k are not comparable.
"""

import math
from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence

from sacrebleu.tokenizers.tokenizer_13a import Tokenizer13a

MAX_ORDER = 4


def self_bleu(texts: Sequence[str]) -> float:
    """Mean BLEU of each text against all the others: 100 for equal texts, near 0 for unrelated ones.

    Equal to sacrebleu's sentence BLEU (13a tokens, case kept, orders 1 to 4, exp smoothing, effective order
    off) with the k - 1 other texts as references. Each text is counted once: per n-gram we keep the largest
    count, its owner and the second largest count, so that the cost grows linearly with k.

    BLEU needs four tokens: a shorter text scores 0 even against its own copy.
    Raises ValueError for fewer than two texts, where no other text exists.
    """
    if len(texts) < 2:
        raise ValueError(f"self_bleu got {len(texts)} texts; it compares samples, so pass at least two.")
    tokenize = Tokenizer13a()
    tokens = [tokenize(text.rstrip()).split() for text in texts]
    counts = [_ngram_counts(words) for words in tokens]
    top = _two_largest(counts)
    lengths = [len(words) for words in tokens]
    length_counts = Counter(lengths)
    sorted_lengths = sorted(length_counts)
    scores = []
    for owner, (own, length) in enumerate(zip(counts, lengths, strict=True)):
        matched, total = [0] * MAX_ORDER, [0] * MAX_ORDER
        for ngram, count in own.items():
            largest, largest_owner, second = top[ngram]
            order = len(ngram) - 1
            total[order] += count
            matched[order] += min(count, second if largest_owner == owner else largest)
        scores.append(_bleu(matched, total, length, _closest_length(length, length_counts, sorted_lengths)))
    return math.fsum(scores) / len(scores)


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


def _ngram_counts(words: list[str]) -> Counter:
    return Counter(
        tuple(words[start : start + order])
        for order in range(1, MAX_ORDER + 1)
        for start in range(len(words) - order + 1)
    )


def _two_largest(counts: list[Counter]) -> dict[tuple[str, ...], tuple[int, int, int]]:
    """Per n-gram: (largest count, index of the text that has it, largest count among the other texts)."""
    top: dict[tuple[str, ...], tuple[int, int, int]] = {}
    for owner, own in enumerate(counts):
        for ngram, count in own.items():
            largest, largest_owner, second = top.get(ngram, (0, -1, 0))
            if count > largest:
                top[ngram] = (count, owner, largest)
            elif count > second:
                top[ngram] = (largest, largest_owner, count)
    return top


def _closest_length(length: int, length_counts: Counter, sorted_lengths: list[int]) -> int:
    """The length of another text that lies nearest to this text's; the shorter one of a tie."""
    if length_counts[length] > 1:
        return length
    place = bisect_left(sorted_lengths, length)
    neighbours = sorted_lengths[max(place - 1, 0) : place] + sorted_lengths[place + 1 : place + 2]
    return min(neighbours, key=lambda other: (abs(other - length), other))


def _bleu(matched: list[int], total: list[int], length: int, reference_length: int) -> float:
    """BLEU of one text in percent from its clipped matches; a missing order doubles the smoothing divisor."""
    if not any(matched) or total[-1] == 0:
        return 0.0
    logs, divisor = 0.0, 1.0
    for match, count in zip(matched, total, strict=True):
        if match == 0:
            divisor *= 2.0
        logs += math.log(100.0 * (match or 1.0 / divisor) / count)
    brevity = math.exp(1.0 - reference_length / length) if length < reference_length else 1.0
    return brevity * math.exp(logs / MAX_ORDER)
