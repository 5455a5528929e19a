"""vLLM cannot run on a test machine: a stand-in module keeps its interface as vLLM 0.22 to 0.31 document it."""

import math
import sys
from collections import namedtuple
from types import ModuleType, SimpleNamespace

import pytest

from manypaths.generation import vllm_backend as vllm_sampling
from manypaths.generation.samples import Request, Sample, Sampling, request_seed, requests_for
from manypaths.generation.vllm_backend import vllm_backend

Logprob = namedtuple("Logprob", "logprob rank decoded_token")
PROMPTS = [[5, 6], [5, 6, 7, 8], [9]]


class StandIn:
    """The engine: a seed below half of the range ends with the end token, the others run out of tokens."""

    def __init__(self, **options):
        self.options, self.calls = options, []

    def generate(self, prompts, sampling_params, use_tqdm):
        assert len(prompts) == len(sampling_params) and use_tqdm is False
        self.calls.append([prompt["prompt_token_ids"] for prompt in prompts])
        return [SimpleNamespace(outputs=[self.answer(how)]) for how in sampling_params]

    def answer(self, how):
        ended = how["seed"] < 2**62
        ids = [20, 21, 1][: how["max_tokens"]] if ended else [30] * how["max_tokens"]
        steps = None
        if how["logprobs"] is not None:
            steps = [{7: Logprob(-0.1, 1, None), token: Logprob(-0.5, 2, None)} for token in ids]
        return SimpleNamespace(
            text="", token_ids=tuple(ids), logprobs=steps, finish_reason="stop" if ended else "length", stop_reason=None
        )


@pytest.fixture
def engines(monkeypatch):
    made = []
    module = ModuleType("vllm")
    module.LLM = lambda **options: made.append(StandIn(**options)) or made[-1]
    module.SamplingParams = lambda **fields: fields
    monkeypatch.setitem(sys.modules, "vllm", module)
    monkeypatch.setattr(vllm_sampling, "version", lambda name: "0.31.0+cu130")
    return made


def test_samples_are_read_as_those_of_transformers_are(engines, tokenizer):
    wanted = requests_for(PROMPTS, Sampling(num_samples=8, max_new_tokens=4))
    backend = vllm_backend("model", tokenizer, tensor_parallel_size=2, gpu_memory_utilization=0.5)
    drawn = dict(backend.draw(wanted, ()))
    assert backend.name == "vllm 0.31.0+cu130"
    assert sorted(drawn) == list(range(24))
    for position, one in drawn.items():
        if request_seed(wanted[position]) < 2**62:
            assert one == Sample(tokenizer.decode([20, 21]), [20, 21, 1], "eos", 3, -1.5) and one.finished
        else:
            assert one == Sample(tokenizer.decode([30] * 4), [30] * 4, "length", 4, -2.0) and not one.finished
    assert {one.stop for one in drawn.values()} == {"eos", "length"}
    (engine,) = engines
    assert engine.options == {
        "model": "model",
        "dtype": "auto",
        "tensor_parallel_size": 2,
        "gpu_memory_utilization": 0.5,
        "max_model_len": None,
        "logprobs_mode": "processed_logprobs",
        "seed": 0,
    }
    assert engine.calls == [[PROMPTS[1], PROMPTS[0], PROMPTS[2]] * 8]


def test_every_setting_is_given_so_that_no_default_of_the_model_comes_in(tokenizer):
    how = Sampling(num_samples=3, temperature=1, top_p=0.9, top_k=5, max_new_tokens=7, seed=4)
    request = Request([5], how, 2)
    assert vllm_sampling.sampling_parameters(request, tokenizer) == {
        "n": 1,
        "temperature": 1.0,
        "top_p": 0.9,
        "top_k": 5,
        "min_p": 0.0,
        "repetition_penalty": 1.0,
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
        "max_tokens": 7,
        "seed": request_seed(request),
        "stop_token_ids": [1],
        "logprobs": 0,
    }


def test_a_run_that_goes_on_draws_only_what_is_missing(engines, tokenizer, monkeypatch):
    monkeypatch.setattr(vllm_sampling, "AT_ONCE", 4)
    wanted = requests_for(PROMPTS, Sampling(num_samples=4, max_new_tokens=3))
    backend = vllm_backend("model", tokenizer)
    whole = list(backend.draw(wanted, ()))
    rest = list(backend.draw(wanted, {position for position, _ in whole[:6]}))
    assert rest == whole[6:]
    assert [len(call) for call in engines[0].calls] == [4, 4, 4, 2, 4]


def test_greedy_and_unknown_logprobs_are_none(engines, tokenizer):
    backend = vllm_backend("model", tokenizer)
    ((_, one),) = backend.draw([Request([5], Sampling(temperature=0, max_new_tokens=2), 0)], ())
    assert one.logprob is None
    read = vllm_sampling.as_sample
    assert read(tokenizer, [20, 21], "length", [-1.0, -2.0], Sampling()).logprob == -3
    assert read(tokenizer, [20, 21], "length", [-1.0, math.nan], Sampling()).logprob is None
    assert read(tokenizer, [20, 21], "length", [-1.0, None], Sampling()).logprob is None
    assert read(tokenizer, [20], "abort", None, Sampling()) == Sample(tokenizer.decode([20]), [20], "abort", 1, None)


@pytest.mark.parametrize("found", ["0.21.0", "0.32.0", "0.33.1+cu130"])
def test_other_versions_are_refused(engines, tokenizer, monkeypatch, found):
    monkeypatch.setattr(vllm_sampling, "version", lambda name: found)
    with pytest.raises(ImportError) as caught:
        vllm_backend("model", tokenizer)
    assert f"vLLM {found} is installed. vLLM >=0.22,<0.32 is needed: pip install 'manypaths[vllm]'" in str(caught.value)
    assert engines == []


def test_without_vllm_the_error_says_how_to_get_it(tokenizer, monkeypatch):
    def missing(name):
        raise vllm_sampling.PackageNotFoundError(name)

    monkeypatch.setattr(vllm_sampling, "version", missing)
    with pytest.raises(ImportError, match=r"vLLM is not installed.* pip install 'manypaths\[vllm\]'"):
        vllm_backend("model", tokenizer)
