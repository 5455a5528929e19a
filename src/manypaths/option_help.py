"""What --help shows: our options in a line each, with those of TRL that people change; --help_all shows every one."""

import dataclasses
import inspect
import shutil
from collections.abc import Iterator, Sequence

# of TRL, transformers and PEFT, by what they are about
USUAL = {
    "Model": "model_name_or_path dtype attn_implementation use_peft lora_r lora_target_modules",
    "Training": """output_dir num_train_epochs max_steps learning_rate per_device_train_batch_size
        gradient_accumulation_steps max_length packing assistant_only_loss gradient_checkpointing seed""",
    "Generation": "num_generations max_completion_length temperature beta use_vllm vllm_mode",
    "Evaluation and checkpoints": "eval_strategy save_steps resume_from_checkpoint",
    "Logging": "logging_steps report_to push_to_hub",
}
RARE = {"machine_rank", "main_process_ip", "main_process_port", "reference_cache", "ignore_bias_buffers"}  # of ours
EXAMPLES = {
    "manypaths quickstart": ["manypaths quickstart", "manypaths quickstart --world coldstart --seeds 3"],
    "manypaths experiment": ["manypaths experiment compare.yaml --dry_run", "manypaths experiment compare.yaml"],
    "manypaths doctor": [
        "manypaths doctor",
        "manypaths doctor --config recipes/sed_llama.yaml --gpu H100 --num_gpus 8",
        "manypaths doctor --model out --data problems.jsonl --reward math --gpu A100-80GB",
    ],
    "manypaths sft": [
        "manypaths sft --model Qwen/Qwen3-0.6B --data chats.jsonl --objective sed --output_dir out",
        "manypaths sft --config recipes/sed_llama.yaml --learning_rate 1e-5",
    ],
    "manypaths grpo": ["manypaths grpo --model out --data problems.jsonl --reward math --output_dir out-rl"],
    "manypaths eval": [
        "manypaths eval --model out --benchmarks math500 --num_samples 8 --output_dir out-math",
        "manypaths eval --model out --data chats.jsonl --reference Qwen/Qwen3-0.6B --output_dir out-eval",
    ],
    "manypaths augment": [
        "manypaths augment --model out --data problems.jsonl --reward math --distinct chain --output_dir more",
    ],
    "manypaths report": ["manypaths report --results base-math out-math --output_dir math-report"],
    "manypaths world": ["manypaths world recall --output_dir recall"],
}


def short_help(dataclass_types: Sequence[type], prog: str) -> str:
    """Usage, examples, and a line for each option that is shown: whole sentences as far as the terminal is wide."""
    width = max(80, min(shutil.get_terminal_size((120, 24)).columns, 140))
    lines = [f"usage: {prog} [--config RECIPE.yaml] [--key value ...]"]
    lines += [f"  {example}" for example in EXAMPLES.get(prog, ())]
    hidden = sum(len(dataclasses.fields(kind)) for kind in dataclass_types)
    for title, options in groups(dataclass_types):
        hidden -= len(options)
        if options:
            lines += [title, *(option_line(option, width) for option in options)]
    return "\n".join([*lines, *[f"--help_all lists {hidden} more."] * bool(hidden)])


def groups(dataclass_types: Sequence[type]) -> Iterator[tuple[str, list[dataclasses.Field]]]:
    """Titles and options: those of our own dataclasses, then the usual ones of the libraries."""
    theirs: dict[str, dataclasses.Field] = {}
    for kind in dataclass_types:
        ours = []
        for field in dataclasses.fields(kind):
            owner = next(base for base in kind.__mro__ if field.name in inspect.get_annotations(base))
            if not owner.__module__.startswith("manypaths."):
                theirs.setdefault(field.name, field)
            elif field.name not in RARE:
                ours.append(field)
        yield (kind.__doc__ or kind.__name__).partition("\n")[0], ours
    for title, names in USUAL.items():
        yield title, [theirs[name] for name in names.split() if name in theirs]


def option_line(option: dataclasses.Field, width: int) -> str:
    text = " ".join(str(option.metadata.get("help", "")).replace("%%", "%").split())
    default = option.default if option.default_factory is dataclasses.MISSING else option.default_factory()
    if isinstance(default, (int, float, str)) and default not in ("", False):
        text = f"[{getattr(default, 'value', default)}] {text}"
    line = f"  --{option.name:<28} {text}"
    if len(line) <= width:
        return line
    sentences = line[:width].rpartition(". ")[0]
    return f"{sentences}." if sentences else line[: width - 1].rstrip() + "\u2026"
