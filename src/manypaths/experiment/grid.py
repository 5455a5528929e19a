"""From the YAML of an experiment to its plan: methods x seeds, each sft -> eval -> grpo -> eval, and the controls."""

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from ..config import full_name, parse_mapping
from ..data.sources import looks_like_file
from ..functions import did_you_mean
from ..run_folder import PATHS
from .executors import Compute
from .stages import ModelOf, Stage
from .worker import resolve_subcommand

# Settings of the controls; every one is run unless it is `false`.
CONTROLS: dict[str, dict[str, Any]] = {
    "no_sft": {},
    "no_sft_sharpened": {"temperatures": [0.1, 0.2, 0.3, 0.4, 0.55, 0.7, 0.85, 1.0], "num_samples": 16},
    "stopped_early": {"fraction": 0.33, "from": "schedule"},
    "matched_temperature": {"temperatures": [0.4, 0.6, 0.8, 1.0, 1.25, 1.6, 2.0], "num_samples": 16},
    "weight_averaging": {"weight": 0.5},
}
KEPT = ("all", "final", "none")
QUIET = {"report_to": "none", "disable_tqdm": True}
STEPS = ("sft", "grpo", "eval")


@dataclass(frozen=True)
class Grid:
    """An experiment as its YAML says it, with all defaults filled in. sft, grpo and eval are options of the subcommands."""

    model_name_or_path: str
    methods: dict[str, dict[str, Any]]
    sft: dict[str, Any]
    eval: dict[str, Any]
    grpo: dict[str, Any] | None = None
    title: str | None = None
    baseline: str = ""
    seeds: tuple[int, ...] = (0,)
    controls: dict[str, dict[str, Any] | None] = field(default_factory=dict)
    compute: Compute = field(default_factory=Compute)
    keep_models: str = "all"
    output_dir: str = "experiment"
    world: str | None = None


@dataclass(frozen=True)
class Row:
    """One method and seed: its evaluation before RL and, where there is RL, after it.

    training: the stage that made its model, None for a model that was there.
    """

    method: str
    seed: int
    role: str
    model: ModelOf | str
    before: Stage
    training: Stage | None = None
    rl: Stage | None = None
    after: Stage | None = None
    objective: str | None = None
    objective_kwargs: dict[str, Any] = field(default_factory=dict)
    control: str | None = None
    notes: str = ""


def read_grid(given: Mapping[str, Any], where: str = "the experiment") -> Grid:
    """The experiment in the mapping of a YAML file, which is called `where` in errors.

    Raises ValueError for unknown sections, methods or controls (near names are offered) and for values that cannot be.
    """
    check_names(given, [each.name for each in fields(Grid)], where)
    for name in ("model_name_or_path", "methods", "eval"):
        if not given.get(name):
            raise ValueError(f"{where}: {name} is missing.")
    for name in ("methods", "sft", "eval", "grpo", "controls", "compute"):
        value = given.get(name)
        if value is not None and not isinstance(value, Mapping) and (name, value) != ("grpo", False):
            raise ValueError(f"{where}: {name} must be a mapping, got {value!r}.")
    for name, settings in given["methods"].items():
        check_method(name, settings, where)
    methods = {str(name): dict(settings or {}) for name, settings in given["methods"].items()}
    baseline = str(given.get("baseline") or next(iter(methods)))
    if baseline not in methods:
        raise ValueError(
            f"{where}: the baseline {baseline!r} is not a method. {did_you_mean(baseline, methods)}"
            f"Methods: {', '.join(methods)}."
        )
    if given.get("keep_models", "all") not in KEPT:
        raise ValueError(f"{where}: keep_models is {given['keep_models']!r}; choose one of {', '.join(KEPT)}.")
    (compute,) = parse_mapping((Compute,), given.get("compute") or {}, f"{where}, compute")
    return Grid(**{
        **given,
        "methods": methods,
        "sft": dict(given.get("sft") or {}),
        "grpo": dict(given["grpo"]) if given.get("grpo") else None,
        "eval": dict(given["eval"]),
        "baseline": baseline,
        "seeds": seeds_of(given.get("seeds", (0,)), where),
        "controls": controls_of(given.get("controls") or {}, where),
        "compute": compute,
    })  # fmt: skip


