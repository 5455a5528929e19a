"""n samples per prompt from a Hugging Face model, and the file that keeps them for grading again."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import GenerationConfig

from ..modes import evaluating

Prompt = str | list[dict[str, Any]] | list[int]


@dataclass(frozen=True)
class Sample:
    """One continuation: its text without special tokens, its ids up to and including the end token."""

    text: str
    token_ids: list[int]
    finished: bool  # an end token came before the length ran out


@dataclass(frozen=True)
class Sampling:
    """How samples are drawn. temperature 0 is greedy; top_k 0 and top_p 1 leave the distribution whole.

    Raises ValueError for a value out of range.
    """

    num_samples: int = 1
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    max_new_tokens: int = 512
    seed: int = 0

    def __post_init__(self) -> None:
        at_least = {"num_samples": 1, "temperature": 0, "top_k": 0, "max_new_tokens": 1}
        for name, least in at_least.items():
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}.")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p must lie in (0, 1], got {self.top_p}.")
        if self.temperature == 0 and self.num_samples > 1:
            raise ValueError(f"temperature 0 gives {self.num_samples} equal samples; draw 1, or raise the temperature.")


def sample(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[Prompt],
    sampling: Sampling,
    *,
    batch_size: int = 64,
    chat_template_kwargs: dict[str, Any] | None = None,
    show_progress: bool = False,
) -> list[list[Sample]]:
    """`sampling.num_samples` continuations of every prompt, in the order of the prompts.

    Prompts are text, conversations (the tokenizer's chat template is applied, the answer opened) or token
    ids. Rows are generated in batches of `batch_size`, left-padded, the longest prompts first. The draws
    depend on seed, prompts and batch size only; the random state and the model's mode stay as they were.

    Raises ValueError for no prompts, an empty prompt, or conversations without a chat template.
    """
    ids = encode_prompts(tokenizer, prompts, chat_template_kwargs)
    order = sorted(range(len(ids)), key=lambda index: -len(ids[index]))
    rows = [index for index in order for _ in range(sampling.num_samples)]
    config = generation_config(model, tokenizer, sampling)
    drawn: list[list[Sample]] = [[] for _ in ids]
    devices = [model.device] if model.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices), evaluating(model), own_settings_aside(model), torch.no_grad():
        for number, start in enumerate(progress(range(0, len(rows), batch_size), show_progress)):
            batch = rows[start : start + batch_size]
            torch.manual_seed(sampling.seed * 1_000_003 + number)
            input_ids, mask = left_padded([ids[index] for index in batch], config.pad_token_id)
            output = model.generate(
                input_ids=input_ids.to(model.device),
                attention_mask=mask.to(model.device),
                generation_config=config,
            )
            for index, tokens in zip(batch, output[:, input_ids.shape[1] :].tolist(), strict=True):
                drawn[index].append(read_sample(tokenizer, tokens, config.eos_token_id))
    return drawn


def encode_prompts(
    tokenizer: Any, prompts: Sequence[Prompt], chat_template_kwargs: dict[str, Any] | None = None
) -> list[list[int]]:
    """Token ids of every prompt; see `sample`."""
    if not prompts:
        raise ValueError("There is no prompt to sample from.")
    ids = [encode_prompt(tokenizer, prompt, chat_template_kwargs or {}) for prompt in prompts]
    for number, row in enumerate(ids, start=1):
        if not row:
            raise ValueError(f"Prompt {number} is empty after tokenisation; give it at least one token.")
    return ids


def encode_prompt(tokenizer: Any, prompt: Prompt, chat_template_kwargs: dict[str, Any]) -> list[int]:
    if isinstance(prompt, str):
        return tokenizer(prompt)["input_ids"]
    if not is_conversation(prompt):
        return list(prompt)
    if tokenizer.chat_template is None:
        raise ValueError(
            "The prompts are conversations but the tokenizer has no chat template; train with "
            "--chat_template_path, or use plain text prompts."
        )
    encoded = tokenizer.apply_chat_template(
        prompt, add_generation_prompt=True, tokenize=True, return_dict=True, **chat_template_kwargs
    )
    return encoded["input_ids"]


def is_conversation(prompt: Any) -> bool:
    return isinstance(prompt, list) and bool(prompt) and isinstance(prompt[0], dict)


def end_token_ids(model: Any, tokenizer: Any) -> list[int]:
    """Every id that ends an answer: the tokenizer's and those the model declares. ValueError without any."""
    declared = model.generation_config.eos_token_id
    declared = [] if declared is None else [declared] if isinstance(declared, int) else list(declared)
    own = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    if not own + declared:
        raise ValueError("Neither tokenizer nor model declares an end token, so no answer could ever end.")
    return list(dict.fromkeys(own + declared))


def generation_config(model: Any, tokenizer: Any, sampling: Sampling) -> GenerationConfig:
    """Exactly what was asked for; `own_settings_aside` keeps the model's own file, its penalties and cuts, out of it."""
    ends = end_token_ids(model, tokenizer)
    pad = tokenizer.pad_token_id
    how: dict[str, Any] = {"do_sample": False}
    if sampling.temperature > 0:
        how = {
            "do_sample": True,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "top_k": sampling.top_k,
            "min_p": 0.0,
            "typical_p": 1.0,
        }
    return GenerationConfig(
        max_new_tokens=sampling.max_new_tokens,
        eos_token_id=ends,
        pad_token_id=ends[0] if pad is None else pad,
        repetition_penalty=1.0,
        no_repeat_ngram_size=0,
        use_cache=True,
        **how,
    )


def left_padded(rows: Sequence[Sequence[int]], pad_token_id: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and attention mask, both [rows, longest row]."""
    longest = max(len(row) for row in rows)
    ids = torch.full((len(rows), longest), pad_token_id)
    mask = torch.zeros(len(rows), longest, dtype=torch.long)
    for place, row in enumerate(rows):
        ids[place, longest - len(row) :] = torch.tensor(row)
        mask[place, longest - len(row) :] = 1
    return ids, mask


def read_sample(tokenizer: Any, tokens: list[int], ends: Sequence[int]) -> Sample:
    stop = next((place for place, token in enumerate(tokens) if token in ends), None)
    kept = tokens if stop is None else tokens[: stop + 1]
    return Sample(tokenizer.decode(kept, skip_special_tokens=True), kept, stop is not None)


@contextmanager
def own_settings_aside(model: Any) -> Iterator[None]:
    """The model's own generation settings out of the way, and back afterwards."""
    settings = model.generation_config
    model.generation_config = GenerationConfig()
    try:
        yield
    finally:
        model.generation_config = settings


def progress(steps: range, show: bool) -> Iterator[int]:
    if not show:
        yield from steps
        return
    from tqdm import tqdm

    yield from tqdm(steps, desc="sampling", unit="batch")


def prompt_hash(tokenizer: Any, prompts: Sequence[Prompt], chat_template_kwargs: dict[str, Any] | None = None) -> str:
    """A name for exactly these token ids, so that two results can be known to share their prompts."""
    ids = encode_prompts(tokenizer, prompts, chat_template_kwargs)
    return hashlib.sha256(json.dumps(ids).encode()).hexdigest()


def write_samples(
    path: str | Path,
    prompts: Sequence[Prompt],
    samples: Sequence[Sequence[Sample]],
    grades: Sequence[Sequence[float]] | None = None,
) -> None:
    """One JSON object per prompt: the prompt, its samples, and their grades where there are some."""
    with Path(path).open("w", encoding="utf-8") as file:
        for number, (prompt, drawn) in enumerate(zip(prompts, samples, strict=True)):
            row: dict[str, Any] = {"prompt": prompt, "samples": [asdict(one) for one in drawn]}
            if grades is not None:
                row["grades"] = list(grades[number])
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
