"""Objectives that compare tokens, over all micro-batches and ranks of a step."""

from collections.abc import Iterator
from dataclasses import replace

import torch
from accelerate.utils import gather_object
from torch import Tensor

from ..objectives import Objective


def over_the_step(objective: Objective, own: list[dict[str, Tensor]], rank: int) -> Iterator[Objective]:
    """One Objective per micro-batch of this rank, whose tokens it judges among those of the whole step.

    own: the objective's statistics {name: [T]} of each micro-batch of this rank, without gradients. All ranks have to call
    this together; tied tokens are in order of rank and micro-batch.
    """
    mine = {name: torch.cat([values[name] for values in own]) for name in objective.statistics}
    everyone = gather_object([{name: values.cpu() for name, values in mine.items()}])
    start = sum(len(theirs[objective.statistics[0]]) for theirs in everyone[:rank])
    step = {name: torch.cat([theirs[name].to(mine[name].device) for theirs in everyone]) for name in mine}
    for values in own:
        yield among(objective, step, start)
        start += len(values[objective.statistics[0]])


def among(objective: Objective, step: dict[str, Tensor], start: int) -> Objective:
    """The objective of tokens `start`, `start + 1`, ... of the statistics {name: [N]} of a step."""

    def function(*live: Tensor, **hyperparameters: float) -> Tensor:
        end = start + len(live[0])
        rest = (step[name] for name in objective.statistics)
        whole = (torch.cat((values[:start], own, values[end:])) for values, own in zip(rest, live, strict=True))
        return objective.function(*whole, **hyperparameters)[start:end]

    return replace(objective, function=function)
