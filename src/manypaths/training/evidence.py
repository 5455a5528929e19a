"""What a model makes of given texts, token by token, with the preparation and engine of its training."""

import tempfile
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor, nn

from ..data.formats import check_trained_tokens
from ..models.lm_head import HeadHook, hidden_states_of
from ..models.reference_model import check_same_vocabulary
from .reduction import LOGGED, statistics_of


def prepared_batches(
    model: nn.Module, tokenizer: Any, dataset: Dataset, batch_size: int, **settings: Any
) -> list[dict[str, Tensor]]:
    """Batches of `input_ids`, `attention_mask` and `labels`, exactly as `SFTTrainer` would make them.

    settings: fields of `SFTConfig` that shape the data, such as `max_length` or `assistant_only_loss`.
    Raises ValueError when no token carries loss.
    """
    from .sft import SFTConfig, SFTTrainer

    with tempfile.TemporaryDirectory() as folder:  # trainers insist on an output folder
        config = SFTConfig(folder, report_to="none", use_cpu=model.device.type == "cpu", bf16=False, **settings)
        trainer = SFTTrainer(model, config, train_dataset=dataset, processing_class=tokenizer)
    check_trained_tokens(trainer.train_dataset)
    columns = {"input_ids", "labels", "seq_lengths", "position_ids"}
    rows = [{name: row[name] for name in columns & row.keys()} for row in trainer.train_dataset]
    return [trainer.data_collator(rows[start : start + batch_size]) for start in range(0, len(rows), batch_size)]


def row_statistics(
    model: nn.Module, batches: list[dict[str, Tensor]], reference: nn.Module | None = None
) -> Iterator[dict[str, Tensor]]:
    """Per row {statistic: [tokens that carry loss]}, on the CPU: logprob, entropy and is_top1.

    With a reference model also kl_policy_ref, KL(model || reference) over the whole vocabulary.
    Raises ValueError for a reference of another vocabulary.
    """
    want = LOGGED if reference is None else (*LOGGED, "kl_policy_ref")
    if reference is not None:
        check_same_vocabulary(model, reference)
    hooks = HeadHook(model), None if reference is None else HeadHook(reference)
    model.eval()
    for batch in batches:
        inputs = {name: values.to(model.device) for name, values in batch.items()}
        labels = inputs.pop("labels")
        call = partial(model, **inputs, use_cache=False)
        other = None if reference is None else hidden_states_of(hooks[1], partial(reference, **inputs, use_cache=False))
        score = partial(statistics_of, labels=labels, want=want, reference=other)
        with torch.no_grad():
            statistics, valid = hooks[0](call, score).result
        counts = valid.sum(dim=1).tolist()
        split = {name: values.float().cpu().split(counts) for name, values in statistics.items()}
        for place, count in enumerate(counts):
            if count:
                yield {name: parts[place] for name, parts in split.items()}
