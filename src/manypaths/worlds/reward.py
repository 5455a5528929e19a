"""The reinforcement-learning reward: 1 for an answer that parses and is right, 0 for everything else."""

from collections.abc import Sequence

from .countdown import is_solution
from .tokenizer import decode_answer


def countdown_reward(
    *,
    completion_ids: Sequence[Sequence[int]],
    numbers: Sequence[Sequence[int]],
    target: Sequence[int],
    notation: Sequence[str],
    **_: object,
) -> list[float]:
    """Reward of each completion for TRL's GRPOTrainer, from its token ids and the columns of `rl_dataset`.

    Ids, not text: a completion that never stops, or that holds a special token, is worth nothing.
    """
    rewards = []
    for ids, *problem, words in zip(completion_ids, numbers, target, notation, strict=True):
        answer = decode_answer(ids)
        rewards.append(float(answer is not None and is_solution(answer, tuple(problem), words)))
    return rewards
