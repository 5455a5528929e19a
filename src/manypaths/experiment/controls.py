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
NOT_SWEPT = (
    "temperature", "prompts", "reference", "reread_samples", "forgetting", "task_dir", "reward_model", "embedding_model",
)  # fmt: skip
EPOCHS = 3.0  # TRL's default, where neither epochs nor steps are given


def plan(grid: Grid) -> tuple[list[Row], list[Stage], list[dict[str, Any]]]:
    """The rows of the experiment, its stages (parents first), and the controls that it does not have, with reasons."""
    rows, stages, left_out = [], {}, []
    for seed in grid.seeds:
        planner = Planner(grid, seed, stages)
        methods = [planner.method(name) for name in sorted(grid.methods, key=lambda name: name != grid.baseline)]
        rows += methods
        for control, (label, build) in CONTROLS.items():
            name, settings = label.format(baseline=grid.baseline), grid.controls[control]
            try:
                if settings is None:
                    raise NotPossible("not asked for")
                rows.append(planner.row(name, "control", control=control, **build(planner, name, methods, settings)))
            except NotPossible as error:
                left_out.append({"method": name, "stage": "", "seed": seed, "reason": str(error), "log": None})
    return rows, list(stages.values()), left_out


# Each control gives its model, the settings of its evaluation and RL, what made the model, and a note, from its name,
# the rows of the methods (the baseline first) and its settings.


def no_sft(planner: Planner, name: str, methods: Sequence[Row], settings: Mapping[str, Any]) -> dict[str, Any]:
    """The model that everything starts from, and RL on it. No reward at all is a result here, not a mistake."""
    options = {**planner.settings(planner.grid.baseline), "sft": None}
    if options["grpo"] is not None:
        options["grpo"]["preflight_prompts"] = 0
    return {"model": planner.model, "settings": options}


def no_sft_sharpened(
    planner: Planner, name: str, methods: Sequence[Row], settings: Mapping[str, Any]
) -> dict[str, Any]:
    """The base at the temperature at which its pass@1 is the baseline's, before and in RL."""
    base = no_sft(planner, name, methods, settings)
    options = base["settings"]
    stages = (sweep(planner, name, planner.model, options["eval"], settings), methods[0].before)
    options["eval"]["temperature"] = Chosen(temperature_of_target, stages, {}, 1.0)
    if options["grpo"] is not None:
        start = float(options["grpo"].get("temperature", 1.0))
        options["grpo"]["temperature"] = Chosen(rl_temperature_of_target, stages, {"start": start}, 1.0)
    return {**base, "notes": f"sampled, and trained by RL, at the temperature of {methods[0].method}'s pass@1"}


def stopped_early(planner: Planner, name: str, methods: Sequence[Row], settings: Mapping[str, Any]) -> dict[str, Any]:
    """A share of the baseline's schedule, or the checkpoint of its own run that is nearest to it."""
    fraction, options = settings["fraction"], planner.settings(planner.grid.baseline)
    sft = options["sft"]
    if sft is None:
        raise NotPossible("the baseline has no SFT")
    if settings["from"] == "checkpoint":
        if str(sft.get("save_strategy", "steps")) == "no":
            raise NotPossible("`from: checkpoint` needs checkpoints: give save_strategy and save_steps under `sft`")
        training = methods[0].training
        model, notes = ModelOf(training, fraction), "a checkpoint of its run"
    else:
        in_steps = int(sft.get("max_steps", -1)) > 0
        length = "max_steps" if in_steps else "num_train_epochs"
        value = fraction * float(sft.get(length, EPOCHS))
        sft[length] = max(1, round(value)) if in_steps else round(value, 6)
        training = planner.stage(name, "sft", "sft", sft)
        model, notes = ModelOf(training), f"{length} {sft[length]:g}"
    return {"model": model, "settings": options, "training": training, "notes": notes}


