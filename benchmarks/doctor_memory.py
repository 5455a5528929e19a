"""What `manypaths doctor` says a run will take, against what the run takes: peak memory of short CPU runs.

    python benchmarks/doctor_memory.py

Each run is `manypaths sft` for three steps in a fresh process: a Llama of 45 million weights, fp32, rows of 256 tokens.
Measured is the peak of resident memory above that of the process after its imports and a first run of a tiny model, with
glibc told to give freed blocks back (MALLOC_MMAP_THRESHOLD_). Writes benchmarks/results/doctor_memory_cpu_<date>.md.
"""

import datetime
import json
import os
import platform
import random
import re
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

RESULTS = Path(__file__).parent / "results"
MIB = 2**20
VOCABULARY, LENGTH, ROWS = 16000, 256, 64
SIZES = {
    "model": dict(hidden_size=512, intermediate_size=1536, num_hidden_layers=8, num_attention_heads=8),
    "tiny": dict(hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2),
}
COMMON = {
    "data": "rows.jsonl", "max_steps": 3, "per_device_train_batch_size": 4, "max_length": LENGTH, "use_cpu": True,
    "bf16": False, "gradient_checkpointing": False, "report_to": "none", "save_strategy": "no", "disable_tqdm": True,
    "logging_steps": 1,
}  # fmt: skip
RUNS = {
    "full, AdamW": {"objective": "nll"},
    "LoRA, checkpointing, batch 16": {
        "objective": "nll", "use_peft": True, "lora_target_modules": "all-linear", "learning_rate": 2e-4,
        "gradient_checkpointing": True, "per_device_train_batch_size": 16,
    },
    "full with a reference (eksft)": {"objective": "eksft"},
    "full, accumulation, batch 2 x 2": {
        "objective": "gem", "per_device_train_batch_size": 2, "gradient_accumulation_steps": 2,
    },
}  # fmt: skip


def make_files():
    """Two models, a tokenizer of as many words as they have rows, and rows that all have LENGTH tokens."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    words = {"<pad>": 0, "<eos>": 1} | {f"w{index}": index for index in range(2, VOCABULARY)}
    core = Tokenizer(models.WordLevel(words, unk_token="<pad>"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, pad_token="<pad>", eos_token="<eos>")
    chance = random.Random(0)
    with open("rows.jsonl", "w") as file:
        for _ in range(ROWS):
            prompt, answer = (
                " ".join(f"w{chance.randrange(2, VOCABULARY)}" for _ in range(n)) for n in (64, LENGTH - 65)
            )
            file.write(json.dumps({"prompt": prompt, "completion": f" {answer} <eos>"}) + "\n")
    for name, sizes in SIZES.items():
        torch.manual_seed(0)
        config = LlamaConfig(vocab_size=VOCABULARY, bos_token_id=None, eos_token_id=1, pad_token_id=0, **sizes)
        LlamaForCausalLM(config).save_pretrained(name)
        tokenizer.save_pretrained(name)


def options(model, run, folder):
    given = {**COMMON, **RUNS[run], "model": model, "output_dir": folder}
    return [f"--{name}={str(value).lower() if isinstance(value, bool) else value}" for name, value in given.items()]


def status_mib(field):
    return int(re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]) / 1024


def measure(run):
    """Peak MiB of the run above the process as it is after a run of the tiny model."""
    import gc

    from manypaths.cli.main import main

    assert main(["sft", *options("tiny", run, f"warm {run}")]) == 0
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak, VmHWM
    before = status_mib("VmRSS")
    assert main(["sft", *options("model", run, f"out {run}")]) == 0
    return status_mib("VmHWM") - before


def estimate(run):
    """{part: MiB} as the doctor counts them for this machine."""
    from manypaths import doctor
    from manypaths.cli.launch import LaunchConfig
    from manypaths.config import parse
    from manypaths.training.config import SFT_OPTIONS

    *parsed, processes = parse([*SFT_OPTIONS, LaunchConfig], options("model", run, "planned"), "doctor")
    report = doctor.sft_report(*parsed, processes, None)
    assert not report.failed, [check for check in report.checks if check.verdict == "fail"]
    return {name: size / MIB for name, size in report.parts.items()}


def in_process(what, run):
    """The last line that a fresh process prints, as JSON; with one thread, and no block kept back by glibc."""
    settings = {"OMP_NUM_THREADS": "1", "MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
    command = [sys.executable, __file__, what, run]
    done = subprocess.run(command, env={**os.environ, **settings}, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def main():
    if len(sys.argv) > 1:
        what, run = sys.argv[1:]
        print(json.dumps({"measure": measure, "estimate": estimate}[what](run)))
        return
    lines = ["| run | measured MiB | estimated MiB | ratio | largest parts |", "|---|--:|--:|--:|---|"]
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        make_files()
        for run in RUNS:
            measured, parts = in_process("measure", run), in_process("estimate", run)
            expected = sum(parts.values())
            largest = sorted(parts.items(), key=lambda part: -part[1])[:4]
            shown = ", ".join(f"{name} {size:.0f}" for name, size in largest)
            lines.append(f"| {run} | {measured:.0f} | {expected:.0f} | {expected / measured:.2f} | {shown} |")
            print(lines[-1], flush=True)
    names = ("torch", "transformers", "trl", "peft")
    versions = ", ".join(f"{name} {version(name)}" for name in names)
    today = datetime.date.today().isoformat()
    text = f"# Memory: the doctor's estimate against CPU runs, {today}\n\n{__doc__.strip()}\n\n" + "\n".join(lines)
    text += f"\n\nPython {platform.python_version()}, {versions}; one thread.\n"
    (RESULTS / f"doctor_memory_cpu_{today}.md").write_text(text)


if __name__ == "__main__":
    main()
