"""Stages: a stage is a subcommand with a config file, and is known by everything that decides its result.

    stages/NAME-KEY/config.yaml   its options: `manypaths SUBCOMMAND --config config.yaml` does the same by hand
                    log.txt       all that was printed
                    output/       what it wrote
                    stage.json    written last: a stage that has it is finished and never runs again

An option may be a value that other stages make (`ModelOf`, `Chosen`); it is known when these are finished.
"""

import inspect
import json
import re
import shlex
import shutil
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, field
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import yaml

from ..config import read_recipe
from ..functions import import_function
from ..run_folder import PATHS, UNIMPORTANT, UNIMPORTANT_PREFIXES, content_fingerprint, fingerprint, write_whole

STAGE_FILE, CONFIG, LOG, OUTPUT = "stage.json", "config.yaml", "log.txt", "output"
LIBRARIES = ("torch", "transformers", "trl", "manypaths")
MODELS = ("*.safetensors", "*.bin", "checkpoint-*")
FUNCTION = re.compile(r"[A-Za-z_][\w.]*:\w+")


class NotPossible(ValueError):
    """A value that cannot be chosen from these results; the message says why."""


@dataclass(frozen=True)
class ModelOf:
    """The model that a stage saves, or its checkpoint nearest to a share of its steps."""

    stage: "Stage"
    share: float | None = None
    example: ClassVar[str] = "a-model"

    @property
    def stages(self) -> tuple["Stage", ...]:
        return (self.stage,)

    def identity(self) -> Any:
        return ["model of", self.stage.key, self.share]

    def described(self) -> str:
        return str(self.stage.output) + ("" if self.share is None else f"/checkpoint-at-{self.share:.0%}")

    def value(self) -> str:
        if self.share is None:
            return str(self.stage.output)
        steps = {int(path.name.rpartition("-")[2]): path for path in self.stage.output.glob("checkpoint-*")}
        if not steps:
            raise NotPossible(f"{self.stage.name} saved no checkpoint: set save_strategy and save_steps under `sft`")
        wanted = self.share * json.loads((self.stage.output / "trainer_state.json").read_text())["global_step"]
        return str(steps[min(steps, key=lambda step: abs(step - wanted))])


@dataclass(frozen=True)
class Chosen:
    """What a function makes of the output folders of other stages and of its settings; `example` is a value like it."""

    function: Callable[..., Any]
    stages: tuple["Stage", ...]
    settings: Mapping[str, Any]
    example: Any

    def identity(self) -> Any:
        return [self.function.__name__, [stage.key for stage in self.stages], dict(self.settings)]

    def described(self) -> str:
        return f"<{self.function.__name__}: {', '.join(stage.name for stage in self.stages)}>"

    def value(self) -> Any:
        return self.function([stage.output for stage in self.stages], **self.settings)


Reference = ModelOf | Chosen


@dataclass(frozen=True, eq=False)
class Stage:
    """One subcommand with its options, to run in `root`/NAME-KEY.

    subcommand: sft, grpo, eval, average, or a `module:function` that is called with the options.
    launch: num_processes and accelerate_config where it runs in several processes.
    """

    name: str
    subcommand: str
    options: Mapping[str, Any]
    root: Path
    launch: Mapping[str, Any] = field(default_factory=dict)

    @property
    def parents(self) -> list["Stage"]:
        return [stage for value in self.options.values() if isinstance(value, Reference) for stage in value.stages]

    def options_with(self, of: Callable[[Reference], Any]) -> dict[str, Any]:
        """The options with `of(reference)` where other stages make the value."""
        return {name: of(value) if isinstance(value, Reference) else value for name, value in self.options.items()}

    @cached_property
    def key(self) -> str:
        important = {
            name: identity(name, value)
            for name, value in self.options.items()
            if name not in UNIMPORTANT and not name.startswith(UNIMPORTANT_PREFIXES)
        }
        versions = {name: version(name) for name in LIBRARIES}
        return fingerprint([self.subcommand, important, dict(self.launch), versions])[:12]

    @cached_property
    def folder(self) -> Path:
        """Where it is or will be; one that ran under another name stays where it is."""
        return next(self.root.glob(f"*-{self.key}"), self.root / f"{self.name}-{self.key}")

    @property
    def output(self) -> Path:
        return self.folder / OUTPUT

    @property
    def log(self) -> Path:
        return self.folder / LOG

    @property
    def record(self) -> dict[str, Any] | None:
        """What stage.json says of a finished stage: seconds, resumed, and whether its model was removed."""
        path = self.folder / STAGE_FILE
        return json.loads(path.read_text()) if path.is_file() else None

    @property
    def by_hand(self) -> str:
        """The command with all options; a value that is chosen from other stages is described."""
        options = {**self.options_with(lambda reference: reference.described()), **self.launch}
        tokens = [f"--{name} {as_tokens(value)}" for name, value in options.items() if value is not None]
        return " ".join(["manypaths", self.subcommand, *tokens, f"--output_dir {shlex.quote(str(self.output))}"])

    def write_config(self) -> None:
        """The options as they are now that everything before is finished. Raises NotPossible."""
        options = {**self.options_with(lambda reference: reference.value()), "output_dir": str(self.output)}
        launch = "".join(f" --{name} {value}" for name, value in self.launch.items())
        text = f"# manypaths {self.subcommand} --config {self.folder / CONFIG}{launch}\n"
        self.folder.mkdir(parents=True, exist_ok=True)
        write_whole(self.folder / CONFIG, text + yaml.safe_dump(options, sort_keys=False, allow_unicode=True))

    @property
    def task(self) -> dict[str, Any]:
        """What an executor needs to run it."""
        return {"name": self.name, "subcommand": self.subcommand, "folder": str(self.folder), "launch": {**self.launch}}


