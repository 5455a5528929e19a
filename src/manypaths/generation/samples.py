"""What is asked of a sampling backend and what comes back: requests in, samples out, in batches that can resume."""

import hashlib
import json
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np


@dataclass(frozen=True)
class Sample:
    """One continuation of a prompt.

    text: without special tokens. token_ids: up to and including the end token; None where a text made elsewhere has none.
    stop: why it ended: "eos" (an end token), "length" (the tokens ran out), another word of the backend, or
    None where unknown. num_tokens: how many were generated, the end token included.
    logprob: nats, the sum over the generated tokens of the log-probability under the distribution they were
    drawn from (after temperature, top_k and top_p), so that -logprob / num_tokens estimates its entropy per
    token. None where unknown, and for greedy answers, which were not drawn.
    """

    text: str
    token_ids: list[int] | None
    stop: str | None
    num_tokens: int | None = None
    logprob: float | None = None

    @property
    def finished(self) -> bool | None:
        """Whether an end token came; None where nobody knows why the text ends."""
        return None if self.stop is None else self.stop == "eos"


class SampleKey(NamedTuple):
    """What one sample is: number `index` (from 0) for problem `id` of `task`, sampled at this temperature.

    Task and temperature are None where a file made elsewhere does not say.
    """

    task: str | None
    id: str
    temperature: float | None
    index: int

    def __str__(self) -> str:
        temperature = "" if self.temperature is None else f" at temperature {self.temperature}"
        return f"sample {self.index} of {self.task or 'problem'} {self.id}{temperature}"


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
            if not getattr(self, name) >= least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}.")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p must lie in (0, 1], got {self.top_p}.")
        if self.temperature == 0 and self.num_samples > 1:
            raise ValueError(f"temperature 0 gives {self.num_samples} equal samples; draw 1, or raise the temperature.")


@dataclass(frozen=True)
class Request:
    """Sample number `index` (from 0) of the prompt with these token ids."""

    prompt_ids: Sequence[int]
    sampling: Sampling
    index: int


@dataclass(frozen=True)
class Backend:
    """A way to draw samples.

    name: library and version, for the results. draw(requests, done): yields (position in requests, sample) for
    every position that is not in `done`, in an order of the backend's own, as soon as they are there. A run that
    goes on after an interruption hands in the same requests and what it has, and gets exactly the rest.
    """

    name: str
    draw: Callable[[Sequence[Request], Collection[int]], Iterator[tuple[int, Sample]]]


def requests_for(prompts: Iterable[Sequence[int]], sampling: Sampling) -> list[Request]:
    """`sampling.num_samples` requests for every prompt's token ids, those of one prompt side by side."""
    return [Request(ids, sampling, index) for ids in prompts for index in range(sampling.num_samples)]


def cut_batches(requests: Sequence[Request], batch_size: int) -> list[list[int]]:
    """Positions in batches: one way of sampling per batch, longest prompts first, so that memory fails early.

    All first samples come before all second ones, so that more samples leave the batches of the earlier ones as they are.
    """
    groups: dict[tuple[float, float, int, int], list[int]] = {}
    for position, request in enumerate(requests):
        how = request.sampling
        groups.setdefault((how.temperature, how.top_p, how.top_k, how.max_new_tokens), []).append(position)
    batches = []
    for group in groups.values():
        group.sort(key=lambda position: (requests[position].index, -len(requests[position].prompt_ids)))
        batches += [group[start : start + batch_size] for start in range(0, len(group), batch_size)]
    return batches


def stream_key(request: Request) -> bytes:
    """32 bytes that depend on seed, prompt and index, and on nothing else."""
    prompt = hashlib.sha256(json.dumps(list(request.prompt_ids)).encode()).hexdigest()
    return hashlib.sha256(f"{request.sampling.seed} {prompt} {request.index}".encode()).digest()


def uniforms(request: Request) -> np.ndarray:
    """[max_new_tokens] numbers in [0, 1), one per token to generate: the request's own stream of random numbers.

    From a counter-based generator (Philox, Salmon et al. 2011) with 53 bits each, the same on every machine.
    """
    generator = np.random.Philox(key=int.from_bytes(stream_key(request)[:16], "little"))
    return (generator.random_raw(request.sampling.max_new_tokens) >> np.uint64(11)) * 2.0**-53


def request_seed(request: Request) -> int:
    """A seed in [0, 2^63) for backends that draw by themselves, made as the stream of `uniforms` is."""
    return int.from_bytes(stream_key(request)[:8], "little") >> 1


def check_context(model_config: Any, requests: Sequence[Request], names: Sequence[str]) -> None:
    """ValueError when the longest prompt and its new tokens do not fit into the model's positions.

    model_config: a Hugging Face configuration; one without max_position_embeddings has no limit.
    names: what to call each request in the message.
    """
    limit = getattr(model_config.get_text_config(), "max_position_embeddings", None)
    sizes = [len(request.prompt_ids) + request.sampling.max_new_tokens for request in requests]
    if limit is None or max(sizes) <= limit:
        return
    position = sizes.index(max(sizes))
    length, new = len(requests[position].prompt_ids), requests[position].sampling.max_new_tokens
    cure = f"set --max_new_tokens to {limit - length} or less, or" if length < limit else "shorten or"
    too_long = sum(size > limit for size in sizes)
    others = f" ({too_long} prompts are too long)" if too_long > 1 else ""
    raise ValueError(
        f"Prompt {names[position]} has {length} tokens; with {new} new ones that is more than the {limit} positions "
        f"of the model{others}: {cure} leave the prompt out."
    )
