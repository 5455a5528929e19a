"""Where stages run: warm worker processes on this machine, or a Ray cluster. The YAML, and the numbers, are the same."""

import json
import os
import queue
import select
import subprocess
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..config import helped
from .stages import Executor

RETRIES = 3  # of a Ray task whose worker or node is lost
EXECUTORS = ("local", "ray")


@dataclass
class Compute:
    """Where the stages of an experiment run."""

    executor: str = helped("local", "local, or ray.")
    workers: int = helped(2, "Stages at the same time on this machine; with GPUs at most as many as these allow.")
    gpus_per_stage: int | None = helped(None, "GPUs of each stage: num_processes, or 1, where there are any.")
    cpus_per_stage: int = helped(1, "Threads of each stage; on a cluster, the CPUs that it reserves.")
    num_processes: int | None = helped(None, "Processes of each training stage.")
    accelerate_config: str | None = helped(None, "How these work together: multi_gpu, fsdp2, zero2, zero3, or a file.")
    address: str | None = helped(None, "Of a Ray cluster; auto finds the one here. Without it one is started here.")

    def __post_init__(self) -> None:
        if self.executor not in EXECUTORS:
            raise ValueError(f"executor is {self.executor!r}; choose one of {', '.join(EXECUTORS)}.")
        if self.workers < 1 or self.cpus_per_stage < 1:
            raise ValueError(f"workers ({self.workers}) and cpus_per_stage ({self.cpus_per_stage}) must be at least 1.")

    @property
    def launch(self) -> dict[str, Any]:
        """How a training stage is started; empty where it runs in one process."""
        if self.accelerate_config is None and self.num_processes in (None, 1):
            return {}
        given = {"num_processes": self.num_processes, "accelerate_config": self.accelerate_config}
        return {name: value for name, value in given.items() if value is not None}

    def gpus(self, present: bool) -> int:
        """GPUs of each stage."""
        return (self.num_processes or 1) * present if self.gpus_per_stage is None else self.gpus_per_stage

    @property
    def environment(self) -> dict[str, str]:
        """More threads than a stage's cores make it slower, and its numbers depend on how many there are."""
        count = str(self.cpus_per_stage)
        return {"OMP_NUM_THREADS": count, "MKL_NUM_THREADS": count, "TOKENIZERS_PARALLELISM": "false"}


def open_executor(compute: Compute) -> AbstractContextManager[Executor]:
    """Where stages run while it is open. Raises ValueError where the machine cannot."""
    return on_ray(compute) if compute.executor == "ray" else on_this_machine(compute)


@contextmanager
def on_this_machine(compute: Compute) -> Iterator[Executor]:
    """Worker processes that keep their imports; each has its own GPUs."""
    devices = visible_gpus()
    share = compute.gpus(bool(devices))
    if share > len(devices):
        raise ValueError(f"gpus_per_stage is {share}, and this machine shows {len(devices)} GPUs; lower it.")
    slots = min(compute.workers, len(devices) // share) if share else compute.workers
    workers = [
        Worker({**compute.environment, "CUDA_VISIBLE_DEVICES": ",".join(devices[place * share : (place + 1) * share])})
        for place in range(slots)
    ]
    free: queue.SimpleQueue[Worker] = queue.SimpleQueue()
    for worker in workers:
        free.put(worker)

    def run(task: Mapping[str, Any]) -> dict[str, Any]:
        worker = free.get()
        try:
            return worker.run(task)
        finally:
            free.put(worker)

    pool = ThreadPoolExecutor(slots)
    try:
        yield Executor(lambda task: pool.submit(run, task), slots)
    finally:
        for worker in workers:
            worker.stop()
        pool.shutdown(cancel_futures=True)


class Worker:
    """One process of `worker.py`, started when it is first needed, and again after it was killed."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self.environment = environment
        self.process: subprocess.Popen | None = None

    def run(self, task: Mapping[str, Any]) -> dict[str, Any]:
        """The worker's answer; ChildProcessError when it was killed."""
        if self.process is None or self.process.poll() is not None:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "manypaths.experiment.worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                start_new_session=True,  # Ctrl-C is for the parent
                env={**os.environ, **self.environment},
            )
        try:
            self.process.stdin.write(json.dumps(task) + "\n")
            self.process.stdin.flush()
            # A process that the worker started may hold its output open, so the end of the worker is asked for, too.
            while not select.select([self.process.stdout], [], [], 1.0)[0] and self.process.poll() is None:
                pass
            line = self.process.stdout.readline() if select.select([self.process.stdout], [], [], 0)[0] else ""
        except BrokenPipeError:
            line = ""
        if line:
            return json.loads(line)
        code = self.process.wait()
        why = f"signal {-code}; signal 9 often means too little memory" if code < 0 else f"exit code {code}"
        raise ChildProcessError(f"the worker process ended ({why})")

    def stop(self) -> None:
        if self.process is not None:
            self.process.stdin.close()  # which ends it, and what it has started
            try:
                self.process.wait(timeout=15)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


def visible_gpus() -> list[str]:
    """The names of this machine's GPUs as CUDA_VISIBLE_DEVICES takes them."""
    import torch

    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is not None:
        return [name for name in given.split(",") if name.strip()]
    return [str(place) for place in range(torch.cuda.device_count())]


@contextmanager
def on_ray(compute: Compute) -> Iterator[Executor]:
    """Stages as Ray tasks: tried again when a worker or a node is lost. Files lie on storage that all nodes share."""
    try:
        import ray
    except ImportError as error:
        raise ValueError("executor ray needs Ray: pip install 'manypaths[ray]'.") from error
    if started := not ray.is_initialized():
        new = {"num_cpus": compute.workers * compute.cpus_per_stage, "include_dashboard": False}
        try:
            ray.init(compute.address or "local", log_to_driver=False, logging_level="ERROR",
                     **({} if compute.address else new))  # fmt: skip
        except ConnectionError as error:
            raise ValueError(f"There is no Ray cluster at {compute.address}: {error}") from error
    folder = str(Path.cwd())
    modules = os.pathsep.join(filter(None, (folder, os.environ.get("PYTHONPATH"))))
    needs = {
        "num_cpus": compute.cpus_per_stage,
        "num_gpus": compute.gpus(ray.cluster_resources().get("GPU", 0) > 0),
        "max_retries": RETRIES,
        "runtime_env": {"env_vars": {**compute.environment, "PYTHONPATH": modules}},
    }
    remote = ray.remote(run_in)
    try:  # as many slots as there may be stages: Ray knows itself how many fit
        yield Executor(
            lambda task: remote.options(name=task["name"], **needs).remote(folder, dict(task)).future(), 1 << 16
        )
    finally:
        if started:
            ray.shutdown()


def run_in(folder: str, task: dict[str, Any]) -> dict[str, Any]:
    """A Ray task: the stage, from the folder that the experiment was started in."""
    from .worker import run_stage

    if Path(folder).is_dir():
        os.chdir(folder)
    return run_stage(task)
