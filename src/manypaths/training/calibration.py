"""Thresholds by quantile: the value below which a wanted share of trained tokens falls."""

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from ..objectives.selection import below
from ..run_folder import write_whole

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

    def __str__(self) -> str:
        k = "" if self.top_k is None else f" (top_k {self.top_k})"
        return (
            f"calibrated {self.hyperparameter} = {self.threshold:.6g}: {self.statistic}{k} is below it on "
            f"{self.realised_fraction:.1%} of {self.num_tokens} trained tokens (requested {self.requested_fraction:.1%})"
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


def calibrate(values: Tensor, fraction: float, hyperparameter: str, statistic: str, top_k: int | None) -> Calibration:
    """A `Calibration` of `hyperparameter` from the statistic's values [N] on trained tokens."""
    threshold = quantile_threshold(values, fraction)
    realised = float(below(values.float(), threshold).float().mean())
    return Calibration(hyperparameter, statistic, threshold, fraction, realised, len(values), top_k)
