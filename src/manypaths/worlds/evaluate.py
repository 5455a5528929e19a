"""Everything measured about a model in a built-in world, in a few seconds on one CPU core.

Accuracy and coverage from samples, diversity, distance from the base, and what training made it forget.
Problems and side-task items never change; `seed` only drives the sampling. Intervals are 95 % t intervals
over prompts (or over items, for side tasks), so they are conditional on the one model evaluated.
"""

import hashlib
from collections.abc import Sequence
from random import Random
from statistics import fmean

import torch
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel

from ..evaluation.diversity import self_bleu
from ..evaluation.intervals import mean_interval
from ..evaluation.metrics import pass_at_k_curve
from .countdown import Problem, is_solution
from .data import evaluation_problems
from .model import load_base
from .pretrain import draw_countdown
from .sampling import Samples, sample
from .side_tasks import SIDE_TASKS
from .tokenizer import as_completion, as_prompt, encode
from .world import PRETRAINED, Request, World, resolve_world

DIVERSITY_PROMPTS = 40
SAMPLES_COMPARED = 16  # per prompt, for Self-BLEU and for the KL to the base
SIDE_ITEMS = 100
OLD_PROMPTS = 100
PRETRAINING_TEXTS = 200


def evaluate(
    model: PreTrainedModel,
    world: str | World,
    *,
    base: PreTrainedModel | None = None,
    seed: int = 0,
    num_prompts: int = 200,
    num_samples: int = 64,
    temperature: float = 1.0,
) -> dict:
    """Scores of `model` in `world`: {"scores": {name: {"value", "low", "high"}}, "per_prompt": {...}, ...}.

    Scores: pass@1, pass@2, ... pass@num_samples (powers of two), greedy, distinct_correct (different right
    answers among the samples), self_bleu (0..100), entropy and kl_to_base (nats per generated token, of the
    distribution sampled from, the latter KL(policy || base) over the full vocabulary), side_<task> and their
    mean side_tasks (greedy accuracy), base_countdown_loss (nats per answer token on fresh pre-training texts)
    and, where the world asks for a new notation, old_pass@1 and old_pass@<num_samples> on the old request.

    base: the model distances are measured from; the world's own base when None. The same arguments give the
    same result. Raises ValueError for an unknown world, too many prompts, fewer than two samples, or
    temperature <= 0.
    """
    world = resolve_world(world)
    if num_samples < 2 or temperature <= 0:
        raise ValueError(
            f"num_samples is {num_samples} and temperature {temperature}; "
            "draw at least two samples at a temperature above 0."
        )
    base = load_base(world)[0].to(model.device) if base is None else base
    problems = evaluation_problems(num_prompts)
    prompts = _prompts(world.request, problems)
    drawing = dict(num_samples=num_samples, temperature=temperature, seed=seed)
    samples = sample(model, prompts, **drawing)
    answers = samples.answers()
    right = _right_answers(answers, problems, world.request)
    greedy = _right_answers(sample(model, prompts, temperature=0).answers(), problems, world.request)
    per_prompt = {
        "num_correct": [len(texts) for texts in right],
        "num_distinct": [len(set(texts)) for texts in right],
        "greedy": [len(texts) for texts in greedy],
        "self_bleu": [
            self_bleu([text or "" for text in texts[:SAMPLES_COMPARED]]) for texts in answers[:DIVERSITY_PROMPTS]
        ],
        "entropy": _entropy(samples, temperature),
        "kl_to_base": _kl_to_base(base, prompts, samples, temperature),
    }
    values = {f"pass@{k}": curve for k, curve in _pass_curves(per_prompt["num_correct"], num_samples).items()}
    values["distinct_correct"] = per_prompt["num_distinct"]
    values |= {name: per_prompt[name] for name in ("greedy", "self_bleu", "entropy", "kl_to_base")}
    values |= _side_tasks(model, world)
    per_prompt["side_tasks"] = values["side_tasks"]
    values["base_countdown_loss"] = _pretraining_loss(model)
    if world.request != PRETRAINED:
        values |= _old_request(model, problems[:OLD_PROMPTS], drawing)
    return {
        "scores": {name: _score(numbers) for name, numbers in values.items()},
        "per_prompt": per_prompt,
        "num_prompts": num_prompts,
        "num_samples": num_samples,
        "temperature": temperature,
        "prompt_hash": hashlib.sha256("\n".join(prompts).encode()).hexdigest(),
        "sampling": {
            "seed": seed,
            "top_p": 1.0,
            "max_new_tokens": samples.tokens.shape[-1],
            "truncated": fmean(text is None for texts in answers for text in texts),
        },
    }


def _prompts(request: Request, problems: Sequence[Problem]) -> list[str]:
    return [as_prompt(request.question(problem)) for problem in problems]


