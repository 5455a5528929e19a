"""Options of `manypaths grpo` in the words of verl: each is translated, has no effect on the result, or is refused by name.

verl's configuration is `verl/trainer/config/ppo_trainer.yaml` of github.com/verl-project/verl; a test composes it with every
override that is written here, and compares the gradients of both losses.
"""

import json
import math
import re
import shlex
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any

from trl import ModelConfig

from .config import GRPOConfig, evaluates

VERL = "0.9.1"
TRANSLATED = """per_device_train_batch_size gradient_accumulation_steps steps_per_generation generation_batch_size num_generations
    num_generations_eval num_iterations num_train_epochs max_steps max_completion_length temperature top_p top_k
    chat_template_kwargs shuffle_dataset seed learning_rate lr_scheduler_type warmup_steps optim weight_decay adam_beta1
    adam_beta2 adam_epsilon max_grad_norm bf16 fp16 gradient_checkpointing use_liger_kernel beta use_bias_correction_kl
    epsilon epsilon_high delta loss_type importance_sampling_level scale_rewards entropy_coef sapo_temperature_pos
    sapo_temperature_neg reward_weights use_vllm vllm_gpu_memory_utilization vllm_max_model_length
    vllm_tensor_parallel_size vllm_importance_sampling_correction vllm_importance_sampling_mode
    vllm_importance_sampling_clip_max vllm_importance_sampling_clip_min output_dir save_strategy save_steps
    save_total_limit eval_strategy eval_steps eval_on_start report_to run_name project trust_remote_code
    resume_from_checkpoint model_name_or_path dtype attn_implementation use_peft lora_r lora_alpha lora_dropout
    lora_target_modules reward_funcs num_processes num_machines accelerate_config"""
# about this process, what it shows, how TRL's own program does the same thing, or another name of a translated one
WITHOUT_EFFECT = """preflight_prompts use_cpu logging_strategy logging_steps logging_first_step logging_nan_inf_filter log_level
    log_level_replica log_on_each_node log_completions log_multimodal log_unique_prompts num_completions_to_print
    disable_tqdm include_num_input_tokens_seen skip_memory_metrics per_device_eval_batch_size remove_unused_columns
    dataloader_num_workers dataloader_pin_memory dataloader_persistent_workers dataloader_prefetch_factor do_train do_eval
    do_predict local_rank vllm_enable_sleep_mode ds3_gather_for_generation cache_implementation
    activation_checkpointing activation_checkpointing_kwargs
    gradient_checkpointing_kwargs ddp_timeout main_process_ip main_process_port machine_rank"""
LOSSES = {  # TRL's loss_type: verl's policy loss and how it is averaged
    "dapo": ("vanilla", "token-mean"),
    "bnpo": ("vanilla", "token-mean"),
    "grpo": ("vanilla", "seq-mean-token-mean"),
    "dr_grpo": ("vanilla", "seq-mean-token-sum-norm"),
    "luspo": ("vanilla", "seq-mean-token-sum"),
    "cispo": ("cispo", "token-mean"),
    "sapo": ("sapo", "seq-mean-token-mean"),
}
DTYPES = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}
NO_BOUND, NO_LOWER_BOUND = 1e9, 1e-9  # verl keeps probability ratios within exp(-20) and exp(20)
VARIABLES = ("$FOLDER", "$MODEL", "$OUTPUT")  # of the script
TRACKERS = ("wandb", "tensorboard", "mlflow", "swanlab", "clearml", "trackio")


@dataclass(frozen=True)
class Batches:
    """Sizes in verl's unit, the prompt, and its step, the rollout, which holds several of TRL's updates."""

    prompts_per_rollout: int
    prompts_per_update: int
    updates_per_rollout: int  # num_iterations included
    rollouts_per_epoch: int

    def rollouts(self, updates: float) -> int:
        """As many rollouts as hold these updates, at least one."""
        return max(1, math.ceil(updates / self.updates_per_rollout))


Lines = list[tuple[str, Any]]  # verl's option and its value; or an empty option and a comment