def matched_temperature(
    planner: Planner, name: str, methods: Sequence[Row], settings: Mapping[str, Any]
) -> dict[str, Any]:
    """The baseline's model, sampled where its pass@1 is that of the method with most different right answers."""
    baseline, *others = methods
    if not others:
        raise NotPossible("there is no method beside the baseline")
    options = {**planner.settings(planner.grid.baseline), "grpo": None}
    stages = (sweep(planner, name, baseline.model, options["eval"], settings), *(row.before for row in methods))
    names = [row.method for row in others]
    options["eval"]["temperature"] = Chosen(temperature_of_most_diverse, stages, {"names": names}, 1.0)
    notes = "sampled where its pass@1 is that of the most diverse method, before RL only"
    return {"model": baseline.model, "settings": options, "training": baseline.training, "notes": notes}


def weight_averaging(
    planner: Planner, name: str, methods: Sequence[Row], settings: Mapping[str, Any]
) -> dict[str, Any]:
    """WiSE-FT (arXiv:2109.01903, 2504.10478): (1 - weight) * base + weight * baseline."""
    options, weight = planner.settings(planner.grid.baseline), settings["weight"]
    if options["sft"] is None:
        raise NotPossible("the baseline has no SFT")
    inputs = {"base": options["sft"]["model_name_or_path"], "tuned": methods[0].model, "weight": weight}
    averaged = planner.stage(name, "average", "average", inputs)
    notes = f"(1 - w) base + w {planner.grid.baseline}, w = {weight:g}"
    return {"model": ModelOf(averaged), "settings": options, "training": averaged, "notes": notes}


CONTROLS: dict[str, tuple[str, Callable[..., dict[str, Any]]]] = {
    "no_sft": ("no SFT", no_sft),
    "no_sft_sharpened": ("no SFT, sharpened", no_sft_sharpened),
    "stopped_early": ("{baseline}, stopped early", stopped_early),
    "matched_temperature": ("{baseline}, matched temperature", matched_temperature),
    "weight_averaging": ("{baseline}, averaged with the base", weight_averaging),
}


def sweep(
    planner: Planner, name: str, model: ModelOf | str, evaluation: Mapping[str, Any], settings: Mapping[str, Any]
) -> Stage:
    """A small evaluation of the main benchmarks over several temperatures."""
    options = {option: value for option, value in evaluation.items() if option not in NOT_SWEPT}
    if options.get("benchmarks"):
        options = {option: value for option, value in options.items() if not option.startswith("dataset_")}
        options["benchmarks"] = [benchmark for benchmark in options["benchmarks"] if is_main(benchmark)]
    temperatures = ",".join(f"{value:g}" for value in settings["temperatures"])
    options |= {"temperatures": temperatures, "num_samples": settings["num_samples"]}
    return planner.stage(name, "sweep", "eval", {"model_name_or_path": model, **options})


def is_main(benchmark: str) -> bool:
    path = Path(benchmark)
    return not path.is_file() or read_recipe(benchmark).get("group", "main") == "main"


# What a stage's temperature is chosen by, when the evaluations that it depends on are finished.


def temperature_of_target(outputs: Sequence[Path]) -> float:
    """outputs: a sweep, and an evaluation. The temperature at which the first has the second's pass@1."""
    swept, target = map(read_results, outputs)
    return matched(swept, headline(target.scores, "pass@1"))


def rl_temperature_of_target(outputs: Sequence[Path], start: float) -> float:
    """The same sharpening in RL: its temperature is to `start` what the sampled one is to the evaluation's."""
    return round(start * temperature_of_target(outputs) / sampling_temperature(read_results(outputs[1])), 4)


def temperature_of_most_diverse(outputs: Sequence[Path], names: Sequence[str]) -> float:
    """outputs: a sweep of the baseline, its evaluation, and those of the other methods, which are called `names`.

    Of the methods with more different right answers than the baseline, the most diverse whose pass@1 it can have.
    """
    swept, baseline, *others = map(read_results, outputs)
    diversity = [headline(results.scores, "distinct_correct") for results in others]
    least = headline(baseline.scores, "distinct_correct")
    reason = "no method has more different right answers than the baseline"
    for value, name, results in sorted(zip(diversity, names, others, strict=True), key=lambda each: -each[0]):
        if value <= least:
            break
        try:
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
