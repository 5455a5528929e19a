"""Thresholds by quantile: the value below which a wanted share of trained tokens falls."""

import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..engine import Projection
from ..models.lm_head import HeadHook
from ..models.loading import evaluating
from ..objectives import Objective, resolve
from ..objectives.registry import CALIBRATED
from ..objectives.selection import below
from ..run_folder import write_whole
from .reduction import statistics_of

FILE = "calibration.json"
BELOW_ONE = math.nextafter(1.0, 0.0)  # where masses are tied at 1: none of these, while 1 selects all


@dataclass(frozen=True)
class Calibration:
    """A threshold, what it was read from, and the share it really selects there."""

    hyperparameter: str
    statistic: str
    threshold: float
    requested_fraction: float
    realised_fraction: float
    num_tokens: int
    top_k: int | None = None
    trained_tokens: int = 0  # since then
    trained_below: int = 0  # how many of these were below the threshold

    @property
    def trained_fraction(self) -> float | None:
        """The share below the threshold in training so far."""
        return self.trained_below / self.trained_tokens if self.trained_tokens else None

    def trained_on(self, tokens: int, below: int) -> "Calibration":
        """The same after a batch of so many trained tokens, some of them below the threshold."""
        counts = {"trained_tokens": self.trained_tokens + tokens, "trained_below": self.trained_below + below}
        return replace(self, **counts)

    def __str__(self) -> str:
        k = "" if self.top_k is None else f" (top_k {self.top_k})"
        since = "" if self.trained_fraction is None else f"; in training {self.trained_fraction:.1%}"
        return (
            f"calibrated {self.hyperparameter} = {self.threshold:.6g}: {self.statistic}{k} is below it on "
            f"{self.realised_fraction:.1%} of {self.num_tokens} trained tokens (requested {self.requested_fraction:.1%}){since}"
        )

    def save(self, folder: str | Path) -> None:
        Path(folder).mkdir(parents=True, exist_ok=True)
        write_whole(Path(folder, FILE), json.dumps(asdict(self), indent=2) + "\n")

    @classmethod
    def load(cls, folder: str | Path) -> "Calibration | None":
        path = Path(folder, FILE)
        return cls(**json.loads(path.read_text())) if path.is_file() else None


def quantile_threshold(values: Tensor, fraction: float) -> float:
    """The threshold t such that floor(fraction * N) of `values` [N] are below it, when none are tied; 1 for all of them.

    Raises:
        ValueError: no values, NaN, or a fraction outside [0, 1].
    """
    check_fraction(fraction)
    if not len(values):
        raise ValueError("Cannot calibrate: the sample holds no trained token. Check the labels of the data.")
    if torch.isnan(values).any():
        raise ValueError("Cannot calibrate: the statistic is NaN on some tokens.")
    count = int(fraction * len(values) + 1e-9)
    return 1.0 if count == len(values) else min(float(values.float().sort().values[count]), BELOW_ONE)


def check_fraction(fraction: float) -> None:
    if not 0 <= fraction <= 1:
        raise ValueError(f"calibration_fraction must be between 0 and 1, got {fraction}.")


def calibrate(
    model: nn.Module,
    batches: Iterable[Mapping[str, Tensor]],
    objective: str | Callable[..., Tensor] | Objective,
    objective_kwargs: dict[str, Any] | None = None,
    *,
    fraction: float = 0.3,
) -> Calibration:
    """The threshold that an objective lacks, read from a model before it is trained.

        threshold = manypaths.calibrate(model, batches, "sed").threshold
        manypaths.attach(model, "sed", {"threshold": threshold})

    Args:
        model: the starting model, as `attach` takes it.
        batches: inputs of the model with `labels` [B, S], on its device; a hundred sequences are plenty.
        objective, objective_kwargs: as for `attach`; `top_k` decides what is measured.
        fraction: of the tokens that carry a label, the share to be below the threshold (SED-SFT's 1 - r,
            arXiv:2602.07464).

    Raises ValueError for an objective that lacks nothing, a fraction outside [0, 1], batches without a trained token.
    """
    resolved = resolve(objective, **(objective_kwargs or {}))
    check_fraction(fraction)
    if not resolved.missing:
        raise ValueError(f"Objective {resolved.name!r} lacks no hyper-parameter that calibration sets.")
    return calibration_of(statistic_values(HeadHook(model), model, batches, resolved), fraction, resolved)


def statistic_values(
    hook: HeadHook,
    model: Callable[..., Any],
    batches: Iterable[Mapping[str, Tensor]],
    objective: Objective,
    align: Callable[[Projection, Tensor], tuple[Projection, Tensor]] = lambda policy, labels: (policy, labels),
) -> Tensor:
    """What the objective's threshold is compared with, at every labelled token [N] of the batches."""
    statistic = CALIBRATED[objective.missing[0]]
    values = [torch.zeros(0)]
    with evaluating(hook.model), torch.no_grad():
        for batch in batches:
            inputs = {name: value for name, value in batch.items() if name != "labels"}

            def read(policy: Projection, labels: Tensor = batch["labels"]) -> Tensor:
                return statistics_of(*align(policy, labels), (statistic,), **objective.engine_parameters)[0][statistic]

            values.append(hook(partial(model, **inputs), read).result.float().cpu())
    return torch.cat(values)


def calibration_of(values: Tensor, fraction: float, objective: Objective) -> Calibration:
    """What an objective lacks, as a quantile of its statistic's values [N] on trained tokens."""
    hyperparameter, top_k = objective.missing[0], objective.engine_parameters.get("top_k")
    threshold = quantile_threshold(values, fraction)
    realised = float(below(values.float(), threshold).float().mean())
    return Calibration(hyperparameter, CALIBRATED[hyperparameter], threshold, fraction, realised, len(values), top_k)
