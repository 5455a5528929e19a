"""The folder that `manypaths grpo --export verl DIR` writes; the slow tests run verl's own code where it is installed:

pip install --no-deps verl==0.9.1 hydra-core omegaconf antlr4-python3-runtime==4.9.3 tensordict==0.10.0 pyvers torchdata
    codetiming pybind11 pylatexenc orjson importlib_metadata zipp
"""

import copy
import importlib.util
import json
import os
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from types import ModuleType, SimpleNamespace

import datasets
import pytest
import torch
import trl
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch.nn.utils.rnn import pad_sequence
from transformers import GenerationConfig, PreTrainedTokenizerFast

from conftest import CHAT_TEMPLATE, tiny_llama
from manypaths.cli.launch import LaunchConfig
from manypaths.cli.main import main
from manypaths.generation.prompts import encode_prompts
from manypaths.generation.samples import Sample
from manypaths.grading.graders import grade_samples, resolve_grader
from manypaths.training.config import GRPOConfig, of_processes
from manypaths.training.verl_export import end_tokens, reward_module, table
from manypaths.training.verl_options import (
    TRANSLATED,
    WITHOUT_EFFECT,
    batches_of,
    refuse_without_counterpart,
    run_script,
)

RECIPE = Path(__file__).parents[2] / "recipes" / "grpo_math.yaml"
QUESTIONS = [{"prompt": [{"role": "user", "content": f"one plus {i}"}], "answer": str(i + 1)} for i in range(260)]


