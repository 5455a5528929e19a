"""From benchmarks and settings to tasks: which problems, put to the model in which words, sampled how."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal

from ..generation.prompts import Prompt
from ..generation.samples import Sampling
from .benchmarks import Benchmark, Problem

SWEEP_SAMPLES = 8


@dataclass(frozen=True)
class Task:
    """One set of problems at one temperature.

    `setting` is the temperature that was asked for, None where the benchmark's own default holds. `prompts` are
    the problems in the model's words. `excluded` are ids that were left out, because their gold is empty. Texts that
    were made elsewhere have no `sampling`, but may have a `recorded_temperature`.
    """

    benchmark: str
    setting: float | None
    problems: Sequence[Problem]
    prompts: Sequence[Prompt]
    sampling: Sampling | None
    excluded: Sequence[str] = ()
    recorded_temperature: float | None = None

    @property
    def temperature(self) -> float | None:
        return self.recorded_temperature if self.sampling is None else float(self.sampling.temperature)


def benchmark_tasks(
    benchmark: Benchmark,
    problems: Sequence[Problem],
    *,
    overrides: Mapping[str, Any],
    temperatures: Sequence[float] = (),
    prompt_format: Literal["chat", "text"] = "chat",
    system_prompt: str | None = None,
) -> list[Task]:
    """A task per temperature, or one at the default. Problems with an empty gold are excluded.

    Several temperatures are there to compare diversity, which one sample has none of: they get at least SWEEP_SAMPLES.

    overrides: fields of Sampling to use instead of the benchmark's defaults; None means not given.
    Raises ValueError when no problem is left or a setting is out of range.
    """
    kept = [problem for problem in problems if problem.answer != ""]
    if not kept:
        raise ValueError(f"Benchmark {benchmark.name} has no problem with an answer.")
    prompts = [as_prompt(benchmark.prompt.format(problem=one.text), prompt_format, system_prompt) for one in kept]
    defaults = {field.name: getattr(benchmark, field.name) for field in fields(Sampling) if field.name != "seed"}
    given = {name: value for name, value in overrides.items() if value is not None}
    excluded = [problem.id for problem in problems if problem.answer == ""]
    tasks = []
    for setting in list(temperatures) or [given.get("temperature")]:
        chosen = {**defaults, **given} | ({} if setting is None else {"temperature": setting})
        if "num_samples" not in given:
            chosen["num_samples"] = max(chosen["num_samples"], SWEEP_SAMPLES if len(temperatures) > 1 else 1)
        if chosen["temperature"] == 0 and (temperatures or "num_samples" not in given):
            chosen["num_samples"] = 1  # all greedy answers are equal
        if benchmark.answer is None and chosen["num_samples"] == 1:
            raise ValueError(f"{benchmark.name} is judged for diversity, which one sample a prompt has none of.")
        tasks.append(Task(benchmark.name, setting, kept, prompts, Sampling(**chosen), excluded))
    return tasks


def as_prompt(text: str, prompt_format: str, system_prompt: str | None) -> Prompt:
    """Text as it is, or a conversation of one user message."""
    if prompt_format == "text":
        return text if system_prompt is None else f"{system_prompt}\n\n{text}"
    system = [] if system_prompt is None else [{"role": "system", "content": system_prompt}]
    return [*system, {"role": "user", "content": text}]


def read_temperatures(text: str | Sequence[float] | None) -> list[float]:
    """Numbers separated by commas, or a list of them, each once.

    Raises ValueError for what is no number, is negative, or comes twice.
    """
    if text is None:
        return []
    try:
        found = [float(part) for part in (text.split(",") if isinstance(text, str) else text)]
    except (TypeError, ValueError) as error:
        raise ValueError(f"--temperatures must be numbers separated by commas, got {text!r}.") from error
    for value in found:
        if not 0 <= value < float("inf") or found.count(value) > 1:
            raise ValueError(f"--temperatures has {value:g}; give each temperature once, 0 or above.")
    return found