def _score(values: Sequence[float]) -> dict[str, float | None]:
    interval = mean_interval(values)
    return {"value": interval.value, "low": interval.low, "high": interval.high}


def _right_answers(
    answers: Sequence[Sequence[str | None]], problems: Sequence[Problem], request: Request
) -> list[list[str]]:
    """The correct answers of each prompt, repetitions included."""
    return [
        [text for text in texts if text is not None and is_solution(text, problem, request.notation)]
        for texts, problem in zip(answers, problems, strict=True)
    ]


def _pass_curves(num_correct: Sequence[int], num_samples: int) -> dict[int, list[float]]:
    ks = [2**power for power in range(num_samples.bit_length()) if 2**power <= num_samples]
    return pass_at_k_curve(num_correct, num_samples, ks)


def _mean_of_generated(values: torch.Tensor, generated: torch.Tensor) -> list[float]:
    """[P, n, M] values to one mean over generated tokens per prompt."""
    return ((values * generated).sum(dim=(1, 2)) / generated.sum(dim=(1, 2))).tolist()


def _entropy(samples: Samples, temperature: float) -> list[float]:
    logprobs = (samples.logits / temperature).log_softmax(dim=-1)
    return _mean_of_generated(-(logprobs.exp() * logprobs).sum(dim=-1), samples.generated)


@torch.inference_mode()
def _kl_to_base(base: PreTrainedModel, prompts: Sequence[str], samples: Samples, temperature: float) -> list[float]:
    """Exact KL(policy || base) at the generated tokens of the first samples, which the base re-reads."""
    tokens = samples.tokens[:, :SAMPLES_COMPARED]
    generated, logits = samples.generated[:, :SAMPLES_COMPARED], samples.logits[:, :SAMPLES_COMPARED]
    shown = torch.tensor([encode(prompt) for prompt in prompts], device=tokens.device)
    rows = torch.cat((shown.repeat_interleave(tokens.shape[1], dim=0), tokens.flatten(0, 1)), dim=1)
    base_logits = base(input_ids=rows).logits[:, shown.shape[1] - 1 : -1].float().view_as(logits)
    policy, reference = (logits / temperature).log_softmax(dim=-1), base_logits.log_softmax(dim=-1)
    return _mean_of_generated((policy.exp() * (policy - reference)).sum(dim=-1), generated)


def _side_tasks(model: PreTrainedModel, world: World) -> dict[str, list[float]]:
    """Greedy right (1) or wrong (0) on SIDE_ITEMS fixed items of each side task of the world, and of all."""
    by_length: dict[int, list[tuple[str, str, str]]] = {}
    graded: dict[str, list[float]] = {}
    for name in (name for name in SIDE_TASKS if name in world.mixture):
        rng, graded[f"side_{name}"] = Random(name), []
        for question, expected in (SIDE_TASKS[name].draw(rng) for _ in range(SIDE_ITEMS)):
            by_length.setdefault(len(question.split()), []).append((name, question, expected))
    for group in by_length.values():
        drawn = sample(model, [as_prompt(question) for _, question, _ in group], temperature=0)
        for (name, question, expected), (answer,) in zip(group, drawn.answers(), strict=True):
            accepted = answer is not None and SIDE_TASKS[name].accepts(question, expected, answer)
            graded[f"side_{name}"].append(float(accepted))
    return {**graded, "side_tasks": [grade for grades in graded.values() for grade in grades]}


@torch.inference_mode()
def _pretraining_loss(model: PreTrainedModel) -> list[float]:
    """Mean nats per answer token, the end included, of fixed texts drawn like the pre-training Countdown."""
    rng = Random(0)
    pairs = [draw_countdown(rng) for _ in range(PRETRAINING_TEXTS)]
    shown = len(encode(as_prompt(pairs[0][0])))
    rows = torch.tensor([encode(as_prompt(question) + as_completion(answer)) for question, answer in pairs])
    rows = rows.to(model.device)
    logits = model(input_ids=rows).logits[:, shown - 1 : -1].float()
    return cross_entropy(logits.transpose(1, 2), rows[:, shown:], reduction="none").mean(dim=1).tolist()


def _old_request(model: PreTrainedModel, problems: Sequence[Problem], drawing: dict) -> dict[str, list[float]]:
    """Coverage of the request the base was pre-trained on, in its old notation."""
    answers = sample(model, _prompts(PRETRAINED, problems), **drawing).answers()
    num_correct = [len(texts) for texts in _right_answers(answers, problems, PRETRAINED)]
    num_samples = drawing["num_samples"]
    curves = pass_at_k_curve(num_correct, num_samples, (1, num_samples))
    return {f"old_pass@{k}": curve for k, curve in curves.items()}
