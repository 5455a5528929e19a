"""What the model would be fed: the trainer itself, built on weights that hold nothing, and its prepared rows.

Tokenisation, masks, truncation and packing are TRL's own. Of more rows than SAMPLE, evenly spaced ones are looked at.
"""

import copy
import io
import statistics
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import redirect_stdout, suppress
from functools import partial
from itertools import islice
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import torch
from datasets import Dataset, IterableDataset, disable_progress_bars, enable_progress_bars
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText, GenerationConfig, ProcessorMixin
from trl import ModelConfig, get_peft_config

from ..data.formats import IGNORED, Rows
from ..generation.prompts import encode_prompts
from ..generation.transformers_backend import end_token_ids
from ..training.config import GRPOConfig, SFTConfig
from ..training.run import model_init_kwargs
from .checks import Check, judged

SAMPLE = 1000
IMAGES = 32  # rows with images, which only the collator tokenises
SHOWN = 3
TAIL = 4  # tokens at the end of an answer among which its end token is: templates write a line break after it
UNUSED = {
    "report_to": [], "push_to_hub": False, "reference": None, "eval_strategy": "no", "bf16": False, "fp16": False,
}  # fmt: skip
MANY = 0.01  # share of rows above which something is worth a warning


Tokens = list[tuple[list[int], list[int]]]  # ids and labels of rows


class Example(NamedTuple):
    """A row as runs of text, each trained on or not."""

    title: str
    runs: list[tuple[str, bool]]


def empty_model(model_config: Any, processor: Any, config: Any, model: ModelConfig) -> torch.nn.Module:
    """The model of a configuration on the meta device; no weight is read or allocated."""
    options = model_init_kwargs(config, model)
    kind = AutoModelForImageTextToText if isinstance(processor, ProcessorMixin) else AutoModelForCausalLM
    options = {name: options[name] for name in ("dtype", "attn_implementation")}
    if "flash" in str(options["attn_implementation"]):  # weights and memory are the same, and it may not be here
        options["attn_implementation"] = "sdpa"
    with torch.device("meta"):
        empty = kind.from_config(model_config, trust_remote_code=config.trust_remote_code, **options)
    with suppress(OSError):  # else it generates with what its config says
        empty.generation_config = GenerationConfig.from_pretrained(model.model_name_or_path)
    empty.hf_device_map = {"": "meta"}  # a trainer leaves it where it is
    # for a template that brings tokens of its own: there is no mean that their rows could start from
    empty.resize_token_embeddings = partial(empty.resize_token_embeddings, mean_resizing=False)
    return empty