@pytest.fixture
def workplace(tmp_path, tokenizer, monkeypatch):
    """A model folder `tiny` and maths prompts in the current folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    tiny_llama(len(tokenizer)).save_pretrained("tiny")
    tokenizer.save_pretrained("tiny")
    write("math_prompts.jsonl", QUESTIONS)
    return tmp_path


def write(name, rows):
    Path(name).write_text("".join(json.dumps(row) + "\n" for row in rows))


def export(*more, data="math_prompts.jsonl", reward=("math",), folder="out"):
    argv = ["grpo", "--export", "verl", folder, "--model", "tiny", "--data", data, "--reward", *reward]
    size = (
        "--num_processes 2 --per_device_train_batch_size 4 --gradient_accumulation_steps 2 --lr_scheduler_type cosine"
    )
    return main([*argv, *size.split(), "--max_completion_length", "32", *more])


def overrides(folder="out", **variables):
    """What the script gives to verl."""
    shown = Path(folder, "bin", "python3")
    shown.parent.mkdir(exist_ok=True)
    shown.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    shown.chmod(0o755)
    env = {**os.environ, "PATH": f"{shown.parent.absolute()}:{os.environ['PATH']}", **variables}
    done = subprocess.run(["bash", f"{folder}/run.sh"], env=env, capture_output=True, text=True, check=True)
    _, program, *given = done.stdout.splitlines()
    assert program == "verl.trainer.main_ppo"
    return given


def settings(folder="out", **variables):
    return dict(override.split("=", 1) for override in overrides(folder, **variables))


def rows(folder="out", split="train"):
    return list(datasets.Dataset.from_parquet(f"{folder}/{split}.parquet"))


def test_the_published_run_is_exported_as_its_script_sets_it(workplace):
    recipe = ["--config", str(RECIPE), "--model", "tiny", "--export", "verl", "out"]
    assert main(["grpo", *recipe]) == 0
    found = settings()
    paper = {  # train_scripts/grpo_math-cumsum.sh of SED-SFT, and verl's defaults at that time
        "data.train_batch_size": 256,
        "data.max_response_length": 3072,
        "actor_rollout_ref.rollout.n": 8,
        "actor_rollout_ref.actor.ppo_mini_batch_size": 32,
        "actor_rollout_ref.actor.ppo_epochs": 1,
        "actor_rollout_ref.actor.clip_ratio_low": 0.2,
        "actor_rollout_ref.actor.clip_ratio_high": 0.28,
        "actor_rollout_ref.actor.clip_ratio_c": 3.0,
        "actor_rollout_ref.actor.entropy_coeff": 0.0,
        "actor_rollout_ref.actor.optim.lr": 1e-6,
        "actor_rollout_ref.actor.optim.weight_decay": 0.01,
        "actor_rollout_ref.actor.optim.clip_grad": 1.0,
        "actor_rollout_ref.rollout.temperature": 1.0,
        "trainer.total_epochs": 10,
        "trainer.save_freq": 20,
        "trainer.n_gpus_per_node": 8,
    }
    assert {name: float(found[name]) for name in paper} == paper
    words = {
        "algorithm.adv_estimator": "grpo",
        "algorithm.norm_adv_by_std_in_grpo": "true",
        "algorithm.rollout_correction.rollout_is": "null",
        "actor_rollout_ref.actor.loss_agg_mode": "token-mean",
        "actor_rollout_ref.actor.use_kl_loss": "false",
        "actor_rollout_ref.actor.optim.lr_scheduler_type": "constant",
        "actor_rollout_ref.actor.strategy": "fsdp2",
        "actor_rollout_ref.rollout.name": "vllm",
        "actor_rollout_ref.model.path": f"'{workplace}/tiny'",
        "data.train_files": f"'{workplace}/out/train.parquet'",
    }
    assert {name: found[name] for name in words} == words
    assert settings(MODEL="elsewhere")["actor_rollout_ref.model.path"] == "'elsewhere'"
    first = rows()[0]
    assert first["prompt"][-1] == QUESTIONS[0]["prompt"][0] and first["prompt"][0]["role"] == "system"
    assert (first["data_source"], first["ability"]) == ("math_prompts.jsonl", "math")
    assert first["reward_model"] == {"style": "rule", "ground_truth": "1"}
    assert json.loads(first["extra_info"]["row"]) == {"prompt": first["prompt"], "answer": "1"}


def options(processes=2, **changed):
    """GRPOConfig, ModelConfig and LaunchConfig of a run that can be exported, with these options changed."""
    given = {"model_name_or_path": "tiny", "num_processes": processes, "lr_scheduler_type": "cosine"}
    given |= {"output_dir": "run", "per_device_train_batch_size": 4, "gradient_accumulation_steps": 2, "use_cpu": True}
    given |= {"report_to": "none", "lora_dropout": 0.0, "lora_target_modules": ["q_proj"], "warmup_steps": 3} | changed
    of = [{field.name for field in fields(kind)} for kind in (GRPOConfig, trl.ModelConfig, LaunchConfig)]
    parts = [{name: value for name, value in given.items() if name in names} for names in of]
    with of_processes(processes):
        return GRPOConfig(**parts[0]), trl.ModelConfig(**parts[1]), LaunchConfig(**parts[2])


def written(**changed):
    """All that depends on options, as one text."""
    weights = {name: changed.pop(name) for name in ("reward_funcs",) if name in changed}
    config, model, processes = options(**changed)
    refuse_without_counterpart(config, model, processes)
    batches = batches_of(config, processes.num_processes, 96)
    rewards = weights.get("reward_funcs", ["math", "exact"])
    script = run_script(config, model, processes, batches, 20, None, Path("out"), True)
    return script + reward_module(rewards, config.reward_weights, [1])


CHANGED = {
    "per_device_train_batch_size": 8, "gradient_accumulation_steps": 4, "steps_per_generation": 4,
    "generation_batch_size": 32, "num_generations": 4, "num_generations_eval": 4, "num_iterations": 2,
    "num_train_epochs": 1.5, "max_steps": 4, "max_completion_length": 99, "temperature": 0.7, "top_p": 0.9, "top_k": 5,
    "chat_template_kwargs": {"enable_thinking": False}, "shuffle_dataset": False, "seed": 7, "learning_rate": 2e-6,
    "lr_scheduler_type": "constant", "warmup_steps": 0.1, "optim": "adamw_torch", "weight_decay": 0.1, "adam_beta1": 0.8,
    "adam_beta2": 0.99, "adam_epsilon": 1e-6, "max_grad_norm": 0.5, "bf16": False, "fp16": True,
    "gradient_checkpointing": False, "use_liger_kernel": True, "beta": 0.01, "use_bias_correction_kl": False,
    "epsilon": 0.1, "epsilon_high": 0.3, "delta": 4.0, "loss_type": "grpo", "importance_sampling_level": "sequence",
    "scale_rewards": "none", "entropy_coef": 0.01, "sapo_temperature_pos": 1.1, "sapo_temperature_neg": 1.2,
    "reward_weights": [1.0, 0.5], "use_vllm": True, "vllm_gpu_memory_utilization": 0.5, "vllm_max_model_length": 4096,
    "vllm_tensor_parallel_size": 2, "vllm_importance_sampling_correction": False,
    "vllm_importance_sampling_mode": "token_truncate", "vllm_importance_sampling_clip_max": 2.0,
    "vllm_importance_sampling_clip_min": 0.5, "output_dir": "other", "save_strategy": "epoch", "save_steps": 2,
    "save_total_limit": 3, "eval_strategy": "steps", "eval_steps": 2, "eval_on_start": True, "report_to": ["wandb"],
    "run_name": "mine", "project": "ours", "trust_remote_code": True, "resume_from_checkpoint": "false",
    "model_name_or_path": "other", "dtype": "bfloat16", "attn_implementation": "sdpa", "use_peft": True, "lora_r": 8,
    "lora_alpha": 16, "lora_dropout": 0.1, "lora_target_modules": ["k_proj"], "reward_funcs": ["exact", "math"],
    "num_processes": 4, "num_machines": 2, "accelerate_config": "fsdp2",
}  # fmt: skip
TOGETHER = {  # what has to be set for an option to matter
    "sapo_temperature_pos": {"loss_type": "sapo"},
    "sapo_temperature_neg": {"loss_type": "sapo"},
    "eval_steps": {"eval_strategy": "steps", "do_eval": False},
    "eval_on_start": {"eval_strategy": "steps"},
    "fp16": {"bf16": False},
    **{name: {"use_peft": True} for name in ("lora_r", "lora_alpha", "lora_target_modules")},
    **{name: {"use_vllm": True} for name in CHANGED if name.startswith("vllm_importance")},
}
SAME = {"optim", "lora_dropout"}  # names of one optimizer; refused unless 0


def test_every_option_is_translated_or_without_effect_or_refused_by_name():
    translated = set(TRANSLATED.split())
    assert translated == set(CHANGED) and not translated & set(WITHOUT_EFFECT.split())
    for name in sorted(translated - SAME):
        together = {"eval_strategy": "no", **TOGETHER.get(name, {})}
        change = {"processes": 4} if name == "num_processes" else {name: CHANGED[name]}
        assert written(**together) != written(**{**together, **change}), name
    parts = options()
    refuse_without_counterpart(*parts)
    for part in parts:
        for name in sorted({field.name for field in fields(part)} - translated - set(WITHOUT_EFFECT.split())):
            if name.startswith(("hub_", "push_to")):
                continue
            before = getattr(part, name)
            setattr(part, name, "changed")
            with pytest.raises(ValueError, match=f"^{name}='changed' has no counterpart in verl"):
                refuse_without_counterpart(*parts)
            setattr(part, name, before)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"lr_scheduler_type": "linear"}, "lr_scheduler_type='linear' .*constant, constant_with_warmup and cosine"),
        ({"loss_type": "vespo", "entropy_coef": 0.1}, "loss_type='vespo' has no counterpart"),
        ({"loss_type": "cispo", "delta": 3.0}, "delta=3.0 has no counterpart"),
        ({"delta": 1.1}, "delta=1.1 .*above 1 . epsilon_high"),
        ({"loss_type": "grpo", "entropy_coef": 0.1}, "entropy_coef=0.1 .*take loss_type dapo"),
        ({"scale_rewards": "batch"}, "scale_rewards='batch'"),
        ({"min_p": 0.1}, "min_p=0.1"),
        ({"mask_truncated_completions": True}, "mask_truncated_completions=True"),
        ({"vllm_mode": "server"}, "vllm_mode='server'"),
        ({"use_peft": True, "lora_dropout": 0.05}, "lora_dropout=0.05 .*give 0"),
        ({"use_peft": True, "lora_target_modules": None}, "lora_target_modules=None"),
        ({"load_in_4bit": True}, "load_in_4bit=True"),
        ({"accelerate_config": "zero3"}, "accelerate_config='zero3' .*FSDP"),
        ({"optim": "adamw_8bit"}, "optim='adamw_8bit'"),
        ({"processes": None}, "--num_processes is missing"),
        ({"processes": 3, "num_machines": 2}, "3 processes on 2 machines"),
        ({"processes": 3, "gradient_accumulation_steps": 1, "steps_per_generation": 2}, "updates of whole groups"),
        ({"steps_per_generation": 1000}, "The data has 96 prompts and a rollout takes 1000"),
        ({"max_steps": 3, "steps_per_generation": 4}, "max_steps=3 must be whole rollouts, of 2 updates"),
        ({"reward_weights": [1.0]}, "1 weights for 2 rewards"),
    ],
)
def test_what_verl_cannot_do_is_refused(changed, message):
    with pytest.raises(ValueError, match=message):
        written(**changed)


def test_sizes_are_those_of_all_processes():
    config, *_ = options(8, num_iterations=3, steps_per_generation=8)
    sizes = batches_of(config, 8, 1000)
    assert (sizes.prompts_per_update, sizes.prompts_per_rollout) == (8, 32)  # 4 x 2 x 8 and 4 x 8 x 8, groups of 8
    assert (sizes.updates_per_rollout, sizes.rollouts_per_epoch, sizes.rollouts(13)) == (12, 31, 2)
    config, *_ = options(8, generation_batch_size=128)  # of all processes: 2 updates of 64
    assert batches_of(config, 8, 1000).prompts_per_rollout == 16


def under_verl(folder, monkeypatch):
    """The exported reward module, with a stand-in for verl's class."""
    for name in ("verl", "verl.experimental", "verl.experimental.reward_loop"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    manager = SimpleNamespace(NaiveRewardManager=type("NaiveRewardManager", (), {}))
    monkeypatch.setitem(sys.modules, "verl.experimental.reward_loop.reward_manager", manager)
    spec = importlib.util.spec_from_file_location("exported_reward", Path(folder, "reward.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def score(module, row, text, **told):
    info = {**row["extra_info"], **told}
    return module.compute_score(row["data_source"], text, row["reward_model"]["ground_truth"], info, num_turns=2)


CASES = {
    "math": [
        ({"prompt": "six", "answer": "6"}, r"so \boxed{6.0}"),
        ({"prompt": "six", "solution": r"thus \boxed{\frac{1}{2}}"}, r"\boxed{0.5}"),
        ({"prompt": "six", "answer": "B", "choices": ["one", "two"]}, r"\boxed{two}"),
        ({"prompt": "six", "answer": 1, "choices": {"A": "5", "B": "7"}}, r"\boxed{B}"),
    ],
    "exact": [({"prompt": "six", "answer": 7}, " 7\n"), ({"prompt": "six", "solution": "a"}, "b")],
    "countdown": [({"prompt": "n", "numbers": [1, 2], "target": 3, "notation": "infix"}, "1 + 2")],
    "chain": [({"prompt": "a", "answer": ""}, "b"), ({"prompt": "a", "answer": ""}, "d")],
    "length_reward:length": [({"prompt": "one", "extra": ["1", "a"], "answer": "x"}, "abc")],
}


@pytest.mark.parametrize("reward", CASES)
def test_the_reward_module_gives_the_graders_verdicts(tmp_path, monkeypatch, reward):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    Path("length_reward.py").write_text(
        "def length(completions, completion_ids, extra, finished, **_):\n"
        "    assert extra == [['1', 'a']]\n"
        "    return [len(completions[0]) + 10 * bool(finished[0]) + len(completion_ids[0])]\n"
    )
    for row, text in CASES[reward]:
        Path("train.parquet").write_bytes(table(datasets.Dataset.from_list([row]), "train", "rows", [reward]))
        Path("reward.py").write_text(reward_module([reward], None, [1]))
        module, exported = under_verl(".", monkeypatch), rows(".")[0]
        for ids, end in (([3, 1], "eos"), ([3, 4], "length")):
            sample = Sample(text, ids, end)
            ((wanted,),) = grade_samples(resolve_grader(reward), [row], [row["prompt"]], [[sample]])
            assert score(module, exported, text, completion_ids=ids, finished=sample.finished) == wanted


def test_weights_and_rewards_that_do_not_apply(workplace, monkeypatch):
    Path("maybe_reward.py").write_text(
        "def maybe(completions, **_):\n    return [None if 'no' in str(completions[0]) else 1]\n"
    )
    assert export("--reward_weights", "2", "0.5", reward=("math", "maybe_reward:maybe")) == 0
    assert Path("out/maybe_reward.py").is_file()
    module, row = under_verl("out", monkeypatch), rows()[0]
    assert [score(module, row, text) for text in (r"\boxed{1}", r"\boxed{1} no", "yes", "no")] == [2.5, 2.0, 0.5, 0.0]
    assert module.compute_score("aime", r"\boxed{7}", "7") == 2.5  # data of somebody else, without our column
    Path("never_reward.py").write_text("def never(completions, **_):\n    return [None]\n")
    assert export(reward=("never_reward:never",), folder="never") == 0
    with pytest.raises(ValueError, match="one has to be a finite number"):
        score(under_verl("never", monkeypatch), row, "x")


def test_plain_prompts_come_through_verls_chat_template_as_they_are(workplace, tokenizer):
    write("plain.jsonl", [{"prompt": f"one plus {i} is", "answer": "2"} for i in range(16)])
    assert export(data="plain.jsonl") == 0
    found = settings()
    template = found["actor_rollout_ref.model.custom_chat_template"].strip("'").replace("\\'", "'")
    row = rows()[0]
    assert row["prompt"] == [{"role": "user", "content": "one plus 0 is"}]
    ids = tokenizer.apply_chat_template(
        row["prompt"], chat_template=template, add_generation_prompt=True, return_dict=True
    )
    assert ids["input_ids"] == tokenizer("one plus 0 is")["input_ids"]


def test_end_tokens_are_those_of_the_loaded_model(workplace, tokenizer):
    GenerationConfig(eos_token_id=[7, 1]).save_pretrained("tiny")
    assert end_tokens("tiny", tokenizer) == [1, 7]
    Path("tiny/generation_config.json").unlink()
    settings = json.loads(Path("tiny/config.json").read_text())
    Path("tiny/config.json").write_text(json.dumps({**settings, "eos_token_id": [9]}))
    assert end_tokens("tiny", tokenizer) == [1, 9]


def test_evaluation_data_goes_along(workplace):
    held = ["--eval_strategy", "steps", "--eval_steps", "4", "--test_split_size", "20", "--steps_per_generation", "8"]
    assert export(*held, "--per_device_eval_batch_size", "8") == 0
    assert (len(rows()), len(rows(split="test"))) == (240, 20)
    assert rows(split="test")[0]["extra_info"]["split"] == "test"
    found = settings()
    assert found["data.val_files"].endswith("/test.parquet'") and found["trainer.test_freq"] == "1"


def test_a_folder_is_one_export_and_a_mistake_leaves_nothing(workplace, capsys):
    for more, message in (
        (["--min_p", "0.1"], "min_p=0.1 has no counterpart in verl 0.9.1"),
        (["--data", "none.jsonl"], "No data file at none.jsonl"),
        (["--reward", "mth"], "Unknown reward 'mth'"),
        (["--export", "slime", "out"], "--export is `verl` and a folder"),
        (["--vllm_max_model_length", "40"], "vllm_max_model_length is 40, and the longest prompt"),
        (["--model", "none/of/it"], "There is no model in none/of/it"),
        (["--reward_weights", "1", "2"], "reward_weights has 2 weights for 1 rewards"),
    ):
        assert export(*more) == 2
        assert message in capsys.readouterr().err
        assert not Path("out").exists()
    assert export() == 0 and export() == 0
    before = Path("out/run.sh").read_text()
    assert export("--temperature", "0.5") == 2
    assert "out holds another run (temperature: there 1.0, now 0.5)" in capsys.readouterr().err
    assert Path("out/run.sh").read_text() == before
    assert not list(Path("out").glob("*.part"))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"prompt": [{"role": "assistant", "content": "so"}]}, "ends in a message of the assistant"),
        ({"prompt": [{"role": "user", "content": "a", "name": "x"}]}, "messages have a role and a text"),
        ({"prompt": "a", "tools": "[]"}, "The column 'tools' has no counterpart"),
    ],
)
def test_rows_that_verl_would_read_otherwise_are_refused(workplace, capsys, row, message):
    write("odd.jsonl", [{**row, "answer": "1"}] * 16)
    assert export(data="odd.jsonl") == 2
    assert message in capsys.readouterr().err


