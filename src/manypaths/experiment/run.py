"""An experiment from its YAML to its results: plan, check, run, collect, report."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.table import Table

from ..config import helped, read_recipe
from ..evaluation.table import Results, given, join, new_header, read_results, write_results
from ..functions import duration
from ..models.loading import check_model
from ..objectives import resolve
from ..run_folder import RunFolder, write_whole
from ..training.curves import curves
from ..worlds import WORLDS, write_world
from .controls import plan
from .estimate import disk_bytes, estimate
from .executors import open_executor
from .grid import Grid, Row, check_options, read_grid
from .progress import progress
from .stages import CONFIG, Chosen, Missing, Stage, run_stages


@dataclass
class ExperimentConfig:
    """Which experiment, and what of its YAML file to override."""

    experiment: str | None = helped(None, "YAML file: model, methods, seeds, options of sft, grpo and eval, controls.")
    output_dir: str | None = helped(None, "Where stages, results and the report go; the name of the file if not given.")
    dry_run: bool = helped(False, "Show the stages, their commands and what they will take, and run nothing.")
    workers: int | None = helped(None, "Stages at the same time on this machine.")


@dataclass
class QuickstartConfig:
    """A small experiment on a built-in world, on a CPU."""

    world: str = helped("recall", f"The world: {' or '.join(WORLDS)}.")
    objectives: str | None = helped(None, "Names separated by commas, instead of the methods; the baseline stays.")
    seeds: int = helped(1, "Repetitions; intervals over seeds need at least 3.")
    seed: int = helped(0, "The first seed.")
    rl_steps: int = helped(100, "GRPO steps after SFT; 0 for none.")
    output_dir: str = helped("quickstart", "Where stages, results and the report go; an interrupted run goes on there.")
    workers: int = helped(2, "Stages at the same time.")
    dry_run: bool = helped(False, "Show the stages, their commands and what they will take, and run nothing.")


class ExperimentFailed(ValueError):
    """Some stages failed; everything else is finished and reported."""

    exit_code = 1


def experiment(config: ExperimentConfig) -> Results | None:
    """`manypaths experiment`: run the experiment, or tell its plan and return None. Raises as `run_experiment` does."""
    if config.experiment is None:
        raise ValueError("no experiment is given: manypaths experiment compare.yaml.")
    recipe = {"output_dir": Path(config.experiment).stem, **read_recipe(config.experiment)}
    if config.workers is not None:
        recipe["compute"] = {**(recipe.get("compute") or {}), "workers": config.workers}
    if config.output_dir is not None:
        recipe["output_dir"] = config.output_dir
    return run_experiment(read_grid(recipe, config.experiment), config.dry_run)


def quickstart(config: QuickstartConfig) -> Results | None:
    """`manypaths quickstart`: the experiment whose YAML is packaged with a world."""
    return run_experiment(quickstart_grid(config), config.dry_run)


def quickstart_grid(config: QuickstartConfig) -> Grid:
    """Raises ValueError for an unknown world or numbers that cannot be."""
    if config.world not in WORLDS:
        raise ValueError(f"there is no world {config.world!r}; choose one of {', '.join(WORLDS)}.")
    if config.seeds < 1 or config.rl_steps < 0:
        raise ValueError(f"seeds ({config.seeds}) must be at least 1 and rl_steps ({config.rl_steps}) at least 0.")
    recipe = read_recipe(str(WORLDS[config.world].experiment))
    if config.objectives is not None:
        methods = recipe["methods"]
        labels = {settings["objective"]: label for label, settings in methods.items()}
        names = [name.strip() for name in config.objectives.split(",") if name.strip()]
        chosen = [recipe["baseline"], *(labels.get(name, name) for name in names)]
        recipe["methods"] = {label: methods.get(label, {"objective": label}) for label in chosen}
    for settings in recipe["methods"].values():
        resolve(settings["objective"], **settings.get("objective_kwargs", {}))
    recipe |= {
        "grpo": {**recipe["grpo"], "max_steps": config.rl_steps} if config.rl_steps else None,
        "compute": {**recipe["compute"], "workers": config.workers},
        "seeds": list(range(config.seed, config.seed + config.seeds)),
        "world": config.world,
        "output_dir": config.output_dir,
    }
    return read_grid(recipe, "quickstart")


def run_experiment(grid: Grid, dry_run: bool = False) -> Results | None:
    """Run every stage that is not finished, collect all results and write the report. None after a dry run.

    Interrupted and started again, it goes on and gives the same numbers. Raises ValueError for wrong settings, before
    anything is run; ExperimentFailed after the report where stages failed.
    """
    root, console = Path(grid.output_dir), Console(highlight=False)
    # Methods, seeds and settings of a folder may change: stages are known by their content.
    settings = {"model_name_or_path": grid.model_name_or_path, "baseline": grid.baseline, "world": grid.world}
    with RunFolder(root, "experiment", settings) as folder:
        if grid.world is not None:
            for seed in grid.seeds:
                write_world(grid.world, root / "world" / str(seed), seed)
        rows, stages, left_out = plan(grid)
        for model in {row.model for row in rows if isinstance(row.model, str)}:
            check_model(model)
        costs, measured = estimate(stages, check_options(grid, stages))
        expendable = expendable_models(grid, rows, stages)
        if dry_run:
            show_plan(grid, stages, costs, measured, disk_bytes(stages, expendable), console)
            return None
        folder.record()
        write_whole(root / "experiment.yaml", yaml.safe_dump(as_recipe(grid), sort_keys=False, allow_unicode=True))
        with open_executor(grid.compute) as executor, progress(stages, costs, executor.slots, console) as told:
            missing = run_stages(stages, executor, costs, expendable, told)
        results = collect(grid, rows, missing, left_out)
        write_results(results, root)
        from ..report import print_report, write_report

        page = write_report(results, root)
    print_report(results, console)
    console.print(f"report: {page}", markup=False)
    lines = [f"{lost.cause.name} failed: {lost.reason} (log: {lost.log})" for lost in missing.values() if lost.log]
    if lines:
        lines = [*dict.fromkeys(lines), "All that does not build on it is finished; the same command goes on."]
        raise ExperimentFailed("\n".join(lines))
    return results


def as_recipe(grid: Grid) -> dict[str, Any]:
    """The experiment as YAML that gives it again, with all defaults written out."""
    recipe = {name: value for name, value in vars(grid).items() if value is not None}
    controls = {name: False if settings is None else settings or True for name, settings in grid.controls.items()}
    compute = {name: value for name, value in vars(grid.compute).items() if value is not None}
    return {**recipe, "seeds": list(grid.seeds), "controls": controls, "compute": compute}


def expendable_models(grid: Grid, rows: Sequence[Row], stages: Sequence[Stage]) -> frozenset[str]:
    """Keys of stages whose model goes when nothing builds on it any more: `final` keeps the last of each row."""
    makers = {stage.key for stage in stages if stage.subcommand != "eval"}
    last = {(row.rl or row.training).key for row in rows if row.rl or row.training}
    return frozenset({"all": set(), "final": makers - last, "none": makers}[grid.keep_models])


def show_plan(
    grid: Grid, stages: Sequence[Stage], costs: Mapping[str, float], measured: bool, disk: int, console: Console
) -> None:
    table = Table("stage", "expected", "state", title=grid.title)
    for stage in stages:
        state = "finished" if stage.record else "interrupted" if stage.log.is_file() else ""
        table.add_row(stage.name, duration(costs[stage.key]), state)
    console.print(table)
    for stage in stages:
        console.print(stage.by_hand, markup=False, soft_wrap=True)
    rest = sum(costs[stage.key] for stage in stages if not stage.record)
    slots = grid.compute.workers
    basis = "from finished stages" if measured else "roughly, from counted operations and a measured matrix product"
    console.print(f"\n{len(stages)} stages, {duration(rest / slots)} with {slots} at a time ({basis}); "
                  f"models on disk: {disk / 1e9:.1f} GB.", markup=False)  # fmt: skip


def collect(
    grid: Grid, rows: Sequence[Row], missing: Mapping[str, Missing], left_out: Sequence[Mapping[str, Any]]
) -> Results:
    """The results of all finished evaluations under the names of their rows; the others are left out with the reason."""
    several, lost, chosen = [], [dict(entry) for entry in left_out], {}
    for row in rows:
        for stage, evaluation, maker in (("sft", row.before, row.training), ("rl", row.after, row.rl)):
            if evaluation is None:
                continue
            if why := missing.get(evaluation.key):
                log = None if why.log is None else str(why.log.absolute())
                reason = f"{why.cause.name}: {why.reason}"
                lost.append({"method": row.method, "stage": stage, "seed": row.seed, "reason": reason, "log": log})
                continue
            results = given(read_results(evaluation.output), row.method, stage, row.seed, **facts(row, maker))
            if isinstance(evaluation.options.get("temperature"), Chosen):
                results = at_default(results, grid.eval.get("temperature"))
                temperature = read_recipe(str(evaluation.folder / CONFIG))["temperature"]
                chosen.setdefault(row.control, {})[str(row.seed)] = temperature
            several.append(results)
    header = {
        "title": grid.title,
        "baseline": grid.baseline,
        "stages": ["sft", "rl"] if grid.grpo is not None else ["sft"],
        "world": grid.world,
        "seeds": list(grid.seeds),
        "methods": list(dict.fromkeys(row.method for row in rows)),
        "controls": {row.control: row.method for row in rows if row.control},
        "matched": chosen,
    }
    return replace(join(several), left_out=lost, experiment=header, header=new_header(as_recipe(grid)), folders=())


def at_default(results: Results, temperature: float | None) -> Results:
    """Results at a temperature that was chosen for this seed, in one line with the others and with other seeds.

    `tasks` says what each was sampled at.
    """
    asked = math.nan if temperature is None else float(temperature)
    return replace(
        results,
        scores=results.scores.assign(temperature=asked),
        items=results.items.assign(temperature=asked),
        tasks=[{**task, "temperature": temperature} for task in results.tasks],
    )


def facts(row: Row, maker: Stage | None) -> dict[str, Any]:
    """What a run says beside its evaluation's own words; `maker` made its model."""
    said = {name: getattr(row, name) for name in ("role", "control", "objective", "objective_kwargs", "notes")}
    if maker is None:
        return {**said, "seconds": None, "training": {}}
    return {**said, "seconds": maker.record["seconds"], "training": curves(maker.output)}
