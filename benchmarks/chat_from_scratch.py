"""Every objective on a real chat file through the command line, with a small model made from nothing.

    python benchmarks/chat_from_scratch.py --data chats.jsonl --output_dir runs/chat --steps 60

Trains a BPE tokenizer on the file, makes a random Llama of about 7 million weights, then for each objective runs
`manypaths sft` to the half, again with `--resume_from_checkpoint true` to the end, and prints what the log says. The
file holds `messages` (user and assistant); a hundred rows are kept for evaluation.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

OBJECTIVES = ("nll", "sed", "gem", "dft", "eksft")
EVALUATION_ROWS = 100
CHAT_TEMPLATE = (
    "{% for m in messages %}<|{{ m['role'] }}|>\n{% generation %}{{ m['content'] }}<|end|>{% endgeneration %}\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
SHOWN = ("loss", "ce", "objective", "gate_mean", "effective_token_share", "kept_share", "entropy", "mean_token_accuracy",
         "p_label_p10", "p_label_p50", "p_label_p90", "mask_rate", "mask_rate_requested", "kl_policy_ref")  # fmt: skip


def make_start(rows: list[dict], folder: Path, vocab_size: int = 4096, **size: int) -> int:
    """A tokenizer trained on the file and a random Llama of this size; returns its number of weights."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    special = ["<pad>", "<|end|>", "<|user|>", "<|assistant|>"]
    texts = (message["content"] for row in rows for message in row["messages"])
    core.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=vocab_size, special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
        ),
    )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, pad_token="<pad>", eos_token="<|end|>")
    tokenizer.chat_template = CHAT_TEMPLATE
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    size = {"hidden_size": 256, "intermediate_size": 704, "num_hidden_layers": 6, "num_attention_heads": 8, **size}
    config = LlamaConfig(
        vocab_size=len(tokenizer), max_position_embeddings=1024, tie_word_embeddings=False, pad_token_id=0,
        eos_token_id=1, bos_token_id=None, **size,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    model.save_pretrained(folder)
    return model.num_parameters()


def train(start: Path, root: Path, objective: str, steps: int, resume: bool) -> list[dict]:
    """One `manypaths sft` run up to `steps`; returns the log."""
    folder = root / objective
    command = [
        sys.executable, "-m", "manypaths", "sft", "--model_name_or_path", str(start), "--data", str(root / "train.jsonl"),
        "--eval_dataset_name", str(root / "eval.jsonl"), "--output_dir", str(folder), "--objective", objective,
        "--max_steps", str(steps), "--per_device_train_batch_size", "8", "--learning_rate", "1e-3",
        "--lr_scheduler_type", "constant", "--max_length", "256", "--assistant_only_loss", "true", "--logging_steps", "5",
        "--eval_strategy", "steps", "--eval_steps", "30", "--save_steps", "30", "--report_to", "none", "--dtype", "float32",
        "--bf16", "false", "--gradient_checkpointing", "false", "--seed", "0",
        *(["--resume_from_checkpoint", "true"] if resume else []),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}")
    for line in done.stdout.splitlines():
        if line.startswith("calibrated"):
            print(f"  {line}")
    checkpoint = max(folder.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    return json.loads((checkpoint / "trainer_state.json").read_text())["log_history"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--output_dir", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--objectives", nargs="+", default=list(OBJECTIVES))
    args = parser.parse_args()
    rows = [json.loads(line) for line in args.data.read_text().splitlines() if line.strip()]
    args.output_dir.mkdir(parents=True, exist_ok=True)
    for name, part in (("eval", rows[:EVALUATION_ROWS]), ("train", rows[EVALUATION_ROWS:])):
        (args.output_dir / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in part))
    start = args.output_dir / "start"
    print(f"{len(rows)} conversations, {make_start(rows, start):,} weights")
    for objective in args.objectives:
        print(objective, flush=True)
        train(start, args.output_dir, objective, args.steps // 2, resume=False)
        log = train(start, args.output_dir, objective, args.steps, resume=True)
        trained = [row for row in log if "loss" in row]
        for label, row in (("first", trained[0]), ("last", trained[-1])):
            print(f"  step {row['step']:3} {label:5}", {name: round(row[name], 4) for name in SHOWN if name in row})
        evaluated = [row for row in log if "eval_ce" in row]
        print("  eval ce", {row["step"]: round(row["eval_ce"], 4) for row in evaluated}, flush=True)


if __name__ == "__main__":
    main()