def composed(given):
    """verl's configuration with these overrides, as its `main_ppo` has it, checked by verl."""
    import hydra
    from verl.trainer.ppo.utils import need_critic, need_reference_policy
    from verl.utils.config import omega_conf_to_dataclass, validate_config

    with hydra.initialize_config_module("verl.trainer.config", version_base=None):
        config = hydra.compose("ppo_trainer", overrides=given)
    validate_config(config, need_reference_policy(config), need_critic(config))
    assert not need_critic(config)
    for part in (config.actor_rollout_ref.rollout, config.algorithm):
        omega_conf_to_dataclass(part)
    return config


@pytest.fixture
def verl(workplace, monkeypatch):
    pytest.importorskip("verl", reason="verl is not installed")
    vllm = SimpleNamespace(get_vllm_max_lora_rank=lambda rank: rank)  # of a module that needs vLLM
    monkeypatch.setitem(sys.modules, "verl.workers.rollout.vllm_rollout.utils", vllm)


@pytest.mark.slow
@pytest.mark.parametrize("lora", [False, True])
def test_verls_own_configuration_takes_the_published_run(verl, lora):
    adapter = ["--use_peft", "--lora_dropout=0", "--lora_target_modules", "q_proj", "v_proj", "--lora_r=8"] * lora
    recipe = ["--config", str(RECIPE), "--model", "tiny", "--export", "verl", "out"]
    assert main(["grpo", *recipe, *adapter]) == 0
    config = composed(overrides())
    actor = config.actor_rollout_ref.actor
    assert (config.data.train_batch_size, actor.ppo_mini_batch_size, actor.clip_ratio_c) == (256, 32, 3.0)
    assert config.actor_rollout_ref.model.lora_rank == 8 * lora
    assert config.reward.custom_reward_function.path == str(Path("out/reward.py").absolute())


