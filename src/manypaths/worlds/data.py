"""What is trained and tested on: SFT demonstrations, reinforcement-learning prompts, test problems."""

from random import Random

from datasets import Dataset

from . import countdown
from .countdown import INFIX, NUMBERS, Problem
from .tokenizer import as_completion, as_prompt
from .world import World, resolve_world

_RANK = {word: rank for rank, word in enumerate((*map(str, NUMBERS), *INFIX, "(", ")"))}


def canonical_solution(problem: Problem, notation: str = INFIX) -> str:
    """The one solution demonstrated: the last in the order of its words (numbers, operations, brackets)."""
    best = max(countdown.solutions(problem), key=lambda text: [_RANK[word] for word in text.split()])
    return countdown.translate(best, INFIX, notation)


def sft_dataset(world: str | World, seed: int = 0, num_prompts: int = 200) -> Dataset:
    """Demonstrations as plain strings, one canonical solution per prompt: columns `prompt` and `completion`.

    The completion ends in the end token and TRL adds no other, so the ids are exactly eight prompt and eight
    completion tokens. Train with `completion_only_loss=True`. `seed` chooses the problems, their order and
    the order of their numbers. Raises ValueError for an unknown world or more prompts than the split has.
    """
    request = resolve_world(world).request
    pool = countdown.splits()["sft"]
    if not 1 <= num_prompts <= len(pool):
        raise ValueError(f"num_prompts is {num_prompts}; the SFT split has 1 to {len(pool)} prompts.")
    rng = Random(seed)
    problems = [countdown.shuffled(rng, problem) for problem in rng.sample(pool, num_prompts)]
    return Dataset.from_dict(
        {
            "prompt": [as_prompt(request.question(problem)) for problem in problems],
            "completion": [as_completion(canonical_solution(problem, request.notation)) for problem in problems],
        }
    )


def rl_dataset(world: str | World, seed: int = 0) -> Dataset:
    """Prompts for TRL's GRPOTrainer and what `countdown_reward` needs.

    Columns `prompt`, `numbers`, `target`, `notation`. `seed` chooses the order of the problems and of their
    numbers. Raises ValueError for an unknown world.
    """
    request, rng, pool = resolve_world(world).request, Random(seed), countdown.splits()["rl"]
    problems = [countdown.shuffled(rng, problem) for problem in rng.sample(pool, len(pool))]
    return Dataset.from_dict(
        {
            "prompt": [as_prompt(request.question(problem)) for problem in problems],
            "numbers": [list(numbers) for numbers, _ in problems],
            "target": [target for _, target in problems],
            "notation": [request.notation] * len(problems),
        }
    )


def evaluation_problems(num_prompts: int) -> tuple[Problem, ...]:
    """The first test problems, numbers in a fixed shuffled order; the same in every world and for every seed.

    Raises ValueError when the test split is smaller.
    """
    pool = countdown.splits()["test"]
    if not 1 <= num_prompts <= len(pool):
        raise ValueError(f"num_prompts is {num_prompts}; the test split has 1 to {len(pool)} prompts.")
    rng = Random(0)
    return tuple(countdown.shuffled(rng, problem) for problem in pool[:num_prompts])
