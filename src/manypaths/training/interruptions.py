"""How a training run ends before its time: told to by SIGTERM, or by a full disk; both say how to go on."""

import errno
import re
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import TrainerCallback

from ..run_folder import NO_ROOM

FULL = re.compile(r"PytorchStreamWriter|inline_container|iostream error|\(os error (?:27|28|122)\)")


@contextmanager
def told_when_full(folder: Path) -> Iterator[None]:
    """A full disk is one OSError, whichever library meets it."""
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:
        if not (FULL.search(str(error)) or getattr(error, "errno", None) in NO_ROOM):
            raise
        what = "No room to write to; free some space, and the same command with --resume_from_checkpoint auto goes on"
        raise OSError(errno.ENOSPC, what, str(folder)) from error


class Stopped(InterruptedError):
    """The run was told to end, and has saved what it needs to go on."""

    exit_code = 128 + signal.SIGTERM


class StopOnRequest(TrainerCallback):
    """Ends training after the running step, the same one in every process, with a checkpoint that can be resumed from."""

    requested = False
    checkpoint: Path | None = None

    def on_step_end(self, args, state, control, **kwargs):
        if anywhere(self.requested, args):
            args.save_only_model = False
            control.should_save = control.should_training_stop = True
            self.checkpoint = Path(args.output_dir, f"checkpoint-{state.global_step}")

    def raise_if_stopped(self) -> None:
        if self.checkpoint is not None:
            raise Stopped(
                f"stopped by SIGTERM; {self.checkpoint} is saved. The same command with --resume_from_checkpoint auto goes on."
            )


def anywhere(flag: bool, args: Any) -> bool:
    """Whether it is true in some process."""
    if args.world_size == 1:
        return flag
    flags = torch.tensor(int(flag), device=args.device)
    torch.distributed.all_reduce(flags, torch.distributed.ReduceOp.MAX)
    return bool(flags)


@contextmanager
def stopped_by_sigterm() -> Iterator[StopOnRequest]:
    """A callback that SIGTERM, which clusters send before they kill, asks to stop the training."""
    stop = StopOnRequest()

    def request(*_: Any) -> None:
        stop.requested = True

    if threading.current_thread() is not threading.main_thread():  # the only one that may take signals
        yield stop
        return
    before = signal.signal(signal.SIGTERM, request)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGTERM, before)