EVERY_KEY = [  # together they write every override that there is
    {"loss_type": "sapo", "chat_template_kwargs": {"enable_thinking": False, "style": "it's"}, "adam_epsilon": 1e-6},
    {"loss_type": "dr_grpo", "use_peft": True, "attn_implementation": "sdpa", "vllm_max_model_length": 4096},
    {
        "loss_type": "bnpo",
        "use_peft": True,
        "lora_target_modules": ["all-linear"],
        "use_vllm": True,
        "save_total_limit": 3,
    },
    {"loss_type": "cispo", "eval_strategy": "epoch", "report_to": ["wandb", "tensorboard"], "warmup_steps": 0.1},
    {
        "use_vllm": True,
        "vllm_importance_sampling_mode": "token_truncate",
        "max_steps": 2,
        "num_machines": 2,
        "beta": 0.1,
    },
]


@pytest.mark.slow
@pytest.mark.parametrize("changed", EVERY_KEY, ids=lambda changed: "-".join(map(str, changed)))
def test_verls_own_configuration_takes_every_override(verl, changed):
    Path("out").mkdir()
    config, model, processes = options(**changed)
    batches = batches_of(config, processes.num_processes, 96)
    template = "{{ a['b'] }} $HOME \\n \"x\" `\\"
    script = run_script(config, model, processes, batches, 20, template, Path("out"), True)
    Path("out/run.sh").write_text(script)
    found = composed(overrides())
    assert found.actor_rollout_ref.model.custom_chat_template == template
    assert dict(found.data.apply_chat_template_kwargs) == (config.chat_template_kwargs or {})


