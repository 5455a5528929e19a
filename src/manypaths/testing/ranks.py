"""One step on two gloo ranks, in processes forked from a clean server: torch cannot fork after a backward."""

import multiprocessing
import os
import socket
import tempfile
from pathlib import Path

import torch

from .samples import Batch, Step, Taken, llama, take

ENVIRONMENT = {"MASTER_ADDR": "127.0.0.1", "WORLD_SIZE": "2", "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}


def on_two_ranks(step: Step, batches: list[list[Batch]], timeout: float = 120.0) -> list[Taken]:
    """What `step` leaves on rank 0 and rank 1, each with its own micro-batches of `batches`.

    `step` has to be picklable: a function of an importable module, or a partial of one.

    Raises:
        RuntimeError: a rank failed, or did not end within `timeout` seconds.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__, "manypaths.training.sft"])
    with socket.socket() as probe, tempfile.TemporaryDirectory() as folder:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        probe.close()
        ranks = [context.Process(target=run_rank, args=(step, batches[r], r, port, folder)) for r in range(2)]
        for process in ranks:
            process.start()
        for process in ranks:
            process.join(timeout)
        hung = any(process.is_alive() for process in ranks)
        for process in ranks:
            process.kill()
            process.join()
        if hung:
            raise RuntimeError(f"a rank waited for the other one for {timeout:.0f} s")
        results = [torch.load(file, weights_only=False) for file in sorted(Path(folder).glob("*.pt"))]
    for result in results:
        if isinstance(result, str):
            raise RuntimeError(result)
    if len(results) < 2:
        raise RuntimeError("a rank died without a word")
    return results


def run_rank(step: Step, batches: list[Batch], rank: int, port: int, folder: str) -> None:
    os.environ.update(ENVIRONMENT | {"RANK": str(rank), "LOCAL_RANK": str(rank), "MASTER_PORT": str(port)})
    torch.set_num_threads(1)
    try:
        torch.distributed.init_process_group("gloo", rank=rank, world_size=2)
        result = take(step, llama(), batches)
    except Exception as error:
        result = f"rank {rank}: {type(error).__name__}: {error}"
    torch.save(result, Path(folder, f"{rank}.pt"))
    os._exit(0)  # without the destructors of process groups, which can wait for each other
