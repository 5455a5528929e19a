"""What a model makes of texts, token by token: of the data's own answers, and of its own completions read again.

Exact numbers over the whole vocabulary, through the engine of the training and without the logits.
"""

import math
import tempfile
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from ..data.formats import check_trained_tokens
from ..engine import Projection
from ..generation.samples import Sample
from ..models.lm_head import HeadHook, hidden_states_of
from ..models.loading import evaluating
from ..models.reference_model import check_same_vocabulary
from ..training.reduction import LOGGED, statistics_of
from .scores import Part, score_row
from .statistics import Estimate, ratio_estimate, share_estimate

QUANTILES = {"p_label_p10": 0.1, "p_label_p25": 0.25, "p_label_p50": 0.5, "p_label_p75": 0.75, "p_label_p90": 0.9}
TEXT_METRICS = (
    "ce", "perplexity", "text_entropy", "top1", *QUANTILES, "text_kl_to_reference", "reference_ce", "ce_increase",
    "perplexity_ratio", "worse",
)  # fmt: skip
LARGEST_EXPONENT = 700.0  # exp of more overflows a float
TEXTS_AT_A_TIME = 8
TOKENS_AT_A_TIME = 8192
IGNORED = -100

Batch = dict[str, Tensor]


def score_texts(
    name: str, model: nn.Module, tokenizer: Any, texts: Dataset, reference: nn.Module | None, **settings: Any
) -> Part:
    """Scores of the answers in the data; with a reference also what the model lost against it on the same tokens.

    settings: fields of `SFTConfig` that shape the data, such as `max_length` or `assistant_only_loss`.
    Raises ValueError when no token carries loss.
    """
    batches = prepared_batches(model, tokenizer, texts, TEXTS_AT_A_TIME, **settings)
    want = LOGGED if reference is None else (*LOGGED, "kl_policy_ref")
    rows = list(row_statistics(model, batches, want, reference))
    others = None if reference is None else list(row_statistics(reference, batches, ("logprob",)))
    estimates = text_estimates(rows, others)
    items = [
        {"task": name, "temperature": None, "item": str(place), "metric": "ce", "value": -float(row["logprob"].mean())}
        for place, row in enumerate(rows)
    ]
    return Part([score_row(name, None, metric, estimate) for metric, estimate in estimates.items()], items, [])


def text_estimates(
    rows: Sequence[dict[str, Tensor]], others: Sequence[dict[str, Tensor]] | None = None
) -> dict[str, Estimate]:
    """Scores over all tokens from the statistics {name: [T]} of each text, and those of the reference on the same texts.

    Nats per token, with the limits of a ratio of means over texts: ce, text_entropy, text_kl_to_reference, reference_ce,
    ce_increase. perplexity and perplexity_ratio are exp of ce and of ce_increase. top1: share of labels that are the
    likeliest token. worse: share of texts whose mean log-probability fell. p_label: quantiles of p(label) over tokens.
    """
    counts = [len(row["logprob"]) for row in rows]
    losses = [-float(row["logprob"].double().sum()) for row in rows]

    def per_token(name: str) -> Estimate:
        return ratio_estimate([float(row[name].double().sum()) for row in rows], counts, "texts")

    estimates = {"ce": ratio_estimate(losses, counts, "texts")}
    estimates["perplexity"] = estimates["ce"].mapped(finite_exp)
    estimates |= {"text_entropy": per_token("entropy"), "top1": per_token("is_top1")}
    probabilities = torch.cat([row["logprob"] for row in rows]).double().exp().sort().values
    for name, quantile in QUANTILES.items():
        place = min(int(quantile * len(probabilities)), len(probabilities) - 1)
        estimates[name] = Estimate(float(probabilities[place]), None, None, len(rows), "texts")
    if others is not None:
        before = [-float(row["logprob"].double().sum()) for row in others]
        increases = [after - earlier for after, earlier in zip(losses, before, strict=True)]
        estimates["text_kl_to_reference"] = per_token("kl_policy_ref")
        estimates["reference_ce"] = ratio_estimate(before, counts, "texts")
        estimates["ce_increase"] = ratio_estimate(increases, counts, "texts")
        estimates["perplexity_ratio"] = estimates["ce_increase"].mapped(finite_exp)
        estimates["worse"] = share_estimate([float(increase > 0.0) for increase in increases], "texts")
    return estimates


def finite_exp(value: float) -> float:
    return math.exp(min(value, LARGEST_EXPONENT))