def check_method(name: Any, settings: Any, where: str) -> None:
    """That a method is a mapping of options, and so is what it says of a step; false leaves a step out."""
    parts = {f"method {name}": settings or {}}
    if isinstance(settings, Mapping):
        parts |= {f"{step} of method {name}": settings.get(step) or {} for step in STEPS}
    for part, value in parts.items():
        if not isinstance(value, Mapping):
            raise ValueError(f"{where}: {part} must be a mapping such as {{objective: sed}}, got {value!r}.")


def check_names(given: Iterable[str], known: Iterable[str], where: str) -> None:
    known = list(known)
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(str(name), known, n=2)
            hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(known)}."
            raise ValueError(f"{where}: unknown {name!r}; {hint}")


def seeds_of(value: Any, where: str) -> tuple[int, ...]:
    seeds = tuple(range(value)) if isinstance(value, int) else tuple(value) if isinstance(value, (list, tuple)) else ()
    if not seeds or len(set(seeds)) < len(seeds) or not all(isinstance(seed, int) for seed in seeds):
        raise ValueError(f"{where}: seeds must be a number of seeds or a list of different ones, got {value!r}.")
    return seeds


def controls_of(given: Mapping[str, Any], where: str) -> dict[str, dict[str, Any] | None]:
    """Settings of each control, None for one that is not wanted."""
    check_names(given, CONTROLS, f"{where}, controls")
    controls: dict[str, dict[str, Any] | None] = {}
    for name, defaults in CONTROLS.items():
        value = given.get(name, True)
        if not isinstance(value, (bool, Mapping, type(None))):
            raise ValueError(f"{where}: control {name} must be true, false or a mapping of settings, got {value!r}.")
        settings = value if isinstance(value, Mapping) else {}
        check_names(settings, defaults, f"{where}, control {name}")
        controls[name] = None if value is False else {**defaults, **settings}
    for name, setting in (("stopped_early", "fraction"), ("weight_averaging", "weight")):
        number = (controls[name] or CONTROLS[name])[setting]
        if not isinstance(number, (int, float)) or not 0 < number < 1:
            raise ValueError(f"{where}: {setting} of {name} must lie between 0 and 1, got {number!r}.")
    if (controls["stopped_early"] or CONTROLS["stopped_early"])["from"] not in ("schedule", "checkpoint"):
        raise ValueError(f"{where}: `from` of stopped_early is schedule or checkpoint.")
    return controls


