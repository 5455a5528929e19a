"""Token batches for tiny models: random sequences of uneven length, padded on either side."""

import torch
from torch import Tensor

PAD = 0


def sequences(vocab_size: int, lengths=(5, 9, 7), prompt=2, seed=0) -> list[tuple[Tensor, Tensor]]:
    """(input_ids [S], labels [S]) pairs; the labels of the first `prompt` tokens are ignored."""
    make = torch.Generator().manual_seed(seed)
    pairs = []
    for length in lengths:
        ids = torch.randint(3, vocab_size, (length,), generator=make)
        pairs.append((ids, torch.where(torch.arange(length) < prompt, -100, ids)))
    return pairs


def padded(pairs: list[tuple[Tensor, Tensor]], side: str = "right") -> dict[str, Tensor]:
    """One batch with attention mask, position ids and labels."""
    width = max(len(ids) for ids, _ in pairs)
    rows = {"input_ids": [], "attention_mask": [], "position_ids": [], "labels": []}
    for ids, labels in pairs:
        missing = width - len(ids)

        def pad(values, fill, missing=missing):
            filler = values.new_full((missing,), fill)
            return torch.cat((filler, values) if side == "left" else (values, filler))

        rows["input_ids"].append(pad(ids, PAD))
        rows["attention_mask"].append(pad(torch.ones_like(ids), 0))
        rows["position_ids"].append(pad(torch.arange(len(ids)), 0))
        rows["labels"].append(pad(labels, -100))
    return {name: torch.stack(values) for name, values in rows.items()}