def sample(train: Rows) -> Dataset:
    """At most SAMPLE rows in memory, so that nothing is cached on disk."""
    if isinstance(train, IterableDataset):
        return Dataset.from_list(list(islice(train, SAMPLE)))
    count = min(SAMPLE, len(train))
    chosen = train.select([index * len(train) // count for index in range(count)])
    return Dataset.from_list(chosen.to_list(), features=train.features)


def empty_trainer(rows: Dataset, empty: torch.nn.Module, processor: Any, config: SFTConfig, **changes: Any) -> Any:
    """Our SFTTrainer with all of its checks; `changes` are options that differ. Its reference would be read, so it has none."""
    from ..training.sft import SFTTrainer

    peft_config = changes.pop("peft_config", None)
    disable_progress_bars()
    try:
        with TemporaryDirectory() as folder, redirect_stdout(io.StringIO()):
            config = copy.copy(config)
            vars(config).update(UNUSED | {"output_dir": folder} | changes)
            return SFTTrainer(empty, config, train_dataset=rows, processing_class=processor, peft_config=peft_config)
    finally:
        enable_progress_bars()


def whole_rows(
    train: Rows, model_config: Any, processor: Any, config: SFTConfig, model: ModelConfig
) -> Generator[Check, None, Mapping[str, Any]]:
    """Facts: the sampled rows, tokenised, and `full`, their ids and labels before max_length and packing."""
    rows = sample(train)
    whole = {"max_length": None, "packing": False, "padding_free": False}
    rows = empty_trainer(
        rows, empty_model(model_config, processor, config, model), processor, config, **whole
    ).train_dataset
    total = None if isinstance(train, IterableDataset) else len(train)
    yield Check("rows", "ok", f"{len(rows)} of {total or 'a stream of'} rows, tokenised as in training")
    facts = {"total": total, "tokenised": rows, "tokenizer": getattr(processor, "tokenizer", processor)}
    return facts | ({"full": pairs(rows)} if "labels" in rows.column_names else {})


def as_trained(
    tokenised: Dataset, model_config: Any, processor: Any, config: SFTConfig, model: ModelConfig
) -> Generator[Check, None, Mapping[str, Any]]:
    """Facts: the trainer, its model without weights, and `fed`, the ids and labels that it would be fed."""
    empty = empty_model(model_config, processor, config, model)
    trainer = empty_trainer(tokenised, empty, processor, config, peft_config=get_peft_config(model))
    yield Check("trainer", "ok", f"{type(empty).__name__}: nothing of it is refused")
    facts = {"trainer": trainer, "empty": trainer.model}
    if "labels" in tokenised.column_names:
        return facts | {"fed": pairs(trainer.train_dataset)}
    batches = [trainer.data_collator([row]) for row in islice(tokenised, IMAGES)]  # with images, tokenised only here
    fed = pairs([{name: batch[name][0].tolist() for name in ("input_ids", "labels")} for batch in batches])
    return facts | {"fed": fed, "full": fed}


def pairs(rows: Iterable[Mapping[str, Any]]) -> Tokens:
    return [(row["input_ids"], row["labels"]) for row in rows]


def trained(labels: Sequence[int]) -> int:
    """Labels that carry loss: the first token has nothing before it that could predict it."""
    return sum(label != IGNORED for label in labels[1:])


def masks(full: Tokens) -> Iterator[Check]:
    tokens = sum(len(ids) for ids, _ in full)
    learned = sum(trained(labels) for _, labels in full)
    yield Check("masks", "ok", f"{learned / tokens:.0%} of the tokens are trained on, {learned / len(full):.0f} a row")
    empty = [number for number, (_, labels) in enumerate(full, 1) if not trained(labels)]
    yield judged(
        "rows without trained tokens",
        f"{len(empty)} of {len(full)}",
        bool(empty),
        f"Row {empty[0] if empty else 0} of those looked at teaches nothing: look for empty answers.",
        "fail" if len(empty) == len(full) else "warn",
    )


def answer_ends(full: Tokens, empty: Any, tokenizer: Any) -> Iterator[Check]:
    """Whether what is learned tells the model to stop, with a token at which generation stops."""
    ends = set(end_token_ids(empty, tokenizer))
    names = ", ".join(tokenizer.convert_ids_to_tokens(sorted(ends)))
    complete = [labels for _, labels in full if trained(labels)]
    last = [[label for label in labels if label != IGNORED][-TAIL:] for labels in complete]
    stopping = [bool(ends & set(tail)) for tail in last]
    without = last[stopping.index(False)] if False in stopping else []
    yield judged(
        "end of the answer",
        f"{sum(stopping)} of {len(stopping)} rows end their trained part with {names}",
        not all(stopping),
        f"One ends with {tokenizer.decode(without)!r}: the model would not learn to stop. Let the chat template write "
        "the end token inside of what the assistant says, or give --eos_token the token that it writes.",
        "fail" if not any(stopping) else "warn",
    )
    declared = empty.generation_config.eos_token_id
    declared = [declared] if isinstance(declared, int) else declared or []
    taught = {label for tail in last for label in tail} & ends
    yield judged(
        "end token of generation",
        f"the tokenizer's {tokenizer.eos_token}; generation stops at {tokenizer.convert_ids_to_tokens(list(declared))}",
        bool(declared) and bool(taught) and not taught & set(declared),
        f"Answers end with {tokenizer.convert_ids_to_tokens(sorted(taught))}, at which generation_config.json does not stop: "
        "programs that read that file generate on. Add the token there.",
    )


def lengths(full: Tokens, fed: Tokens, config: SFTConfig, model_config: Any) -> Iterator[Check]:
    sizes = sorted(len(ids) for ids, _ in full)
    spread = (
        f"median {statistics.median(sizes):.0f}, 95 % below {sizes[int(0.95 * (len(sizes) - 1))]}, longest {sizes[-1]}"
    )
    before, after = (sum(trained(labels) for _, labels in rows) for rows in (full, fed))
    lost = 1 - after / max(before, 1)
    longer = sum(size > (config.max_length or sizes[-1]) for size in sizes) / len(sizes)
    yield judged(
        "length",
        f"{spread} tokens; {longer:.0%} of the rows are longer than max_length {config.max_length}, "
        f"with {lost:.1%} of all trained tokens lost",
        longer > MANY,
        f"Raise --max_length (to {sizes[-1]} for all of them), or leave out rows that are longer: cut answers teach the "
        "model not to end.",
        "fail" if lost > 0.5 else "warn",
    )
    places = getattr(model_config.get_text_config(), "max_position_embeddings", None)
    longest = max(len(ids) for ids, _ in fed)
    yield judged(
        "positions",
        f"rows of up to {longest} tokens; the model was made for {places or 'any number'}",
        places is not None and longest > places,
        f"Set --max_length to at most {places}.",
    )


def beginnings(full: Tokens, tokenizer: Any) -> Iterator[Check]:
    start = tokenizer.bos_token_id
    double = sum(start is not None and ids[:2] == [start, start] for ids, _ in full)
    yield judged(
        "beginning of a row",
        f"{tokenizer.decode(full[0][0][:1])!r}; twice in {double} rows" if double else "at most one start token",
        double > 0,
        f"The chat template or the data writes {tokenizer.bos_token}, and the tokenizer adds one more. Take it out of one.",
    )


def padding(fed: Tokens, trainer: Any, tokenizer: Any) -> Iterator[Check]:
    """A batch as the model gets it: padding must hide no trained token, and no token that is not padding."""
    by_length = sorted(fed, key=lambda row: len(row[0]))
    two = [by_length[0], by_length[-1]]
    rows = [{"input_ids": ids, "labels": labels} for ids, labels in two]
    batch = trainer.data_collator([{**row, "seq_lengths": [len(row["input_ids"])]} for row in rows])
    kept = int((batch["labels"] != IGNORED).sum())
    wanted = sum(label != IGNORED for _, labels in two for label in (labels[1:] if trainer.padding_free else labels))
    same = tokenizer.pad_token_id == tokenizer.eos_token_id
    yield judged(
        "padding",
        f"with {tokenizer.pad_token}{', which is the end token' if same else ''}; a batch of two keeps {kept} of {wanted} "
        "trained tokens",
        kept < wanted,
        "The collator takes trained tokens for padding: give --pad_token a token that the data never has.",
        "fail",
    )


def duplicates(full: Tokens) -> Iterator[Check]:
    different = len({tuple(ids) for ids, _ in full})
    twice = len(full) - different
    yield judged(
        "duplicates",
        f"{twice} of {len(full)} rows are there before",
        twice > MANY * len(full),
        "Rows that come several times weigh more; take them out, unless you mean it.",
    )


def special_tokens(fed: Tokens, empty: Any, config: SFTConfig, tokenizer: Any) -> Iterator[Check]:
    """An adapter trains neither the embedding nor the head, so tokens that the base never saw stay as they are."""
    layers = (empty.get_input_embeddings(), empty.get_output_embeddings())
    frozen = not any(weight.requires_grad for layer in layers for weight in layer.parameters())
    used = {token for ids, _ in fed for token in ids} & set(tokenizer.all_special_ids)
    used = sorted(used - {tokenizer.pad_token_id})
    yield judged(
        "special tokens",
        f"{', '.join(tokenizer.convert_ids_to_tokens(used)) or 'none'} in the rows",
        bool(used) and frozen and config.chat_template_path is not None,
        "The template is another model's, and the adapter leaves the rows of its tokens in embedding and head untrained. "
        "Unless the base knows them add --lora_modules_to_save embed_tokens lm_head.",
    )


def examples(rows: Tokens, tokenizer: Any) -> list[Example]:
    """The shortest row, one of median length and the longest."""
    order = sorted(range(len(rows)), key=lambda index: len(rows[index][0]))
    chosen = list(dict.fromkeys(order[place] for place in (0, len(order) // 2, len(order) - 1)))
    return [
        Example(f"{len(rows[index][0])} tokens, {trained(rows[index][1])} trained", runs(*rows[index], tokenizer))
        for index in chosen[:SHOWN]
    ]


def runs(ids: Sequence[int], labels: Sequence[int], tokenizer: Any) -> list[tuple[str, bool]]:
    """The text of a row in pieces that are trained on or not; the first token never is."""
    marks = [False, *(label != IGNORED for label in labels[1:])]
    starts = [place for place in range(len(ids)) if place == 0 or marks[place] != marks[place - 1]]
    stops = [*starts[1:], len(ids)]
    return [(tokenizer.decode(ids[start:stop]), marks[start]) for start, stop in zip(starts, stops, strict=True)]


def prompts(
    train: Dataset, model_config: Any, processor: Any, config: GRPOConfig, model: ModelConfig
) -> Generator[Check, None, Mapping[str, Any]]:
    """Of GRPO's data: what generation starts from. Facts as those of `as_trained`, `fed` being the prompts, without labels."""
    from peft import get_peft_model

    from ..training.grpo import check_prompt_template

    tokenizer = getattr(processor, "tokenizer", processor)
    rows = sample(train)
    check_prompt_template(rows[0]["prompt"], tokenizer)
    encoded = encode_prompts(tokenizer, rows["prompt"], config.chat_template_kwargs)
    sizes = sorted(map(len, encoded))
    places = getattr(model_config.get_text_config(), "max_position_embeddings", None)
    longest = sizes[-1] + config.max_completion_length
    yield judged(
        "length",
        f"prompts: median {statistics.median(sizes):.0f}, longest {sizes[-1]} tokens; completions of up to "
        f"{config.max_completion_length}; the model was made for {places or 'any number'}",
        places is not None and longest > places,
        f"Lower --max_completion_length by {longest - (places or 0)}, or take long prompts out.",
    )
    empty = empty_model(model_config, processor, config, model)
    end_token_ids(empty, tokenizer)
    peft_config = get_peft_config(model)
    empty = empty if peft_config is None else get_peft_model(empty, peft_config)
    unlabelled = [(ids, [IGNORED] * len(ids)) for ids in encoded]
    return {"total": len(train), "empty": empty, "tokenizer": tokenizer, "fed": unlabelled}
