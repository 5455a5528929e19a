"""Contracts that every fine-tuning loss has to keep, as pytest tests for anybody's objective or trainer.

    pip install pytest
    pytest --pyargs manypaths.testing.contracts --objective my_loss:half_known
    pytest --pyargs manypaths.testing.contracts --trainer my_framework:step

An **objective** is a function of per-token statistics (docs/adding_an_objective.md), or a registered name. It is checked
by itself and inside `manypaths.SFTTrainer`.

A **trainer** is one function, `step(model, batches)`: what a framework does between two optimizer updates.

- `model`: a transformers causal language model, or a PEFT model of one.
- `batches`: the micro-batches of this rank, each a dict of int64 tensors [B, S]: `input_ids`, `labels` (aligned with the
  input, -100 where nothing is trained) and either `attention_mask` (right padding) or `position_ids` (documents packed
  into one row).
- It runs forward and backward over all of them, leaves the gradients of the whole step in the parameters' `.grad`,
  updates nothing, and returns the loss of the step.
- Under `torch.no_grad()` it returns the evaluation loss of `batches` and leaves `.grad` alone.
- In a process group (gloo, two ranks) every rank is called with its own batches and ends with the same gradients.

`manypaths.testing.trainers` holds three such functions to copy from: our trainer, stock TRL's, and `attach`.
"""
