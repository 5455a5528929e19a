"""From a name or `module:function` to an objective with checked hyper-parameters."""

import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from ..engine.statistics import STATISTICS
from ..functions import did_you_mean, import_function
from . import likelihood, regularization, reweighting, selection, tempering

OBJECTIVES: dict[str, Callable[..., Tensor]] = {
    function.__name__: function
    for function in (
        likelihood.nll,
        likelihood.label_smoothing,
        regularization.entropy_bonus,
        likelihood.focal,
        reweighting.power,
        reweighting.dft,
        reweighting.eaft,
        selection.sed,
        tempering.gem,
        tempering.gem_logsigmoid,
        regularization.eksft,
        regularization.asft,
    )
}
CALIBRATED = {"threshold": "topk_mass"}  # a hyper-parameter that calibration can set, and the statistic it reads


@dataclass(frozen=True)
class Objective:
    """A per-token loss with its hyper-parameters bound; call it with a dict of statistics, each [T].

    `missing` names hyper-parameters that calibration has still to set (the threshold of `sed`).
    """

    name: str
    function: Callable[..., Tensor]
    statistics: tuple[str, ...]
    hyperparameters: dict[str, Any] = field(default_factory=dict)
    missing: tuple[str, ...] = ()
    row_local: bool = True

    def __call__(self, statistics: dict[str, Tensor]) -> Tensor:
        if self.missing:
            raise ValueError(f"Objective {self.name!r} has no {self.missing[0]} yet: calibrate first, or pass it.")
        return self.function(*(statistics[name] for name in self.statistics), **self.hyperparameters)

    @property
    def needs_reference(self) -> bool:
        return any(STATISTICS[name].needs_reference for name in self.statistics)

    @property
    def engine_parameters(self) -> dict[str, Any]:
        """The hyper-parameters that the statistics share by name: top_k, temperature."""
        names = {parameter for name in self.statistics for parameter in STATISTICS[name].parameters}
        return {name: self.hyperparameters[name] for name in names if name in self.hyperparameters}

    def bind(self, **hyperparameters: Any) -> "Objective":
        """The same objective with more hyper-parameters set."""
        return from_function(self.function, self.name, {**self.hyperparameters, **hyperparameters})


def resolve(objective: str | Callable[..., Tensor] | Objective, **hyperparameters: Any) -> Objective:
    """An `Objective` from a registered name, a `module:function`, or a function.

    Raises:
        ValueError: unknown name (near names are offered), a parameter that is not a statistic, an unknown, missing or
            impossible hyper-parameter.
    """
    if isinstance(objective, Objective):
        return objective.bind(**hyperparameters) if hyperparameters else objective
    if callable(objective):
        return from_function(objective, getattr(objective, "__name__", "objective"), hyperparameters)
    if not isinstance(objective, str):
        raise ValueError(f"An objective is a name, module:function or a function of statistics, got {objective!r}.")
    if ":" in objective:
        return from_function(import_function(objective, "objective"), objective, hyperparameters)
    if objective not in OBJECTIVES:
        hint = did_you_mean(objective, OBJECTIVES)
        raise ValueError(
            f"Unknown objective {objective!r}. {hint}Known: {', '.join(OBJECTIVES)}; your own is module:function."
        )
    return from_function(OBJECTIVES[objective], objective, hyperparameters)


def from_function(function: Callable[..., Tensor], name: str, hyperparameters: dict[str, Any]) -> Objective:
    parameters = inspect.signature(function).parameters.values()
    statistics = tuple(p.name for p in parameters if p.kind is not p.KEYWORD_ONLY)
    defaults = {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}
    for statistic in statistics:
        if statistic not in STATISTICS:
            raise ValueError(
                f"Objective {name!r} asks for {statistic!r}, which is not a statistic of the engine. Positional parameters "
                f"are statistics ({', '.join(STATISTICS)}); make hyper-parameters keyword-only, after a `*`."
            )
    if not statistics:
        raise ValueError(f"Objective {name!r} takes no statistic, so it cannot depend on the model.")
    for given in hyperparameters:
        if given not in defaults:
            raise ValueError(
                f"Objective {name!r} has no hyper-parameter {given!r}; it takes {', '.join(defaults) or 'none'}."
            )
    bound = {
        key: value for key, value in {**defaults, **hyperparameters}.items() if value is not inspect.Parameter.empty
    }
    for key, value in bound.items():
        check_hyperparameter(name, key, value)
    missing = tuple(key for key in defaults if key not in bound)
    for key in missing:
        if CALIBRATED.get(key) not in statistics:
            raise ValueError(f"Objective {name!r} needs {key}, which has no default; pass it as a hyper-parameter.")
    for statistic in statistics:
        for parameter in STATISTICS[statistic].parameters:
            if parameter not in bound:
                raise ValueError(
                    f"Objective {name!r} uses {statistic}, so it needs a keyword-only parameter {parameter!r}."
                )
    if "topk_entropy" in statistics and bound["top_k"] < 2:
        raise ValueError(f"top_k of objective {name!r} must be at least 2: the entropy of one token is always 0.")
    return Objective(name, function, statistics, bound, missing, getattr(function, "row_local", True))


def check_hyperparameter(objective: str, name: str, value: Any) -> None:
    """Ranges by role, so that users' own objectives are checked as well."""
    wrong = None
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if name == "top_k":
        wrong = None if isinstance(value, int) and value >= 1 and number else "a whole number of at least 1"
    elif name == "temperature":
        wrong = None if number and 0 < value < math.inf else "a number above 0"
    elif name == "threshold":
        wrong = None if number and 0 < value <= 1 else "a probability above 0 and at most 1 (1 selects every token)"
    elif name == "fraction" or name.endswith("_fraction") or name == "smoothing":
        wrong = None if number and 0 <= value <= 1 else "between 0 and 1"
    elif name == "weight" or name.endswith("_weight") or name == "exponent":
        wrong = None if number and math.isfinite(value) else "a finite number"
    if wrong is not None:
        raise ValueError(f"{name} of objective {objective!r} must be {wrong}, got {value!r}.")


def describe() -> list[dict[str, Any]]:
    """One row per registered objective: what the table of `manypaths objectives` shows."""
    rows = []
    for name, function in OBJECTIVES.items():
        parameters = inspect.signature(function).parameters.values()
        statistics = [p.name for p in parameters if p.kind is not p.KEYWORD_ONLY]
        notes = docstring_fields(function)
        rows.append(
            {
                "name": name,
                "paper": notes["Paper"],
                "formula": notes["Formula"],
                "gradient": notes["Gradient"],
                "statistics": statistics,
                "hyperparameters": {
                    p.name: None if p.default is p.empty else p.default for p in parameters if p.kind is p.KEYWORD_ONLY
                },
                "needs_reference": any(STATISTICS[statistic].needs_reference for statistic in statistics),
                "row_local": getattr(function, "row_local", True),
            }
        )
    return rows


def docstring_fields(function: Callable[..., Tensor]) -> dict[str, str]:
    """The `Paper:`, `Formula:` and `Gradient:` lines of a docstring, continuation lines joined."""
    fields: dict[str, str] = {}
    current = None
    for line in (inspect.getdoc(function) or "").splitlines():
        head, colon, rest = line.partition(": ")
        if colon and head in ("Paper", "Formula", "Gradient"):
            current = head
            fields[current] = rest.strip()
        elif current and line.startswith(" "):
            fields[current] += " " + line.strip()
        else:
            current = None
    return fields
