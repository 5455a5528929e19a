from random import Random

import torch

from manypaths.worlds.countdown import is_solution, splits
from manypaths.worlds.pretrain import build_model, draw_batch, main, pretrain
from manypaths.worlds.tokenizer import EOS_ID, PAD_ID, TOKEN_IDS
from manypaths.worlds.world import NOISE, WORLDS, World, draw_text


def test_countdown_texts_are_right_as_often_as_intended_and_never_from_another_split():
    rng, right = Random(0), 0
    known = set(splits()["pretrain"])
    for _ in range(2000):
        question, answer = draw_text("countdown", rng)
        numbers, target = tuple(map(int, question.split()[1:4])), int(question.split()[5])
        assert (tuple(sorted(numbers)), target) in known
        right += is_solution(answer, (numbers, target))
    assert 1 - NOISE - 0.04 < right / 2000 < 1 - NOISE + 0.08


def test_only_answers_are_labelled():
    ids, labels = draw_batch(Random(0), WORLDS["coldstart"])
    assert ids.shape == labels.shape
    for row, label in zip(ids.tolist(), labels.tolist(), strict=True):
        length = row.index(EOS_ID) + 1
        start = next(i for i, token in enumerate(label) if token != -100)
        assert label[start:length] == row[start:length] and start >= 6
        assert set(label[length:]) <= {-100} and set(row[length:]) <= {PAD_ID}


def test_the_new_marker_never_occurs():
    rng = Random(0)
    for world in WORLDS.values():
        batches = [draw_batch(rng, world)[0] for _ in range(20)]
        assert not any((batch == TOKEN_IDS["I"]).any() for batch in batches)
    assert any((batch == TOKEN_IDS["A"]).any() for batch in batches)


def test_training_is_deterministic_and_learns(capfd):
    first, second = (pretrain(WORLDS["recall"], seed=1, steps=8) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    ids, labels = draw_batch(Random(9), WORLDS["recall"])
    fresh = pretrain(WORLDS["recall"], seed=1, steps=1)
    assert first(input_ids=ids, labels=labels).loss < fresh(input_ids=ids, labels=labels).loss
    assert "pre-training recall" in capfd.readouterr().err


def test_a_rebuilt_base_is_a_model_folder(tmp_path, monkeypatch, capsys):
    model = build_model()
    assert model.num_parameters() == 164_480
    monkeypatch.setattr(World, "base", tmp_path / "base")
    monkeypatch.setattr("manypaths.worlds.pretrain.pretrain", lambda world, seed: model)
    monkeypatch.setattr("sys.argv", ["pretrain", "--world", "recall"])
    main()
    assert str(tmp_path / "base") in capsys.readouterr().out
    packaged = sorted(path.name for path in WORLDS["recall"].experiment.parent.glob("base/recall/*"))
    assert sorted(path.name for path in (tmp_path / "base").iterdir()) == packaged
