import pytest
import torch

from manypaths.worlds import load_base
from manypaths.worlds.sampling import sample
from manypaths.worlds.tokenizer import EOS_ID, PAD_ID, encode

PROMPTS = ["<bos> C 3 4 5 = 35 =", "<bos> C 9 2 7 = 25 ="]


@pytest.fixture(scope="module")
def model():
    return load_base("recall")[0]


def test_logits_are_those_of_a_plain_forward(model):
    drawn = sample(model, PROMPTS, num_samples=3, temperature=0.8)
    for index, prompt in enumerate(PROMPTS):
        rows = zip(drawn.tokens[index], drawn.logits[index], drawn.generated[index], strict=True)
        for tokens, logits, generated in rows:
            with torch.no_grad():
                expected = model(input_ids=torch.tensor([encode(prompt) + tokens.tolist()])).logits[0, 7:-1]
            torch.testing.assert_close(logits[generated], expected[generated], atol=1e-4, rtol=1e-4)


def test_generated_ends_with_the_first_end_token(model):
    drawn = sample(model, PROMPTS, num_samples=50)
    assert drawn.tokens.shape == drawn.generated.shape == (2, 50, 8)
    rows = zip(drawn.tokens.flatten(0, 1).tolist(), drawn.generated.flatten(0, 1).tolist(), strict=True)
    for tokens, generated in rows:
        length = tokens.index(EOS_ID) + 1 if EOS_ID in tokens else 8
        assert generated == [True] * length + [False] * (8 - length)
        assert all(token == PAD_ID for token in tokens[length:])


def test_seed_decides_and_the_callers_random_state_survives(model):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first, same, other = (sample(model, PROMPTS, num_samples=20, seed=seed).tokens for seed in (1, 1, 2))
    assert torch.equal(first, same) and not torch.equal(first, other)
    assert torch.equal(before, torch.get_rng_state())


def test_frequencies_follow_the_distribution(model):
    drawn = sample(model, PROMPTS[:1], num_samples=4000, temperature=2.0)
    expected = (drawn.logits[0, 0, 0] / 2.0).softmax(dim=-1)
    observed = torch.bincount(drawn.tokens[0, :, 0], minlength=len(expected)) / 4000
    assert (observed - expected).abs().max() < 0.03


def test_greedy_takes_the_most_likely_token(model):
    drawn = sample(model, PROMPTS, temperature=0)
    chosen = drawn.logits.argmax(dim=-1)
    assert torch.equal(chosen[drawn.generated], drawn.tokens[drawn.generated])


def test_training_mode_is_restored(model):
    model.train()
    sample(model, PROMPTS)
    assert model.training
    model.eval()


def test_prompts_of_different_lengths_are_refused(model):
    with pytest.raises(ValueError, match="one length"):
        sample(model, ["<bos> C", "<bos>"])
