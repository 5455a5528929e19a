"""One stage after another in one warm process: importing the trainers costs seconds, most small stages cost less.

`python -m manypaths.experiment.worker` reads a task per line and answers with a line. It ends when the process that
started it is gone, however that one was ended.
"""

import contextlib
import datetime
import json
import os
import queue
import shutil
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

from ..config import parse, read_recipe
from ..functions import import_function
from ..run_folder import write_whole
from .stages import CONFIG, FUNCTION, LOG, OUTPUT, STAGE_FILE

IN_OWN_PROCESS: list[subprocess.Popen] = []  # what has to end with this process
GRACE_SECONDS = 10


def run_stage(task: Mapping[str, Any]) -> dict[str, Any]:
    """Run one stage to its end: its stage.json is there then. Returns {}, or {"error": what was wrong}."""
    folder = Path(task["folder"])
    if not folder.is_dir():
        return {"error": f"{folder} is not on this machine: output_dir must lie on storage that all nodes share"}
    with printing_to(folder / LOG):
        started = time.perf_counter()
        print(f"== {task['name']} {now()} pid {os.getpid()}", flush=True)
        try:
            options = read_recipe(str(folder / CONFIG))
            resumed = make_ready(folder / OUTPUT, task["subcommand"], options)
            argv = ["--config", str(folder / CONFIG), *(["--resume_from_checkpoint", "true"] if resumed else [])]
            if task["launch"] or options.get("backend") == "vllm" or options.get("use_vllm"):
                run_in_own_process(task, argv)
            else:
                run_here(task["subcommand"], argv, options)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            traceback.print_exc()
            return {"error": " ".join(f"{type(error).__name__}: {error}".split())}
        record = {
            "name": task["name"],
            "subcommand": task["subcommand"],
            "seconds": round(time.perf_counter() - started, 3),
            "resumed": resumed,
            "finished": now(),
        }
        write_whole(folder / STAGE_FILE, json.dumps(record) + "\n")
    return {}


def now() -> str:
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")


def make_ready(output: Path, subcommand: str, options: Mapping[str, Any]) -> bool:
    """Whether an interrupted stage goes on from a complete checkpoint; what cannot go on is cleared away.

    An evaluation goes on by itself, from the samples that it has.
    """
    if subcommand == "eval" or not output.exists():
        return False
    if subcommand in ("sft", "grpo") and not options.get("save_only_model"):
        from ..training.run import newest_checkpoint

        if newest_checkpoint(output) is not None:
            return True
    shutil.rmtree(output)
    return False


def run_here(subcommand: str, argv: Sequence[str], given: Mapping[str, Any]) -> None:
    """What the subcommand does, in this process."""
    if FUNCTION.fullmatch(subcommand):
        import_function(subcommand, "stage")(**given)
        return
    from accelerate.state import AcceleratorState, GradientState

    from ..models.loading import free_memory, machine_defaults

    AcceleratorState._reset_state(reset_partial_state=True)  # the stage before may have had another precision
    GradientState._reset_state()
    defaults = machine_defaults() if subcommand in ("sft", "grpo") else {}
    options = parse(options_of(subcommand), argv, f"manypaths {subcommand}", **defaults)
    result = function_of(subcommand)(*options)
    if hasattr(result, "end"):  # a trainer, from transformers 5.18 on
        result.end()
    del result
    free_memory()


def options_of(subcommand: str) -> tuple[type, ...]:
    """The dataclasses of a subcommand's options."""
    if subcommand == "eval":
        from ..evaluation.config import EVAL_OPTIONS

        return EVAL_OPTIONS
    if subcommand == "average":
        from ..models.averaging import AverageConfig

        return (AverageConfig,)
    from ..training.run import GRPO_OPTIONS, SFT_OPTIONS

    return SFT_OPTIONS if subcommand == "sft" else GRPO_OPTIONS


def function_of(subcommand: str) -> Callable[..., Any]:
    """What the subcommand calls with these."""
    if subcommand == "eval":
        from ..evaluation.pipeline import evaluate

        return evaluate
    if subcommand == "average":
        from ..models.averaging import average

        return average
    from ..training.run import grpo, sft

    return sft if subcommand == "sft" else grpo


def run_in_own_process(task: Mapping[str, Any], argv: Sequence[str]) -> None:
    """The subcommand as one gives it by hand: for several processes, and for engines that keep a GPU's memory."""
    launch = [token for name, value in task["launch"].items() for token in (f"--{name}", str(value))]
    command = [sys.executable, "-m", "manypaths", task["subcommand"], *argv, *launch]
    process = subprocess.Popen(command, start_new_session=True)
    IN_OWN_PROCESS.append(process)
    code = process.wait()
    IN_OWN_PROCESS.remove(process)
    if code:
        raise ChildProcessError(f"manypaths {task['subcommand']} ended with exit code {code}; its log says why")


@contextlib.contextmanager
def printing_to(path: Path) -> Iterator[None]:
    """All that this process and those it starts print goes to the end of a file."""
    sys.stdout.flush(), sys.stderr.flush()
    before = os.dup(1), os.dup(2)
    file = os.open(path, os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o644)
    os.dup2(file, 1), os.dup2(file, 2)
    try:
        yield
    finally:
        sys.stdout.flush(), sys.stderr.flush()
        for place, saved in zip((1, 2), before, strict=True):
            os.dup2(saved, place)
            os.close(saved)
        os.close(file)


def main() -> None:
    tasks, replies = os.fdopen(os.dup(0)), os.fdopen(os.dup(1), "w")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(2, 1)  # what stages print must not be taken for an answer
    inbox: queue.SimpleQueue = queue.SimpleQueue()
    threading.Thread(target=listen, args=(tasks, inbox), daemon=True).start()
    while True:
        answer = run_stage(inbox.get())
        replies.write(json.dumps(answer) + "\n")
        replies.flush()


def listen(tasks: TextIO, inbox: queue.SimpleQueue) -> None:
    """Take in tasks; the end of the input is the end of the parent, and so of this process."""
    for line in tasks:
        inbox.put(json.loads(line))
    for process in list(IN_OWN_PROCESS):
        with contextlib.suppress(ProcessLookupError, subprocess.TimeoutExpired):
            os.killpg(process.pid, signal.SIGTERM)
            process.wait(GRACE_SECONDS)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    os._exit(1)


if __name__ == "__main__":
    main()
