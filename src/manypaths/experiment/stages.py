"""Stages that survive a kill: each is cached under a hash of everything that matters to its result.

A stage is a name, a function given as "module:function", JSON parameters and the stages it builds on. Its folder
appears all at once, by a rename, so that an interrupted stage leaves nothing and a finished one never runs again.
"""

import contextlib
import hashlib
import json
import multiprocessing
import os
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..functions import import_function

RESULT = "result.json"


@dataclass(frozen=True)
class Stage:
    """One unit of work.

    function: "module:function", called as function(folder, parents, **parameters) -> JSON result, where `parents`
        is a tuple of (folder, result) in the order of `after`. It may write files into `folder`.
    cost: expected seconds, for the order and the time estimate only.
    """

    name: str
    function: str
    parameters: dict[str, Any]
    after: tuple["Stage", ...] = ()
    cost: float = 1.0
    environment: dict[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """Hash of function, parameters, environment and the keys of all stages before it."""
        content = [self.function, self.parameters, self.environment, [stage.key for stage in self.after]]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]

    def folder(self, root: Path) -> Path:
        return root / f"{self.name}-{self.key}"

    def result(self, root: Path) -> dict[str, Any] | None:
        path = self.folder(root) / RESULT
        return json.loads(path.read_text()) if path.is_file() else None


class StageFailed(ValueError):
    """A stage raised; the message names it and its log."""


def run_stages(
    stages: list[Stage], root: Path, workers: int, on_done: Callable[[Stage, dict[str, Any], bool], None]
) -> None:
    """Run every stage whose result is not there yet, longest chains first, on `workers` processes of one thread each.

    on_done(stage, result, cached) is called once per stage. Raises StageFailed; finished stages stay.
    """
    root.mkdir(parents=True, exist_ok=True)
    for leftover in root.glob(".partial-*"):
        if not alive(int(leftover.name.rpartition("-")[2])):
            shutil.rmtree(leftover, ignore_errors=True)
    finished: set[str] = set()
    waiting = []
    for stage in stages:
        result = stage.result(root)
        if result is None:
            waiting.append(stage)
        else:
            finished.add(stage.key)
            on_done(stage, result, True)
    if not waiting:
        return
    remaining = chain_costs(waiting)
    not_ours = set(multiprocessing.active_children())
    log = root / "worker.log"
    with (
        one_thread_each(),
        ProcessPoolExecutor(
            min(workers, len(waiting)), multiprocessing.get_context("spawn"), start_worker, (str(log), os.getpid())
        ) as pool,
    ):
        running: dict[Future, Stage] = {}
        try:
            while waiting or running:
                ready = [stage for stage in waiting if all(before.key in finished for before in stage.after)]
                for stage in sorted(ready, key=lambda stage: -remaining[stage.key])[: workers - len(running)]:
                    waiting.remove(stage)
                    running[pool.submit(run_stage, stage, str(root))] = stage
                done, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    stage = running.pop(future)
                    try:
                        result = future.result()
                    except Exception as error:
                        raise StageFailed(
                            f"{stage.name} failed: {type(error).__name__}: {error} (log: {log}). Finished stages are kept; "
                            "run the same command again to continue."
                        ) from error
                    finished.add(stage.key)
                    on_done(stage, result, False)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in set(multiprocessing.active_children()) - not_ours:
                process.terminate()
            raise


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def chain_costs(stages: list[Stage]) -> dict[str, float]:
    """Cost of the longest chain of stages that starts with each stage, by key."""
    costs: dict[str, float] = {}
    for stage in reversed(stages):  # a stage comes after those it builds on
        following = [
            costs[other.key] for other in stages if any(b.key == stage.key for b in other.after) and other.key in costs
        ]
        costs[stage.key] = stage.cost + max(following, default=0.0)
    return costs


@contextlib.contextmanager
def one_thread_each() -> Iterator[None]:
    """Workers read these when they start: threads that fight over cores are slower and less reproducible."""
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "TOKENIZERS_PARALLELISM")
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(OMP_NUM_THREADS="1", MKL_NUM_THREADS="1", TOKENIZERS_PARALLELISM="false")
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def start_worker(log: str, parent: int) -> None:
    """Sends the worker's output to a log and ends it when the parent is gone, however that was ended."""
    descriptor = os.open(log, os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o644)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def run_stage(stage: Stage, root: str) -> dict[str, Any]:
    """Run one stage in this process; its folder appears complete or not at all."""
    target = stage.folder(Path(root))
    partial = Path(root) / f".partial-{target.name}-{os.getpid()}"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    print(f"== {stage.name}", file=sys.stderr, flush=True)
    parents = tuple((before.folder(Path(root)), before.result(Path(root))) for before in stage.after)
    started = time.perf_counter()
    result = import_function(stage.function, "stage")(partial, parents, **stage.parameters)
    result = {**result, "seconds": round(time.perf_counter() - started, 3)}
    (partial / RESULT).write_text(json.dumps(result) + "\n")
    try:
        partial.rename(target)
    except OSError:  # another run of the same experiment was faster
        finished = stage.result(Path(root))
        if finished is None:
            raise
        shutil.rmtree(partial)
        return finished
    return result
