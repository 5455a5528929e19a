"""A pool of worker processes that can be killed: deadlines for computer algebra that may never return."""

import atexit
import json
import os
import selectors
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from .comparison import Comparison

SOURCE_FOLDER = Path(__file__).resolve().parents[3]
CODE = f"import sys; sys.path[0] = {str(SOURCE_FOLDER)!r}; from manypaths.grading.worker import main; main()"
SECONDS_TO_START = 60.0  # importing sympy on a busy machine
STARTS = 3  # attempts before a worker that cannot start is an error
TIME_OUT, DIED = Comparison(False, "time-out"), Comparison(False, "worker died")
Pair = tuple[str, str]


class Worker:
    """One worker process and its two pipes."""

    def __init__(self) -> None:
        if not sys.executable:
            raise RuntimeError("Python does not know its own executable (sys.executable is not set).")
        self.errors = tempfile.TemporaryFile()  # noqa: SIM115  open as long as the process
        self.process = subprocess.Popen(
            [sys.executable, "-c", CODE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.errors
        )
        self.received = b""
        try:
            greeting = self.reply(SECONDS_TO_START)
        except ValueError:  # something else prints when Python starts
            greeting = "another line"
        if greeting != "ready":
            silent = greeting is None and self.alive
            self.kill()
            if silent:
                raise TimeoutError(f"no sign of life within {SECONDS_TO_START:.0f} s")
            self.errors.seek(0)
            message = self.errors.read().decode(errors="replace").strip()
            raise RuntimeError(message or "its first line is not the one expected; does a sitecustomize.py print?")

    def ask(self, pair: Pair, deadline: float) -> Comparison:
        """The worker's comparison; after a time-out or a crash the process is gone."""
        request = json.dumps({"gold": pair[0], "answer": pair[1], "deadline": deadline}) + "\n"
        try:
            self.process.stdin.write(request.encode())
            self.process.stdin.flush()
            reply = self.reply(deadline)
        except (OSError, ValueError):  # it died between two requests, or what it wrote is not a reply
            self.kill()
            return DIED
        if reply is None:
            died = self.process.poll() is not None
            self.kill()
            return DIED if died else TIME_OUT
        if reply["reason"] == "out of memory":
            self.kill()
        return Comparison(reply["same"], reply["reason"])

    def reply(self, seconds: float):
        """The next line of the worker, or None when there is none in time or the process has ended."""
        end = time.monotonic() + seconds
        with selectors.DefaultSelector() as selector:
            selector.register(self.process.stdout, selectors.EVENT_READ)
            while b"\n" not in self.received:
                if not selector.select(max(0.0, end - time.monotonic())):
                    return None
                data = os.read(self.process.stdout.fileno(), 65536)
                if not data:
                    self.process.wait()
                    return None
                self.received += data
        line, _, self.received = self.received.partition(b"\n")
        return json.loads(line)

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            with suppress(OSError):  # bytes that nobody will read
                pipe.close()


class Pool:
    """The idle workers of this process; every worker is used by one thread at a time."""

    def __init__(self) -> None:
        self.size = available_cores()
        self.places = threading.BoundedSemaphore(self.size)
        self.idle: list[Worker] = []
        self.lock = threading.Lock()

    def ask(self, pair: Pair, deadline: float) -> Comparison:
        """The comparison by an idle worker or a new one; a pair whose worker died is asked once more."""
        with self.places:
            found = self.ask_once(pair, deadline)
            return self.ask_once(pair, deadline) if found is DIED else found

    def ask_once(self, pair: Pair, deadline: float) -> Comparison:
        worker = self.take()
        try:
            found = worker.ask(pair, deadline)
        except BaseException:  # an interrupt in the middle: the next reply would belong to this request
            worker.kill()
            raise
        if worker.alive:
            with self.lock:
                self.idle.append(worker)
        return found

    def take(self) -> Worker:
        with self.lock:
            while self.idle:
                worker = self.idle.pop()
                if worker.alive:
                    return worker
        for attempt in range(STARTS):
            try:
                return Worker()
            except TimeoutError as error:  # trying again would take as long again
                message = str(error)
                break
            except (RuntimeError, OSError) as error:
                message = str(error)
                time.sleep(attempt)
        raise RuntimeError(f"The grading worker does not start: {message}")

    def close(self) -> None:
        with self.lock:
            while self.idle:
                self.idle.pop().kill()


def available_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


pool = Pool()


def renew() -> None:
    """A forked child must not write into its parent's pipes."""
    global pool
    pool = Pool()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=renew)
atexit.register(lambda: pool.close())


def ask_all(pairs: Sequence[Pair], deadline: float, workers: int | None, done: Callable[[], None]) -> list[Comparison]:
    """Compare pairs in worker processes, in order; `done` is called after each.

    `workers` is how many at most, never more than there are cores.
    """

    if not pairs:
        return []

    failed: list[RuntimeError] = []

    def ask(pair: Pair) -> Comparison:
        if failed:
            raise failed[0]
        try:
            found = pool.ask(pair, deadline)
        except RuntimeError as error:  # no worker starts: the other threads need not try
            failed.append(error)
            raise
        done()
        return found

    threads = min(len(pairs), workers or pool.size, pool.size)
    if threads <= 1:
        return [ask(pair) for pair in pairs]
    with ThreadPoolExecutor(threads) as executor:
        return list(executor.map(ask, pairs))
