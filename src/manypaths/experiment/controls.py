"""The controls of a comparison: what looks like an objective's merit but is had more cheaply.

Each is a method like the others, made from the baseline: no SFT, no SFT but sampled as sharply as the baseline is, SFT
stopped early, the baseline sampled at another temperature, the average of base and baseline weights. Sampling and RL at
temperature T are sampling and RL of the model with logits / T, so sharpening needs no change of weights.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from ..config import read_recipe
from ..evaluation.statistics import matching_temperature
from ..evaluation.table import AVERAGE, Results, read_results
from .grid import Grid, Planner, Row
from .stages import Chosen, ModelOf, NotPossible, Stage

# Options of an evaluation that a sweep over temperatures does without: it measures accuracy only.
NOT_SWEPT = frozenset(
    ["prompts", "reference", "reread_samples", "forgetting", "task_dir", "reward_model", "embedding_model"]
)
FIRST = {"num_train_epochs": 3.0}  # TRL's default, where neither epochs nor steps are given


def plan(grid: Grid) -> tuple[list[Row], list[Stage], list[dict[str, Any]]]:
    """The rows of the experiment, its stages (parents first), and the controls that it does not have, with reasons."""
    planner = Planner(grid)
    rows, left_out = [], []
    for seed in grid.seeds:
        methods = [planner.method(name, seed) for name in sorted(grid.methods, key=lambda name: name != grid.baseline)]
        rows += methods
        for name, build in CONTROLS.items():
            settings = grid.controls[name]
            try:
                if settings is None:
                    raise NotPossible("not asked for")
                rows.append(build(planner, seed, methods, settings))
            except NotPossible as error:
                left_out.append(
                    {"method": label(grid, name), "stage": "", "seed": seed, "reason": str(error), "log": None}
                )
    return rows, list(planner.stages.values()), left_out


def label(grid: Grid, control: str) -> str:
    return LABELS[control].format(baseline=grid.baseline)


LABELS = {
    "no_sft": "no SFT",
    "no_sft_sharpened": "no SFT, sharpened",
    "stopped_early": "{baseline}, stopped early",
    "matched_temperature": "{baseline}, matched temperature",
    "weight_averaging": "{baseline}, averaged with the base",
}


def no_sft(planner: Planner, seed: int, methods: Sequence[Row], settings: Mapping[str, Any]) -> Row:
    """The model that everything starts from, and RL on it."""
    return planner.row(label(planner.grid, "no_sft"), seed, "control", planner.model(seed),
                       without_sft(planner, seed), control="no_sft")  # fmt: skip


def without_sft(planner: Planner, seed: int) -> dict[str, dict[str, Any] | None]:
    """The baseline's settings for a base that may get no reward at all: that is a result, not a mistake."""
    settings = planner.settings(planner.grid.baseline, seed)
    grpo = None if settings["grpo"] is None else {**settings["grpo"], "preflight_prompts": 0}
    return {**settings, "sft": None, "grpo": grpo}


def no_sft_sharpened(planner: Planner, seed: int, methods: Sequence[Row], settings: Mapping[str, Any]) -> Row:
    """The base at the temperature at which its pass@1 is the baseline's, before and in RL."""
    name, base = label(planner.grid, "no_sft_sharpened"), planner.model(seed)
    options = without_sft(planner, seed)
    swept = sweep(planner, f"{name}-{seed}", base, options["eval"], settings)
    stages = (swept, methods[0].before)
    options["eval"] = {**options["eval"], "temperature": Chosen(temperature_of_target, stages, {}, 1.0)}
    if options["grpo"] is not None:
        start = float(options["grpo"].get("temperature", 1.0))
        options["grpo"]["temperature"] = Chosen(rl_temperature_of_target, stages, {"start": start}, 1.0)
    return planner.row(name, seed, "control", base, options, control="no_sft_sharpened",
                       notes=f"sampled, and trained by RL, at the temperature of {methods[0].method}'s pass@1")  # fmt: skip


def stopped_early(planner: Planner, seed: int, methods: Sequence[Row], settings: Mapping[str, Any]) -> Row:
    """A share of the baseline's schedule, or the checkpoint of its own run that is nearest to it."""
    name, fraction = label(planner.grid, "stopped_early"), settings["fraction"]
    options = planner.settings(planner.grid.baseline, seed)
    sft = options["sft"]
    if sft is None:
        raise NotPossible("the baseline has no SFT")
    if settings["from"] == "checkpoint":
        if str(sft.get("save_strategy", "steps")) == "no":
            raise NotPossible("`from: checkpoint` needs checkpoints: give save_strategy and save_steps under `sft`")
        model, training, notes = ModelOf(methods[0].training, fraction), methods[0].training, "a checkpoint of its run"
    else:
        length = "max_steps" if int(sft.get("max_steps", -1)) > 0 else "num_train_epochs"
        value = fraction * float(sft.get(length, FIRST.get(length)))
        options["sft"] = {**sft, length: max(1, round(value)) if length == "max_steps" else round(value, 6)}
        training = planner.stage(f"{name}-{seed}-sft", "sft", options["sft"])
        model, notes = ModelOf(training), f"{length} {options['sft'][length]:g}"
    return planner.row(name, seed, "control", model, options, training, control="stopped_early", notes=notes)


