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
from typing import Any, Protocol

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
        state = json.loads((self.stage.output / "trainer_state.json").read_text())
        steps = {int(path.name.rpartition("-")[2]): path for path in self.stage.output.glob("checkpoint-*")}
        if not steps:
            raise NotPossible(f"{self.stage.name} saved no checkpoint: set save_strategy and save_steps under `sft`")
        return str(steps[min(steps, key=lambda step: abs(step - self.share * state["global_step"]))])


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
        references = (value for value in self.options.values() if isinstance(value, (ModelOf, Chosen)))
        return [stage for reference in references for stage in reference.stages]

    @cached_property
    def key(self) -> str:
        options = {name: identity(name, value) for name, value in self.options.items() if is_important(name)}
        versions = {name: version(name) for name in LIBRARIES}
        return fingerprint([self.subcommand, options, dict(self.launch), versions])[:12]

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
    def command(self) -> str:
        launch = "".join(f" --{name} {value}" for name, value in self.launch.items())
        return f"manypaths {self.subcommand} --config {self.folder / CONFIG}{launch}"

    @property
    def by_hand(self) -> str:
        """The command with all options; a value that is chosen from other stages is described."""
        options = {name: value.described() if is_reference(value) else value for name, value in self.options.items()}
        tokens = [
            f"--{name} {as_tokens(value)}" for name, value in ({**options, **self.launch}).items() if value is not None
        ]
        return " ".join(["manypaths", self.subcommand, *tokens, f"--output_dir {shlex.quote(str(self.output))}"])

    def write_config(self) -> None:
        """The options as they are now that everything before is finished. Raises NotPossible."""
        options = {name: value.value() if is_reference(value) else value for name, value in self.options.items()}
        self.folder.mkdir(parents=True, exist_ok=True)
        text = yaml.safe_dump({**options, "output_dir": str(self.output)}, sort_keys=False, allow_unicode=True)
        write_whole(self.folder / CONFIG, f"# {self.command}\n{text}")

    @property
    def task(self) -> dict[str, Any]:
        """What an executor needs to run it."""
        return {"name": self.name, "subcommand": self.subcommand, "folder": str(self.folder), "launch": {**self.launch}}


def as_tokens(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return " ".join(as_tokens(inner) for inner in value)
    text = (
        json.dumps(value)
        if isinstance(value, Mapping)
        else str(value).lower()
        if isinstance(value, bool)
        else str(value)
    )
    return shlex.quote(text)


def is_reference(value: Any) -> bool:
    return isinstance(value, (ModelOf, Chosen))


def is_important(name: str) -> bool:
    return name not in UNIMPORTANT and not name.startswith(UNIMPORTANT_PREFIXES)


def identity(name: str, value: Any) -> Any:
    """What makes an option's value the same: the content of files, the source of functions, the key of a stage."""
    if is_reference(value):
        return value.identity()
    if isinstance(value, (list, tuple)):
        return [identity(name, inner) for inner in value]
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
    beside = path.parent / str(benchmark.get("source"))
    grader = str(benchmark.get("grader"))
    return [content_fingerprint(beside), source(grader, "grader") if FUNCTION.fullmatch(grader) else None]


def source(function: str, role: str) -> str:
    """A name for the file that holds a user's function, so that an edited one is not answered from an older run."""
    return fingerprint(inspect.getsource(inspect.getmodule(import_function(function, role))))


class Executor(Protocol):
    """Where stages run: `submit` gives a future of run_stage's answer, and takes `slots` of them at a time."""

    slots: int

    def submit(self, task: Mapping[str, Any]) -> Future: ...


@dataclass(frozen=True)
class Missing:
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
    children: dict[str, list[Stage]] = {stage.key: [] for stage in stages}
    for stage in stages:
        for parent in stage.parents:
            children[parent.key].append(stage)
    finished = kept(stages, children)
    missing: dict[str, Missing] = {}
    for stage in stages:
        if stage.key in finished:
            told("kept", stage, "")
    waiting = [stage for stage in stages if stage.key not in finished]
    urgency = chain_costs(stages, children, costs)
    running: dict[Future, Stage] = {}

    def lose(stage: Stage, event: str, cause: Missing) -> None:
        missing[stage.key] = cause
        told(event, stage, cause.reason)

    def begin(stage: Stage) -> None:
        try:
            stage.write_config()
        except NotPossible as error:
            lose(stage, "left out", Missing(stage, str(error), None))
        else:
            running[executor.submit(stage.task)] = stage
            told("started", stage, "")

    def end(stage: Stage, answer: Mapping[str, Any]) -> None:
        if "error" in answer:
            lose(stage, "failed", Missing(stage, answer["error"], stage.log))
            return
        finished.add(stage.key)
        told("finished", stage, "")
        for done in [*stage.parents, stage]:
            if done.key in expendable and all(child.key in finished for child in children[done.key]):
                remove_model(done)

    while waiting or running:
        for stage in [stage for stage in waiting if any(parent.key in missing for parent in stage.parents)]:
            waiting.remove(stage)
            lose(stage, "left out", next(missing[parent.key] for parent in stage.parents if parent.key in missing))
        ready = [stage for stage in waiting if all(parent.key in finished for parent in stage.parents)]
        for stage in sorted(ready, key=lambda stage: -urgency[stage.key])[: executor.slots - len(running)]:
            waiting.remove(stage)
            begin(stage)
        if running:
            done, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                end(running.pop(future), answer_of(future))
    return missing


def answer_of(future: Future) -> Mapping[str, Any]:
    try:
        return future.result()
    except Exception as error:  # the stage's process or node is gone, or the executor gave up on it
        return {"error": " ".join(f"{type(error).__name__}: {error}".split())}


def kept(stages: Sequence[Stage], children: Mapping[str, Sequence[Stage]]) -> set[str]:
    """Keys of finished stages. One whose model was removed counts only while nothing has to be built on it."""
    finished: set[str] = set()
    for stage in reversed(stages):
        record = stage.record
        needed = any(child.key not in finished for child in children[stage.key])
        if record is not None and not (record.get("model") == "removed" and needed):
            finished.add(stage.key)
    return finished


def chain_costs(
    stages: Sequence[Stage], children: Mapping[str, Sequence[Stage]], costs: Mapping[str, float]
) -> dict[str, float]:
    """Expected seconds of the longest chain of stages that starts with each stage, by key."""
    chains: dict[str, float] = {}
    for stage in reversed(stages):
        chains[stage.key] = costs[stage.key] + max((chains[child.key] for child in children[stage.key]), default=0.0)
    return chains


def remove_model(stage: Stage) -> None:
    """Delete the weights that a finished stage saved; its curves, log and config stay."""
    found = [path for pattern in MODELS for path in stage.output.glob(pattern)]
    if found:
        write_whole(stage.folder / STAGE_FILE, json.dumps({**stage.record, "model": "removed"}) + "\n")
    for path in found:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
