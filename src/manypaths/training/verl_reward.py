"""The reward of this run for verl 0.9.1: manypaths' graders, called as `manypaths grpo` calls them.

Written by `manypaths grpo --export verl`. `compute_score` is verl's custom reward function. `RewardManager` tells it which
completions ended by themselves, as some rewards give nothing for one that was cut off. To try it: in a row of
train.parquet, `compute_score(row["data_source"], "your answer", row["reward_model"]["ground_truth"], row["extra_info"])`.
"""

import json
import math
import sys
from pathlib import Path

from verl.experimental.reward_loop.reward_manager import NaiveRewardManager

sys.path.insert(0, str(Path(__file__).parent))  # where rewards of your own lie
try:
    from manypaths.grading.graders import as_completion, called, ignore, resolve_grader
except ImportError as error:
    raise ImportError(
        "Every node needs the graders: pip install --no-deps manypaths && pip install math-verify"
    ) from error

REWARDS = []  # names and weights, of the export
END_TOKENS = []
GRADERS = [(resolve_grader(name), weight) for name, weight in REWARDS]


def compute_score(data_source, solution_str, ground_truth, extra_info=None, **_):
    """The weighted sum of the rewards; one that is None does not apply."""
    given = extra_info or {}
    row = {"prompt": "", "answer": ground_truth, **json.loads(given.get("row", "{}"))}
    prompt = row.pop("prompt")
    row.pop("completion", None)
    columns = {name: [value] for name, value in row.items()} | {
        "prompts": [prompt],
        "completions": [as_completion(prompt, solution_str)],
        "completion_ids": [given.get("completion_ids", [])],
        "finished": [given.get("finished")],
        "trainer_state": None,
        "log_extra": ignore,
        "log_metric": ignore,
    }
    values = [next(iter(called(grader, columns))) for grader, _ in GRADERS]
    applies = [weight * value for value, (_, weight) in zip(values, GRADERS, strict=True) if value is not None]
    if not applies or not all(map(math.isfinite, applies)):
        raise ValueError(f"{REWARDS} gave {values} for ...{solution_str[-80:]!r}; one has to be a finite number.")
    return float(sum(applies))


class RewardManager(NaiveRewardManager):
    """verl's own, which also says how each completion ended."""

    async def run_single(self, data):
        item = data[-1]
        width = item.batch["responses"].shape[-1]
        length = int(item.batch["attention_mask"][-width:].sum())
        ids = item.batch["responses"][:length].tolist()
        told = {"completion_ids": ids, "finished": bool(ids) and ids[-1] in END_TOKENS}
        item.non_tensor_batch["extra_info"].update(told)
        return await super().run_single(data)
