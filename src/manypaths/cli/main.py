"""`manypaths VERB --config recipe.yaml --key value`: a verb parses its options and calls one function.

Heavy imports stay inside the verbs, so that help is immediate. A user's mistake (ValueError, OSError,
ImportError) is one line on stderr and exit code 2; MANYPATHS_DEBUG=1 shows where it came from.
"""

import os
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from ..functions import did_you_mean
from .options import (
    DataArguments,
    EvalArguments,
    LaunchArguments,
    QuickstartArguments,
    ReportArguments,
    RewardArguments,
    SamplingArguments,
)
from ..config import parse


def quickstart(argv: list[str]) -> None:
    (options,) = parse([QuickstartArguments], argv, "manypaths quickstart")
    from ..experiment import quickstart

    settings = asdict(options)
    names = settings.pop("objectives")
    quickstart(objectives=None if names is None else [name.strip() for name in names.split(",")], **settings)


def sft(argv: list[str]) -> None:
    from trl import ModelConfig

    from ..training.run import end, prepare_sft, sft
    from ..training.sft import SFTConfig
    from . import launch

    types = [DataArguments, SFTConfig, ModelConfig, LaunchArguments]
    data, config, model, processes = parse(types, argv, "manypaths sft", **launch.machine_defaults())
    if launch.needed(processes):
        prepare_sft(data, config, model)
        launch.start("sft", argv, processes)
    else:
        end(sft(data, config, model))


def grpo(argv: list[str]) -> None:
    from trl import ModelConfig

    from ..training.grpo import GRPOConfig
    from ..training.run import end, grpo, prepare_grpo
    from . import launch

    types = [DataArguments, RewardArguments, GRPOConfig, ModelConfig, LaunchArguments]
    data, reward, config, model, processes = parse(types, argv, "manypaths grpo", **launch.machine_defaults())
    if launch.needed(processes):
        prepare_grpo(data, reward, config, model)
        launch.start("grpo", argv, processes)
    else:
        end(grpo(data, reward, config, model))


def evaluate(argv: list[str]) -> None:
    options, sampling = parse([EvalArguments, SamplingArguments], argv, "manypaths eval")
    from ..evaluate import evaluate

    evaluate(options, sampling)


def report(argv: list[str]) -> None:
    (options,) = parse([ReportArguments], argv, "manypaths report")
    if not options.results:
        raise ValueError("--results is missing: folders of evaluations, the one to compare with first.")
    from ..report import report

    report(options.results, options.output_dir)


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


class Verb(NamedTuple):
    run: Callable[[list[str]], None]
    help: str


VERBS = {
    "quickstart": Verb(quickstart, "SFT, RL and evaluation of several objectives in a built-in world, on a CPU"),
    "sft": Verb(sft, "fine-tune a model with any objective"),
    "grpo": Verb(grpo, "reinforcement learning after it"),
    "eval": Verb(evaluate, "benchmarks, pass@k, diversity and forgetting of a model"),
    "report": Verb(report, "several evaluations side by side, with paired tests"),
    "objectives": Verb(objectives, "list the objectives"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a verb; returns the exit code: 0, or 2 after a user's mistake."""
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
    try:
        verb_of(argv[0]).run(argv[1:])
    except KeyboardInterrupt:
        again, checkpoint = " The same command goes on.", " --resume_from_checkpoint true goes on."
        how = {"quickstart": again, "eval": again, "sft": checkpoint, "grpo": checkpoint}.get(argv[0], "")
        print(f"manypaths {argv[0]}: stopped.{how}", file=sys.stderr)
        return 130
    except (ValueError, OSError, ImportError) as error:
        if os.environ.get("MANYPATHS_DEBUG") == "1":
            raise
        complain(argv[0], error)
        return 2
    return 0


def usage() -> str:
    width = max(map(len, VERBS))
    verbs = "\n".join(f"  {name.ljust(width)}  {verb.help}" for name, verb in VERBS.items())
    return (
        "usage: manypaths VERB [--config RECIPE.yaml] [--key value ...]\n\n"
        f"{verbs}\n\nmanypaths VERB --help lists the options of a verb; recipes/ holds commented examples."
    )


def verb_of(name: str) -> Verb:
    if name not in VERBS:
        raise ValueError(f"there is no such verb. {did_you_mean(name, VERBS)}Verbs: {', '.join(VERBS)}.")
    return VERBS[name]


def complain(verb: str, error: Exception) -> None:
    """One line on stderr, from the first process only; errors from other libraries say how to see more."""
    if os.environ.get("RANK", "0") != "0":
        return
    trace: Any = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    ours = trace is None or Path(__file__).parent.parent in Path(trace.tb_frame.f_code.co_filename).parents
    hint = "" if ours else " (MANYPATHS_DEBUG=1 shows where)"
    print(f"manypaths {verb}: {' '.join(str(error).split())}{hint}", file=sys.stderr)
