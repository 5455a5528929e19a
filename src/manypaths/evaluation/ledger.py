"""The free ledger of forgetting: what tuning did to the probability of held-aside text, with no benchmark at all.

Knows neither trainer nor engine: token statistics come in. The unit that varies is the text; both models score
the same tokens of it, so what they differ by is paired.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from .intervals import share_interval
from .tokens import Score, exponential, token_mean

Rows = Iterable[Mapping[str, Tensor]]


def ledger(tuned_rows: Rows, base_rows: Rows) -> dict[str, Any]:
    """Perplexity and KL of a tuned model against its base, on the same texts.

    tuned_rows: per text {"logprob": [T], "kl_policy_ref": [T]}, the KL being KL(tuned || base) of each token's
      distribution over the vocabulary, in nats. base_rows: per text {"logprob": [T]}, of the same T tokens.

    Returns {"scores": {name: {"value", "low", "high", "n": texts}}, "num_texts", "num_tokens"} with
    base_perplexity and tuned_perplexity; difference (nats per token by which the tuned model is worse) and
    perplexity_ratio = exp(difference), both paired; kl_to_base (nats per token); worse (share of texts whose
    mean logprob fell). Means are per token, with the 95 % interval of a ratio of means over texts, which a single
    text does not have; the share's is `share_interval`.

    Raises ValueError for no texts, texts that differ in number or in tokens, missing statistics, or values that
    are not finite.
    """
    tuned_rows, base_rows = list(tuned_rows), list(base_rows)
    check_rows(tuned_rows, base_rows)
    counts = [len(row["logprob"]) for row in tuned_rows]
    tuned = [-float(row["logprob"].double().sum()) for row in tuned_rows]
    base = [-float(row["logprob"].double().sum()) for row in base_rows]
    kl = [float(row["kl_policy_ref"].double().sum()) for row in tuned_rows]
    worse = [after - before for after, before in zip(tuned, base, strict=True)]

    def per_token(sums: Sequence[float]) -> Score:
        return {**token_mean(sums, counts), "n": len(counts)}

    difference = per_token(worse)
    scores = {
        "base_perplexity": exponential(per_token(base)),
        "tuned_perplexity": exponential(per_token(tuned)),
        "difference": difference,
        "perplexity_ratio": exponential(difference),
        "kl_to_base": per_token(kl),
        "worse": asdict(share_interval([float(change > 0.0) for change in worse])),
    }
    return {"scores": scores, "num_texts": len(counts), "num_tokens": sum(counts)}


def check_rows(tuned_rows: Sequence[Mapping[str, Tensor]], base_rows: Sequence[Mapping[str, Tensor]]) -> None:
    if not tuned_rows and not base_rows:
        raise ValueError("There is no text, so there is nothing to measure.")
    if len(tuned_rows) != len(base_rows):
        raise ValueError(
            f"The tuned model scored {len(tuned_rows)} texts and the base {len(base_rows)}; give the same."
        )
    for number, (tuned, base) in enumerate(zip(tuned_rows, base_rows, strict=True), start=1):
        for model, row, wanted in (("tuned", tuned, ("logprob", "kl_policy_ref")), ("base", base, ("logprob",))):
            for name in wanted:
                if name not in row:
                    raise ValueError(f"Text {number} of the {model} model has no {name}; it has {', '.join(row)}.")
                if not torch.isfinite(row[name]).all():
                    raise ValueError(f"Text {number} of the {model} model has a {name} that is not finite.")
        sizes = len(tuned["logprob"]), len(base["logprob"]), len(tuned["kl_policy_ref"])
        if len(set(sizes)) > 1 or sizes[0] == 0:
            raise ValueError(
                f"Text {number} has {sizes[0]} tokens for the tuned model, {sizes[1]} for the base and {sizes[2]} KL "
                "values; both models must score the same tokens of each text, at least one."
            )
