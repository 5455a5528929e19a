import math
import random
import sys

import numpy as np
import pytest
import torch

from manypaths.evaluation.diversity import (
    TOKENIZERS,
    distinct_n,
    diversity_per_prompt,
    embed,
    embedding_diversity,
    named_encoder,
    self_bleu,
    self_bleu_single_reference,
    vendi_score,
)


def test_distinct_n_by_hand():
    assert distinct_n(["a b a", "a b"], 1) == pytest.approx(2 / 5)
    assert distinct_n(["a b a", "a b"], 2) == pytest.approx(2 / 3)
    assert distinct_n(["a", "b"], 2) == 0.0
    assert distinct_n(["a b", "c d"], 2) == 1.0


def pairwise(embeddings):
    cosines = [
        float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))
        for i, a in enumerate(embeddings)
        for j, b in enumerate(embeddings)
        if i < j
    ]
    return 1 - sum(cosines) / len(cosines)


def test_embedding_diversity_is_the_mean_over_pairs():
    draw = np.random.default_rng(0)
    for k in (2, 3, 9):
        embeddings = draw.normal(size=(k, 5)) + draw.normal(size=5)
        assert embedding_diversity(embeddings) == pytest.approx(pairwise(embeddings), abs=1e-12)
        assert embedding_diversity(embeddings * draw.uniform(0.1, 9, size=(k, 1))) == pytest.approx(
            pairwise(embeddings)
        )
    assert embedding_diversity([[1.0, 2.0]] * 5) == pytest.approx(0.0, abs=1e-12)
    assert embedding_diversity([[1.0, 0.0], [-2.0, 0.0]]) == pytest.approx(2.0)


def test_vendi_score_counts_directions():
    assert vendi_score(np.eye(6)[:4] * 3) == pytest.approx(4.0)
    assert vendi_score([[1.0, 2.0, 3.0]] * 7) == pytest.approx(1.0)
    assert vendi_score([[1.0, 0.0], [0.0, 1.0], [0.0, 5.0], [1.0, 0.0]]) == pytest.approx(2.0)
    assert vendi_score([[1.0, 0.0], [-1.0, 0.0]]) == pytest.approx(1.0)  # as the docstring states
    embeddings = np.random.default_rng(1).normal(size=(6, 3))
    unit = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    shares = [share for share in np.linalg.eigvalsh(unit @ unit.T / 6) if share > 1e-12]
    assert vendi_score(embeddings) == pytest.approx(math.exp(-sum(share * math.log(share) for share in shares)))


@pytest.mark.parametrize("measure", [embedding_diversity, vendi_score])
@pytest.mark.parametrize(
    ("embeddings", "message"),
    [
        ([[1.0, 0.0]], "two or more rows"),
        ([[1.0, 0.0], [0.0, 0.0]], "not all 0"),
        ([[float("nan"), 0.0], [1.0, 0.0]], "finite"),
        ([1.0, 2.0], "two or more rows"),
    ],
)
def test_embeddings_without_a_direction_are_refused(measure, embeddings, message):
    with pytest.raises(ValueError, match=message):
        measure(embeddings)


def test_embeddings_come_from_a_function_or_a_model(monkeypatch):
    assert embed(["a", "bcd"], lambda texts: [[len(text), 1.0] for text in texts]).tolist() == [[1.0, 1.0], [3.0, 1.0]]
    rows = torch.tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True)
    assert embed(["a", "bcd"], lambda texts: rows).tolist() == [[1.0, 2.0], [3.0, 4.0]]

    class Model:
        def __init__(self, name):
            self.name = name

        def encode(self, texts):
            return np.array([[float(len(self.name)), len(text)] for text in texts], dtype=np.float32)

    monkeypatch.setitem(sys.modules, "sentence_transformers", type(sys)("sentence_transformers"))
    sys.modules["sentence_transformers"].SentenceTransformer = Model
    assert embed(["a", "bcd"], named_encoder("some/model")).tolist() == [[10.0, 1.0], [10.0, 3.0]]
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(ValueError, match="pip install sentence-transformers"):
        named_encoder("some/model")


@pytest.mark.parametrize("rows", [[[1.0, 2.0]], [1.0, 2.0]])
def test_an_encoder_gives_a_row_for_each_text(rows):
    with pytest.raises(ValueError, match=r"shape .*; 2 texts"):
        embed(["a", "b"], lambda texts: rows)


def prompts(count=12):
    draw = random.Random(2)
    return [[" ".join(draw.choices("abcdef", k=8)) for _ in range(4)] for _ in range(count)]


def test_every_measure_of_every_prompt():
    texts = prompts()
    values = diversity_per_prompt(texts, lambda rows: [[row.count("a") + 1.0, row.count("b")] for row in rows])
    assert list(values) == [*TOKENIZERS, "embedding_diversity", "vendi"]
    assert values["self_bleu"] == [self_bleu(row) for row in texts]
    assert values["self_bleu_single_reference"] == [self_bleu_single_reference(row) for row in texts]
    assert values["words"] == [8.0] * 12
    assert values["distinct_n"][0] == pytest.approx(sum(distinct_n(texts[0], n) for n in (1, 2, 3)) / 3)


def test_embeddings_are_cut_at_the_prompts():
    matrix = np.random.default_rng(3).normal(size=(5, 4))
    found = diversity_per_prompt([["a", "b"], ["d", "e", "f"]], lambda texts: matrix)
    assert found["embedding_diversity"] == [embedding_diversity(matrix[:2]), embedding_diversity(matrix[2:])]
    assert found["vendi"] == [vendi_score(matrix[:2]), vendi_score(matrix[2:])]


def test_texts_that_are_too_short_for_bleu_have_none():
    texts = [["a b c d e", "a b c d e"], ["a b", "c"], ["a b", "a b c d"]]
    assert diversity_per_prompt(texts)["self_bleu"] == [pytest.approx(100.0), None, self_bleu(texts[2])]
