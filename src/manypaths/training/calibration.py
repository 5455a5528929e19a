"""Thresholds by quantile: the value below which a wanted share of trained tokens falls."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from ..run_folder import write_whole

FILE = "calibration.json"
ABOVE_ALL = 1.001  # a threshold that every probability mass is below, whatever its rounding


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
    """The threshold t such that `values < t` holds for floor(fraction * N) of `values` [N], when none are tied.

    Raises:
        ValueError: no values, NaN, or a fraction outside [0, 1].
    """
    check_fraction(fraction)
    if not len(values):
        raise ValueError("Cannot calibrate: the sample holds no trained token. Check the labels of the data.")
    if torch.isnan(values).any():
        raise ValueError("Cannot calibrate: the statistic is NaN on some tokens.")
    count = int(fraction * len(values) + 1e-9)
    return ABOVE_ALL if count == len(values) else float(values.float().sort().values[count])


def check_fraction(fraction: float) -> None:
    if not 0 <= fraction <= 1:
        raise ValueError(f"calibration_fraction must be between 0 and 1, got {fraction}.")


def calibrate(values: Tensor, fraction: float, hyperparameter: str, statistic: str, top_k: int | None) -> Calibration:
    """A `Calibration` of `hyperparameter` from the statistic's values [N] on trained tokens."""
    threshold = quantile_threshold(values, fraction)
    realised = float((values.float() < threshold).float().mean())
    return Calibration(hyperparameter, statistic, threshold, fraction, realised, len(values), top_k)