def reread(
    model: nn.Module,
    reference: nn.Module | None,
    prompt_ids: Sequence[Sequence[int]],
    samples: Sequence[Sequence[Sample]],
    temperature: float,
    number: int,
) -> dict[str, list[float]]:
    """{metric: [P]} of the first `number` completions of each prompt, in nats per generated token.

    entropy: of the model's distribution at the sampling temperature, before top_k and top_p cut it. kl_to_reference, with
    a reference: KL(model at that temperature || reference at 1). Greedy answers, which were not sampled, have neither,
    and completions whose token ids are not known have not either.
    """
    rows = [
        (place, [*ids, *sample.token_ids], len(ids))
        for place, (ids, group) in enumerate(zip(prompt_ids, samples, strict=True))
        for sample in group[:number]
        if sample.token_ids
    ]
    if temperature == 0 or {place for place, _, _ in rows} != set(range(len(samples))):
        return {}
    rows.sort(key=lambda row: -len(row[1]))
    names = {"entropy": "entropy"} | ({} if reference is None else {"kl_policy_ref": "kl_to_reference"})
    sums = {name: [0.0] * len(samples) for name in names.values()}
    tokens = [0] * len(samples)
    batches = [padded(batch) for batch in cut(rows)]
    of_rows = row_statistics(model, batches, tuple(names), reference, temperature)
    for (place, _, _), statistics in zip(rows, of_rows, strict=True):
        tokens[place] += len(statistics["entropy"])
        for statistic, name in names.items():
            sums[name][place] += float(statistics[statistic].double().sum())
    return {name: [total / count for total, count in zip(column, tokens, strict=True)] for name, column in sums.items()}


def cut(rows: Sequence[tuple[int, list[int], int]]) -> Iterator[list[tuple[int, list[int], int]]]:
    """The rows, longest first, in batches of up to TOKENS_AT_A_TIME tokens with their padding."""
    start = 0
    while start < len(rows):
        size = max(1, TOKENS_AT_A_TIME // len(rows[start][1]))
        yield list(rows[start : start + size])
        start += size


def padded(rows: Sequence[tuple[int, list[int], int]]) -> Batch:
    """Token ids, mask and labels [B, S], padded on the right; the prompt carries no label."""
    ids = [torch.tensor(row) for _, row, _ in rows]
    labels = [torch.tensor([IGNORED] * start + row[start:]) for _, row, start in rows]
    return {
        "input_ids": pad_sequence(ids, batch_first=True),
        "attention_mask": pad_sequence(list(map(torch.ones_like, ids)), batch_first=True),
        "labels": pad_sequence(labels, batch_first=True, padding_value=IGNORED),
    }


def prepared_batches(
    model: nn.Module, tokenizer: Any, dataset: Dataset, batch_size: int, **settings: Any
) -> list[Batch]:
    """Batches of `input_ids`, `attention_mask` and `labels`, exactly as `SFTTrainer` would make them."""
    from ..training.config import SFTConfig
    from ..training.sft import SFTTrainer

    with tempfile.TemporaryDirectory() as folder:  # trainers insist on an output folder
        config = SFTConfig(folder, report_to="none", use_cpu=model.device.type == "cpu", bf16=False, **settings)
        trainer = SFTTrainer(model, config, train_dataset=dataset, processing_class=tokenizer)
    check_trained_tokens(trainer.train_dataset)
    columns = {"input_ids", "labels", "seq_lengths", "position_ids"}
    rows = [{name: row[name] for name in columns & row.keys()} for row in trainer.train_dataset]
    return [trainer.data_collator(rows[start : start + batch_size]) for start in range(0, len(rows), batch_size)]


def row_statistics(
    model: nn.Module,
    batches: Sequence[Batch],
    want: tuple[str, ...],
    reference: nn.Module | None = None,
    temperature: float = 1.0,
) -> Iterator[dict[str, Tensor]]:
    """Per row that has labels {statistic: [T]} of its labelled tokens, on the CPU.

    The model's logits are divided by `temperature`, the reference's are not.
    Raises ValueError for a reference of another vocabulary.
    """
    if reference is not None:
        check_same_vocabulary(model, reference)
    hook, other_hook = HeadHook(model), None if reference is None else HeadHook(reference)
    with evaluating(model):
        for batch in batches:
            inputs = {name: values.to(model.device) for name, values in batch.items()}
            labels = inputs.pop("labels")
            other = None
            if reference is not None:
                other = hidden_states_of(other_hook, partial(reference, **inputs, use_cache=False))

            def score(policy: Projection, labels: Tensor = labels, other: Projection | None = other) -> Any:
                return statistics_of(tempered(policy, temperature), labels, want, other)

            with torch.no_grad():
                statistics, valid = hook(partial(model, **inputs, use_cache=False), score).result
            counts = valid.sum(dim=1).tolist()
            split = {name: values.float().cpu().split(counts) for name, values in statistics.items()}
            for place, count in enumerate(counts):
                if count:
                    yield {name: parts[place] for name, parts in split.items()}


def tempered(projection: Projection, temperature: float) -> Projection:
    """The projection whose logits are those divided by the temperature; a softcap is divided with them."""
    softcap = projection.softcap
    return projection._replace(
        logit_scale=projection.logit_scale / temperature, softcap=None if softcap is None else softcap / temperature
    )