def refuse_without_counterpart(config: GRPOConfig, model: ModelConfig, processes: Any) -> None:
    """ValueError for the first option that is set and would be lost, or for a value that verl knows no word for."""
    known = {*TRANSLATED.split(), *WITHOUT_EFFECT.split()}
    for options in (config, model, processes):
        for name, default in defaults_of(options).items():
            value = getattr(options, name)
            if name not in known and value != default and not name.startswith(("hub_", "push_to")):
                raise ValueError(f"{name}={value!r} has no counterpart in verl {VERL}; leave it out of the export.")
    loss, averaged = LOSSES.get(config.loss_type, (None, None))
    sequences = config.importance_sampling_level == "sequence"
    high = config.epsilon if config.epsilon_high is None else config.epsilon_high
    masks = config.vllm_importance_sampling_mode in ("token_mask", "sequence_mask")
    resumes = (None, True, False, "auto", "true", "false")
    has_counterpart = {
        "loss_type": (loss is not None and (config.loss_type != "luspo" or sequences), ""),
        "importance_sampling_level": (not sequences or loss == "vanilla", ""),
        "delta": (
            config.delta is None or (loss == "vanilla" and not sequences and config.delta > 1 + high),
            "verl's dual clip (clip_ratio_c) is that of token ratios, above 1 + epsilon_high",
        ),
        "scale_rewards": (config.scale_rewards in ("group", "none"), ""),
        "entropy_coef": (
            config.entropy_coef == 0 or averaged == "token-mean",
            "verl averages the entropy as the loss; TRL always over tokens: take loss_type dapo",
        ),
        "vllm_importance_sampling_clip_min": (config.vllm_importance_sampling_clip_min is None or masks, ""),
        "lr_scheduler_type": (
            config.lr_scheduler_type in ("constant", "constant_with_warmup", "cosine"),
            "verl knows constant, constant_with_warmup and cosine",
        ),
        "optim": (config.optim in ("adamw_torch", "adamw_torch_fused"), ""),
        "save_strategy": (config.save_strategy in ("no", "steps", "epoch"), ""),
        "report_to": (set(config.report_to) <= set(TRACKERS), ""),
        "max_completion_length": (config.max_completion_length is not None, ""),
        "resume_from_checkpoint": (config.resume_from_checkpoint in resumes, ""),
        "dtype": (model.dtype in DTYPES, ""),
        "lora_dropout": (not model.use_peft or model.lora_dropout == 0, "verl's adapters have none: give 0"),
        "lora_target_modules": (
            not model.use_peft or bool(model.lora_target_modules),
            "verl has no choice by model family: name them, or give all-linear",
        ),
        "accelerate_config": (
            processes.accelerate_config in (None, "single_gpu", "fsdp1", "fsdp2"),
            "verl shards with FSDP: fsdp1, fsdp2, or leave it out",
        ),
    }
    for name, (has, reason) in has_counterpart.items():
        if not has:
            value = next(getattr(options, name) for options in (config, model, processes) if hasattr(options, name))
            why = f" ({reason})" if reason else ""
            raise ValueError(f"{name}={getattr(value, 'value', value)!r} has no counterpart in verl {VERL}{why}.")
    if processes.num_processes is None:
        raise ValueError("--num_processes is missing: the GPUs of all machines; the batch is a multiple of it.")
    if processes.num_processes % (processes.num_machines or 1):
        raise ValueError(
            f"{processes.num_processes} processes on {processes.num_machines} machines: not as many on each."
        )


def defaults_of(options: Any) -> dict[str, Any]:
    """Every field of a dataclass with its default, as its own checks leave it."""
    if isinstance(options, GRPOConfig):
        options = GRPOConfig(options.output_dir, use_cpu=options.use_cpu, bf16=options.bf16, fp16=options.fp16)
        return {option.name: getattr(options, option.name) for option in fields(options)}
    return {
        option.name: option.default if option.default_factory is MISSING else option.default_factory()
        for option in fields(options)
    }


