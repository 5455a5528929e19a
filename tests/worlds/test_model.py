import pytest
import torch

from manypaths.worlds.model import build_model, checkpoint_path, load_base
from manypaths.worlds.tokenizer import VOCABULARY
from manypaths.worlds.world import WORLDS


@pytest.mark.parametrize("world", WORLDS)
def test_checkpoints_are_small_and_load_exactly(world):
    assert checkpoint_path(world).stat().st_size < 1_000_000
    model, tokenizer = load_base(world)
    again, _ = load_base(world)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert len(tokenizer) == model.config.vocab_size == len(VOCABULARY)
    assert not model.training and model.dtype == torch.float32


def test_size():
    assert build_model().num_parameters() == 164_480


def test_unknown_world_is_refused():
    with pytest.raises(ValueError, match="Unknown world 'moon'"):
        load_base("moon")
