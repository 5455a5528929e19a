"""From runs to estimates: means with intervals, paired differences, best-of-N efficiency. No words, no layout."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from ..evaluation.intervals import mean_interval, paired_interval
from ..evaluation.metrics import match_share, pass_at_k_curve
from .wording import BASELINE, LABELS, ROW_ORDER

PER_PROMPT_NAMES = {"distinct_correct": "num_distinct"}
NUM_RESAMPLES = 2000


@dataclass(frozen=True)
class Estimate:
    """A value with 95 % limits (None when unknown), the seeds behind it, and what the limits range over.

    `interval_over` is "seeds", "prompts", "prompts, unpaired" (two separate intervals combined) or None.
    """

    value: float
    low: float | None
    high: float | None
    num_seeds: int
    interval_over: str | None

    def sign(self, point: float = 0.0) -> int:
        """+1 or -1 when the whole interval lies above or below `point`; 0 when it does not, or is unknown."""
        if self.low is None or self.high is None:
            return 0
        return int(self.low > point) - int(self.high < point)


@dataclass(frozen=True)
class Efficiency:
    """k* / n: share of its n samples that CE's pass@n costs this method (geometric mean over seeds).

    `value` is None when some seed (or, with one seed, the sample itself) never reaches CE; `reached` is the
    share of seeds (or of resampled prompt sets) that does. `high` is None when the upper limit is out of reach.
    """

    n: int
    value: float | None
    low: float | None
    high: float | None
    reached: float
    num_seeds: int
    interval_over: str | None


def summarize(results: Mapping) -> dict:
    """Every number of a report as plain JSON values.

    Returns {"world", "baseline", "methods": [{"method", "label"}], "stages", "scores", "paired",
    "sample_efficiency"}: scores[method][stage][score] holds mean, low, high, num_seeds, interval_over;
    paired[method][stage][score] holds the same for method minus CE; sample_efficiency[method][stage] holds
    n, value, low, high, reached, num_seeds, interval_over. What was not run is absent.

    Intervals of means range over seeds from three seeds on, else over the prompts of the pooled runs; those
    of differences range over seeds from two seeds on, else over prompts. An untrained model has no training
    seed, so its means always range over prompts and one run of it is compared with every seed of CE.

    Raises ValueError when there are no runs, or two share method, stage and seed.
    """
    check_runs(results)
    summary: dict = {
        "world": results["world"],
        "baseline": BASELINE,
        "methods": [{"method": method, "label": label_of(results, method)} for method in methods_of(results)],
        "stages": stages_of(results),
        "scores": {},
        "paired": {},
        "sample_efficiency": {},
    }
    for method in methods_of(results):
        for stage in stages_of(results):
            keys = score_keys(runs_of(results, method, stage).values())
            means = {key: estimate(results, method, stage, key) for key in keys}
            pairs = {key: difference(results, method, stage, key) for key in keys} if method != BASELINE else {}
            _store(
                summary["scores"],
                method,
                stage,
                {key: _plain(found) for key, found in means.items() if found},
            )
            _store(
                summary["paired"],
                method,
                stage,
                {key: _plain(found) for key, found in pairs.items() if found},
            )
            shares = efficiency(results, method, stage) if method != BASELINE else None
            if shares:
                summary["sample_efficiency"].setdefault(method, {})[stage] = asdict(shares)
    return summary


def check_runs(results: Mapping) -> None:
    """Raise ValueError when there are no runs, or two for the same method, stage and seed."""
    if not results["runs"]:
        raise ValueError("results hold no runs: finish at least one stage of one method before reporting.")
    seen = set()
    for run in results["runs"]:
        key = (run["method"], run["stage"], run["seed"])
        if key in seen:
            raise ValueError(f"results hold two runs for method {key[0]!r}, stage {key[1]!r}, seed {key[2]}: keep one.")
        seen.add(key)


def methods_of(results: Mapping) -> list[str]:
    """Methods in reading order: the known rows first, then others as they were run."""
    present = list(dict.fromkeys(run["method"] for run in results["runs"]))
    return sorted(present, key=lambda method: ROW_ORDER.index(method) if method in ROW_ORDER else len(ROW_ORDER))


def stages_of(results: Mapping) -> list[str]:
    """The stages that were run, SFT before RL."""
    present = {run["stage"] for run in results["runs"]}
    return [stage for stage in ("sft", "rl") if stage in present]


def seeds_of(results: Mapping) -> list[int]:
    """All training seeds of the trained rows (of all rows when nothing was trained)."""
    trained = {run["seed"] for run in results["runs"] if not is_untrained(run["method"], run["stage"])}
    return sorted(trained or {run["seed"] for run in results["runs"]})


def label_of(results: Mapping, method: str) -> str:
    """The label its runs carry, else our own word for it, else the key."""
    labels = [run.get("label") for run in results["runs"] if run["method"] == method]
    return next((label for label in labels if label), LABELS.get(method, method))


def short_label_of(results: Mapping, method: str) -> str:
    """Our own short word for the known rows, for plots and sentences; else the label its runs carry."""
    return LABELS.get(method) or label_of(results, method)


def is_untrained(method: str, stage: str) -> bool:
    """True for rows that no training has touched."""
    return stage == "sft" and method in ("base", "base_sharp")


def runs_of(results: Mapping, method: str, stage: str) -> dict[int, Mapping]:
    """{seed: run} of one method and stage."""
    return {run["seed"]: run for run in results["runs"] if (run["method"], run["stage"]) == (method, stage)}


def score_keys(runs) -> list[str]:
    """Names of all scores the runs hold."""
    return list(dict.fromkeys(key for run in runs for key in run["evaluation"]["scores"]))


def score_value(run: Mapping, key: str) -> float | None:
    """A run's value of one score; None when it was not measured."""
    value = run["evaluation"]["scores"].get(key, {}).get("value")
    return None if value is None or not math.isfinite(value) else float(value)