@dataclass(frozen=True)
class Planner:
    """Stages and rows of one seed. Stages with the same key are the same stage, whatever seed they were made for."""

    grid: Grid
    seed: int
    stages: dict[str, Stage]  # by key, parents before those that build on them

    def stage(self, name: str, step: str, subcommand: str, options: Mapping[str, Any]) -> Stage:
        """The stage that is called NAME-SEED-STEP."""
        launch = self.grid.compute.launch if subcommand in ("sft", "grpo") else {}
        slug = re.sub(r"[^A-Za-z0-9_.+-]+", "-", f"{name}-{self.seed}-{step}").strip("-")
        stage = Stage(slug, subcommand, options, Path(self.grid.output_dir).absolute() / "stages", launch)
        return self.stages.setdefault(stage.key, stage)

    def settings(self, method: str) -> dict[str, dict[str, Any] | None]:
        """Options of the three steps of a method, its overrides applied; None for a step it does not have."""
        overrides = dict(self.grid.methods[method])
        nested = {step: overrides.pop(step, {}) for step in STEPS}
        if nested["sft"] not in (None, False):
            nested["sft"] = {"model_name_or_path": self.grid.model_name_or_path, **overrides, **nested["sft"]}
        settings: dict[str, dict[str, Any] | None] = dict.fromkeys(STEPS)
        for step, changes in nested.items():
            common = getattr(self.grid, step)
            if common is not None and changes not in (None, False):
                options = {"seed": self.seed, **canonical(step, common), **canonical(step, changes)}
                options.pop("output_dir", None)
                settings[step] = self.filled(options if step == "eval" else {**QUIET, **options})
        return settings

    @property
    def model(self) -> str:
        """The model that everything starts from."""
        return self.filled({"model_name_or_path": self.grid.model_name_or_path})["model_name_or_path"]

    def filled(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """The seed put in for {seed}, and local paths made absolute: in the current folder, or else in output_dir."""

        def fill(value: Any, is_path: bool) -> Any:
            if isinstance(value, Mapping):
                return {name: fill(inner, is_path or name in PATHS) for name, inner in value.items()}
            if isinstance(value, (list, tuple)):
                return [fill(inner, is_path and not isinstance(inner, Mapping)) for inner in value]
            if not isinstance(value, str):
                return value
            text = value.replace("{seed}", str(self.seed))
            return located(text, Path(self.grid.output_dir)) if is_path else text

        return {name: fill(value, name in PATHS) for name, value in options.items()}

    def method(self, name: str) -> Row:
        settings = self.settings(name)
        role = "baseline" if name == self.grid.baseline else "method"
        if settings["sft"] is None:
            model = self.filled(self.grid.methods[name]).get("model_name_or_path", self.model)
            return self.row(name, role, model, settings)
        training = self.stage(name, "sft", "sft", settings["sft"])
        return self.row(name, role, ModelOf(training), settings, training)

    def row(
        self,
        method: str,
        role: str,
        model: ModelOf | str,
        settings: Mapping[str, dict[str, Any] | None],
        training: Stage | None = None,
        **facts: Any,
    ) -> Row:
        """Evaluation and, where settings["grpo"] is not None, RL and evaluation of a model."""

        def evaluated(model: ModelOf | str, stage: str) -> Stage:
            names = {"label": method, "stage": stage, "train_seed": self.seed}
            options = {"model_name_or_path": model, **settings["eval"], **names}
            return self.stage(method, f"eval-{stage}", "eval", options)

        if settings["sft"] is not None:
            facts["objective"] = settings["sft"].get("objective", "nll")
            facts["objective_kwargs"] = settings["sft"].get("objective_kwargs") or {}
        facts["before"] = evaluated(model, "sft")
        if settings["grpo"] is not None:
            facts["rl"] = self.stage(method, "grpo", "grpo", {"model_name_or_path": model, **settings["grpo"]})
            facts["after"] = evaluated(ModelOf(facts["rl"]), "rl")
        return Row(method, self.seed, role, model, training=training, **facts)


def located(text: str, output_dir: Path) -> str:
    """A relative path that is there, as an absolute one. Anything else (a hub id, a benchmark's name) stays."""
    for place in (Path(text).expanduser(), output_dir / text):
        if place.exists() and not (place.is_dir() and "/" not in text and not text.startswith(".")):
            return str(place.absolute())
    return text


def canonical(step: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Options under the names of their fields: a short name that means the same must not stand beside it."""
    known = {each.name for kind in resolve_subcommand(step)[0] for each in fields(kind)}
    return {full_name(str(name).replace("-", "_"), known): value for name, value in options.items()}


def check_options(grid: Grid, stages: Iterable[Stage]) -> dict[str, tuple[Any, ...]]:
    """The options of every stage by its key, so that a wrong one is told before anything runs."""
    from torch import accelerator

    from ..training.config import of_processes

    elsewhere = grid.compute.gpus_per_stage and not accelerator.is_available()
    of_gpus = {"bf16", "fp16", "tf32", "use_cpu"} if elsewhere else set()
    parsed = {}
    for stage in stages:
        options = {**stage.options_with(lambda reference: reference.example), "output_dir": str(stage.output)}
        options = {name: value for name, value in options.items() if name not in of_gpus}
        types, _, defaults = resolve_subcommand(stage.subcommand)
        where = f"{stage.name} ({stage.subcommand})"
        with of_processes(stage.launch.get("num_processes")):
            parsed[stage.key] = parse_mapping(types, options, where, **defaults)
        try:
            check(stage.subcommand, parsed[stage.key])
        except (ValueError, OSError) as error:
            raise ValueError(f"{where}: {error}") from error
    return parsed


def check(name: str, parsed: tuple[Any, ...]) -> None:
    """What the subcommand itself would refuse at once: names that nothing has, files that are not there."""
    from ..evaluation.benchmarks import resolve_benchmarks
    from ..evaluation.config import check_options as check_evaluation
    from ..training.config import check_installed
    from ..training.config import check_options as check_training

    dataset = getattr(parsed[0], "dataset_name", None)
    if dataset is not None and looks_like_file(dataset) and not Path(dataset).exists():
        raise FileNotFoundError(f"There is no data at {dataset}.")
    if name == "eval":
        check_evaluation(*parsed)
        resolve_benchmarks(parsed[1].benchmarks or [])
    if name in ("sft", "grpo"):
        check_training(*parsed)
        check_installed(parsed[1])
