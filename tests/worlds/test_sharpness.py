from statistics import mean

import pytest
import torch

from manypaths.worlds import evaluate, load_base, match_sharpness, sharpen, success_probability
from manypaths.worlds.tokenizer import encode

IDS = torch.tensor([encode("<bos> C 3 4 5 = 35 =")])


def test_sharpening_equals_a_lower_temperature():
    model, _ = load_base("recall")
    with torch.no_grad():
        plain = model(input_ids=IDS).logits
        sharp = sharpen(model, 1.6)(input_ids=IDS).logits
    torch.testing.assert_close(sharp, plain * 1.6)


def test_sharpened_and_colder_models_score_alike():
    model, _ = load_base("recall")
    settings = dict(num_prompts=40, num_samples=16)
    colder = evaluate(model, "recall", temperature=0.5, **settings)
    sharper = evaluate(sharpen(model, 2.0), "recall", temperature=1.0, **settings)
    assert sharper["per_prompt"]["num_correct"] == colder["per_prompt"]["num_correct"]
    for name in ("entropy", "kl_to_base"):
        assert sharper["scores"][name]["value"] == pytest.approx(colder["scores"][name]["value"], abs=1e-4)
    assert colder["scores"]["kl_to_base"]["value"] > 0.01


def test_exact_probability_agrees_with_sampling():
    model, _ = load_base("recall")
    exact = success_probability(model, "recall", num_prompts=60)
    sampled = evaluate(model, "recall", num_prompts=60, num_samples=64)["per_prompt"]["num_correct"]
    assert mean(exact) == pytest.approx(mean(sampled) / 64, abs=0.03)
    assert max(abs(p - c / 64) for p, c in zip(exact, sampled, strict=True)) < 0.3


def test_matched_sharpness_reaches_the_target():
    model, _ = load_base("recall")
    target = mean(success_probability(model, "recall", num_prompts=60)) + 0.1
    scale = match_sharpness(model, "recall", target, num_prompts=60)
    assert scale > 1
    reached = mean(success_probability(sharpen(model, scale), "recall", num_prompts=60))
    assert reached == pytest.approx(target, abs=1e-4)


@pytest.mark.parametrize("world, target", [("recall", 0.99), ("recall", 0.0), ("coldstart", 0.4)])
def test_unreachable_targets_are_refused(world, target):
    with pytest.raises(ValueError, match="target_pass1"):
        match_sharpness(load_base(world)[0], world, target, num_prompts=20)


def test_scale_must_be_positive():
    for scale in (0.0, -1.0, float("nan")):
        with pytest.raises(ValueError, match="scale is"):
            sharpen(load_base("recall")[0], scale)
