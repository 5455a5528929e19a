"""Samples from vLLM: in this process, or from a server that runs elsewhere. vLLM is optional and loaded only here."""

import math
from collections.abc import Collection, Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from packaging.specifiers import SpecifierSet

from .samples import Backend, Request, Sample, Sampling, cut_batches, request_seed

VERSIONS = ">=0.22,<0.32"  # those that TRL 1.16 works with
AT_ONCE = 1024  # requests handed to the engine together; it schedules them itself


def vllm_backend(
    model: str,
    tokenizer: Any,
    *,
    server_base_url: str | None = None,
    tensor_parallel_size: int = 1,
    gpu_memory_utilization: float = 0.9,
    max_model_length: int | None = None,
    dtype: str = "auto",
) -> Backend:
    """Samples by vLLM, each with a seed of its own that depends on seed, prompt and index alone.

    The same seed gives the same sample as long as vLLM computes the same logits. It batches as load and memory
    allow, and rounding differs between batches, so that equality to the last bit is not promised, nor are these
    the samples of the transformers backend.

    server_base_url: of a running `vllm serve`; the options below it are then the server's own affair.
    max_model_length: most tokens of prompt and answer together; None for what the model allows.

    Raises ImportError where vLLM is missing or of a version outside `VERSIONS`; for a server see `server_backend`.
    """
    if server_base_url is not None:
        from .vllm_server import server_backend

        return server_backend(server_base_url, model, tokenizer)
    installed = check_version()
    from vllm import LLM

    engine = LLM(
        model=model,
        dtype=dtype,
        tensor_parallel_size=tensor_parallel_size,
        gpu_memory_utilization=gpu_memory_utilization,
        max_model_len=max_model_length,
        logprobs_mode="processed_logprobs",  # after temperature, top_k and top_p
        seed=0,
    )

    def draw(requests: Sequence[Request], done: Collection[int]) -> Iterator[tuple[int, Sample]]:
        for batch in cut_batches(requests, AT_ONCE):
            missing = [position for position in batch if position not in done]
            if missing:
                samples = draw_batch(engine, tokenizer, [requests[position] for position in missing])
                yield from zip(missing, samples, strict=True)

    return Backend(f"vllm {installed}", draw)


def check_version() -> str:
    """The installed version of vLLM; ImportError where it is missing or does not fit."""
    wanted = f"vLLM {VERSIONS} is needed: pip install 'manypaths[vllm]'"
    try:
        installed = version("vllm")
    except PackageNotFoundError as error:
        raise ImportError(f"vLLM is not installed. {wanted}.") from error
    if not SpecifierSet(VERSIONS).contains(installed, prereleases=True):
        raise ImportError(f"vLLM {installed} is installed. {wanted}.")
    return installed


def draw_batch(engine: Any, tokenizer: Any, batch: Sequence[Request]) -> list[Sample]:
    from vllm import SamplingParams

    outputs = engine.generate(
        [{"prompt_token_ids": list(request.prompt_ids)} for request in batch],
        sampling_params=[
            SamplingParams(**sampling_parameters(request, tokenizer), detokenize=False) for request in batch
        ],
        use_tqdm=False,
    )
    samples = []
    for request, output in zip(batch, outputs, strict=True):
        (one,) = output.outputs
        ids = list(one.token_ids)
        steps = one.logprobs and [step[token].logprob for step, token in zip(one.logprobs, ids, strict=True)]
        samples.append(as_sample(tokenizer, ids, one.finish_reason, steps, request.sampling))
    return samples


def sampling_parameters(request: Request, tokenizer: Any) -> dict[str, Any]:
    """All that decides a draw, in the words vLLM's engine and server share, so that no default of a model's own
    generation settings comes in. The end tokens that the model declares count besides the tokenizer's."""
    how = request.sampling
    return {
        "n": 1,
        "temperature": float(how.temperature),
        "top_p": float(how.top_p),
        "top_k": how.top_k,
        "min_p": 0.0,
        "repetition_penalty": 1.0,
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
        "max_tokens": how.max_new_tokens,
        "seed": request_seed(request),
        "stop_token_ids": [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id],
        "logprobs": 0 if how.temperature > 0 else None,  # of the drawn token alone
    }


def as_sample(
    tokenizer: Any, ids: list[int], finish: str, logprobs: Sequence[float | None] | None, sampling: Sampling
) -> Sample:
    """A sample from what vLLM says of it; "stop" can only be an end token, as no stop strings are given."""
    known = (
        sampling.temperature > 0 and logprobs and all(value is not None and math.isfinite(value) for value in logprobs)
    )
    text = tokenizer.decode(ids, skip_special_tokens=True)
    return Sample(text, ids, "eos" if finish == "stop" else finish, len(ids), math.fsum(logprobs) if known else None)
