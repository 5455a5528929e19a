"""Three trainers as `step(model, batches)` functions: ours, stock TRL's, and a plain loop over an attached model."""

import tempfile
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from .samples import VOCABULARY, Batch


def sft(model: nn.Module, batches: list[Batch], objective: str = "nll", objective_kwargs: dict | None = None) -> float:
    """`manypaths.SFTTrainer` with any objective."""
    from ..training.config import SFTConfig
    from ..training.sft import SFTTrainer

    return through_trl(SFTTrainer, SFTConfig, model, batches, objective=objective, objective_kwargs=objective_kwargs)


def trl(model: nn.Module, batches: list[Batch]) -> float:
    """Stock `trl.SFTTrainer`."""
    import trl

    return through_trl(trl.SFTTrainer, trl.SFTConfig, model, batches)


def attached(model: nn.Module, batches: list[Batch], objective: str = "nll") -> Tensor:
    """The loop of docs/training.md: `attach`, the tokens of the whole step as the divisor, gradients summed over ranks."""
    from ..training.attachment import attach, detach

    items = sum((batch["labels"][:, 1:] != -100).sum() for batch in batches)
    several = dist.is_initialized()
    if several:
        dist.all_reduce(items)
    attach(model, objective)
    try:
        total = torch.zeros(())
        for batch in batches:
            loss = model(**batch, num_items_in_batch=items).loss
            if loss.requires_grad:
                loss.backward()
            total += loss.detach()
    finally:
        detach(model)
    for parameter in model.parameters() if several else ():
        dist.all_reduce(parameter.grad)
    return total


def through_trl(
    trainer_class: type, config_class: type, model: nn.Module, batches: list[Batch], **options: Any
) -> float:
    """One step, or one evaluation, of a trainer with TRL's arguments: its own loop, with our batches as its data."""
    from datasets import Dataset
    from transformers import PrinterCallback, TrainerCallback

    training = torch.is_grad_enabled()
    ranks = dist.get_world_size() if dist.is_initialized() else 1
    row = {"input_ids": [3, 4], "labels": [3, 4]}
    data = Dataset.from_list([{"index": index // ranks, **row} for index in range(ranks * len(batches))])
    gradients: dict[str, Tensor] = {}

    class Keep(TrainerCallback):
        def on_pre_optimizer_step(self, *_: Any, **__: Any) -> None:
            gradients.update({n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None})

    with tempfile.TemporaryDirectory() as folder:
        config = config_class(
            folder, max_steps=1, per_device_train_batch_size=1, per_device_eval_batch_size=1, optim="sgd",
            learning_rate=0.0, max_grad_norm=0.0, gradient_accumulation_steps=len(batches), report_to="none", bf16=False,
            use_cpu=True, gradient_checkpointing=False, save_strategy="no", remove_unused_columns=False,
            disable_tqdm=True, dataset_kwargs={"skip_prepare_dataset": True}, train_sampling_strategy="sequential",
            **options,
        )  # fmt: skip
        trainer = trainer_class(
            model, config, lambda rows: dict(batches[rows[0]["index"]]), data, data, tokenizer(), callbacks=[Keep()]
        )
        trainer.remove_callback(PrinterCallback)
        loss = trainer.train().training_loss if training else trainer.evaluate()["eval_loss"]
    for name, parameter in model.named_parameters():
        parameter.grad = gradients.get(name)
    return loss


def tokenizer() -> Any:
    """Only for the trainers' constructors: the batches are tokens already."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    words = {"<pad>": 0, "<eos>": 1} | {str(index): index for index in range(2, VOCABULARY)}
    core = Tokenizer(models.WordLevel(words, unk_token="<pad>"))
    return PreTrainedTokenizerFast(tokenizer_object=core, pad_token="<pad>", eos_token="<eos>")
