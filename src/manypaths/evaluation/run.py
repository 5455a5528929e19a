"""What `manypaths eval` reports: scores with 95 % intervals from token statistics and from graded samples.

Knows neither trainers nor engine: statistics, samples and grades come in as arguments. The unit that varies
is the prompt (or row of data): intervals say how far scores hold for other such prompts, given this model.
"""

import datetime
import json
import math
from collections.abc import Callable, Iterable, Sequence
from importlib.metadata import version
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from .diversity import self_bleu
from .intervals import mean_interval, student_t_quantile
from .metrics import pass_at_k_curve
from .sampling import Sample

LIBRARIES = ("manypaths", "torch", "transformers", "trl", "datasets")
QUANTILES = {
    "p_label_p10": 0.1,
    "p_label_p25": 0.25,
    "p_label_p50": 0.5,
    "p_label_p75": 0.75,
    "p_label_p90": 0.9,
}

Score = dict[str, float | None]
LARGEST_EXPONENT = 700.0  # exp of more overflows a float


def token_evidence(rows: Iterable[dict[str, Tensor]]) -> dict[str, Any]:
    """Scores over all tokens that carry loss, from each row's statistics {name: [tokens of the row]}.

    ce (nats per token), perplexity = exp(ce), entropy (nats), top1 (share of labels that are the likeliest
    token), kl_to_reference (nats, when the rows bring kl_policy_ref), and quantiles of p(label).

    Returns: {"scores": {name: {"value", "low", "high"}}, "num_rows", "num_tokens"}.
    Raises ValueError for no rows.
    """
    rows = list(rows)
    if not rows:
        raise ValueError("No row has a token that carries loss, so there is nothing to measure.")
    counts = [len(row["logprob"]) for row in rows]

    def per_token(name: str, sign: float = 1.0) -> Score:
        return token_mean([sign * float(row[name].double().sum()) for row in rows], counts)

    scores = {"ce": per_token("logprob", -1.0)}
    scores["perplexity"] = {
        key: None if v is None else math.exp(min(v, LARGEST_EXPONENT)) for key, v in scores["ce"].items()
    }
    scores |= {"entropy": per_token("entropy"), "top1": per_token("is_top1")}
    if "kl_policy_ref" in rows[0]:
        scores["kl_to_reference"] = per_token("kl_policy_ref")
    probabilities = torch.cat([row["logprob"] for row in rows]).double().exp()
    for name, quantile in QUANTILES.items():
        ordered = probabilities.sort().values
        value = float(ordered[min(int(quantile * len(ordered)), len(ordered) - 1)])
        scores[name] = {"value": value, "low": None, "high": None}
    return {"scores": scores, "num_rows": len(rows), "num_tokens": sum(counts)}


def token_mean(sums: Sequence[float], counts: Sequence[int], confidence: float = 0.95) -> Score:
    """Mean per token of rows of unequal length, with the interval of a ratio of means over rows.

    sums, counts: per row. One row has no interval.
    """
    value = math.fsum(sums) / sum(counts)
    if len(sums) < 2:
        return {"value": value, "low": None, "high": None}
    residuals = math.fsum((total - value * count) ** 2 for total, count in zip(sums, counts, strict=True))
    spread = math.sqrt(residuals * len(sums) / (len(sums) - 1)) / sum(counts)
    half = student_t_quantile(confidence, len(sums) - 1) * spread
    return {"value": value, "low": value - half, "high": value + half}


def sample_evidence(
    samples: Sequence[Sequence[Sample]],
    grades: Sequence[Sequence[float]] | None,
    *,
    correct_at: float = 1.0,
    answer_of: Callable[[str], str | None] = str.strip,
) -> dict[str, Any]:
    """Scores of n samples for each of P prompts.

    pass@k (unbiased, k = 1, 2, 4, ... n) and mean_reward need grades; a sample is right when its grade
    reaches `correct_at`. The others do not: self_bleu (0 to 100, n > 1), distinct_answers (different answers
    per prompt, read by `answer_of`), finished (share that ended by itself) and length (tokens).

    Returns: {"scores": ..., "per_prompt": {name: [P values]}, "num_prompts", "num_samples"}.
    """
    num_samples = len(samples[0])
    texts = [[one.text for one in drawn] for drawn in samples]
    values: dict[str, list[float]] = {}
    per_prompt: dict[str, list[float]] = {}
    if grades is not None:
        num_correct = [sum(grade >= correct_at - 1e-9 for grade in row) for row in grades]
        values |= {
            f"pass@{k}": curve for k, curve in pass_at_k_curve(num_correct, num_samples, ks(num_samples)).items()
        }
        values["mean_reward"] = [fmean(row) for row in grades]
        per_prompt["num_correct"] = num_correct
    if num_samples > 1:
        # BLEU counts runs of four words: it is 0 for shorter answers however alike, so those prompts are left out
        worded = [row for row in texts if min(len(text.split()) for text in row) >= 4]
        values["self_bleu"] = [self_bleu(row) for row in worded]
    answers = [[answer_of(text) for text in row] for row in texts]
    values["distinct_answers"] = [len({answer for answer in row if answer is not None}) for row in answers]
    values["finished"] = [fmean(one.finished for one in drawn) for drawn in samples]
    values["length"] = [fmean(len(one.token_ids) for one in drawn) for drawn in samples]
    per_prompt |= {name: values[name] for name in ("mean_reward", "self_bleu", "distinct_answers") if name in values}
    scores = {name: interval_score(numbers) for name, numbers in values.items() if numbers}
    for name in scores:
        if name.startswith("pass@") or name == "finished":
            scores[name] = within_unit(scores[name])
    return {
        "scores": scores,
        "per_prompt": per_prompt,
        "num_prompts": len(samples),
        "num_samples": num_samples,
    }


def ks(num_samples: int) -> list[int]:
    """1, 2, 4, ... and num_samples itself."""
    return sorted({2**power for power in range(num_samples.bit_length())} - {0} | {num_samples})


def within_unit(score: Score) -> Score:
    """A share's interval, cut to [0, 1]."""
    return {key: None if value is None else min(max(value, 0.0), 1.0) for key, value in score.items()}


def interval_score(values: Sequence[float]) -> Score:
    interval = mean_interval(values)
    return {"value": interval.value, "low": interval.low, "high": interval.high}


def record(settings: dict[str, Any], **parts: dict[str, Any] | None) -> dict[str, Any]:
    """The content of results.json: what was asked, with what versions, and the parts that were measured."""
    return {
        "schema": 1,
        "created": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "versions": {name: version(name) for name in LIBRARIES},
        "settings": settings,
        **{name: part for name, part in parts.items() if part is not None},
    }


def write_results(results: dict[str, Any], folder: str | Path) -> Path:
    """results.json in `folder`, which is made when missing."""
    path = Path(folder) / "results.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return path


def print_scores(title: str, part: dict[str, Any]) -> None:
    """A terminal table of a part's scores with their intervals."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(title), title_justify="left")
    table.add_column("score")
    table.add_column("value", justify="right")
    table.add_column("95 % interval", justify="right")
    for name, score in part["scores"].items():
        interval = "" if score["low"] is None else f"{score['low']:.4g} to {score['high']:.4g}"
        table.add_row(name, f"{score['value']:.4g}", interval)
    Console().print(table)