def batches_of(config: GRPOConfig, processes: int, rows: int) -> Batches:
    """TRL counts completions, in updates of all processes; verl counts prompts, in rollouts of whole groups."""
    update = config.per_device_train_batch_size * config.gradient_accumulation_steps * processes
    rollout, group = config.generation_batch_size, config.num_generations
    if update % group or rollout % update:
        raise ValueError(
            f"An update is {update} completions and a rollout {rollout}: verl needs updates of whole groups "
            f"(num_generations is {group}) and rollouts of whole updates. Change per_device_train_batch_size, "
            "gradient_accumulation_steps or steps_per_generation."
        )
    if rows < rollout // group:
        raise ValueError(f"The data has {rows} prompts and a rollout takes {rollout // group}; make it smaller.")
    updates = rollout // update * config.num_iterations
    if config.max_steps > 0 and config.max_steps % updates:
        raise ValueError(f"max_steps={config.max_steps} must be whole rollouts, of {updates} updates each.")
    return Batches(rollout // group, update // group, updates, rows // (rollout // group))


SCRIPT = """#!/usr/bin/env bash
# GRPO with verl {verl} on Ray, written by `manypaths grpo --export verl`. Start it where verl is installed:
#
#   bash run.sh [verl's options]         on this machine, or on the cluster that RAY_ADDRESS names
#   ray job submit -- bash run.sh        from anywhere; this folder and the model have to be there on every node
#
# There is no preflight here: without --export the same command draws a few groups first, and refuses a hopeless run.
# Every node needs the graders: pip install --no-deps manypaths && pip install math-verify
# Options behind # have TRL's names. What verl does otherwise is said beside them; what both do alike is not.
# The trained model, as transformers reads it:
#   python -m verl.model_merger merge --backend fsdp --local_dir $OUTPUT/global_step_N/actor --target_dir DIR
set -euo pipefail
FOLDER="$(cd "$(dirname "${{BASH_SOURCE[0]}}")" && pwd)"
MODEL="${{MODEL:-{model}}}"
OUTPUT="${{OUTPUT:-{output}}}"

overrides=(
{overrides}
)
python3 -m verl.trainer.main_ppo "${{overrides[@]}}" "$@"
"""


def run_script(
    config: GRPOConfig,
    model: ModelConfig,
    processes: Any,
    batches: Batches,
    longest: int,
    template: str | None,
    folder: Path,
    has_test: bool,
) -> str:
    """The script; every override of verl's configuration on its own line, with TRL's option beside it."""
    name = model.model_name_or_path
    path = str(Path(name).absolute()) if Path(name).is_dir() else name
    output = Path(config.output_dir) if config.output_dir else folder / "checkpoints"
    sections = {
        "Data": data_lines(config, longest, has_test),
        "Batches: verl counts prompts, TRL completions; a step of verl is a rollout, one of TRL an update": batch_lines(
            config, batches
        ),
        "Model": model_lines(config, model, processes, template),
        "Loss": loss_lines(config),
        "Optimizer: verl's schedule goes on once a rollout, TRL's once an update": optimizer_lines(config, batches),
        "Sampling": sampling_lines(config),
        "Reward": [
            ("reward.custom_reward_function.path", "$FOLDER/reward.py"),
            ("reward.custom_reward_function.name", "compute_score"),
            ("reward.reward_manager.source", "importlib"),
            ("reward.reward_manager.name", "RewardManager"),
            ("reward.reward_manager.module.path", "$FOLDER/reward.py"),
        ],
        "Length, checkpoints and evaluations, in rollouts": trainer_lines(config, processes, batches),
    }
    lines = [line for title, rows in sections.items() for line in ("", f"    # {title}", *map(as_line, rows))]
    return SCRIPT.format(
        verl=VERL,
        model=in_quotes(path),
        output=in_quotes(str(output.absolute())),
        overrides="\n".join(lines[1:]),
    )


def as_line(row: tuple[str, Any]) -> str:
    option, value = row
    if not option:
        return f"    # {value}"
    text = f"{option}={hydra(value)}"
    if text == shlex.quote(text):
        return f"    {text}"
    return f'    "{text if str(value).startswith(VARIABLES) else in_quotes(text)}"'


def hydra(value: Any) -> str:
    """A value in the grammar of Hydra's overrides, where a backslash counts before a quotation mark alone."""
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, (list, tuple)):
        return f"[{','.join(map(hydra, value))}]"
    if isinstance(value, dict):
        return "{" + ",".join(f"{key}:{hydra(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, (int, float)):
        return repr(value)
    plain = all(letter.isalnum() or letter in "-_" for letter in value) and not value[:1].isdigit()
    escaped = re.sub(r"(\\*)('|$)", lambda found: found[1] * 2 + "\\'" * bool(found[2]), value)
    return value if plain else f"'{escaped}'"


def in_quotes(text: str) -> str:
    """Text within the double quotes of a shell."""
    return "".join(f"\\{letter}" if letter in '\\"$`' else letter for letter in text)


def data_lines(config: GRPOConfig, longest: int, has_test: bool) -> Lines:
    rows: Lines = [
        ("data.train_files", "$FOLDER/train.parquet"),
        ("data.val_files", f"$FOLDER/{'test' if has_test else 'train'}.parquet"),
        ("", f"TRL has no limit for prompts; this is the longest of these, {longest} tokens"),
        ("data.max_prompt_length", longest),
        ("data.max_response_length", config.max_completion_length),
        ("data.shuffle", config.shuffle_dataset),
        ("data.seed", config.seed),
        ("data.trust_remote_code", config.trust_remote_code),
    ]
    if not has_test:
        rows.insert(2, ("data.val_max_samples", 1))
        rows.insert(2, ("", "verl wants validation data even where it never validates"))
    if config.chat_template_kwargs:
        rows.append(("+data.apply_chat_template_kwargs", config.chat_template_kwargs))
    return rows


def batch_lines(config: GRPOConfig, batches: Batches) -> Lines:
    return [
        ("", f"{batches.prompts_per_rollout} prompts x num_generations completions a rollout, in whole groups"),
        ("data.train_batch_size", batches.prompts_per_rollout),
        ("actor_rollout_ref.rollout.n", config.num_generations),
        ("", "of an update; TRL deals the completions of a rollout to its updates at random, verl whole groups"),
        ("actor_rollout_ref.actor.ppo_mini_batch_size", batches.prompts_per_update),
        ("", "num_iterations"),
        ("actor_rollout_ref.actor.ppo_epochs", config.num_iterations),
        ("", "per_device_train_batch_size, in completions"),
        ("actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu", config.per_device_train_batch_size),
        ("actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu", config.per_device_train_batch_size),
        ("actor_rollout_ref.ref.log_prob_micro_batch_size_per_gpu", config.per_device_train_batch_size),
    ]


def model_lines(config: GRPOConfig, model: ModelConfig, processes: Any, template: str | None) -> Lines:
    computed = "bfloat16" if config.bf16 else "float16" if config.fp16 else "float32"
    rows: Lines = [
        ("actor_rollout_ref.model.path", "$MODEL"),
        ("actor_rollout_ref.model.trust_remote_code", config.trust_remote_code),
        ("actor_rollout_ref.model.enable_gradient_checkpointing", config.gradient_checkpointing),
        ("actor_rollout_ref.model.use_liger", config.use_liger_kernel),
        ("actor_rollout_ref.actor.strategy", "fsdp2" if processes.accelerate_config == "fsdp2" else "fsdp"),
        ("", "dtype of the weights; bf16, fp16"),
        ("actor_rollout_ref.actor.fsdp_config.model_dtype", DTYPES[model.dtype]),
        ("actor_rollout_ref.ref.fsdp_config.model_dtype", DTYPES[model.dtype]),
        ("actor_rollout_ref.actor.fsdp_config.dtype", computed),
        ("actor_rollout_ref.ref.fsdp_config.dtype", computed),
        ("actor_rollout_ref.rollout.dtype", computed),
    ]
    if template is not None:
        rows += [
            ("", "the prompts are plain text: verl wraps them in a message, and this takes the wrapping off"),
            ("actor_rollout_ref.model.custom_chat_template", template),
        ]
    if model.attn_implementation is not None:
        rows.append(("+actor_rollout_ref.model.override_config.attn_implementation", model.attn_implementation))
    if model.use_peft:
        targets = model.lora_target_modules
        rows += [
            ("actor_rollout_ref.model.lora_rank", model.lora_r),
            ("actor_rollout_ref.model.lora_alpha", model.lora_alpha),
            ("actor_rollout_ref.model.target_modules", targets[0] if targets == ["all-linear"] else targets),
            ("", "the engine loads the model that the adapter is for"),
            ("actor_rollout_ref.rollout.load_format", "safetensors"),
        ]
    return rows


def loss_lines(config: GRPOConfig) -> Lines:
    loss, averaged = LOSSES[config.loss_type]
    sequences = config.importance_sampling_level == "sequence"
    high = config.epsilon if config.epsilon_high is None else config.epsilon_high
    low, high = (1.0, high - 1) if loss == "cispo" else (config.epsilon, high)
    rows: Lines = [
        ("algorithm.adv_estimator", "grpo"),
        ("", "scale_rewards; verl adds 1e-6 to the standard deviation, TRL 1e-4"),
        ("algorithm.norm_adv_by_std_in_grpo", config.scale_rewards == "group"),
        ("", f"loss_type {config.loss_type}, importance_sampling_level {config.importance_sampling_level}"),
        ("actor_rollout_ref.actor.policy_loss.loss_mode", "gspo" if sequences else loss),
        ("actor_rollout_ref.actor.loss_agg_mode", averaged),
    ]
    if config.loss_type == "dr_grpo":
        rows.append(("actor_rollout_ref.actor.loss_scale_factor", config.max_completion_length))
    if config.loss_type == "bnpo":
        rows.append(("", "the mean over the tokens of an update; TRL's bnpo averages the means of its micro-batches"))
    if config.loss_type in ("dapo", "cispo"):
        rows.append(("", "the mean over the tokens of an update; TRL divides by their mean over a rollout's updates"))
    if loss == "cispo":
        rows.append(("", "epsilon_high bounds the ratio itself, from above alone"))
    if loss == "sapo":
        rows += [
            ("actor_rollout_ref.actor.tau_pos", config.sapo_temperature_pos),
            ("actor_rollout_ref.actor.tau_neg", config.sapo_temperature_neg),
        ]
    rows += [
        ("", "epsilon, epsilon_high"),
        ("actor_rollout_ref.actor.clip_ratio", low),
        ("actor_rollout_ref.actor.clip_ratio_low", low),
        ("actor_rollout_ref.actor.clip_ratio_high", high),
        ("", "delta; verl's default is 3, and this is as good as none" if config.delta is None else "delta"),
        ("actor_rollout_ref.actor.clip_ratio_c", NO_BOUND if config.delta is None else config.delta),
        ("", "beta; with use_bias_correction_kl TRL's gradient is that of low_var_kl+ where the ratio is 1"),
        ("actor_rollout_ref.actor.use_kl_loss", config.beta != 0),
        ("actor_rollout_ref.actor.kl_loss_coef", config.beta),
        ("actor_rollout_ref.actor.kl_loss_type", "low_var_kl+" if config.use_bias_correction_kl else "low_var_kl"),
        ("actor_rollout_ref.actor.entropy_coeff", config.entropy_coef),
    ]
    return [*rows, *correction_lines(config)]


def correction_lines(config: GRPOConfig) -> Lines:
    """TRL's vllm_importance_sampling_*: ratios of the trained model's probabilities to those that vLLM drew with."""
    if not (config.use_vllm and config.vllm_importance_sampling_correction):
        return [
            ("", "no correction for the engine's own probabilities"),
            ("algorithm.rollout_correction.rollout_is", None),
        ]
    level, _, kind = config.vllm_importance_sampling_mode.partition("_")
    high = NO_BOUND if config.vllm_importance_sampling_clip_max is None else config.vllm_importance_sampling_clip_max
    low = config.vllm_importance_sampling_clip_min or NO_LOWER_BOUND
    return [
        ("", f"vllm_importance_sampling_mode {level}_{kind}; lower_upper sets the weights outside to zero"),
        ("algorithm.rollout_correction.rollout_is", level),
        ("algorithm.rollout_correction.rollout_is_threshold", f"{low}_{high}" if kind == "mask" else high),
    ]


def optimizer_lines(config: GRPOConfig, batches: Batches) -> Lines:
    kind = str(getattr(config.lr_scheduler_type, "value", config.lr_scheduler_type))
    share = config.warmup_steps if 0 < config.warmup_steps < 1 and kind != "constant" else 0.0
    steps = batches.rollouts(config.warmup_steps) if config.warmup_steps >= 1 and kind != "constant" else 0
    rows: Lines = [
        ("actor_rollout_ref.actor.optim.lr", config.learning_rate),
        ("actor_rollout_ref.actor.optim.lr_scheduler_type", kind.partition("_")[0]),
        ("actor_rollout_ref.actor.optim.lr_warmup_steps", steps),
        ("actor_rollout_ref.actor.optim.lr_warmup_steps_ratio", share),
        ("", "verl decays every weight, TRL spares biases and norms"),
        ("actor_rollout_ref.actor.optim.weight_decay", config.weight_decay),
        ("actor_rollout_ref.actor.optim.betas", [config.adam_beta1, config.adam_beta2]),
        ("actor_rollout_ref.actor.optim.clip_grad", config.max_grad_norm),
    ]
    if config.adam_epsilon != 1e-8:
        rows.append(("actor_rollout_ref.actor.optim.override_optimizer_config", {"eps": config.adam_epsilon}))
    return rows


def sampling_lines(config: GRPOConfig) -> Lines:
    top_k = config.top_k or -1
    given = f"use_vllm {str(bool(config.use_vllm)).lower()}"
    rows: Lines = [
        ("", f"{given}; verl always samples with an engine, which shares the GPUs and sleeps while they train"),
        ("actor_rollout_ref.rollout.name", "vllm"),
        ("actor_rollout_ref.rollout.temperature", config.temperature),
        ("actor_rollout_ref.rollout.top_p", config.top_p),
        ("actor_rollout_ref.rollout.top_k", top_k),
        ("actor_rollout_ref.rollout.seed", config.seed),
        ("actor_rollout_ref.rollout.tensor_model_parallel_size", config.vllm_tensor_parallel_size),
        ("actor_rollout_ref.rollout.gpu_memory_utilization", config.vllm_gpu_memory_utilization),
        ("", "evaluations draw as training does; num_generations_eval"),
        ("actor_rollout_ref.rollout.val_kwargs.do_sample", True),
        ("actor_rollout_ref.rollout.val_kwargs.n", config.num_generations_eval or config.num_generations),
        ("actor_rollout_ref.rollout.val_kwargs.temperature", config.temperature),
        ("actor_rollout_ref.rollout.val_kwargs.top_p", config.top_p),
        ("actor_rollout_ref.rollout.val_kwargs.top_k", top_k),
    ]
    if config.vllm_max_model_length is not None:
        rows.append(("actor_rollout_ref.rollout.max_model_len", config.vllm_max_model_length))
    return rows


def trainer_lines(config: GRPOConfig, processes: Any, batches: Batches) -> Lines:
    machines = processes.num_machines or 1
    if config.max_steps > 0:
        length = f"max_steps {config.max_steps}: updates, of which a rollout has {batches.updates_per_rollout}"
        rollouts = epochs = config.max_steps // batches.updates_per_rollout
    else:
        length = f"num_train_epochs, of {batches.rollouts_per_epoch} rollouts; what does not fill a rollout is left out"
        epochs = math.ceil(config.num_train_epochs)
        rollouts = math.ceil(config.num_train_epochs * batches.rollouts_per_epoch)
    resume = "disable" if str(config.resume_from_checkpoint).lower() == "false" else "auto"
    return [
        ("", length),
        ("trainer.total_epochs", epochs),
        ("trainer.total_training_steps", rollouts),
        ("trainer.n_gpus_per_node", processes.num_processes // machines),
        ("trainer.nnodes", machines),
        ("trainer.default_local_dir", "$OUTPUT"),
        ("", "save_strategy, save_steps; the last rollout is always saved"),
        ("trainer.save_freq", every(config.save_strategy, config.save_steps, batches, rollouts) or rollouts),
        ("trainer.max_actor_ckpt_to_keep", config.save_total_limit),
        ("trainer.resume_mode", resume),
        ("", "eval_strategy, eval_steps, eval_on_start"),
        ("trainer.test_freq", every(config.eval_strategy, config.eval_steps, batches, rollouts) or -1),
        ("trainer.val_before_train", evaluates(config) and config.eval_on_start),
        ("trainer.logger", ["console", *config.report_to]),
        ("trainer.project_name", config.project),
        ("trainer.experiment_name", config.run_name or Path(config.output_dir or "manypaths-grpo").name),
    ]


def every(strategy: Any, steps: float | None, batches: Batches, rollouts: int) -> int | None:
    """Rollouts between two events of a strategy in updates, a share of the run or epochs, rounded up; None for never."""
    match str(getattr(strategy, "value", strategy)):
        case "no":
            return None
        case "epoch":
            return batches.rollouts_per_epoch
        case _:
            return batches.rollouts(steps) if steps >= 1 else math.ceil(steps * rollouts)
