import random

import pytest
import sacrebleu

from manypaths.evaluation.diversity import distinct_n, self_bleu


def slow_self_bleu(texts):
    bleu = sacrebleu.BLEU(tokenize="13a", smooth_method="exp", effective_order=False)
    scores = [bleu.sentence_score(text, texts[:i] + texts[i + 1 :]).score for i, text in enumerate(texts)]
    return sum(scores) / len(scores)


WORDS = [
    "1",
    "2",
    "+",
    "(",
    ")",
    "*",
    "so",
    "x",
    "x,",
    "3.5",
    "&amp;",
    "$y$",
    "It's",
    "a-b",
    "\\frac{1}{2}",
    ".",
    "\n",
]


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


def test_distinct_n_by_hand():
    assert distinct_n(["a b a", "a b"], 1) == pytest.approx(2 / 5)
    assert distinct_n(["a b a", "a b"], 2) == pytest.approx(2 / 3)
    assert distinct_n(["a", "b"], 2) == 0.0
    assert distinct_n(["a b", "c d"], 2) == 1.0


def test_distinct_n_refuses_nonsense():
    with pytest.raises(ValueError, match="n is 0"):
        distinct_n(["a"], 0)
    with pytest.raises(ValueError, match="no texts"):
        distinct_n([], 1)
