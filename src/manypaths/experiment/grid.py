"""From the YAML of an experiment to its plan: methods x seeds, each sft -> eval -> grpo -> eval, and the controls."""

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from ..config import parse_mapping, read_recipe
from ..data.sources import looks_like_file
from ..functions import did_you_mean
from ..models.loading import machine_defaults
from ..run_folder import PATHS
from .executors import Compute
from .stages import Chosen, ModelOf, Stage, is_reference
from .worker import options_of

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
EXAMPLE = "a-model"  # stands for the model of another stage while options are checked


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
    output_dir: str = "compared"
    world: str | None = None


@dataclass(frozen=True)
class Row:
    """One method and seed: its evaluation before RL and, where there is RL, after it.

    training: the stage that made its model, None for a model that was there. settings: of its sft and eval.
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


def read_grid(recipe: Mapping[str, Any] | str | Path, where: str = "the experiment", **overrides: Any) -> Grid:
    """The experiment in a YAML file, or in a mapping of the same form that is called `where` in errors.

    Overrides that are None do not count.

    Raises ValueError for unknown sections, methods or controls (near names are offered) and for values that cannot be.
    """
    if not isinstance(recipe, Mapping):
        recipe, where = read_recipe(str(recipe)), str(recipe)
    given = dict(recipe)
    given |= {name: value for name, value in overrides.items() if value is not None}
    check_names(given, [each.name for each in fields(Grid)], where)
    for name in ("model_name_or_path", "methods", "eval"):
        if not given.get(name):
            raise ValueError(f"{where}: {name} is missing.")
    for name in ("methods", "sft", "eval", "grpo", "controls", "compute"):
        if not isinstance(given.get(name) or {}, Mapping):
            raise ValueError(f"{where}: {name} must be a mapping, got {given[name]!r}.")
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
        number = (controls[name] or {}).get(setting, 0.5)
        if not isinstance(number, (int, float)) or not 0 < number < 1:
            raise ValueError(f"{where}: {setting} of {name} must lie between 0 and 1, got {number!r}.")
    if (controls["stopped_early"] or {}).get("from", "schedule") not in ("schedule", "checkpoint"):
        raise ValueError(f"{where}: `from` of stopped_early is schedule or checkpoint.")
    return controls


class Planner:
    """Stages and rows of one experiment. Stages with the same key are the same stage."""

    def __init__(self, grid: Grid) -> None:
        self.grid = grid
        self.root = Path(grid.output_dir).absolute() / "stages"
        self.stages: dict[str, Stage] = {}  # by key, parents before those that build on them

    def stage(self, name: str, subcommand: str, options: Mapping[str, Any]) -> Stage:
        launch = self.grid.compute.launch if subcommand in ("sft", "grpo") else {}
        slug = re.sub(r"[^A-Za-z0-9_.+-]+", "-", name).strip("-")
        stage = Stage(slug, subcommand, options, self.root, launch)
        return self.stages.setdefault(stage.key, stage)

    def settings(self, method: str, seed: int) -> dict[str, dict[str, Any] | None]:
        """Options of the three steps of a method, its overrides applied; None for a step it does not have."""
        overrides = dict(self.grid.methods[method])
        nested = {step: overrides.pop(step, {}) for step in STEPS}
        if nested["sft"] not in (None, False):
            nested["sft"] = {"model_name_or_path": self.grid.model_name_or_path, **overrides, **nested["sft"]}
        settings: dict[str, dict[str, Any] | None] = {}
        for step, common in (("sft", self.grid.sft), ("grpo", self.grid.grpo), ("eval", self.grid.eval)):
            if common is None or nested[step] in (None, False):
                settings[step] = None
                continue
            options = {"seed": seed, **canonical(step, common), **canonical(step, nested[step])}
            options.pop("output_dir", None)
            settings[step] = self.filled(options if step == "eval" else {**QUIET, **options}, seed)
        return settings

    def model(self, seed: int) -> str:
        """The model that everything starts from."""
        return self.filled({"model_name_or_path": self.grid.model_name_or_path}, seed)["model_name_or_path"]

    def filled(self, options: Mapping[str, Any], seed: int) -> dict[str, Any]:
        """The seed put in for {seed}, and local paths made absolute: in the current folder, or else in output_dir."""

        def fill(value: Any, is_path: bool) -> Any:
            if isinstance(value, Mapping):
                return {name: fill(inner, False) for name, inner in value.items()}
            if isinstance(value, (list, tuple)):
                return [fill(inner, is_path) for inner in value]
            if not isinstance(value, str):
                return value
            text = value.replace("{seed}", str(seed))
            return located(text, Path(self.grid.output_dir)) if is_path else text

        return {name: fill(value, name in PATHS) for name, value in options.items()}

    def method(self, name: str, seed: int) -> Row:
        settings = self.settings(name, seed)
        role = "baseline" if name == self.grid.baseline else "method"
        if settings["sft"] is None:
            model = self.filled(self.grid.methods[name], seed).get("model_name_or_path", self.model(seed))
            return self.row(name, seed, role, model, settings)
        training = self.stage(f"{name}-{seed}-sft", "sft", settings["sft"])
        return self.row(name, seed, role, ModelOf(training), settings, training)

    def row(
        self,
        method: str,
        seed: int,
        role: str,
        model: ModelOf | str,
        settings: Mapping[str, dict[str, Any] | None],
        training: Stage | None = None,
        **facts: Any,
    ) -> Row:
        """Evaluation and, where settings["grpo"] is not None, RL and evaluation of a model."""

        def evaluated(model: ModelOf | str, step: str) -> Stage:
            names = {"label": method, "stage": step, "train_seed": seed}
            return self.stage(
                f"{method}-{seed}-eval-{step}", "eval", {"model_name_or_path": model, **settings["eval"], **names}
            )

        sft = settings["sft"] or {}
        row = Row(
            method, seed, role, model, evaluated(model, "sft"), training, objective=sft.get("objective", "nll" if sft else None),
            objective_kwargs=sft.get("objective_kwargs") or {}, **facts,
        )  # fmt: skip
        if settings["grpo"] is None:
            return row
        rl = self.stage(f"{method}-{seed}-grpo", "grpo", {"model_name_or_path": model, **settings["grpo"]})
        return replace(row, rl=rl, after=evaluated(ModelOf(rl), "rl"))


def located(text: str, output_dir: Path) -> str:
    """A relative path that is there, as an absolute one. Anything else (a hub id, a benchmark's name) stays."""
    for place in (Path(text).expanduser(), output_dir / text):
        if place.exists() and not (place.is_dir() and "/" not in text and not text.startswith(".")):
            return str(place.absolute())
    return text


def canonical(step: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Options under the names of their fields: a short name that means the same must not stand beside it."""
    names = {
        alias.lstrip("-"): each.name
        for kind in options_of(step)
        for each in fields(kind)
        for alias in each.metadata.get("aliases", ())
    }
    return {names.get(key := str(name).replace("-", "_"), key): value for name, value in options.items()}


def check_options(grid: Grid, stages: Iterable[Stage]) -> None:
    """Build the options of every stage, so that a wrong one is told before anything runs."""
    from torch import accelerator

    elsewhere = (
        {"bf16", "fp16", "tf32", "use_cpu"} if grid.compute.gpus_per_stage and not accelerator.is_available() else set()
    )
    for stage in stages:
        options = {name: example(value) for name, value in stage.options.items() if name not in elsewhere}
        defaults = machine_defaults() if stage.subcommand in ("sft", "grpo") else {}
        where = f"{stage.name} ({stage.subcommand})"
        parsed = parse_mapping(
            options_of(stage.subcommand), {**options, "output_dir": str(stage.output)}, where, **defaults
        )
        try:
            check(stage.subcommand, parsed)
        except (ValueError, OSError) as error:
            raise ValueError(f"{where}: {error}") from error


def example(value: Any) -> Any:
    if not is_reference(value):
        return value
    return value.example if isinstance(value, Chosen) else EXAMPLE


def check(subcommand: str, parsed: tuple[Any, ...]) -> None:
    """What the subcommand itself would refuse at once: names that nothing has, files that are not there."""
    from ..evaluation.benchmarks import resolve_benchmarks
    from ..evaluation.config import check_options as check_evaluation
    from ..grading.graders import resolve_grader

    data = parsed[0]
    name = getattr(data, "dataset_name", None)
    if name is not None and looks_like_file(name) and not Path(name).exists():
        raise FileNotFoundError(f"There is no data at {name}.")
    if subcommand == "eval":
        check_evaluation(*parsed)
        resolve_benchmarks(parsed[1].benchmarks or [])
    elif subcommand in ("sft", "grpo") and name is None:
        raise ValueError("dataset_name is missing: a .json, .jsonl or .parquet file, a folder, or a hub id.")
    if subcommand == "grpo":
        if not parsed[1].reward_funcs:
            raise ValueError("reward_funcs is missing: math, exact, countdown, chain, or module:function.")
        for reward in parsed[1].reward_funcs:
            resolve_grader(reward)
