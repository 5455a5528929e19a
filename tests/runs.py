"""Short training runs of tiny models through the trainer, and what they leave."""

import json
from pathlib import Path

import torch
from datasets import Dataset
from safetensors.torch import save_file

import manypaths
from batches import padded
from conftest import tiny_llama

HYPERPARAMETERS = {"power": {"exponent": 0.5}, "sed": {"threshold": 0.03}, "eaft": {"top_k": 5}}


def lively_llama(vocab_size: int, seed: int = 0, **overrides):
    """A tiny model whose attention and logits matter: at the usual initialisation they are next to nothing."""
    return tiny_llama(vocab_size, seed, initializer_range=0.3, **overrides)


def trainer(model, data: Dataset, tokenizer, folder, *, evaluation: Dataset | None = None, peft_config=None, **options):
    """A trainer on the CPU that logs every step; plain SGD, so that runs compare to the last digits."""
    settings = dict(
        output_dir=str(folder), per_device_train_batch_size=4, max_steps=2, learning_rate=0.05, optim="sgd",
        lr_scheduler_type="constant", max_grad_norm=1e9, logging_steps=1, report_to="none", bf16=False,
        gradient_checkpointing=False, use_cpu=True, save_strategy="no", disable_tqdm=True, max_length=64,
    )  # fmt: skip
    return manypaths.SFTTrainer(
        model,
        manypaths.SFTConfig(**{**settings, **options}),
        train_dataset=data,
        eval_dataset=evaluation,
        processing_class=tokenizer,
        peft_config=peft_config,
    )


def steps(run) -> list[dict[str, float]]:
    return [row for row in run.state.log_history if "loss" in row]


def tokenised(run, rows: Dataset | None = None) -> dict[str, torch.Tensor]:
    """The trainer's own prepared examples, as one padded batch."""
    rows = run.train_dataset if rows is None else rows
    pairs = [(torch.tensor(row["input_ids"]), torch.tensor(row["labels"])) for row in rows]
    return padded(pairs)


def label_rows(model, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits [T, V] and labels [T] of all trained tokens, from a plain forward."""
    with torch.no_grad():
        logits = model.eval()(**{key: value for key, value in batch.items() if key != "labels"}).logits[:, :-1]
    valid = batch["labels"][:, 1:] != -100
    return logits[valid], batch["labels"][:, 1:][valid]


def checkpoint(folder: Path, step: int, ranks: int = 1) -> Path:
    """A checkpoint as the trainer leaves it."""
    place = folder / f"checkpoint-{step}"
    place.mkdir(parents=True)
    save_file({"weight": torch.zeros(64)}, place / "model.safetensors")
    states = ["rng_state.pth"] if ranks == 1 else [f"rng_state_{rank}.pth" for rank in range(ranks)]
    for name in ("optimizer.pt", "scheduler.pt", *states):
        torch.save({"state": torch.zeros(64)}, place / name)
    (place / "trainer_state.json").write_text(json.dumps({"global_step": step}))
    return place