ANSWERS = [
    r"\boxed{%s}",
    "so %s",
    r"\boxed{%s.0}",
    r"first \boxed{3}, then \boxed{%s}",
    r"\boxed{-%s}",
    r"\boxed{\frac{%s}{1}}",
]


def of_bytes():
    """A tokenizer that gives every text back."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer, core.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    letters = trainers.BpeTrainer(
        vocab_size=260, special_tokens=["<pad>", "<eos>"], initial_alphabet=core.pre_tokenizer.alphabet()
    )
    core.train_from_iterator(["a"], letters)
    fast = PreTrainedTokenizerFast(tokenizer_object=core, pad_token="<pad>", eos_token="<eos>")
    fast.chat_template = CHAT_TEMPLATE
    return fast


@pytest.mark.slow
def test_verl_reads_the_rows_and_its_reward_worker_gives_our_verdicts(verl):
    """260 answers of six kinds, half of them cut off: from verl's data set through its worker, all at once, and one by one."""
    from verl import DataProto
    from verl.experimental.reward_loop.reward_loop import RewardLoopWorker
    from verl.trainer.ppo.reward import get_custom_reward_fn
    from verl.utils.dataset.rl_dataset import RLHFDataset, collate_fn

    tokenizer = of_bytes()
    tokenizer.save_pretrained("tiny")
    assert export() == 0
    config = composed(overrides())
    data = RLHFDataset(config.data.train_files, tokenizer, config.data)
    assert len(data) == len(QUESTIONS) and data[3]["raw_prompt"] == QUESTIONS[3]["prompt"]
    ids = tokenizer.apply_chat_template(data[3]["raw_prompt"], add_generation_prompt=True, return_dict=True)[
        "input_ids"
    ]
    assert len(ids) <= config.data.max_prompt_length
    texts = [ANSWERS[i % 6] % (row["answer"] if i % 3 else i) for i, row in enumerate(QUESTIONS)]
    wanted = resolve_grader("math")(texts, answer=[row["answer"] for row in QUESTIONS])

    answers = [tokenizer(text)["input_ids"] + [tokenizer.eos_token_id] * (i % 2) for i, text in enumerate(texts)]
    responses = pad_sequence([torch.tensor(ids) for ids in answers], batch_first=True)
    lengths = torch.tensor([len(ids) for ids in answers])
    mask = (torch.arange(responses.shape[1]) < lengths[:, None]).long()
    tensors = {"prompts": torch.ones(len(texts), 2, dtype=torch.long), "responses": responses}
    tensors["attention_mask"] = torch.cat([torch.ones(len(texts), 2, dtype=torch.long), mask], 1)
    rows = collate_fn([data[number] for number in range(len(texts))])
    others = {name: rows[name] for name in ("data_source", "reward_model", "extra_info", "raw_prompt")}
    worker = RewardLoopWorker(config)
    batch = worker.compute_score_batch(DataProto.from_dict(tensors, non_tensors=others))
    found = [result["reward_score"] for result in worker.loop.run_until_complete(batch)]
    for number, info in enumerate(rows["extra_info"]):
        assert info["finished"] is bool(number % 2) and info["completion_ids"] == answers[number]

    alone = get_custom_reward_fn(config)
    called = []
    for number, text in enumerate(texts):
        row = data[number]
        called.append(alone(row["data_source"], text, row["reward_model"]["ground_truth"], row["extra_info"]))
    assert found == wanted == called
    assert 60 < sum(wanted) < 200


