"""One process or several: starting a subcommand again under accelerate."""

import os
import subprocess
import sys
from dataclasses import asdict, dataclass

from ..config import helped

MARK = "MANYPATHS_LAUNCHED"


@dataclass
class LaunchConfig:
    """Several processes or machines, through accelerate."""

    accelerate_config: str | None = helped(None, "A name such as multi_gpu, fsdp2 or zero2, or a file.")
    num_processes: int | None = helped(None, "Processes, usually one per GPU; all visible GPUs if not given.")
    num_machines: int | None = helped(None, "Machines.")
    machine_rank: int | None = helped(None, "Rank of this machine.")
    main_process_ip: str | None = helped(None, "Address of machine 0.")
    main_process_port: int | None = helped(None, "Port on machine 0.")


def needed(processes: LaunchConfig) -> bool:
    """Whether this process has to be replaced by several: asked for, or several GPUs are visible.

    Never inside a launched process (ours, `accelerate launch` or `torchrun`).
    """
    import torch

    if MARK in os.environ or "LOCAL_RANK" in os.environ:
        return False
    return any(value is not None for value in asdict(processes).values()) or torch.cuda.device_count() > 1


def start(subcommand: str, argv: list[str], processes: LaunchConfig) -> None:
    """Run the subcommand under `accelerate launch` and end this process with its exit code."""
    code = subprocess.run(command(subcommand, argv, processes), env={**os.environ, MARK: "1"}).returncode
    sys.exit(code)


def command(subcommand: str, argv: list[str], processes: LaunchConfig) -> list[str]:
    """The command line of the launch; the subcommand keeps its own, and ignores the launch options in it.

    accelerate starts one process per GPU; it has no such mode for CPUs, where torchrun is used.
    Raises ValueError for an accelerate configuration that is neither a file nor one of TRL's names.
    """
    import torch
    from trl.cli.accelerate_config import resolve_accelerate_config_argument

    given = {name: value for name, value in asdict(processes).items() if value is not None}
    program = ["-m", "manypaths", subcommand, *argv]
    if not torch.accelerator.is_available() and set(given) == {"num_processes"}:
        count = str(given["num_processes"])
        return [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", count, *program]
    if "accelerate_config" not in given:
        given = {"num_machines": 1, "mixed_precision": "no", "dynamo_backend": "no", **given}
    options = [token for name, value in given.items() for token in (f"--{name}", str(value))]
    launcher = [sys.executable, "-m", "accelerate.commands.accelerate_cli", "launch"]
    return [*launcher, *resolve_accelerate_config_argument(options), *program]
