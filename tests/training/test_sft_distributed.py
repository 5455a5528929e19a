"""Two processes train as one with batches twice the size, even if one of them never sees a trained token."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

import two_ranks
from runs import lively_llama, trainer

pytestmark = pytest.mark.slow


def start(folder: Path, rank: int, port: int) -> subprocess.Popen:
    environment = os.environ | {
        "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port), "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    command = [sys.executable, two_ranks.__file__, str(folder), "2"]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


@pytest.fixture(scope="module")
def results(tokenizer, chats, tmp_path_factory):
    """{number of ranks: {case: what it logged}}; two processes with batches of 2, and this one with batches of 4."""
    folder = tmp_path_factory.mktemp("ranks")
    tokenizer.save_pretrained(folder)
    prepared = trainer(lively_llama(len(tokenizer)), chats.select(range(8)), tokenizer, folder).train_dataset
    rows = [{"input_ids": row["input_ids"], "labels": row["labels"]} for row in prepared]
    (folder / "rows.json").write_text(json.dumps(rows))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    pair = [start(folder, rank, port) for rank in range(2)]
    try:
        two_ranks.main(folder, rows_per_rank=4)
        for process in pair:
            output = process.communicate(timeout=120)[0]
            assert process.returncode == 0, output[-3000:]
    finally:
        for process in pair:
            process.kill()
    return {ranks: json.loads((folder / f"{ranks}.json").read_text()) for ranks in (1, 2)}


@pytest.mark.parametrize("case", ("sed", "eksft", "asft with an empty rank"))
def test_two_ranks_train_as_one(case, results):
    one, two = results[1][case], results[2][case]
    assert len(one["steps"]) == len(two["steps"]) == 2
    for expected, got in zip(one["steps"], two["steps"], strict=True):
        same = ("loss", "grad_norm", "ce", "objective", "gate_mean", "kept_share", "entropy", "mean_token_accuracy")
        for metric in (*same, *(name for name in expected if name.startswith(("kl_", "mask_")))):
            assert got[metric] == pytest.approx(expected[metric], rel=1e-4, abs=1e-6), metric
    assert two["weights"] == pytest.approx(one["weights"], rel=1e-6)
    if case == "sed":
        assert two["threshold"] == pytest.approx(one["threshold"], rel=1e-5)