LOSS_CASES = [
    {"loss_type": "dapo"}, {"loss_type": "dapo", "epsilon_high": 0.28, "delta": 1.5}, {"loss_type": "grpo"},
    {"loss_type": "dr_grpo"}, {"loss_type": "bnpo"}, {"loss_type": "cispo", "epsilon_high": 1.6}, {"loss_type": "sapo"},
    {"loss_type": "luspo", "importance_sampling_level": "sequence"},
    {"loss_type": "grpo", "importance_sampling_level": "sequence"},
    {"loss_type": "dapo", "importance_sampling_level": "sequence"},
    {"loss_type": "dapo", "beta": 0.1, "use_bias_correction_kl": False},
    {"loss_type": "dapo", "beta": 0.1, "same": True}, {"loss_type": "dapo", "entropy_coef": 0.05},
    *({"loss_type": "dapo", "use_vllm": True, "vllm_importance_sampling_mode": f"{level}_{kind}",
       "vllm_importance_sampling_clip_max": 1.3} for level in ("token", "sequence") for kind in ("mask", "truncate")),
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("plain", [False, True])
def test_verl_makes_the_prompts_of_trl(verl, tokenizer, plain):
    """Token ids of all prompts, from the parquet file through what verl's agent loops render them with."""
    from verl.utils.dataset.rl_dataset import RLHFDataset
    from verl.utils.tokenizer.continuous_token_wiring import create_continuous_token_builder

    prompts = [row["prompt"][0]["content"] if plain else row["prompt"] for row in QUESTIONS]
    write("prompts.jsonl", [{"prompt": prompt, "answer": "1"} for prompt in prompts])
    assert export("--chat_template_kwargs", '{"style": "plain"}', data="prompts.jsonl") == 0
    config = composed(overrides())
    reader = copy.deepcopy(tokenizer)
    template = config.actor_rollout_ref.model.custom_chat_template
    assert (template is not None) == plain
    reader.chat_template = template or reader.chat_template
    asked = dict(config.data.apply_chat_template_kwargs)
    builder = create_continuous_token_builder(reader, hf_model_type="llama", chat_template_kwargs=asked)
    data = RLHFDataset(config.data.train_files, reader, config.data)
    found = [builder.build_initial_tokens(data[number]["raw_prompt"]) for number in range(len(data))]
    assert found == encode_prompts(tokenizer, prompts)
    assert max(map(len, found)) == config.data.max_prompt_length


@pytest.mark.slow
@pytest.mark.parametrize("case", LOSS_CASES, ids=lambda case: "-".join(map(str, case.values())))
def test_verls_loss_has_the_gradient_of_trls(verl, tokenizer, case):
    """One update of one rollout: TRL's trainer and verl's loss function on the same log-probabilities."""
    case = dict(case)
    same = case.pop("same", False)
    torch.manual_seed(0)
    shape, generator = (4, 6), torch.Generator().manual_seed(1)
    new, old, drawn, reference, entropy = (
        (-1 + 0.5 * torch.randn(shape, generator=generator)).double().requires_grad_() for _ in range(5)
    )
    old = new.detach() if same else old.detach()
    mask = torch.tensor([[1] * length + [0] * (6 - length) for length in (6, 3, 5, 2)])
    advantages = torch.tensor([1.0, -1.0, 0.7, -0.4]).double()
    config, model_config, processes = options(
        **case, output_dir="run", max_completion_length=6, gradient_accumulation_steps=2, bf16=False
    )
    batches = batches_of(config, 2, 96)
    Path("out").mkdir()
    Path("out/run.sh").write_text(run_script(config, model_config, processes, batches, 20, None, Path("out"), True))
    found = theirs(config, tokenizer, new, old, drawn.detach(), reference.detach(), entropy, mask, advantages)
    wanted = verls(composed(overrides()), new, old, drawn.detach(), reference.detach(), entropy, mask, advantages)
    for ours, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(ours, other, rtol=1e-6, atol=1e-9)


def theirs(config, tokenizer, new, old, drawn, reference, entropy, mask, advantages):
    """Gradients of TRL's loss: of `new` and `entropy`."""
    data = datasets.Dataset.from_dict({"prompt": ["one", "two"]})
    use_vllm, config.use_vllm = config.use_vllm, False
    trainer = trl.GRPOTrainer(
        "tiny",
        [lambda completions, **_: [0.0] * len(completions)],
        config,
        train_dataset=data,
        processing_class=tokenizer,
    )
    trainer.use_vllm = use_vllm
    trainer.current_gradient_accumulation_steps = 1
    config.steps_per_generation = 1
    trainer._get_per_token_logps_and_entropies = lambda *_, **__: (new, entropy, None)
    difference = (old - drawn) * mask
    sequence, kind = config.vllm_importance_sampling_mode.split("_")
    ratio = torch.exp(difference.sum(-1, keepdim=True) if sequence == "sequence" else difference)
    high = config.vllm_importance_sampling_clip_max
    ratio = ratio.clamp(max=high) if kind == "truncate" else ratio.masked_fill(ratio > high, 0.0)
    inputs = {
        "prompt_ids": torch.ones(4, 1, dtype=torch.long), "prompt_mask": torch.ones(4, 1, dtype=torch.long),
        "completion_ids": torch.ones(4, 6, dtype=torch.long), "completion_mask": mask, "advantages": advantages,
        "old_per_token_logps": old, "ref_per_token_logps": reference, "importance_sampling_ratio": ratio,
        "num_items_in_batch": mask.sum(),
    }  # fmt: skip
    loss = trainer._compute_loss(trainer.model.train(), inputs)
    return torch.autograd.grad(loss, (new, entropy), allow_unused=True, materialize_grads=True)


def verls(config, new, old, drawn, reference, entropy, mask, advantages):
    """Gradients of verl's loss, put together as its `ppo_loss` does."""
    from verl.trainer.ppo.core_algos import agg_loss, get_policy_loss_fn, kl_penalty
    from verl.trainer.ppo.rollout_corr_helper import compute_rollout_correction_weights
    from verl.utils.config import omega_conf_to_dataclass

    actor, correction = omega_conf_to_dataclass(config.actor_rollout_ref.actor), config.algorithm.rollout_correction
    batch = {"dp_size": 1, "batch_num_tokens": int(mask.sum()), "global_batch_size": 4}
    actor.global_batch_info.update(batch, loss_scale_factor=actor.loss_scale_factor)
    weights = None
    if correction.rollout_is is not None:
        how = (correction.rollout_is, correction.rollout_is_threshold)
        weights, _ = compute_rollout_correction_weights(old - drawn, mask.double(), *how)
    loss, _ = get_policy_loss_fn(actor.policy_loss.loss_mode)(
        old_log_prob=old, log_prob=new, advantages=advantages.unsqueeze(1).expand(4, 6), response_mask=mask,
        loss_agg_mode=actor.loss_agg_mode, config=actor, rollout_is_weights=weights,
    )  # fmt: skip
    mean = {"loss_mask": mask, "loss_agg_mode": actor.loss_agg_mode, **actor.global_batch_info}
    loss = loss - actor.entropy_coeff * agg_loss(loss_mat=entropy, **mean)
    if actor.use_kl_loss:
        loss = loss + actor.kl_loss_coef * agg_loss(loss_mat=kl_penalty(new, reference, actor.kl_loss_type), **mean)
    return torch.autograd.grad(loss, (new, entropy), allow_unused=True, materialize_grads=True)
