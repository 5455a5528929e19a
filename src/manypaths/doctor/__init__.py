"""Before any GPU hour: what a run would train on, what it needs, and what is wrong with it.

`installation_report` looks at what is installed, `sft_report` and `grpo_report` at a run, too. Nothing is written but what
the libraries cache of models and data, and no weight is read.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from .checks import Check, Stage, diagnose
from .installation import installation


class Diagnosis(NamedTuple):
    """What `doctor` found; `examples` and `parts` (bytes on each device) are empty where it did not come so far."""

    checks: list[Check]
    examples: list[Any]
    parts: Mapping[str, float]

    @property
    def failed(self) -> bool:
        return any(check.verdict == "fail" for check in self.checks)


def installation_report() -> Diagnosis:
    """Whether what is installed here can train."""
    return Diagnosis(diagnose({"installation": installation}, {}), [], {})


def sft_report(data: Any, config: Any, model: Any, processes: Any, gpu: str | None) -> Diagnosis:
    """The installation, and an SFT run of these options (`training.config.SFT_OPTIONS`) on `gpu`, None for this machine."""
    from . import plan, rows, run

    stages: dict[str, Stage] = {
        "installation": installation,
        "options": run.sft_options,
        "model": run.model_files,
        "output folder": run.sft_folder,
        "data": run.sft_data,
        "tokenizer, template": run.tokenizer_and_template,
        "devices": plan.parallel,
        "parallelism": run.parallelism,
        "reference": plan.reference_model,
        "rows": rows.whole_rows,
        "trainer": rows.as_trained,
        "masks": rows.masks,
        "end of the answer": rows.answer_ends,
        "length": rows.lengths,
        "beginning of a row": rows.beginnings,
        "padding": rows.padding,
        "duplicates": rows.duplicates,
        "special tokens": rows.special_tokens,
        "steps": plan.batches,
        "learning rate": plan.learning_rate,
        "calibration": plan.calibration,
        "memory": plan.sft_cost,
        "disk": plan.disk,
    }
    return report(stages, {"data": data, "config": config, "model": model, "processes": processes, "gpu": gpu})


def grpo_report(data: Any, config: Any, model: Any, reward: Any, processes: Any, gpu: str | None) -> Diagnosis:
    """As `sft_report`, of `training.config.GRPO_OPTIONS`."""
    from . import plan, rows, run

    stages: dict[str, Stage] = {
        "installation": installation,
        "options": run.grpo_options,
        "model": run.model_files,
        "output folder": run.grpo_folder,
        "data": run.grpo_data,
        "tokenizer": run.grpo_tokenizer,
        "devices": plan.parallel,
        "length": rows.prompts,
        "rewards": run.rewards,
        "steps": plan.grpo_batches,
        "learning rate": plan.learning_rate,
        "memory": plan.grpo_cost,
        "disk": plan.disk,
    }
    facts = {"data": data, "config": config, "model": model, "reward": reward, "processes": processes, "gpu": gpu}
    return report(stages, facts)


def report(stages: Mapping[str, Stage], facts: dict[str, Any]) -> Diagnosis:
    from .rows import examples

    checks = diagnose(stages, facts)
    shown = examples(facts["fed"], facts["tokenizer"]) if facts.get("fed") else []
    return Diagnosis(checks, shown, facts.get("parts", {}))
