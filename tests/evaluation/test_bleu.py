import random

import pytest
import sacrebleu

from manypaths.evaluation.bleu import has_four_tokens, self_bleu, self_bleu_single_reference, tokens_13a


def slow_self_bleu(texts):
    bleu = sacrebleu.BLEU(tokenize="13a", smooth_method="exp", effective_order=False)
    scores = [bleu.sentence_score(text, texts[:i] + texts[i + 1 :]).score for i, text in enumerate(texts)]
    return sum(scores) / len(scores)


WORDS = [
    "1", "2", "+", "(", ")", "*", "so", "x", "x,", "3.5", "&amp;", "$y$", "It's",
    "a-b", "\\frac{1}{2}", ".", "\n",
]  # fmt: skip


def random_texts(draw):
    count, vocabulary = draw.randint(2, 9), WORDS[: draw.randint(2, len(WORDS))]
    texts = [" ".join(draw.choices(vocabulary, k=draw.randint(0, 14))) for _ in range(count)]
    if draw.random() < 0.3:
        texts[draw.randrange(count)] = draw.choice(texts)
    return texts


def test_self_bleu_equals_sacrebleu_on_random_texts():
    draw = random.Random(0)
    for _ in range(600):
        texts = random_texts(draw)
        assert self_bleu(texts) == pytest.approx(slow_self_bleu(texts), abs=1e-9), texts


def test_self_bleu_equals_sacrebleu_on_countdown_answers():
    draw = random.Random(1)
    for _ in range(40):
        texts = [f"( {draw.randint(1, 4)} {draw.choice('+-*/')} {draw.randint(1, 4)} ) + 3" for _ in range(16)]
        assert self_bleu(texts) == pytest.approx(slow_self_bleu(texts), abs=1e-9)


@pytest.mark.parametrize(
    "texts",
    [
        ["", ""],
        ["", "a b c d e"],
        ["a b c", "a b c"],
        ["a b c d", "a b c d", "a b c d"],
        ["a a a a a", "a a b a a a", "a"],
        ["a b c d e f g h", "a b c d", "a b c d e f"],
        ["one two three four five ", "one two three four five\n"],
        ["x y z w v", "p q r s t"],
    ],
)
def test_self_bleu_equals_sacrebleu_at_the_edges(texts):
    assert self_bleu(texts) == pytest.approx(slow_self_bleu(texts), abs=1e-9)


def test_self_bleu_does_not_depend_on_order():
    draw = random.Random(3)
    texts = random_texts(draw) + random_texts(draw)
    assert self_bleu(texts) == pytest.approx(self_bleu(texts[::-1]), abs=1e-9)


def test_equal_texts_score_100_and_unrelated_ones_0():
    assert self_bleu(["( 1 + 2 ) * 3"] * 5) == pytest.approx(100.0)
    assert self_bleu(["a b c d e", "v w x y z"]) == 0.0


@pytest.mark.parametrize("texts", [[], ["alone"]])
def test_self_bleu_is_undefined_without_another_text(texts):
    with pytest.raises(ValueError, match="at least two"):
        self_bleu(texts)


def script_self_bleu(texts):
    """The call of GEM's script: all others as ONE reference stream, which sacrebleu cuts to its first segment."""
    scores = [sacrebleu.corpus_bleu([text], [texts[:i] + texts[i + 1 :]]).score for i, text in enumerate(texts)]
    return sum(scores) / len(scores)


def test_single_reference_equals_the_call_of_the_script():
    draw = random.Random(4)
    for _ in range(400):
        texts = random_texts(draw)
        assert self_bleu_single_reference(texts) == pytest.approx(script_self_bleu(texts), abs=1e-9), texts


def test_single_reference_depends_on_the_order_and_compares_two_texts_alike():
    texts = ["p q r s t u", "a b c d e f", "a b c d x y"]
    assert self_bleu_single_reference(texts) != pytest.approx(self_bleu_single_reference(texts[::-1]))
    assert self_bleu_single_reference(texts) < self_bleu(texts)
    assert self_bleu_single_reference(texts[1:]) == pytest.approx(self_bleu(texts[1:]))
    with pytest.raises(ValueError, match="got 1 texts"):
        self_bleu_single_reference(["alone"])


# Pieces on which a tokenizer that looks at single words could go wrong: blanks of all kinds, marks that reach over
# words, runs of points and commas, entities inside entities.
PIECES = [
    " ", "  ", "\n", "-\n", "\t", "\u00a0", "\u2003", "\x1c", "\r\n", "-", "--", ".", ",", "..", ".,", "1", "2.5", "1,000",
    "3-4", "x", "word", "$", "\\frac{1}{2}", "&", "&amp;", "&amp;quot;", "&quot;", "<skipped>", "<ski<skipped>pped>", "'s",
    "-<skipped>\n", "(", ")", "\u00e9", "\u4e2d", "\U0001d465", "\\\\", "_", "^", "=", "!",
]  # fmt: skip


def test_tokens_equal_sacrebleus():
    tokenizer, draw = sacrebleu.BLEU().tokenizer, random.Random(5)
    for _ in range(4000):
        text = "".join(draw.choices(PIECES, k=draw.randint(0, 12)))
        assert tokens_13a(text) == tokenizer(text.rstrip()).split(), repr(text)


def test_self_bleu_equals_sacrebleu_on_awkward_texts():
    draw = random.Random(6)
    for _ in range(150):
        pieces = draw.sample(PIECES, k=12)
        texts = ["".join(draw.choices(pieces, k=draw.randint(0, 40))) for _ in range(draw.randint(2, 5))]
        assert self_bleu(texts) == pytest.approx(slow_self_bleu(texts), abs=1e-9), texts
        assert self_bleu_single_reference(texts) == pytest.approx(script_self_bleu(texts), abs=1e-9), texts


def test_self_bleu_equals_sacrebleu_on_long_texts_with_many_words():
    """Enough different words that names of n-grams must be renumbered to stay apart."""
    draw = random.Random(7)
    for _ in range(3):
        base = [str(draw.randint(0, 3000)) for _ in range(600)]
        texts = [" ".join(draw.choice((word, word, str(draw.randint(0, 3000)))) for word in base) for _ in range(8)]
        assert self_bleu(texts) == pytest.approx(slow_self_bleu(texts), abs=1e-9)


def test_four_tokens_are_counted_as_bleu_counts_them():
    assert not has_four_tokens(["a b c", "", "x"])
    assert has_four_tokens(["a b c", "a b c d"])
    assert has_four_tokens(["a b c", "(1+2)"])  # one word, five tokens
    assert self_bleu(["a b c", "a b c"]) == 0.0
    assert self_bleu(["(1+2)", "(1+2)"]) == pytest.approx(100.0)
