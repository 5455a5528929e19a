"""Several processes train what one does on the same data, on every engine; the whole matrix is benchmarks/distribution.py."""

import importlib.util

import pytest
import torch

import many_ranks

pytestmark = [pytest.mark.slow, pytest.mark.heavy]
BOUND = 2e-5  # of an update, in float32; runs differ by the order of sums

RUNS = {
    ("ddp", 2): ("sed, calibrated", "packing", "reference, LoRA, head saved", "eksft over the step, accumulation"),
    ("ddp", 4): ("empty rank", "reference"),
    ("fsdp2", 2): (
        "tied head", "empty rank", "reference", "reference, LoRA, head saved", "cached reference, LoRA, head saved",
        "LoRA on the head",
    ),
    ("fully_shard", 2): ("root", "layers, freed", "head and norm, freed, reference", "every linear layer, freed, reference"),
    ("zero2", 2): ("empty rank", "reference"),
    ("zero3", 2): ("tied head", "empty rank", "reference", "reference, LoRA, head saved"),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    many_ranks.write_models(folder)
    return folder


@pytest.mark.parametrize(("engine", "ranks"), RUNS)
def test_many_ranks_train_as_one(engine, ranks, folder):
    if engine.startswith("zero") and importlib.util.find_spec("deepspeed") is None:
        pytest.skip("DeepSpeed is not installed.")
    cases = RUNS[engine, ranks]
    alone = [case for case in cases if not (folder / f"one-1-{case}.pt").exists()]
    said = many_ranks.finished(folder, "one", many_ranks.start(folder, "one", 1, alone), timeout=240) if alone else ""
    assert not said, said
    processes = many_ranks.start(folder, engine, ranks, cases)
    said = many_ranks.finished(folder, engine, processes, timeout=400)  # DeepSpeed's first start compiles
    assert not said, said
    for case in cases:
        one, many = (torch.load(folder / f"{name}-{case}.pt") for name in ("one-1", f"{engine}-{ranks}"))
        assert max(many_ranks.difference(one, many)) < BOUND, case
        for expected, got in zip(one["steps"], many["steps"], strict=True):
            for name in METRICS & expected.keys():
                assert got[name] == pytest.approx(expected[name], rel=1e-4, abs=1e-6), (case, name)


METRICS = {
    "loss", "grad_norm", "ce", "objective", "gate_mean", "kept_share", "entropy", "mean_token_accuracy", "mask_rate",
    "mask_rate_requested", "kl_ref_policy", "kl_policy_ref",
}  # fmt: skip
