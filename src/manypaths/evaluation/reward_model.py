"""Scores of answers from a reward model: any sequence-classification model with one output, or a function."""

import math
from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

from ..functions import import_function
from ..generation.prompts import Prompt
from ..models.loading import default_device

Scorer = Callable[[Sequence[Prompt], Sequence[str]], list[float]]


BATCH_SIZE = 16


def scorer(name: str) -> Scorer:
    """A function from prompts (texts or conversations) and answers to scores, one for each: higher is better.

    name: a hub id or folder of a transformers sequence-classification model with one output, or "module:function"
    for a function of your own with the same two arguments. A model reads prompt and answer through the tokenizer's chat
    template, or as a pair of texts when it has none; its weights are loaded at the first scores.

    Raises ValueError at once for a name that cannot be loaded, or a model with another number of outputs than one.
    The scorer raises ValueError for a result that is not one finite number per answer, for a model without a trained
    head, and for answers longer than the model reads: scores of cut answers would mean something else.
    """
    if ":" in name and not Path(name).exists():
        return checked(import_function(name, "reward model"), name)
    tokenizer, model = load_tokenizer(name), cache(partial(load_model, name))

    def score(prompts: Sequence[Prompt], texts: Sequence[str]) -> list[float]:
        rows = [encode(tokenizer, prompt, text) for prompt, text in zip(prompts, texts, strict=True)]
        check_lengths(rows, model().config)
        return score_rows(model(), rows)

    return checked(score, name)


def load_tokenizer(name: str) -> Any:
    """The tokenizer of a reward model, whose configuration is checked: one output."""
    from transformers import AutoConfig, AutoTokenizer

    try:
        config, tokenizer = AutoConfig.from_pretrained(name), AutoTokenizer.from_pretrained(name)
    except (OSError, ValueError) as error:
        raise ValueError(f"Cannot load the reward model {name!r}: {error}") from error
    if config.num_labels != 1:
        raise ValueError(
            f"The reward model {name!r} has {config.num_labels} outputs; a score needs exactly one: give a "
            "sequence-classification model with num_labels 1."
        )
    return tokenizer


def load_model(name: str) -> Any:
    """The model in evaluation mode; in the stored dtype on an accelerator, in float32 on a CPU."""
    from transformers import AutoModelForSequenceClassification

    place = default_device()
    try:
        model, report = AutoModelForSequenceClassification.from_pretrained(
            name, dtype="float32" if place.type == "cpu" else "auto", output_loading_info=True
        )
    except (OSError, ValueError) as error:
        raise ValueError(f"Cannot load the reward model {name!r}: {error}") from error
    if report["missing_keys"]:
        missing = ", ".join(sorted(report["missing_keys"])[:3])
        raise ValueError(f"{name!r} is not a trained reward model: its files lack the weights {missing}.")
    return model.to(place).eval()


def encode(tokenizer: Any, prompt: Prompt, text: str) -> dict[str, list[int]]:
    """The model's inputs for one answer, not padded: {"input_ids", "attention_mask", ...}."""
    if tokenizer.chat_template is not None:
        messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
        answer = {"role": "assistant", "content": text}
        encoded = tokenizer.apply_chat_template([*messages, answer], tokenize=True, return_dict=True)
    else:
        encoded = tokenizer(prompt if isinstance(prompt, str) else plain_text(prompt), text)
    return {key: list(values) for key, values in encoded.items()}


def plain_text(messages: Sequence[dict[str, Any]]) -> str:
    """The text of a user message, under that of a system message if there is one.

    Raises ValueError for other conversations, whose roles only a chat template can mark.
    """
    roles = [message["role"] for message in messages]
    if roles not in (["user"], ["system", "user"]) or not all(isinstance(one["content"], str) for one in messages):
        raise ValueError(
            f"A prompt has the messages {', '.join(map(str, roles))} but the reward model's tokenizer has no chat "
            "template; without one it reads a user message, with or without a system message, as text."
        )
    return "\n\n".join(message["content"] for message in messages)


def check_lengths(rows: Sequence[dict[str, list[int]]], config: Any) -> None:
    """ValueError when an answer with its prompt has more tokens than the model has positions, or none at all."""
    limit = getattr(config, "max_position_embeddings", None) or math.inf
    for number, row in enumerate(rows, start=1):
        length = len(row["input_ids"])
        if not 1 <= length <= limit:
            raise ValueError(
                f"Answer {number} has {length} tokens with its prompt; the reward model reads 1 to {limit}. "
                "Leave such samples out, or sample with a smaller max_new_tokens."
            )


def score_rows(model: Any, rows: Sequence[dict[str, list[int]]]) -> list[float]:
    """One score per row, in the order of the rows; the longest rows go first.

    Decoders score the last token that is not the model's own pad token, so rows are padded with exactly that one, on
    the right; a model that names none gets its rows one by one.
    """
    import torch
    from torch.nn.utils.rnn import pad_sequence

    pad = model.config.pad_token_id
    size = 1 if pad is None else BATCH_SIZE
    fill = {"input_ids": pad or 0}
    order = sorted(range(len(rows)), key=lambda index: -len(rows[index]["input_ids"]))
    scores = [0.0] * len(rows)
    for start in range(0, len(order), size):
        batch = order[start : start + size]
        inputs = {
            key: pad_sequence([torch.tensor(rows[index][key]) for index in batch], True, fill.get(key, 0)).to(
                model.device
            )
            for key in rows[batch[0]]
        }
        with torch.no_grad():
            logits = model(**inputs).logits[:, 0].float().tolist()
        for index, score in zip(batch, logits, strict=True):
            scores[index] = score
    return scores


def checked(score: Callable[..., Any], name: str) -> Scorer:
    def scores_of(prompts: Sequence[Prompt], texts: Sequence[str]) -> list[float]:
        values = score(prompts, texts)
        try:
            scores = [float(value) for value in values]
        except (TypeError, ValueError) as error:
            raise ValueError(f"The reward model {name!r} must return a list of numbers: {error}.") from error
        if len(scores) != len(texts):
            raise ValueError(f"The reward model {name!r} returned {len(scores)} scores for {len(texts)} answers.")
        for number, value in enumerate(scores, start=1):
            if not math.isfinite(value):
                raise ValueError(f"The reward model {name!r} scored answer {number} with {value}, not a finite number.")
        return scores

    return scores_of
