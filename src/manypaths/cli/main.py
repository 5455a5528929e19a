"""`manypaths SUBCOMMAND --config recipe.yaml --key value`: options are parsed and one function is called.

Heavy imports stay inside the subcommands, so that help is immediate. A user's mistake (ValueError, OSError,
ImportError) is one line on stderr and exit code 2; MANYPATHS_DEBUG=1 shows where it came from.
"""

import os
import sys
import traceback
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ..config import names_option, parse, take_option
from ..functions import did_you_mean
from . import launch


def quickstart(argv: list[str]) -> None:
    from ..experiment.run import QuickstartConfig, quickstart

    quickstart(*parse([QuickstartConfig], argv, "manypaths quickstart"))


def experiment(argv: list[str]) -> None:
    from ..experiment.run import ExperimentConfig, experiment

    experiment(*parse([ExperimentConfig], named_first(argv, "experiment"), "manypaths experiment"))


def world(argv: list[str]) -> None:
    from ..worlds import WorldConfig, make_world

    make_world(*parse([WorldConfig], named_first(argv, "world"), "manypaths world"))


def sft(argv: list[str]) -> None:
    from ..models.loading import machine_defaults
    from ..training.config import SFT_OPTIONS, check_installed, check_options

    *options, processes = parse([*SFT_OPTIONS, launch.LaunchConfig], argv, "manypaths sft", **machine_defaults())
    check_options(*options)
    check_installed(options[1])
    from ..training.run import prepare_sft, sft

    if launch.needed(processes):
        prepare_sft(*options)
        launch.start("sft", argv, processes)
    else:
        finish(sft(*options))


def grpo(argv: list[str]) -> None:
    from ..models.loading import machine_defaults
    from ..training.config import GRPO_OPTIONS, ExportConfig, check_installed, check_options, of_processes

    kinds = [*GRPO_OPTIONS, ExportConfig, launch.LaunchConfig]
    with of_processes(launch.processes_to_come(argv)):
        *options, export, processes = parse(kinds, argv, "manypaths grpo", **machine_defaults())
        if export.export is not None:  # for GPUs elsewhere, with TRL's own defaults for such
            *options, export, processes = parse(kinds, argv, "manypaths grpo", use_cpu=True)
    if export.export is not None:
        check_options(*options)
        from ..training.verl_export import export_to_verl

        print(f"start it where verl is: bash {export_to_verl(*options, processes, export.export[1])}")
        return
    check_options(*options)
    check_installed(options[1])
    from ..training.run import grpo, prepare_grpo

    if launch.needed(processes):
        prepare_grpo(*options)
        launch.start("grpo", argv, processes)
    else:
        finish(grpo(*options))


def finish(trainer: Any) -> None:
    """Report a training, and let go of what its processes share."""
    from ..report import training_report
    from ..training.run import end

    folder = trainer.args.output_dir if trainer.is_world_process_zero() else None
    end(trainer)
    page = None if folder is None else training_report(folder)
    if page is not None:
        print(f"report: {page}")


def doctor(argv: list[str]) -> None:
    from rich.console import Console

    from .. import doctor
    from ..doctor.config import DoctorConfig

    if not argv:
        report = doctor.installation_report()
    else:
        from ..models.loading import machine_defaults
        from ..training.config import GRPO_OPTIONS, SFT_OPTIONS

        options = GRPO_OPTIONS if names_option(argv, "reward_funcs") else SFT_OPTIONS
        defaults = machine_defaults()
        if take_option(argv, "gpu")[1] is not None:
            defaults.pop("bf16", None)  # it is planned for a GPU that has it
        *options, processes, device = parse(
            [*options, launch.LaunchConfig, DoctorConfig], argv, "manypaths doctor", **defaults
        )
        plan = doctor.grpo_report if len(options) == len(GRPO_OPTIONS) else doctor.sft_report
        report = plan(*options, processes, device.gpu)
    from ..doctor.show import show

    show(report, Console())
    if report.failed:
        raise SystemExit(1)


def evaluate(argv: list[str]) -> None:
    from ..evaluation.config import EVAL_OPTIONS

    options = parse(EVAL_OPTIONS, argv, "manypaths eval")
    from ..evaluation.pipeline import evaluate
    from ..report import print_report, write_report

    results = evaluate(*options)
    print_report(results)
    print(f"report: {write_report(results, results.folders[0])}")


def augment(argv: list[str]) -> None:
    from ..augmentation.config import AUGMENT_OPTIONS

    options = parse(AUGMENT_OPTIONS, argv, "manypaths augment")
    from rich.console import Console

    from ..augmentation.pipeline import OUTPUT, augment
    from ..augmentation.report import report_of
    from ..report.render import terminal

    outcome = augment(*options)
    terminal(report_of(outcome), Console())
    print(f"data: {outcome.folder / OUTPUT}\nreport: {outcome.folder / 'report.md'}")


def average(argv: list[str]) -> None:
    from ..models.averaging import AverageConfig, average

    average(*parse([AverageConfig], argv, "manypaths average"))


def report(argv: list[str]) -> None:
    from ..report import ReportConfig, report

    report(*parse([ReportConfig], argv, "manypaths report"))


