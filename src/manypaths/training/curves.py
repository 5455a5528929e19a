"""What a finished training run logged, read from its folder."""

import json
import math
from pathlib import Path
from typing import Any

LOGGED = ("loss", "ce", "entropy", "mask_rate", "kept_share", "gate_mean", "effective_token_share", "reward", "kl")
RENAMED = {"frac_reward_zero_std": "zero_variance", "completions/mean_length": "length", "mean_token_accuracy": "top1"}


def curves(output: str | Path) -> dict[str, Any]:
    """{"step": [...], name: [...]}, and the calibration in words; {} for a folder that no trainer wrote."""
    from .calibration import Calibration

    path = Path(output) / "trainer_state.json"
    if not path.is_file():
        return {}
    history = [row for row in json.loads(path.read_text())["log_history"] if "loss" in row]
    logged = {
        RENAMED.get(name, name): [row.get(name, math.nan) for row in history]
        for name in (*LOGGED, *RENAMED)
        if any(name in row for row in history)
    }
    calibration = Calibration.load(output)
    words = {"calibration": str(calibration)} if calibration else {}
    return {"step": [row["step"] for row in history], **logged, **words}