def as_tokens(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return " ".join(map(as_tokens, value))
    if isinstance(value, (bool, Mapping)):
        return shlex.quote(json.dumps(value))
    return shlex.quote(str(value))


def identity(name: str, value: Any) -> Any:
    """What makes an option's value the same: the content of files, the source of functions, the key of a stage."""
    if isinstance(value, Reference):
        return value.identity()
    if isinstance(value, (list, tuple)):
        return [identity(name, inner) for inner in value]
    if isinstance(value, Mapping) and name in ("datasets", "data_files"):
        return {key: identity("data_files" if name == "data_files" else key, inner) for key, inner in value.items()}
    if not isinstance(value, str):
        return value
    if FUNCTION.fullmatch(value):
        return [value, source(value, name)]
    if name in PATHS or name in ("base", "tuned"):
        return [content_fingerprint(value), *benchmark_identity(Path(value))]
    return value


def benchmark_identity(path: Path) -> list[Any]:
    """The problems that a benchmark's YAML names, and the source of its grader."""
    if path.suffix not in (".yaml", ".yml") or not path.is_file():
        return []
    benchmark = read_recipe(str(path))
    grader = str(benchmark.get("grader"))
    return [
        content_fingerprint(path.parent / str(benchmark.get("source"))),
        source(grader, "grader") if FUNCTION.fullmatch(grader) else None,
    ]


def source(function: str, role: str) -> str:
    """A name for the file that holds a user's function, so that an edited one is not answered from an older run."""
    return fingerprint(inspect.getsource(inspect.getmodule(import_function(function, role))))


class Executor(NamedTuple):
    """Where stages run: `submit` takes a stage's task and gives a future of run_stage's answer, `slots` at a time."""

    submit: Callable[[Mapping[str, Any]], Future]
    slots: int


class Missing(NamedTuple):
    """Why a stage has no result. cause: the stage that is to blame; log: only of one that failed."""

    cause: Stage
    reason: str
    log: Path | None


Told = Callable[[str, Stage, str], None]


def run_stages(
    stages: Sequence[Stage], executor: Executor, costs: Mapping[str, float], expendable: frozenset[str], told: Told
) -> dict[str, Missing]:
    """Run every stage that is not finished, longest chains first; a failure stops only those that build on it.

    Args:
        stages: each key once, parents before those that build on them.
        costs: expected seconds by key.
        expendable: keys of stages whose model goes when all that builds on it is finished.
        told: called as told(event, stage, text) with "kept", "started", "finished", "failed" or "left out".

    Returns: {key: why it has no result}, empty when all is finished.
    """
    finished, missing = kept(stages), {}
    for stage in stages:
        if stage.key in finished:
            told("kept", stage, "")
    urgency = chain_costs(stages, costs)  # never less than that of the stages after it, so parents stay first
    waiting = sorted((stage for stage in stages if stage.key not in finished), key=lambda stage: -urgency[stage.key])
    running: dict[Future, Stage] = {}
    while waiting or running:
        for stage in list(waiting):
            lost = next((missing[parent.key] for parent in stage.parents if parent.key in missing), None)
            ready = all(parent.key in finished for parent in stage.parents)
            if lost is None and not (ready and len(running) < executor.slots):
                continue
            waiting.remove(stage)
            if lost is None:
                try:
                    stage.write_config()
                except NotPossible as error:
                    lost = Missing(stage, str(error), None)
            if lost is None:
                running[executor.submit(stage.task)] = stage
                told("started", stage, "")
            else:
                missing[stage.key] = lost
                told("left out", stage, lost.reason)
        for future in wait(running, return_when=FIRST_COMPLETED).done:
            stage = running.pop(future)
            error = error_of(future)
            if error is not None:
                missing[stage.key] = Missing(stage, error, stage.log)
                told("failed", stage, error)
                continue
            finished.add(stage.key)
            told("finished", stage, "")
            for done in [*stage.parents, stage]:
                needed = any(done in child.parents and child.key not in finished for child in stages)
                if done.key in expendable and not needed:
                    remove_model(done)
    return missing


def error_of(future: Future) -> str | None:
    try:
        return future.result().get("error")
    except Exception as error:  # the stage's process or node is gone, or the executor gave up on it
        return one_line(error)


def one_line(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())


def kept(stages: Sequence[Stage]) -> set[str]:
    """Keys of finished stages. One whose model was removed counts only while nothing has to be built on it."""
    finished: set[str] = set()
    needed: set[str] = set()
    for stage in reversed(stages):
        record = stage.record
        if record is None or (record.get("model") == "removed" and stage.key in needed):
            needed |= {parent.key for parent in stage.parents}
        else:
            finished.add(stage.key)
    return finished


def chain_costs(stages: Sequence[Stage], costs: Mapping[str, float]) -> dict[str, float]:
    """Expected seconds of the longest chain of stages that starts with each stage, by key."""
    chains = dict(costs)
    for stage in reversed(stages):
        for parent in stage.parents:
            chains[parent.key] = max(chains[parent.key], costs[parent.key] + chains[stage.key])
    return chains


def remove_model(stage: Stage) -> None:
    """Delete the weights that a finished stage saved; its curves, log and config stay."""
    paths = [path for pattern in MODELS for path in stage.output.glob(pattern)]
    if paths:
        write_whole(stage.folder / STAGE_FILE, json.dumps({**stage.record, "model": "removed"}) + "\n")
    for path in paths:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
