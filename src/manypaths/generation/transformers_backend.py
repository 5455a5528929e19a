"""n samples per prompt from a Hugging Face model with `generate`, each from a random stream of its own."""

import math
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
import transformers
from torch.nn.utils.rnn import pad_sequence
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList, TopKLogitsWarper, TopPLogitsWarper

from ..models.loading import evaluating
from .prompts import Prompt, encode_prompts
from .samples import Backend, Request, Sample, Sampling, cut_batches, requests_for, uniforms

ROOM = 1 << 30  # bytes
LOGIT_BYTES = 40  # per logit while a token is drawn: a few copies in float64


def sample(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[Prompt],
    sampling: Sampling,
    *,
    batch_size: int | None = None,
    chat_template_kwargs: dict[str, Any] | None = None,
) -> list[list[Sample]]:
    """`sampling.num_samples` continuations of every prompt, in the order of the prompts.

    Prompts are text or conversations. See `transformers_backend` for how their continuations are drawn.
    """
    requests = requests_for(encode_prompts(tokenizer, prompts, chat_template_kwargs), sampling)
    drawn = dict(transformers_backend(model, tokenizer, batch_size).draw(requests, ()))
    number = sampling.num_samples
    return [[drawn[start + index] for index in range(number)] for start in range(0, len(requests), number)]


def transformers_backend(model: Any, tokenizer: Any, batch_size: int | None = None) -> Backend:
    """Samples by the model's own `generate`, in left-padded batches of `batch_size`, on the model's device.

    Without a batch_size small models get larger batches than others (`suitable_batch_size`).

    Every sample has a random stream of its own, fixed by seed, prompt and index. Its draws depend neither on
    the batch it happens to share, apart from the rounding of the logits, nor on any global random state, which
    stays as it was; so do the model's mode and generation settings. Batches are cut from the whole list of
    requests: a run that goes on repeats an unfinished batch whole and gives what was missing, so that even
    the rounding is that of an undisturbed run.

    Raises ValueError where neither tokenizer nor model has an end token, and while drawing: logits that are not
    numbers, or a batch too large for the memory.
    """
    ends = end_token_ids(model, tokenizer)

    def draw(requests: Sequence[Request], done: Collection[int]) -> Iterator[tuple[int, Sample]]:
        for batch in cut_batches(requests, batch_size or suitable_batch_size(model, requests)):
            if all(position in done for position in batch):
                continue
            samples = draw_batch(model, tokenizer, [requests[position] for position in batch], ends)
            yield from (pair for pair in zip(batch, samples, strict=True) if pair[0] not in done)

    return Backend(f"transformers {transformers.__version__}", draw)


def suitable_batch_size(model: Any, requests: Sequence[Request]) -> int:
    """A power of two from 64 to 1024 whose cache and logits take up to `ROOM`; it depends on the request lengths alone."""
    config = model.config.get_text_config()
    longest = max((len(one.prompt_ids) + one.sampling.max_new_tokens for one in requests), default=1)
    cache = 2 * config.num_hidden_layers * config.hidden_size * model.dtype.itemsize * longest
    rows = ROOM // (cache + LOGIT_BYTES * config.vocab_size)
    return min(max(1 << max(rows, 1).bit_length() - 1, 64), 1024)


def draw_batch(model: Any, tokenizer: Any, batch: Sequence[Request], ends: Sequence[int]) -> list[Sample]:
    """One sample per request; all share temperature, top_k, top_p and max_new_tokens."""
    sampling = batch[0].sampling
    pad = ends[0] if tokenizer.pad_token_id is None else tokenizer.pad_token_id
    input_ids, mask = left_padded([request.prompt_ids for request in batch], pad)
    drawing = DrawFromStreams(batch, input_ids.shape[1], ends, model.device)
    with evaluating(model), own_settings_aside(model), torch.no_grad():
        try:
            output = model.generate(
                input_ids=input_ids.to(model.device),
                attention_mask=mask.to(model.device),
                generation_config=GenerationConfig(
                    max_new_tokens=sampling.max_new_tokens,
                    do_sample=False,  # the one token that `drawing` leaves
                    eos_token_id=list(ends),
                    pad_token_id=pad,
                    use_cache=True,
                ),
                logits_processor=LogitsProcessorList([drawing]),
            )
        except torch.OutOfMemoryError as error:
            raise ValueError(
                f"Out of memory with {len(batch)} samples at once (prompts of up to {input_ids.shape[1]} tokens, "
                f"{sampling.max_new_tokens} new ones); lower --batch_size."
            ) from error
    logprobs = drawing.logprob.tolist()
    check_numbers(all(map(math.isfinite, logprobs)))
    rows = output[:, input_ids.shape[1] :].tolist()
    known = [logprob if sampling.temperature > 0 else None for logprob in logprobs]
    return [read_sample(tokenizer, tokens, ends, logprob) for tokens, logprob in zip(rows, known, strict=True)]


