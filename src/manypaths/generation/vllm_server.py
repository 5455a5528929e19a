"""Samples from a running vLLM server (`vllm serve`), through its completions endpoint, with token ids both ways."""

import http.client
import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .samples import Backend, Request, Sample, Sampling
from .vllm_backend import as_sample, sampling_parameters

CONCURRENCY = 64  # requests in flight
WAITS = (1, 2, 4, 8, 16)  # seconds before another try
TIMEOUT = 3600  # seconds; a long answer of a busy server takes its time
TRY_AGAIN = (429, 500, 502, 503, 504)
KEY = "VLLM_API_KEY"
PROBE_TOKENS = 8


def server_backend(base_url: str, model: str, tokenizer: Any, *, concurrency: int = CONCURRENCY) -> Backend:
    """Samples from the server at `base_url` (http://host:8000), `concurrency` requests at a time.

    Lost connections and overload are tried again for half a minute. A server started with --api-key is given the
    key in the environment variable VLLM_API_KEY. Log-probabilities are kept where they are those of the distribution
    drawn from: start the server with --logprobs-mode processed_logprobs, or sample at temperature 1 without cuts.

    Raises ConnectionError where no server answers, ValueError where it serves another model, refuses a request, or
    gives no token ids back.
    """
    server = Server(base_url.rstrip("/"))
    name = served_name(server, model)
    processed: list[bool] = []

    def complete(request: Request) -> Sample:
        how = request.sampling
        choice = completion(server, name, list(request.prompt_ids), sampling_parameters(request, tokenizer))
        whole = how.temperature == 1 and how.top_p == 1 and how.top_k == 0
        logprobs = choice["logprobs"]["token_logprobs"] if choice.get("logprobs") else None
        logprobs = logprobs if whole or processed[0] else None
        return as_sample(tokenizer, choice["token_ids"], choice["finish_reason"], logprobs, how)

    def draw(requests: Sequence[Request], done: Collection[int]) -> Iterator[tuple[int, Sample]]:
        missing = [position for position in range(len(requests)) if position not in done]
        if missing and not processed:
            processed.append(gives_processed_logprobs(server, name, requests[missing[0]], tokenizer))
        pool = ThreadPoolExecutor(concurrency)
        try:
            running = {pool.submit(complete, requests[position]): position for position in missing}
            for future in as_completed(running):
                yield running.pop(future), future.result()
        finally:
            pool.shutdown(cancel_futures=True)

    return Backend(f"vllm server {server_version(server)}", draw)


@dataclass(frozen=True)
class Server:
    """A server's address, and how to talk to it."""

    base_url: str

    def ask(self, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """One try. Raises ConnectionError or urllib.error.HTTPError."""
        headers = {"Content-Type": "application/json"}
        if os.environ.get(KEY):
            headers["Authorization"] = f"Bearer {os.environ[KEY]}"
        data = None if body is None else json.dumps(body).encode()
        try:
            with urllib.request.urlopen(
                urllib.request.Request(self.base_url + path, data, headers), timeout=TIMEOUT
            ) as answer:
                return json.load(answer)
        except urllib.error.HTTPError:
            raise
        except (OSError, http.client.HTTPException, json.JSONDecodeError) as error:
            raise ConnectionError(
                f"No vLLM server answers at {self.base_url} ({error}). Start one with `vllm serve MODEL`, or check the "
                "address; samples drawn so far are kept."
            ) from error

    def ask_again(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """Several tries. Raises ConnectionError in the end, ValueError for a request that the server refuses."""
        for wait in (*WAITS, None):
            try:
                return self.ask(path, body)
            except urllib.error.HTTPError as error:
                problem = f"{self.base_url}{path} answers {error.code}: {error.read().decode(errors='replace')[:500]}"
                if error.code not in TRY_AGAIN:
                    raise ValueError(problem) from error
                failure = ConnectionError(f"{problem} (after {len(WAITS) + 1} tries)")
            except ConnectionError as error:
                failure = error
            if wait is not None:
                time.sleep(wait)
        raise failure


def served_name(server: Server, model: str) -> str:
    """The name under which the server knows the model. ValueError where it serves others only."""
    try:
        served = server.ask("/v1/models")["data"]
    except urllib.error.HTTPError as error:
        if error.code in (401, 403):
            raise ValueError(f"{server.base_url} wants a key: set the environment variable {KEY}.") from error
        raise ValueError(f"{server.base_url} is no OpenAI-compatible server: /v1/models gives {error.code}.") from error
    for entry in served:
        names = {entry["id"], entry.get("root") or entry["id"]}
        if model in names or Path(model).absolute() in {Path(name).absolute() for name in names}:
            return entry["id"]
    names = ", ".join(entry["id"] for entry in served)
    raise ValueError(f"{server.base_url} serves {names}, not {model}. Start it with `vllm serve {model}`.")


def server_version(server: Server) -> str:
    try:
        return server.ask("/version")["version"]
    except (urllib.error.HTTPError, KeyError):
        return "of unknown version"


def completion(server: Server, name: str, prompt_ids: list[int], parameters: dict[str, Any]) -> dict[str, Any]:
    """The one choice that /v1/completions gives for these token ids."""
    body = {"model": name, "prompt": prompt_ids, "return_token_ids": True, **parameters}
    (choice,) = server.ask_again("/v1/completions", body)["choices"]
    if choice.get("token_ids") is None:
        raise ValueError(f"{server.base_url} gives no token ids back; it must be a vLLM server, version 0.22 or later.")
    return choice


def gives_processed_logprobs(server: Server, name: str, request: Request, tokenizer: Any) -> bool:
    """Whether log-probabilities are those after the cuts: with top_k 1 they are then all 0.

    Asked after a single token, where the likeliest continuation is far from certain.
    """
    first = Request(request.prompt_ids[:1], Sampling(top_k=1, max_new_tokens=PROBE_TOKENS), 0)
    choice = completion(server, name, list(first.prompt_ids), sampling_parameters(first, tokenizer))
    logprobs = (choice.get("logprobs") or {}).get("token_logprobs") or [None]
    return all(value is not None and abs(value) < 1e-6 for value in logprobs)
