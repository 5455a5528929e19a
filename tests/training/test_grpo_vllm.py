"""GRPO with vLLM through `manypaths grpo`, as TRL does it: a stand-in takes the place of vLLM, all of TRL's code runs."""

import json
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace

import pytest
import trl
from trl.generation import vllm_generation
from trl.scripts.utils import TrlParser

from conftest import tiny_llama
from manypaths.cli.main import main
from manypaths.config import parse
from manypaths.training.config import GRPO_OPTIONS

OPTIONS = {
    "use_vllm": "true", "vllm_mode": "server", "vllm_model_impl": "transformers", "vllm_enable_sleep_mode": "true",
    "vllm_server_base_url": "http://node:8000", "vllm_server_host": "node", "vllm_server_port": "8001",
    "vllm_server_timeout": "10", "vllm_group_port": "51217", "vllm_gpu_memory_utilization": "0.4",
    "vllm_max_model_length": "2048", "vllm_tensor_parallel_size": "2", "vllm_structured_outputs_regex": "a+",
    "vllm_importance_sampling_correction": "false", "vllm_importance_sampling_mode": "token_mask",
    "vllm_importance_sampling_clip_max": "2", "vllm_importance_sampling_clip_min": "0.5",
}  # fmt: skip


def test_every_option_of_vllm_is_read_as_trl_reads_it():
    given = [
        "--output_dir",
        "x",
        "--use_cpu",
        *(word for name, value in OPTIONS.items() for word in (f"--{name}", value)),
    ]
    _, ours, *_ = parse(GRPO_OPTIONS, given, "manypaths grpo")
    (theirs,) = TrlParser([trl.GRPOConfig]).parse_args_into_dataclasses(given, look_for_args_file=False)
    found, wanted = asdict(ours), asdict(theirs)
    assert {name: found[name] for name in wanted} == wanted
    unset = asdict(trl.GRPOConfig("x", use_cpu=True))
    for name in {name for name in unset if name.startswith("vllm_")} - {"vllm_importance_sampling_cap"}:  # deprecated
        assert wanted[name] != unset[name], name


class StandIn:
    """vLLM's engine, or TRL's client of a server: remembers what it was given, and draws "two three" or "two"."""

    def __init__(self, tokenizer, **made):
        self.made, self.drawn, self.loaded = made, [], []
        words = [tokenizer(text)["input_ids"] + [tokenizer.eos_token_id] for text in (" two three", " two")]
        self.answers = [words[0], words[1], words[0], words[0]]
        loader = SimpleNamespace(load_weights=lambda named: self.loaded.append(named[0][0]))
        driver = SimpleNamespace(driver_worker=SimpleNamespace(model_runner=SimpleNamespace(model=loader)))
        self.llm_engine = SimpleNamespace(model_executor=driver)

    def reset_prefix_cache(self):
        self.loaded.append("reset")

    def get_server_info(self):
        return {"model_config": {"logprobs_mode": "processed_logprobs"}}

    def init_communicator(self, device):
        self.device = device

    def update_named_params(self, metadata, named):
        self.loaded += [name for name, _ in named]

    def generate(self, prompts, sampling_params=None, use_tqdm=False, features=None, **how):
        self.drawn.append(vars(sampling_params) if sampling_params else how)
        if sampling_params:  # the engine
            return [
                SimpleNamespace(
                    prompt_token_ids=prompt["prompt_token_ids"],
                    outputs=[
                        SimpleNamespace(
                            token_ids=ids, logprobs=[{i: SimpleNamespace(rank=1, logprob=-1.0)} for i in ids]
                        )
                    ],
                )
                for prompt, ids in zip(prompts, self.answers * len(prompts), strict=False)
            ]
        ids = self.answers[: how["n"]] * len(prompts)
        return {"prompt_ids": prompts, "completion_ids": ids, "logprobs": [[[-1.0] for _ in row] for row in ids]}


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["server", "colocate"])
def test_grpo_trains_on_what_vllm_draws(tmp_path, tokenizer, monkeypatch, capsys, mode):
    monkeypatch.chdir(tmp_path)
    made = []
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.setenv(name, "")  # TRL sets them for an engine in this process
        monkeypatch.delenv(name)

    def stand_in(**given):
        made.append(StandIn(tokenizer, **given))
        return made[-1]

    monkeypatch.setattr("manypaths.training.config.check_version", lambda: "0.25.0")
    monkeypatch.setattr(vllm_generation, "is_vllm_available", lambda: True)
    monkeypatch.setattr(vllm_generation, "LLM", stand_in, raising=False)
    monkeypatch.setattr(vllm_generation, "SamplingParams", SimpleNamespace, raising=False)
    monkeypatch.setattr(vllm_generation, "VLLMClient", stand_in)
    tiny_llama(len(tokenizer)).save_pretrained("tiny")
    tokenizer.save_pretrained("tiny")
    rows = [
        {"prompt": f"one {word} is", "answer": tokenizer.decode(tokenizer(" two three")["input_ids"])}
        for word in ("four", "five")
    ]
    Path("prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    argv = ["grpo", "--model", "tiny", "--data", "prompts.jsonl", "--reward", "exact", "--output_dir", "out"]
    argv += [
        "--max_steps",
        "2",
        "--per_device_train_batch_size",
        "4",
        "--num_generations",
        "4",
        "--max_completion_length",
        "8",
    ]
    argv += [
        "--report_to",
        "none",
        "--logging_steps",
        "1",
        "--preflight_prompts",
        "0",
        "--temperature",
        "0.9",
        "--top_k",
        "7",
    ]
    argv += ["--use_vllm", "true", "--vllm_mode", mode, "--vllm_gpu_memory_utilization", "0.2"]
    argv += ["--vllm_server_base_url", "http://node:9", "--vllm_group_port", "5", "--vllm_max_model_length", "64"]
    assert main([*argv, "--gradient_checkpointing", "false", "--learning_rate", "1e-3"]) == 0, capsys.readouterr().err
    (engine,) = made
    wanted = {
        "model": "tiny",
        "gpu_memory_utilization": 0.2,
        "max_model_len": 64,
        "logprobs_mode": "processed_logprobs",
    }
    if mode == "server":
        wanted = {"base_url": "http://node:9", "group_port": 5, "connection_timeout": 240.0}
    assert wanted.items() <= engine.made.items()
    assert {"temperature": 0.9, "top_k": 7, "max_tokens": 8}.items() <= engine.drawn[0].items()
    assert len(engine.drawn) == 2 and engine.loaded.count("reset") == 2 and "lm_head.weight" in engine.loaded
    history = json.loads(Path("out/trainer_state.json").read_text())["log_history"]
    assert [row["reward"] for row in history if "reward" in row] == [0.75, 0.75]
    assert all(row["grad_norm"] > 0 for row in history if "grad_norm" in row)
    assert Path("out/model.safetensors").is_file()
