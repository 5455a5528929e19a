"""Sharpening without training: the control that tells learning apart from merely sampling colder."""

import math

import torch
from transformers import PreTrainedModel

from . import countdown
from .data import evaluation_problems
from .tokenizer import as_completion, as_prompt, encode
from .world import World, resolve_world

COLDEST, HOTTEST = 0.05, 5.0
BISECTIONS = 30


@torch.no_grad()
def sharpen(model: PreTrainedModel, scale: float) -> PreTrainedModel:
    """Multiply all logits by `scale` for good, in place, through the final norm's weight; returns the model.

    Sampling at temperature 1 then equals sampling the original at temperature 1 / scale.
    Raises ValueError for a scale that is not positive.
    """
    if not scale > 0:
        raise ValueError(f"scale is {scale}; logits are sharpened by a positive factor, for example 1.5.")
    model.model.norm.weight.mul_(scale)
    return model


def success_probability(
    model: PreTrainedModel, world: str | World, *, temperature: float = 1.0, num_prompts: int = 200
) -> list[float]:
    """Exact pass@1 of each test prompt, without sampling: the summed probability of all its solutions."""
    return _solution_mass(*_read_solutions(model, world, num_prompts), temperature).tolist()


def match_sharpness(
    model: PreTrainedModel, world: str | World, target_pass1: float, *, num_prompts: int = 200
) -> float:
    """The logit scale at which `model` reaches `target_pass1` on the test prompts; pass it to `sharpen`.

    Found by bisection on the logarithm of the temperature, with exact probabilities instead of samples.
    Raises ValueError when temperatures between COLDEST and HOTTEST cannot reach the target.
    """
    solutions = _read_solutions(model, world, num_prompts)

    def pass1(log_temperature: float) -> float:
        return _solution_mass(*solutions, math.exp(log_temperature)).mean().item()

    cold, hot = math.log(COLDEST), math.log(HOTTEST)
    best, worst = pass1(cold), pass1(hot)
    if not worst <= target_pass1 <= best:
        raise ValueError(
            f"target_pass1 is {target_pass1:.4f}, but temperatures from {COLDEST} to {HOTTEST} give "
            f"this model {best:.4f} to {worst:.4f}; choose a target in between, or leave this control out."
        )
    for _ in range(BISECTIONS):
        middle = (cold + hot) / 2
        cold, hot = (middle, hot) if pass1(middle) >= target_pass1 else (cold, middle)
    return math.exp(-(cold + hot) / 2)


@torch.inference_mode()
def _read_solutions(
    model: PreTrainedModel, world: str | World, num_prompts: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Logits [S, M, V] and labels [S, M] of all S solutions of the test prompts, and prompt indices [S]."""
    request = resolve_world(world).request
    rows, owners = [], []
    for owner, problem in enumerate(evaluation_problems(num_prompts)):
        prompt = encode(as_prompt(request.question(problem)))
        for text in countdown.solutions(problem, request.notation):
            rows.append(prompt + encode(as_completion(text)))
            owners.append(owner)
    ids, shown = torch.tensor(rows, device=model.device), len(prompt)
    logits = model(input_ids=ids).logits[:, shown - 1 : -1].double()
    return logits, ids[:, shown:], torch.tensor(owners, device=model.device)


def _solution_mass(
    logits: torch.Tensor, labels: torch.Tensor, owners: torch.Tensor, temperature: float
) -> torch.Tensor:
    """Probability of all solutions together, per prompt."""
    logprobs = (logits / temperature).log_softmax(dim=-1).gather(-1, labels[..., None]).sum(dim=(1, 2))
    return logits.new_zeros(int(owners[-1]) + 1).index_add(0, owners, logprobs.exp())