def check_numbers(fine: bool) -> None:
    if not fine:
        raise ValueError(
            "The model's logits are not numbers (NaN or infinite) for some sample. Load it in a wider type "
            "(--dtype bfloat16 or float32), or check the weights."
        )


class DrawFromStreams(LogitsProcessor):
    """Draws every row's next token by the inverse of its cumulative distribution, and leaves only that token.

    logprob: [rows] float64, the sum of log-probabilities of the tokens drawn, up to and including the end token.
    """

    def __init__(self, batch: Sequence[Request], prompt_length: int, ends: Sequence[int], device: torch.device) -> None:
        self.device = torch.device("cpu") if device.type == "mps" else device  # mps has no float64
        self.sampling = batch[0].sampling
        self.prompt_length = prompt_length
        self.uniforms = torch.from_numpy(np.stack([uniforms(request) for request in batch])).to(self.device)
        self.ends = torch.tensor(list(ends), device=self.device)
        self.going_on = torch.ones(len(batch), dtype=torch.bool, device=self.device)
        self.logprob = torch.zeros(len(batch), dtype=torch.float64, device=self.device)

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        """scores: [rows, V] logits of the next token; returns the same shape, 0 at the token and -inf elsewhere."""
        logits = cut_distribution(input_ids, scores, self.sampling).to(self.device)
        logprobs = logits.double().log_softmax(dim=-1)
        step = input_ids.shape[1] - self.prompt_length
        if step == 0:  # broken weights show at once, not after the longest answer
            check_numbers(not bool(logprobs.isnan().any()))
        if self.sampling.temperature > 0:
            cumulative = logprobs.exp().cumsum(dim=-1)
            points = self.uniforms[:, step : step + 1] * cumulative[:, -1:]
            tokens = torch.searchsorted(cumulative, points, right=True).clamp(max=scores.shape[1] - 1)
        else:
            tokens = logits.argmax(dim=-1, keepdim=True)
        drawn = logprobs.gather(1, tokens).squeeze(1)
        self.logprob += torch.where(self.going_on, drawn, 0.0)
        self.going_on &= ~torch.isin(tokens.squeeze(1), self.ends)
        return torch.full_like(scores, -torch.inf).scatter_(1, tokens.to(scores.device), 0.0)


def cut_distribution(input_ids: torch.Tensor, scores: torch.Tensor, sampling: Sampling) -> torch.Tensor:
    """Logits after temperature, then top_k, then top_p, as `generate` orders them; [rows, V]."""
    if sampling.temperature == 0:
        return scores
    scores = scores / sampling.temperature
    if sampling.top_k > 0:
        scores = TopKLogitsWarper(sampling.top_k)(input_ids, scores)
    if sampling.top_p < 1:
        scores = TopPLogitsWarper(sampling.top_p)(input_ids, scores)
    return scores


def end_token_ids(model: Any, tokenizer: Any) -> list[int]:
    """Every id that ends an answer: the tokenizer's and those the model declares. ValueError without any."""
    declared = model.generation_config.eos_token_id
    declared = [] if declared is None else [declared] if isinstance(declared, int) else list(declared)
    own = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    if not own + declared:
        raise ValueError("Neither tokenizer nor model declares an end token, so no answer could ever end.")
    return list(dict.fromkeys(own + declared))


def left_padded(rows: Sequence[Sequence[int]], pad_token_id: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and attention mask, both [rows, longest row]."""
    ids = [torch.tensor(row) for row in rows]
    mask = pad_sequence(list(map(torch.ones_like, ids)), batch_first=True, padding_side="left")
    return pad_sequence(ids, batch_first=True, padding_value=pad_token_id, padding_side="left"), mask


def read_sample(tokenizer: Any, tokens: list[int], ends: Sequence[int], logprob: float | None) -> Sample:
    """The sample in a row of generated ids, which are padding after the first end token."""
    end = next((place for place, token in enumerate(tokens) if token in ends), None)
    kept = tokens if end is None else tokens[: end + 1]
    text = tokenizer.decode(kept, skip_special_tokens=True)
    return Sample(text, kept, "length" if end is None else "eos", len(kept), logprob)


@contextmanager
def own_settings_aside(model: Any) -> Iterator[None]:
    """The model's own generation settings, its penalties and cuts, out of the way, and back afterwards."""
    settings = model.generation_config
    model.generation_config = GenerationConfig()
    try:
        yield
    finally:
        model.generation_config = settings
