from random import Random

import pytest

from manypaths.worlds import countdown
from manypaths.worlds.reward import countdown_reward
from manypaths.worlds.tokenizer import TOKEN_IDS, encode


def reward(ids, numbers=(3, 4, 5), target=35, notation="+-*/"):
    columns = dict(numbers=[list(numbers)], target=[target], notation=[notation])
    return countdown_reward(completion_ids=[ids], prompts=["ignored"], completions=["ignored"], **columns)


def test_reward_agrees_with_the_verifier():
    rng = Random(0)
    problems = rng.choices(countdown.splits()["rl"], k=400)
    texts = [
        rng.choice([countdown.random_expression(rng, problem[0]), countdown.solutions(problem)[0]])
        for problem in problems
    ]
    rewards = countdown_reward(
        completion_ids=[encode(f"{text} <eos>") for text in texts],
        numbers=[list(numbers) for numbers, _ in problems],
        target=[target for _, target in problems],
        notation=["+-*/"] * len(problems),
    )
    assert rewards == [float(countdown.is_solution(*pair)) for pair in zip(texts, problems, strict=True)]
    assert 0 < sum(rewards) < len(rewards)


def test_only_a_stopped_answer_without_special_tokens_is_rewarded():
    right = encode("( 3 + 4 ) * 5")
    assert reward([*right, TOKEN_IDS["<eos>"]]) == [1.0]
    assert reward(right) == [0.0]
    assert reward([*right, TOKEN_IDS["<pad>"], TOKEN_IDS["<eos>"]]) == [0.0]
    assert reward([TOKEN_IDS["<bos>"], *right, TOKEN_IDS["<eos>"]]) == [0.0]
    assert reward([]) == [0.0]


def test_the_notation_asked_for_decides():
    lettered = encode("( 3 A 4 ) Y 5 <eos>")
    assert reward(lettered, notation="ABYZ") == [1.0]
    assert reward(lettered) == [0.0]


def test_columns_must_be_equally_long():
    with pytest.raises(ValueError):
        countdown_reward(completion_ids=[[], []], numbers=[[1, 2, 3]], target=[1], notation=["+-*/"])