def prompt_values(run: Mapping, key: str) -> list[float] | None:
    """A run's value of one score per prompt; None when the evaluation kept no such list."""
    evaluation = run["evaluation"]
    per_prompt = evaluation.get("per_prompt", {})
    if key.startswith("pass@") and "num_correct" in per_prompt:
        k = int(key.removeprefix("pass@"))
        return pass_at_k_curve(per_prompt["num_correct"], evaluation["num_samples"], [k])[k]
    values = per_prompt.get(PER_PROMPT_NAMES.get(key, key))
    if not values or any(value is None for value in values):
        return None
    return [float(value) for value in values]


def estimate(results: Mapping, method: str, stage: str, key: str) -> Estimate | None:
    """Mean of one score over the seeds of a method, with its interval; None when it was not measured."""
    runs = [run for run in runs_of(results, method, stage).values() if score_value(run, key) is not None]
    if not runs:
        return None
    values = [score_value(run, key) for run in runs]
    if len(runs) >= 3 and not is_untrained(method, stage):
        found = mean_interval(values)
        return Estimate(found.value, found.low, found.high, len(runs), "seeds")
    mean, half = math.fsum(values) / len(values), _half_width_over_prompts(runs, key)
    if half is None:
        return Estimate(mean, None, None, len(runs), None)
    return Estimate(mean, mean - half, mean + half, len(runs), "prompts")


def difference(results: Mapping, method: str, stage: str, key: str, baseline: str = BASELINE) -> Estimate | None:
    """Method minus baseline on the same seeds; with one seed on the same prompts; None without a common seed."""
    pairs = [
        (own, other)
        for own, other in _paired_runs(results, (method, stage), (baseline, stage))
        if score_value(own, key) is not None and score_value(other, key) is not None
    ]
    if not pairs:
        return None
    if len(pairs) >= 2:
        found = paired_interval([score_value(own, key) for own, _ in pairs], [score_value(b, key) for _, b in pairs])
        return Estimate(found.value, found.low, found.high, len(pairs), "seeds")
    return _difference_over_prompts(*pairs[0], key)


def efficiency(results: Mapping, method: str, stage: str, baseline: str = BASELINE) -> Efficiency | None:
    """Share of samples that suffices for the baseline's pass@n at n = all samples; None without counts."""
    pairs = [pair for pair in _paired_runs(results, (method, stage), (baseline, stage)) if _have_counts(pair)]
    if not pairs:
        return None
    n = pairs[0][0]["evaluation"]["num_samples"]
    tables = [(_pass_table(own), _pass_table(other)) for own, other in pairs]
    shares = [match_share(own.mean(axis=0).tolist(), float(other[:, -1].mean()), n) for own, other in tables]
    reached = [share for share in shares if share is not None]
    if len(pairs) == 1:
        return _efficiency_over_prompts(*tables[0], n, shares[0])
    if len(reached) < len(shares):
        return Efficiency(n, None, None, None, len(reached) / len(shares), len(shares), None)
    logs = mean_interval([math.log(share) for share in shares])
    return Efficiency(n, math.exp(logs.value), math.exp(logs.low), math.exp(logs.high), 1.0, len(shares), "seeds")


