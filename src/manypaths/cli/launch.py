"""One process or several: starting a subcommand again under accelerate, and what such processes owe each other."""

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import asdict, dataclass
from typing import NoReturn

from ..config import helped, read_recipe, take_option

MARK = "MANYPATHS_LAUNCHED"
WATCH_SECONDS = 0.5
TURN_SECONDS = 2.0
AGENT_LOGGERS = ("torch.distributed.elastic.multiprocessing.api", "torch.distributed.elastic.agent.server.api")


@dataclass
class LaunchConfig:
    """Several processes or machines, through accelerate."""

    accelerate_config: str | None = helped(None, "multi_gpu, fsdp2, zero2, zero3, or a file.")
    num_processes: int | None = helped(None, "Processes, usually one per GPU; all visible GPUs if not given.")
    num_machines: int | None = helped(None, "Machines.")
    machine_rank: int | None = helped(None, "Rank of this machine.")
    main_process_ip: str | None = helped(None, "Address of machine 0.")
    main_process_port: int | None = helped(None, "Port on machine 0.")

    def __post_init__(self) -> None:
        for name in ("num_processes", "num_machines"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise ValueError(f"--{name} must be at least 1, got {getattr(self, name)}.")


def launched() -> bool:
    """Whether this process is one of several (ours, `accelerate launch` or `torchrun`)."""
    return MARK in os.environ or "LOCAL_RANK" in os.environ


def needed(processes: LaunchConfig) -> bool:
    """Whether this process has to start several: asked for, or several GPUs are visible. Never inside a launched one."""
    import torch

    if launched():
        return False
    return any(value is not None for value in asdict(processes).values()) or torch.cuda.device_count() > 1


def processes_to_come(argv: list[str]) -> int | None:
    """How many processes this one will start for a command line; None in one of them, or where nobody says."""
    import torch

    _, asked = take_option(argv, "num_processes")
    _, recipe = take_option(argv, "config")
    if asked is None and recipe is not None:
        asked = read_recipe(recipe).get("num_processes")
    if launched():
        return None
    return int(asked) if str(asked).isdecimal() else torch.cuda.device_count() or None


def start(subcommand: str, argv: list[str], processes: LaunchConfig) -> None:
    """Run the subcommand in several processes, which are this one's own, and end with their exit code.

    accelerate starts one process per GPU; it has no such mode for CPUs, where torchrun is used. The subcommand keeps its
    own options, and ignores those of the launch.
    Raises ValueError for an accelerate configuration that is neither a file nor one of TRL's names, ChildProcessError for a
    process that was killed; one that failed has said why.
    """
    import torch
    from accelerate.commands.launch import launch_command, launch_command_parser
    from torch.distributed import run as torchrun
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from trl.cli.accelerate_config import resolve_accelerate_config_argument

    given = {name: value for name, value in asdict(processes).items() if value is not None}
    program = ["-m", "manypaths", subcommand, *argv]
    if not torch.accelerator.is_available() and set(given) == {"num_processes"}:
        launcher, arguments = torchrun.run, ["--nproc_per_node", str(given["num_processes"]), *program]
        arguments = torchrun.parse_args(arguments)
    else:
        if "accelerate_config" not in given:
            given = {"num_machines": 1, "mixed_precision": "no", "dynamo_backend": "no", **given}
        options = [token for name, value in given.items() for token in (f"--{name}", str(value))]
        launcher, arguments = launch_command, [*resolve_accelerate_config_argument(options), *program]
        arguments = launch_command_parser().parse_args(arguments)
    os.environ[MARK] = "1"
    if os.environ.get("MANYPATHS_DEBUG") != "1":
        for name in AGENT_LOGGERS:
            logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        launcher(arguments)
    except SignalException as error:
        sys.exit(128 + error.sigval)
    except subprocess.CalledProcessError as error:
        end_like({0: error.returncode})
    except ChildFailedError as error:
        end_like({rank: failure.exitcode for rank, failure in error.failures.items()})


def end_like(codes: dict[int, int]) -> None:
    """End as the processes did. codes: {rank: exit code, or minus the signal that ended it}; SIGTERM is the launcher's."""
    rank, code = min(codes.items(), key=lambda item: (item[1] == -signal.SIGTERM, item[1]))
    if code > 0:
        sys.exit(code)
    error = ChildProcessError(
        f"process {rank} was killed by signal {-code} (9 often means too little memory); the others were stopped. The same "
        "command with --resume_from_checkpoint auto goes on."
    )
    error.exit_code = 128 - code
    raise error


def rank() -> int:
    """Of this process among all."""
    return int(os.environ.get("RANK", 0))


def let_others_speak(turns: int) -> None:
    """Wait a little before saying what went wrong: who knows more says it now, and the launcher ends this process."""
    time.sleep(turns * TURN_SECONDS)


def watch_parent() -> None:
    """From now on this process ends when the one that launched it is gone, which would leave it training unseen."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(WATCH_SECONDS)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def leave(code: int) -> NoReturn:
    """End a launched process that failed, at once.

    The end of the interpreter would destroy process groups that others still use, and can wait for ever in that.
    """
    sys.stdout.flush(), sys.stderr.flush()
    os._exit(code)
