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
from .stages import CONFIG, FUNCTION, LOG, OUTPUT, STAGE_FILE, one_line

IN_OWN_PROCESS: list[subprocess.Popen] = []  # what has to end with this process
GRACE_SECONDS = 10


def run_stage(task: Mapping[str, Any]) -> dict[str, Any]:
    """Run one stage to its end: its stage.json is there then. Returns {}, or {"error": what was wrong}."""
    folder, subcommand = Path(task["folder"]), task["subcommand"]
    if not folder.is_dir():
        return {"error": f"{folder} is not on this machine: output_dir must lie on storage that all nodes share"}
    with printing_to(folder / LOG):
        started = time.perf_counter()
        print(f"== {task['name']} {now()} pid {os.getpid()}", flush=True)
        try:
            options = read_recipe(str(folder / CONFIG))
            resumed = make_ready(folder / OUTPUT, subcommand, options)
            argv = ["--config", str(folder / CONFIG), *(["--resume_from_checkpoint", "true"] if resumed else [])]
            if FUNCTION.fullmatch(subcommand):
                import_function(subcommand, "stage")(**options)
            elif task["launch"] or options.get("backend") == "vllm" or options.get("use_vllm"):
                run_in_own_process(task, argv)
            else:
                run_here(subcommand, argv)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            traceback.print_exc()
            return {"error": one_line(error)}
        seconds = round(time.perf_counter() - started, 3)
        names = {"name": task["name"], "subcommand": subcommand}
        record = {**names, "seconds": seconds, "resumed": resumed, "finished": now()}
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
        from ..training.checkpoints import newest_checkpoint

        if newest_checkpoint(output) is not None:
            return True
    shutil.rmtree(output)
    return False


def run_here(name: str, argv: Sequence[str]) -> None:
    """What the subcommand does, in this process."""
    from accelerate.state import AcceleratorState, GradientState

    from ..models.loading import free_memory

    AcceleratorState._reset_state(reset_partial_state=True)  # the stage before may have had another precision
    GradientState._reset_state()
    types, function, defaults = resolve_subcommand(name)
    result = function(*parse(types, argv, f"manypaths {name}", **defaults))
    if hasattr(result, "end"):  # a trainer, from transformers 5.18 on
        result.end()
    del result
    free_memory()


def resolve_subcommand(name: str) -> tuple[Sequence[type], Callable[..., Any], dict[str, Any]]:
    """The dataclasses of a subcommand's options, what it calls with them, and defaults that depend on the machine."""
    if name == "eval":
        from ..evaluation.config import EVAL_OPTIONS
        from ..evaluation.pipeline import evaluate

        return EVAL_OPTIONS, evaluate, {}
    if name == "average":
        from ..models.averaging import AverageConfig, average

        return (AverageConfig,), average, {}
    from ..models.loading import machine_defaults
    from ..training.config import GRPO_OPTIONS, SFT_OPTIONS
    from ..training.run import grpo, sft

    return (SFT_OPTIONS, sft, machine_defaults()) if name == "sft" else (GRPO_OPTIONS, grpo, machine_defaults())


def run_in_own_process(task: Mapping[str, Any], argv: Sequence[str]) -> None:
    """The subcommand as one gives it by hand: for several processes, and for engines that keep a GPU's memory.

    Raises ValueError with the mistake of the user that it tells, ChildProcessError where it ends otherwise.
    """
    log, name = Path(task["folder"], LOG), f"manypaths {task['subcommand']}"
    before = log.stat().st_size
    launch = [token for option, value in task["launch"].items() for token in (f"--{option}", str(value))]
    command = [sys.executable, "-m", "manypaths", task["subcommand"], *argv, *launch]
    process = subprocess.Popen(command, start_new_session=True)
    IN_OWN_PROCESS.append(process)
    code = process.wait()
    IN_OWN_PROCESS.remove(process)
    if code:
        lines = log.read_bytes()[before:].decode(errors="replace").splitlines()
        mistakes = [line.removeprefix(f"{name}: ") for line in lines if line.startswith(f"{name}: ")]
        if mistakes:
            raise ValueError(mistakes[-1])
        raise ChildProcessError(f"{name} ended with exit code {code}; its log says why")


@contextlib.contextmanager
def printing_to(path: Path) -> Iterator[None]:
    """All that this process and those it starts print goes to the end of a file."""
    sys.stdout.flush(), sys.stderr.flush()
    before = os.dup(1), os.dup(2)
    with path.open("ab") as file:
        os.dup2(file.fileno(), 1), os.dup2(file.fileno(), 2)
    try:
        yield
    finally:
        sys.stdout.flush(), sys.stderr.flush()
        for place, saved in zip((1, 2), before, strict=True):
            os.dup2(saved, place)
            os.close(saved)


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
