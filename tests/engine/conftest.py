"""Block sizes small enough that several chunks, row blocks and tiles exist; memory that starts as NaN."""

import types

import pytest
import torch

from manypaths.engine import chunked


@pytest.fixture
def small_blocks(monkeypatch):
    """Shrinks chunks to 5 rows, row blocks to 2 and tiles to 8 columns, for a head of T tokens and V words."""

    def shrink(T: int, V: int) -> None:
        sizes = {"CHUNK_ELEMENTS": 5 * V, "MODULE_ELEMENTS": 5 * V, "BLOCK_ELEMENTS": 2 * V, "TILE_ELEMENTS": 8 * T}
        for name, elements in sizes.items():
            monkeypatch.setattr(chunked, name, {"cpu": elements, "cuda": elements})
        monkeypatch.setattr(chunked, "MIN_TILE", 8)

    return shrink


class PoisonedTorch(types.ModuleType):
    """torch, except that fresh memory holds NaN."""

    def __getattr__(self, name):
        return getattr(torch, name)

    @staticmethod
    def empty(*args, **kwargs):
        return torch.empty(*args, **kwargs).fill_(torch.nan)

    @staticmethod
    def empty_like(*args, **kwargs):
        return torch.empty_like(*args, **kwargs).fill_(torch.nan)


@pytest.fixture
def poisoned_memory(monkeypatch):
    monkeypatch.setattr(chunked, "torch", PoisonedTorch("torch"))
