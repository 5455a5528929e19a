"""What a run prints while it trains: a line a log step, in columns, instead of a dictionary."""

import sys
import time
from collections.abc import Mapping
from typing import Any

from tqdm import tqdm
from transformers import PrinterCallback, ProgressCallback, TrainerCallback

from ..functions import duration

# Heading -> the names it may be logged under; the first that is there counts. SFT logs some, GRPO others.
COLUMNS = {
    "loss": ("loss",),
    "ce": ("ce",),
    "reward": ("reward",),
    "no signal": ("frac_reward_zero_std",),
    "length": ("completions/mean_length",),
    "entropy": ("entropy",),
    "mask": ("mask_rate",),
    "kl": ("kl_policy_ref", "kl_ref_policy", "kl"),
    "top-1": ("mean_token_accuracy",),
    "grad norm": ("grad_norm",),
    "lr": ("learning_rate",),
}
WIDTH = 9
HEADINGS_EVERY = 30  # lines


def in_lines(trainer: Any) -> None:
    """Let a trainer print lines, with a bar below them on a terminal unless disable_tqdm is set."""
    for callback in (ProgressCallback, PrinterCallback):
        trainer.remove_callback(callback)
    if sys.stderr.isatty() and not trainer.args.disable_tqdm:
        trainer.add_callback(Bar())
    trainer.add_callback(LogLines())


class Bar(ProgressCallback):
    def on_log(self, args, state, control, logs=None, **kwargs):
        """The lines are printed by LogLines."""


class LogLines(TrainerCallback):
    """Prints what is logged; the headings are those of the first line."""

    def on_train_begin(self, args, state, control, **kwargs):
        self.headings: list[str] = []
        self.lines, self.began, self.first_step = 0, time.monotonic(), state.global_step

    def on_log(self, args, state, control, logs=None, **kwargs):
        if not state.is_world_process_zero or not logs:
            return
        if "train_runtime" in logs:
            write(f"trained {state.global_step - self.first_step} steps in {duration(logs['train_runtime'])}")
        elif any(name.startswith("eval_") for name in logs):
            values = shown({name.removeprefix("eval_"): value for name, value in logs.items()})
            write(f"evaluation at step {state.global_step}: " + ", ".join(f"{k} {v}" for k, v in values.items()))
        else:
            self.write_step(state, shown(logs))

    def write_step(self, state: Any, values: dict[str, str]) -> None:
        steps = 2 * len(str(state.max_steps)) + 1
        if self.lines % HEADINGS_EVERY == 0:
            self.headings = list(values)
            titles = "".join(heading.rjust(WIDTH + 1) for heading in self.headings)
            write(f"{'step'.rjust(steps)}{titles}  time left")
        self.lines += 1
        done = state.global_step - self.first_step
        left = (time.monotonic() - self.began) / max(done, 1) * (state.max_steps - state.global_step)
        row = "".join(values.get(heading, "").rjust(WIDTH + 1) for heading in self.headings)
        write(f"{f'{state.global_step}/{state.max_steps}'.rjust(steps)}{row}  {duration(left).rjust(WIDTH)}")


def shown(logs: Mapping[str, Any]) -> dict[str, str]:
    """The columns that these logs have. A mask's rate stands before the one that was asked for."""
    values = {}
    for heading, names in COLUMNS.items():
        name = next((name for name in names if isinstance(logs.get(name), (int, float))), None)
        if name is not None:
            values[heading] = number(logs[name])
    if "mask" in values and "mask_rate_requested" in logs:
        values["mask"] = f"{logs['mask_rate']:.2f}/{logs['mask_rate_requested']:.2f}"
    return values


def number(value: float) -> str:
    """Four digits, in as many characters as a column has."""
    return f"{value:.4g}" if value == 0 or 1e-3 <= abs(value) < 1e5 else f"{value:.2e}"


def write(line: str) -> None:
    tqdm.write(line)