def matched_temperature(planner: Planner, seed: int, methods: Sequence[Row], settings: Mapping[str, Any]) -> Row:
    """The baseline's model, sampled where its pass@1 is that of the method with most different right answers."""
    baseline, *others = methods
    if not others:
        raise NotPossible("there is no method beside the baseline")
    name = label(planner.grid, "matched_temperature")
    options = planner.settings(planner.grid.baseline, seed)
    swept = sweep(planner, f"{name}-{seed}", baseline.model, options["eval"], settings)
    temperature = Chosen(temperature_of_most_diverse, (swept, baseline.before, *(row.before for row in others)),
                         {"names": [row.method for row in others]}, 1.0)  # fmt: skip
    options = {**options, "eval": {**options["eval"], "temperature": temperature}, "grpo": None}
    return planner.row(name, seed, "control", baseline.model, options, baseline.training, control="matched_temperature",
                       notes="sampled where its pass@1 is that of the most diverse method, before RL only")  # fmt: skip


def weight_averaging(planner: Planner, seed: int, methods: Sequence[Row], settings: Mapping[str, Any]) -> Row:
    """WiSE-FT (arXiv:2109.01903, 2504.10478): (1 - weight) * base + weight * baseline."""
    name = label(planner.grid, "weight_averaging")
    options = planner.settings(planner.grid.baseline, seed)
    if methods[0].training is None:
        raise NotPossible("the baseline has no SFT")
    inputs = {"base": options["sft"]["model_name_or_path"], "tuned": methods[0].model, "weight": settings["weight"]}
    averaged = planner.stage(f"{name}-{seed}-average", "average", inputs)
    return planner.row(name, seed, "control", ModelOf(averaged), options, averaged, control="weight_averaging",
                       notes=f"(1 - w) base + w {planner.grid.baseline}, w = {settings['weight']:g}")  # fmt: skip


CONTROLS: dict[str, Callable[[Planner, int, Sequence[Row], Mapping[str, Any]], Row]] = {
    "no_sft": no_sft,
    "no_sft_sharpened": no_sft_sharpened,
    "stopped_early": stopped_early,
    "matched_temperature": matched_temperature,
    "weight_averaging": weight_averaging,
}


def sweep(
    planner: Planner, name: str, model: ModelOf | str, evaluation: Mapping[str, Any], settings: Mapping[str, Any]
) -> Stage:
    """A small evaluation of the main benchmarks over several temperatures."""
    options = {name: value for name, value in evaluation.items() if name not in NOT_SWEPT and name != "temperature"}
    if options.get("benchmarks"):
        options = {name: value for name, value in options.items() if not name.startswith("dataset_")}
        options["benchmarks"] = [benchmark for benchmark in options["benchmarks"] if is_main(benchmark)]
    temperatures = ",".join(f"{value:g}" for value in settings["temperatures"])
    options |= {"temperatures": temperatures, "num_samples": settings["num_samples"]}
    return planner.stage(f"{name}-sweep", "eval", {"model_name_or_path": model, **options})


def is_main(benchmark: str) -> bool:
    path = Path(benchmark)
    return not path.is_file() or read_recipe(benchmark).get("group", "main") == "main"


# What a stage's temperature is chosen by, when the evaluations that it depends on are finished.


def temperature_of_target(outputs: Sequence[Path]) -> float:
    """outputs: a sweep, and an evaluation. The temperature at which the first has the second's pass@1."""
    swept, target = (read_results(output) for output in outputs)
    return matched(swept, headline(target.scores, "pass@1"))


def rl_temperature_of_target(outputs: Sequence[Path], start: float) -> float:
    """The same sharpening in RL: its temperature is to `start` what the sampled one is to the evaluation's."""
    return round(start * temperature_of_target(outputs) / sampling_temperature(read_results(outputs[1])), 4)


def temperature_of_most_diverse(outputs: Sequence[Path], names: Sequence[str]) -> float:
    """outputs: a sweep of the baseline, its evaluation, and those of the other methods, which are called `names`.

    Of the methods with more different right answers than the baseline, the most diverse whose pass@1 it can have.
    """
    swept, baseline, *others = (read_results(output) for output in outputs)
    least = headline(baseline.scores, "distinct_correct")
    diversity = {name: headline(each.scores, "distinct_correct") for name, each in zip(names, others, strict=True)}
    reason = "no method has more different right answers than the baseline"
    for name, results in sorted(zip(names, others, strict=True), key=lambda pair: -diversity[pair[0]]):
        try:
            if diversity[name] > least:
                return matched(swept, headline(results.scores, "pass@1"))
        except NotPossible as error:
            reason = f"{name} has more different right answers, but the baseline cannot have its pass@1: {error}"
    raise NotPossible(reason)


def matched(swept: Results, target: float) -> float:
    rows = headlines(swept.scores, "pass@1")
    try:
        return round(matching_temperature(list(zip(rows["temperature"], rows["value"], strict=True)), target), 4)
    except ValueError as error:
        raise NotPossible(str(error)) from error


def headline(scores: pd.DataFrame, metric: str) -> float:
    """The one value that models are compared by: the mean over main benchmarks, or that of the only one."""
    values = headlines(scores, metric)["value"]
    if len(values) != 1:
        raise NotPossible(f"the evaluation has no single {metric} over its main benchmarks")
    return float(values.iloc[0])


def headlines(scores: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Rows of the headline, one for each temperature."""
    rows = scores[(scores["metric"] == metric) & ~scores["flags"].str.split(";").map(lambda words: "side" in words)]
    averages = rows[rows["task"] == AVERAGE]
    return averages if len(averages) else rows


def sampling_temperature(results: Results) -> float:
    """At which the main benchmarks were sampled."""
    values = {task["sampling"]["temperature"] for task in results.tasks if task["group"] == "main" and task["sampling"]}
    if len(values) != 1 or not (value := values.pop()):
        raise NotPossible("the main benchmarks are not all sampled at one temperature above 0")
    return float(value)
