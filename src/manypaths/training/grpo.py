"""The reinforcement-learning stage on TRL's GRPOTrainer, after a preflight that refuses a hopeless run."""

import inspect
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from statistics import fmean
from typing import Any

import trl
from datasets import Dataset
from torch import nn
from transformers import TrainerCallback

from ..data.formats import check_tokenizer_fits
from ..functions import told
from ..generation.prompts import is_conversation
from ..generation.samples import Sample, Sampling
from ..generation.transformers_backend import end_token_ids, sample
from ..grading.graders import Grader, completion_text, grade_samples, resolve_grader
from ..run_folder import shortened
from .config import GRPOConfig
from .log_lines import in_lines

LOW_COVERAGE = 2.0  # different right completions of a prompt that has several


@dataclass(frozen=True)
class Preflight:
    """What sampling a few groups showed. Shares lie in [0, 1]; lengths are tokens."""

    num_prompts: int
    num_generations: int
    mean_reward: float
    zero_variance_share: float  # groups in which all rewards are equal: they give no gradient
    finished_share: float  # completions that end with an end token
    mean_length: float
    several_right: int = (
        0  # prompts with two or more right completions: the reward is what a 1 of every reward adds up to
    )
    distinct_right: float | None = None  # different right completions of these prompts, on average

    def __str__(self) -> str:
        return (
            f"preflight: {self.num_prompts} prompts x {self.num_generations} completions, "
            f"mean reward {self.mean_reward:.3f}, groups without variance {self.zero_variance_share:.0%}, "
            f"ended by themselves {self.finished_share:.0%}, mean length {self.mean_length:.0f} tokens"
        ) + (f", different right completions {self.distinct_right:.1f} a prompt" if self.several_right else "")


def train_grpo(
    model: str | nn.Module,
    dataset: Dataset,
    rewards: str | Grader | Sequence[str | Grader],
    config: GRPOConfig,
    *,
    eval_dataset: Dataset | None = None,
    processing_class: Any = None,
    peft_config: Any = None,
    quantization_config: Any = None,
    callbacks: Sequence[TrainerCallback] = (),
    resume_from_checkpoint: str | bool | None = None,
) -> trl.GRPOTrainer:
    """Train with GRPO and give the trainer back; `trainer.model` is the trained model.

    Args:
        model: a folder, hub id, or loaded causal language model (its tokenizer then is `processing_class`).
        dataset: a column `prompt` (text or conversations) and the columns the rewards read.
        rewards: names, `module:function`s or functions; their values are added.
        config: `preflight_prompts=0` skips the preflight. Do so where no reward is expected, as when
            reinforcement learning on an untrained base is itself the experiment.

    Raises ValueError, before the first step: unknown reward, no `prompt` column, conversations without a chat
    template, a tokenizer larger than the model, no completion that ends, no group with different rewards. And at any
    time: a reward that raises, or gives something else than a finite number or None ("does not apply") for each completion,
    or a completion to which none applies.
    """
    names = [rewards] if isinstance(rewards, str) or callable(rewards) else rewards
    functions = [resolve_grader(name) for name in names]
    if "prompt" not in dataset.column_names:
        raise ValueError(f"GRPO needs a column prompt; the data has {', '.join(dataset.column_names)}.")
    trainer = trl.GRPOTrainer(
        model=model,
        reward_funcs=functions,
        args=config,
        train_dataset=dataset,
        eval_dataset=eval_dataset,
        processing_class=processing_class,
        peft_config=peft_config,
        quantization_config=quantization_config,
        callbacks=list(callbacks),
    )
    in_lines(trainer)
    tokenizer = getattr(trainer.processing_class, "tokenizer", trainer.processing_class)
    trainer.reward_funcs = checked(trainer.reward_funcs, names, set(end_token_ids(trainer.model, tokenizer)))
    check_tokenizer_fits(trainer.model, tokenizer)
    check_prompt_template(dataset[0]["prompt"], tokenizer)
    if config.preflight_prompts and resume_from_checkpoint is None:
        if trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled:
            trainer.accelerator.print("preflight: skipped, the model is sharded.")
        else:
            report = preflight(trainer.model, tokenizer, dataset, trainer.reward_funcs, config)
            trainer.accelerator.print(report)
            refuse_hopeless(report, config)
            if warning := low_coverage(report):
                trainer.accelerator.print(f"warning: {warning}")
    trainer.train(resume_from_checkpoint=resume_from_checkpoint)
    return trainer


