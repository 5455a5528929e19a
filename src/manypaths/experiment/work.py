"""What each stage of the built-in experiment does: function(folder, parents, **parameters) -> JSON result.

A stage writes its model into `folder`; `parents` holds (folder, result) of the stages before it. A stage whose parent
was skipped is skipped for the same reason.
"""

import warnings
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import LlamaForCausalLM

from ..worlds import (
    WORLDS,
    countdown_reward,
    evaluate,
    load_base,
    match_sharpness,
    rl_dataset,
    sft_dataset,
    sharpen,
)
from ..worlds.tokenizer import build_tokenizer

Parents = tuple[tuple[Path, dict[str, Any]], ...]
QUIET = {
    "report_to": "none",
    "disable_tqdm": True,
    "save_strategy": "no",
    "bf16": False,
    "gradient_checkpointing": False,
}


def quiet() -> None:
    transformers.logging.set_verbosity_error()
    warnings.filterwarnings("ignore", category=FutureWarning)


def base(folder: Path, parents: Parents, *, world: str) -> dict[str, Any]:
    """The world's base model, untrained."""
    load_base(world)[0].save_pretrained(folder)
    return {}


def sharpened(folder: Path, parents: Parents, *, world: str) -> dict[str, Any]:
    """The base with sharper logits, so that its pass@1 equals that of the evaluation in `parents`."""
    target = parents[0][1]["scores"]["pass@1"]["value"]
    model = load_base(world)[0]
    try:
        scale = match_sharpness(model, world, target)
    except ValueError as error:
        return {"skipped": str(error)}
    sharpen(model, scale).save_pretrained(folder)
    return {"logit_scale": scale}


def fine_tuned(
    folder: Path,
    parents: Parents,
    *,
    world: str,
    seed: int,
    objective: str,
    objective_kwargs: dict[str, Any],
    epochs: int,
    calibration_fraction: float,
) -> dict[str, Any]:
    """SFT of the world's base on its demonstrations."""
    from ..training.sft import SFTConfig, SFTTrainer

    quiet()
    model, tokenizer = load_base(world)
    settings = WORLDS[world].settings
    config = SFTConfig(
        output_dir=str(folder / "trainer"),
        objective=objective,
        objective_kwargs=objective_kwargs,
        calibration_fraction=calibration_fraction,
        calibration_sequences=200,
        num_train_epochs=epochs,
        per_device_train_batch_size=settings["sft_batch_size"],
        learning_rate=settings["sft_learning_rate"],
        warmup_steps=settings["sft_warmup_steps"],
        lr_scheduler_type="linear",
        completion_only_loss=True,
        logging_steps=10,
        seed=seed,
        use_cpu=True,
        **QUIET,
    )
    trainer = SFTTrainer(model, config, train_dataset=sft_dataset(world, seed), processing_class=tokenizer)
    trainer.train()
    trainer.model.save_pretrained(folder)
    kept = ("loss", "ce", "objective", "entropy", "gate_mean", "kept_share", "effective_token_share", "mask_rate")
    history = [row for row in trainer.state.log_history if "loss" in row]
    calibration = trainer.calibration
    return {
        "training": {name: [row[name] for row in history] for name in kept if name in history[0]},
        "calibration": None if calibration is None else str(calibration),
    }


def reinforced(folder: Path, parents: Parents, *, world: str, seed: int, steps: int) -> dict[str, Any]:
    """GRPO from the model in `parents`, rewarded for exactly valid answers."""
    from ..training.grpo import GRPOConfig, train_grpo

    quiet()
    if "skipped" in parents[0][1]:
        return parents[0][1]
    settings = WORLDS[world].settings
    config = GRPOConfig(
        output_dir=str(folder / "trainer"),
        max_steps=steps,
        per_device_train_batch_size=settings["rl_prompts_per_step"] * settings["rl_samples_per_prompt"],
        num_generations=settings["rl_samples_per_prompt"],
        max_completion_length=settings["max_completion_length"],
        learning_rate=settings["rl_learning_rate"],
        lr_scheduler_type="constant",
        temperature=settings["temperature"],
        beta=0.0,
        preflight_prompts=0,  # a base without any reward is one of the controls
        logging_steps=1,
        seed=seed,
        use_cpu=True,
        **QUIET,
    )
    model = LlamaForCausalLM.from_pretrained(parents[0][0])
    trainer = train_grpo(model, rl_dataset(world, seed), countdown_reward, config, processing_class=build_tokenizer())
    trainer.model.save_pretrained(folder)
    history = [row for row in trainer.state.log_history if "reward" in row]
    return {
        "reward": [row["reward"] for row in history],
        "zero_variance": [row["frac_reward_zero_std"] for row in history],
    }


def evaluated(
    folder: Path, parents: Parents, *, world: str, seed: int, temperature: float, num_prompts: int, num_samples: int
) -> dict[str, Any]:
    """All scores of the model in `parents`."""
    if "skipped" in parents[0][1]:
        return parents[0][1]
    torch.manual_seed(seed)
    model = LlamaForCausalLM.from_pretrained(parents[0][0]).eval()
    return evaluate(model, world, seed=seed, num_prompts=num_prompts, num_samples=num_samples, temperature=temperature)