def _store(target: dict, method: str, stage: str, values: dict) -> None:
    if values:
        target.setdefault(method, {})[stage] = values


def _plain(found: Estimate) -> dict:
    plain = asdict(found)
    return {"mean": plain.pop("value"), **plain}


def _paired_runs(results: Mapping, own: tuple[str, str], other: tuple[str, str]) -> list[tuple[Mapping, Mapping]]:
    """Runs of the same seed; a lone untrained run stands for every seed of its partner."""
    own_runs, other_runs = runs_of(results, *own), runs_of(results, *other)
    if is_untrained(*own) and len(own_runs) == 1:
        own_runs = dict.fromkeys(other_runs, *own_runs.values())
    if is_untrained(*other) and len(other_runs) == 1:
        other_runs = dict.fromkeys(own_runs, *other_runs.values())
    return [(own_runs[seed], other_runs[seed]) for seed in sorted(own_runs.keys() & other_runs.keys())]


def _same_prompts(runs: Sequence[Mapping]) -> bool:
    """True when all runs were scored on the same prompts."""
    return len({(run["evaluation"].get("prompt_hash"), run["evaluation"].get("num_prompts")) for run in runs}) == 1


def _half_width_over_prompts(runs: Sequence[Mapping], key: str) -> float | None:
    """Half width for the mean of the runs: from per-prompt means, else the mean of the runs' own half widths.

    The latter is never too narrow: runs that share their prompts err together at worst.
    """
    columns = [prompt_values(run, key) for run in runs]
    if all(columns) and _same_prompts(runs) and len(columns[0]) > 1:
        found = mean_interval(np.mean(columns, axis=0).tolist())
        return (found.high - found.low) / 2
    halves = [_own_half_width(run, key) for run in runs]
    return None if None in halves else math.fsum(halves) / len(halves)


def _own_half_width(run: Mapping, key: str) -> float | None:
    score = run["evaluation"]["scores"][key]
    if score.get("low") is None or score.get("high") is None:
        return None
    return (score["high"] - score["low"]) / 2


def _difference_over_prompts(own: Mapping, other: Mapping, key: str) -> Estimate:
    value = score_value(own, key) - score_value(other, key)
    columns = prompt_values(own, key), prompt_values(other, key)
    if all(columns) and _same_prompts([own, other]) and len(columns[0]) == len(columns[1]) > 1:
        found = paired_interval(*columns)
        half, over = (found.high - found.low) / 2, "prompts"
    else:
        halves = _own_half_width(own, key), _own_half_width(other, key)
        half, over = (None, None) if None in halves else (math.hypot(*halves), "prompts, unpaired")
    if half is None:
        return Estimate(value, None, None, 1, None)
    return Estimate(value, value - half, value + half, 1, over)


def _have_counts(pair: tuple[Mapping, Mapping]) -> bool:
    evaluations = [run["evaluation"] for run in pair]
    counted = all(evaluation.get("per_prompt", {}).get("num_correct") for evaluation in evaluations)
    return counted and evaluations[0]["num_samples"] == evaluations[1]["num_samples"] and _same_prompts(pair)


def _pass_table(run: Mapping) -> np.ndarray:
    """pass@k of every prompt for k = 1 ... n, shape [P, n]."""
    evaluation = run["evaluation"]
    n = evaluation["num_samples"]
    curve = pass_at_k_curve(evaluation["per_prompt"]["num_correct"], n, range(1, n + 1))
    return np.array([curve[k] for k in range(1, n + 1)]).T


def _efficiency_over_prompts(own: np.ndarray, other: np.ndarray, n: int, share: float | None) -> Efficiency:
    """Percentile limits from prompts drawn with replacement, the same draws for both models."""
    prompts = len(own)
    weights = np.random.default_rng(0).multinomial(prompts, np.full(prompts, 1 / prompts), NUM_RESAMPLES) / prompts
    curves, targets = weights @ own, weights @ other[:, -1]
    found = [match_share(curve, target, n) for curve, target in zip(curves.tolist(), targets.tolist(), strict=True)]
    ranked = sorted(math.inf if one is None else one for one in found)
    low, high = ranked[int(0.025 * NUM_RESAMPLES)], ranked[int(0.975 * NUM_RESAMPLES) - 1]
    reached = sum(one is not None for one in found) / NUM_RESAMPLES
    limits = [limit if math.isfinite(limit) else None for limit in (low, high)]
    return Efficiency(n, share, *limits, reached, 1, "prompts")