def check_prompt_template(prompt: Any, tokenizer: Any) -> None:
    if is_conversation(prompt) and tokenizer.chat_template is None:
        raise ValueError(
            "The prompts are conversations but the tokenizer has no chat template. Give it one at the SFT "
            "stage (--chat_template_path), or use plain text prompts."
        )


def preflight(
    model: nn.Module, tokenizer: Any, dataset: Dataset, rewards: Sequence[Grader], config: GRPOConfig
) -> Preflight:
    """Sample one group each for evenly spaced prompts, as the training would, and grade them."""
    count = min(config.preflight_prompts, len(dataset))
    rows = [dataset[index * len(dataset) // count] for index in range(count)]
    sampling = Sampling(
        num_samples=config.num_generations,
        temperature=config.temperature,
        top_p=config.top_p,
        top_k=config.top_k,
        max_new_tokens=config.max_completion_length,
        seed=config.seed,
    )
    prompts = [row["prompt"] for row in rows]
    groups = sample(model, tokenizer, prompts, sampling, chat_template_kwargs=config.chat_template_kwargs)
    graded = grade(rows, groups, rewards, config.reward_weights)
    every = [one for group in groups for one in group]
    full = sum(config.reward_weights or [1.0] * len(rewards)) - 1e-9
    right = [
        [one.text.strip() for one, value in zip(*pair, strict=True) if value >= full]
        for pair in zip(groups, graded, strict=True)
    ]
    several = [len({*texts}) for texts in right if len(texts) > 1]
    return Preflight(
        num_prompts=count,
        num_generations=config.num_generations,
        mean_reward=fmean(value for group in graded for value in group),
        zero_variance_share=fmean(math.isclose(min(group), max(group), abs_tol=1e-9) for group in graded),
        finished_share=fmean(one.finished for one in every),
        mean_length=fmean(len(one.token_ids) for one in every),
        several_right=len(several),
        distinct_right=fmean(several) if several else None,
    )


def grade(
    rows: Sequence[dict[str, Any]],
    groups: Sequence[Sequence[Sample]],
    rewards: Sequence[Grader],
    weights: Sequence[float] | None = None,
) -> list[list[float]]:
    """The weighted sum of the rewards for every sample of every row. A reward of None counts as 0."""
    totals = [[0.0] * len(group) for group in groups]
    for reward, weight in zip(rewards, weights or [1.0] * len(rewards), strict=True):
        values = grade_samples(reward, rows, [row["prompt"] for row in rows], groups)
        totals = [
            [total + weight * (value or 0.0) for total, value in zip(*pair, strict=True)]
            for pair in zip(totals, values, strict=True)
        ]
    return totals


def checked(rewards: Sequence[Any], names: Sequence[Any], ends: set[int]) -> list[Any]:
    """The rewards, told which completions ended by themselves (`finished`), as an evaluation tells them, and checked.

    TRL takes NaN for None, "does not apply", and trains on zero loss where nothing else applies. Reward models, which are
    no functions, stay as they are. ends: ids of end tokens.
    """
    applicable: list[list[bool]] = []  # by each function, until all were called for the same completions

    def check(name: str, values: Sequence[Any], completions: Sequence[Any]) -> Sequence[Any]:
        if len(values) != len(completions):
            raise ValueError(f"Reward {name!r} gave {len(values)} values for {len(completions)} completions.")
        for value, completion in zip(values, completions, strict=True):
            if value is not None and not is_finite_number(value):
                raise ValueError(
                    f"Reward {name!r} gave {value!r} for the completion {shortened(completion_text(completion))}; "
                    "it must give a finite number, or None where it does not apply."
                )
        applicable.append([value is not None for value in values])
        if len(applicable) == len(rewards):
            for completion, *applies in zip(completions, *applicable, strict=True):
                if not any(applies):
                    shown = shortened(completion_text(completion))
                    raise ValueError(f"No reward applies to the completion {shown}: all gave None.")
            applicable.clear()
        return values

    return [
        reward if isinstance(reward, nn.Module) else with_checks(reward, name, ends, check)
        for reward, name in zip(rewards, names, strict=True)
    ]


def is_finite_number(value: Any) -> bool:
    try:
        return not isinstance(value, (str, bytes)) and math.isfinite(value)
    except (TypeError, ValueError, OverflowError):
        return False


def with_checks(
    reward: Grader, given: Any, ends: set[int], check: Callable[[str, Sequence[Any], Sequence[Any]], Sequence[Any]]
) -> Grader:
    """The reward with `finished` among its columns, its values checked, and an error of its own told in one line."""
    name = given if isinstance(given, str) else getattr(given, "__name__", type(given).__name__)

    @contextmanager
    def in_one_line() -> Iterator[None]:
        try:
            yield
        except Exception as error:
            raise ValueError(f"Reward {name!r} fails: {told(error)}.") from error

    def with_ends(columns: dict[str, Any]) -> dict[str, Any]:
        return {**columns, "finished": [bool(ids) and ids[-1] in ends for ids in columns["completion_ids"]]}

    if inspect.iscoroutinefunction(reward):

        async def called(**columns: Any) -> Sequence[Any]:
            with in_one_line():
                values = list(await reward(**with_ends(columns)))
            return check(name, values, columns["completions"])

    else:

        def called(**columns: Any) -> Sequence[Any]:
            with in_one_line():
                values = list(reward(**with_ends(columns)))
            return check(name, values, columns["completions"])

    return wraps(reward)(called)


def low_coverage(report: Preflight) -> str | None:
    """What to know where the right completions of a prompt are mostly one and the same; never a reason to refuse.

    The evidence is our own, from runs SFT, RL, evaluation in the two built-in worlds, with 64 samples a prompt; in `recall`
    groups of 16 fall below LOW_COVERAGE after 30 epochs of cross-entropy, and hardly ever for the base.
    """
    if report.several_right < 2 or report.distinct_right >= LOW_COVERAGE:
        return None
    return (
        f"low coverage: on the {report.several_right} prompts with several right completions, {report.distinct_right:.1f} of "
        "these are different. In two toy worlds the number of different right answers a prompt before RL went with pass@64 "
        "after it (leave-one-out R2 .73 over 35 points and .57 over 29); nothing forecast pass@1, larger models were not "
        "measured, and a few prompts are a rough estimate. More right answers a prompt in SFT raise it: manypaths augment."
    )


def refuse_hopeless(report: Preflight, config: GRPOConfig) -> None:
    """ValueError when training could not learn anything from groups like these."""
    drawn = f"Preflight drew {report.num_prompts} x {report.num_generations} completions"
    skip = "To train all the same, set preflight_prompts to 0."
    if report.finished_share == 0:
        raise ValueError(
            f"{drawn} and none ended within {config.max_completion_length} tokens. Raise "
            "max_completion_length, or check that SFT trained the end token on prompts like these. " + skip
        )
    if report.zero_variance_share == 1:
        cure = "Use prompts of middling difficulty, or raise num_generations."
        if report.mean_reward <= 0:
            cure = "Train with SFT first, use easier prompts, or try the reward on a right answer."
        raise ValueError(
            f"{drawn} and in every group all rewards are equal (mean {report.mean_reward:.3f}), so that "
            f"GRPO has no gradient. {cure} {skip}"
        )