def objectives(argv: list[str]) -> None:
    parse([], argv, "manypaths objectives")
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from ..objectives import describe
    from ..objectives.registry import CALIBRATED

    table = Table(show_lines=True)
    table.add_column("objective", no_wrap=True)
    for heading in ("paper", "loss per token", "statistics"):
        table.add_column(heading, overflow="fold")
    table.add_column("hyper-parameters", no_wrap=True)
    for row in describe():
        notes = ["needs a reference model"] if row["needs_reference"] else []
        notes += [] if row["row_local"] else ["compares tokens of a batch"]
        hyperparameters = []
        for name, value in row["hyperparameters"].items():
            unset = "(calibrated)" if name in CALIBRATED else "(required)"
            hyperparameters.append(f"{name}={unset if value is None else value}")
        table.add_row(
            row["name"],
            row["paper"].partition(" (")[0],
            Text(row["formula"]),
            "\n".join([*row["statistics"], *(f"({note})" for note in notes)]),
            "\n".join(hyperparameters),
        )
    Console().print(table)


class Subcommand(NamedTuple):
    run: Callable[[list[str]], None]
    help: str
    again: str = ""  # how an interrupted one goes on


SAME, CHECKPOINT = " The same command goes on.", " --resume_from_checkpoint auto goes on."
SUBCOMMANDS = {
    "quickstart": Subcommand(quickstart, "compare objectives in a built-in world, before and after RL, on a CPU", SAME),
    "experiment": Subcommand(experiment, "compare objectives on your model and data: a YAML file of methods", SAME),
    "doctor": Subcommand(doctor, "check an installation, or a recipe: data, template, memory, time, disk"),
    "sft": Subcommand(sft, "fine-tune a model with any objective", CHECKPOINT),
    "grpo": Subcommand(grpo, "reinforcement learning after it", CHECKPOINT),
    "eval": Subcommand(evaluate, "benchmarks, pass@k, diversity and forgetting of a model", SAME),
    "augment": Subcommand(
        augment, "more right answers a prompt: a model's own, verified, beside the demonstrations", SAME
    ),
    "average": Subcommand(average, "the weighted average of a model and what it was fine-tuned to"),
    "report": Subcommand(report, "evaluations and experiments side by side, with paired tests"),
    "world": Subcommand(world, "write a built-in world: model, data and benchmarks as ordinary files"),
    "objectives": Subcommand(objectives, "list the objectives"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a subcommand; returns the exit code: 0, 1 where an experiment or a check failed, or 2 after a user's mistake."""
    argv = list(sys.argv[1:] if argv is None else argv)
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(usage())
        return 0
    if argv[0] == "--version":
        from importlib.metadata import version

        print(version("manypaths"))
        return 0
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))  # for module:function
    warnings.filterwarnings("ignore", message="`(is_)?gradient_checkpointing")
    if not sys.stderr.isatty():  # bars of downloads, and of loading and saving weights
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    if not launch.launched():
        return run(*argv)
    launch.watch_parent()
    try:
        code = run(*argv)
    except Exception:
        launch.let_others_speak(1 + (launch.rank() > 0))  # most often, the cause is the end of another process
        traceback.print_exc()
        code = 1
    return launch.leave(code) if code else 0


def run(name: str, *argv: str) -> int:
    """The exit code of a subcommand; what the user has to know is one line on stderr."""
    try:
        subcommand_of(name).run(list(argv))
    except (KeyboardInterrupt, InterruptedError) as error:  # in all processes alike
        if launch.rank() == 0:
            complain(name, str(error) or f"stopped.{subcommand_of(name).again}")
        return getattr(error, "exit_code", 130)
    except (ValueError, OSError, ImportError) as error:
        if os.environ.get("MANYPATHS_DEBUG") == "1":
            raise
        launch.let_others_speak(launch.rank() > 0)
        complain(name, " ".join(str(error).split()) + ("" if is_ours(error) else " (MANYPATHS_DEBUG=1 shows where)"))
        return getattr(error, "exit_code", 2)
    return 0


def usage() -> str:
    width = max(map(len, SUBCOMMANDS))
    lines = "\n".join(f"  {name.ljust(width)}  {subcommand.help}" for name, subcommand in SUBCOMMANDS.items())
    return (
        "usage: manypaths SUBCOMMAND [--config RECIPE.yaml] [--key value ...]\n\n"
        f"{lines}\n\nmanypaths SUBCOMMAND --help lists its options; recipes/ holds commented examples."
    )


def subcommand_of(name: str) -> Subcommand:
    if name not in SUBCOMMANDS:
        known = ", ".join(SUBCOMMANDS)
        raise ValueError(f"there is no such subcommand. {did_you_mean(name, SUBCOMMANDS)}Subcommands: {known}.")
    return SUBCOMMANDS[name]


def named_first(argv: list[str], option: str) -> list[str]:
    """`NAME --key value` as `--option NAME --key value`."""
    return [f"--{option}", *argv] if argv and not argv[0].startswith("-") else argv


def complain(name: str, message: str) -> None:
    print(f"manypaths {name}: {message}", file=sys.stderr, flush=True)


def is_ours(error: Exception) -> bool:
    """Whether this package raised it; errors of other libraries may need their traceback to be understood."""
    trace: Any = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace is None or Path(__file__).parent.parent in Path(trace.tb_frame.f_code.co_filename).parents
