"""A cached reference against a live one: the same KL, gradient and run, what it takes on disk, and what it saves.

    python benchmarks/reference_cache.py

Error: EKSFT trains the base model of the built-in world `recall` on its demonstrations for two epochs, with either
reference; then the KLs of all trained tokens and their gradient at the hidden states, with the live and the cached
reference of the moved policy, and in float64 throughout.
Cost: a model of Qwen3's architecture with random weights, a fresh process for each reference; process CPU seconds, and the
peak of resident memory.
Writes benchmarks/results/reference_cache_<device>_<date>.{json,md}.
"""

import argparse
import contextlib
import copy
import datetime
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from functools import partial
from importlib.metadata import version
from pathlib import Path

import torch
from datasets import Dataset, disable_progress_bars
from transformers import AutoModelForCausalLM, AutoTokenizer, Qwen3Config, Qwen3ForCausalLM, TrainerCallback

import manypaths
from manypaths.models.lm_head import HeadHook, hidden_states_of
from manypaths.models.reference_model import frozen_copy
from manypaths.training.cached_reference import FOLDER
from manypaths.worlds.files import write_world

RESULTS = Path(__file__).parent / "results"
ARRANGED = {
    "one document": {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 4},
    "4, padded": {"per_device_train_batch_size": 4},
    "2 rows, packed": {"per_device_train_batch_size": 2, "packing": True, "max_length": 64},
}
KLS = ("kl_policy_ref", "kl_ref_policy")
SIZES = {
    "hidden_size": 512, "intermediate_size": 1536, "num_hidden_layers": 8, "num_attention_heads": 8,
    "num_key_value_heads": 4, "head_dim": 64, "vocab_size": 32000,
}  # fmt: skip
ROWS, LENGTH, STEPS = 48, 256, 8


def trainer(model, data, tokenizer, folder, **options):
    settings = dict(
        output_dir=str(folder), objective="eksft", max_grad_norm=1.0, logging_steps=1, save_strategy="no",
        report_to="none", bf16=False, use_cpu=True, disable_tqdm=True, gradient_checkpointing=False,
    )  # fmt: skip
    config = manypaths.SFTConfig(**{**settings, **options})
    return manypaths.SFTTrainer(model, config, train_dataset=data, processing_class=tokenizer)


def steps_of(run):
    return [row for row in run.state.log_history if "loss" in row]


def recall(world):
    """The world's base model, and its demonstrations, one to three in a row: the last one's answer carries loss."""
    rows = [json.loads(line) for line in (world / "sft.jsonl").read_text().splitlines()]
    texts = [row["prompt"] + row["completion"] for row in rows]
    prompts = ["".join([*texts[number - number % 3 : number], row["prompt"]]) for number, row in enumerate(rows)]
    data = Dataset.from_dict({"prompt": prompts, "completion": [row["completion"] for row in rows]})
    return AutoModelForCausalLM.from_pretrained(world / "model"), data, {"learning_rate": 1e-3}


def qwen3(_):
    """Random weights, wide enough for a distribution with a shape, and random tokens."""
    torch.manual_seed(0)
    model = Qwen3ForCausalLM(Qwen3Config(**SIZES, initializer_range=0.06))
    lengths = torch.randint(32, LENGTH, (8,)).tolist()
    ids = [torch.randint(SIZES["vocab_size"], (length,)).tolist() for length in lengths]
    return model, Dataset.from_list([{"input_ids": row, "labels": row} for row in ids]), {"learning_rate": 1e-5}


def runs_compared(model, data, tokenizer, cache, **options):
    """One line of the table of errors: a live and a cached run, and the KLs at the end of the cached one.

    `cache` is the folder of the cache, which the first of these runs fills.
    """
    start, runs = model, {}
    with tempfile.TemporaryDirectory() as folder:
        for name, reference in (("live", {}), ("cached", {"reference": "cache", "reference_cache": str(cache)})):
            runs[name] = run = trainer(
                copy.deepcopy(start), data, tokenizer, Path(folder, name), num_train_epochs=2,
                lr_scheduler_type="constant", **reference, **options,
            )  # fmt: skip
            run.train()
        logs = {name: steps_of(run) for name, run in runs.items()}
        losses, kls, kept = (
            [abs(a[value] - b[value]) for a, b in zip(logs["live"], logs["cached"], strict=True)]
            for value in ("loss", "kl_policy_ref", "kept_share")
        )
        moved, ended = (
            torch.cat([weight.detach().double().flatten() for weight in model.parameters()])
            for model in (start, runs["live"].model)
        )
        apart = torch.cat([weight.detach().double().flatten() for weight in runs["cached"].model.parameters()]) - ended
        return {
            "steps": len(losses),
            "loss": max(losses),
            "kl": max(kls),
            "kl_first": logs["cached"][0]["kl_policy_ref"],
            "kept_share": max(kept),
            "weights": float(apart.norm() / (ended - moved).norm()),
            **errors(runs["cached"], start),
        }


def errors(run, start):
    """Mean KLs; mean and largest error of a token, and the relative one of the gradient, cached against live and live
    against float64."""
    policy = frozen_copy(run.model)
    models = [policy, start.eval(), *(copy.deepcopy(model).double() for model in (policy, start))]
    hooks = [HeadHook(model) for model in models]
    values = {"cached": [], "live": [], "float64": []}
    for batch in run.get_train_dataloader():
        labels = batch.pop("labels")
        inputs = {**batch, "use_cache": False}
        rows, live, rows64, live64 = (hidden_states_of(hook, partial(hook.model, **inputs)) for hook in hooks)
        cached = run._cached.projection(policy, inputs, labels)
        for name, ours, reference in (("cached", rows, cached), ("live", rows, live), ("float64", rows64, live64)):
            values[name].append(kls_and_gradients(ours, reference, labels))
    columns = {name: [torch.cat(column) for column in zip(*parts, strict=True)] for name, parts in values.items()}
    found = {"trained_tokens": len(columns["live"][0])}
    for number, name in enumerate(KLS):
        found[name] = float(columns["float64"][number].mean())
        for one, other in (("cached", "live"), ("live", "float64")):
            (kl, gradient), (kl_b, gradient_b) = (columns[which][number::2] for which in (one, other))
            wrong = (kl - kl_b).abs()
            found[f"{one} {name}"] = [
                float(wrong.mean()),
                float(wrong.max()),
                float((gradient - gradient_b).norm() / gradient_b.norm()),
            ]
    return found


def kls_and_gradients(policy, reference, labels):
    """Both KLs [T] of the trained tokens, and the gradients [T, D] of their sums at the hidden states, in float64."""
    valid = labels[:, 1:] != -100
    hidden = policy.hidden_states[:, :-1][valid].clone().requires_grad_()
    target = reference._replace(hidden_states=reference.hidden_states[:, :-1][valid])
    values = manypaths.token_statistics(hidden, policy.weight, labels[:, 1:][valid], want=KLS, reference=target)
    gradients = [torch.autograd.grad(values[name].sum(), hidden, retain_graph=True)[0] for name in KLS]
    return [values[name].detach().double() for name in KLS] + [gradient.double() for gradient in gradients]


class Clock(TrainerCallback):
    """CPU seconds of each step; the first, which makes the cache, apart."""

    def __init__(self):
        self.seconds = []

    def on_step_begin(self, *given, **named):
        self.began = time.process_time()

    def on_step_end(self, *given, **named):
        self.seconds.append(time.process_time() - self.began)


def cost(objective, reference):
    """Seconds and memory of STEPS steps, in this fresh process."""
    before = status_mib("VmRSS")
    torch.manual_seed(0)
    model = Qwen3ForCausalLM(Qwen3Config(**SIZES)).bfloat16()
    ids = torch.randint(SIZES["vocab_size"], (ROWS, LENGTH)).tolist()
    data = Dataset.from_list([{"input_ids": row, "labels": [-100] * (LENGTH // 4) + row[LENGTH // 4 :]} for row in ids])
    tokenizer = AutoTokenizer.from_pretrained(Path(manypaths.__file__).parent / "worlds/base/recall")
    with tempfile.TemporaryDirectory() as folder:
        run = trainer(
            model, data, tokenizer, folder, reference=reference, objective=objective, max_steps=STEPS, optim="sgd",
            per_device_train_batch_size=2, dataset_kwargs={"skip_prepare_dataset": True},
        )  # fmt: skip
        clock, stored = Clock(), Path(folder, FOLDER)
        run.add_callback(clock)
        run.train()
        files = {file.name: file.stat().st_size for file in stored.glob("*.safetensors")}
    first, *others = clock.seconds
    step = statistics.median(others)
    peak = status_mib("VmHWM") - before
    rows = sum(size for name, size in files.items() if name.startswith("rows"))
    tokens = ROWS * (LENGTH - LENGTH // 4)
    return {
        "parameters": sum(weight.numel() for weight in model.parameters()), "step": step, "pass": max(first - step, 0.0),
        "peak_mib": peak, "rows_gb_per_million": rows / tokens / 1e3, "head_mib": files.get("head.safetensors", 0) / 2**20,
    }  # fmt: skip


def status_mib(field):
    return int(re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]) / 1024


def cost_in_a_process(objective, reference):
    command = [sys.executable, __file__, "--cost", objective, reference]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    return json.loads(lines[-1])


def lines(card):
    yield f"# A cached reference, {card['date']}\n\n{card['hardware']}; "
    yield ", ".join(f"{name} {number}" for name, number in card["versions"].items()) + ".\n\n"
    yield "EKSFT for two epochs with a live and with a cached reference, which the run with one document in a batch stored\n"
    yield "and the others share: `recall`, the base model of a built-in world (0.2 million weights), and `qwen3`, that\n"
    yield "architecture with 58 million random weights on random tokens. Largest differences over all steps; the distance of\n"
    yield "the final weights is relative to how far training moved them.\n\n"
    yield "| model | dtype | a batch | steps | loss | KL | KL at step 1 | kept share | weights |\n"
    yield "|---|---|---|--:|--:|--:|--:|--:|--:|\n"
    for row in card["errors"]:
        yield f"| {row['model']} | {row['dtype']} | {row['batches']} | {row['steps']} | {row['loss']:.1e} | {row['kl']:.1e} "
        yield f"| {row['kl_first']:.1e} | {row['kept_share']:.2f} | {row['weights']:.1e} |\n"
    yield "\nThe same policy's KLs after that run, in nats: mean and largest error of a token, and the relative error of the\n"
    yield "gradient at the hidden states, of the cached reference against the live one, and of the live one against float64.\n\n"
    yield "| model | dtype | a batch | statistic | mean | cached, live | largest | gradient "
    yield "| live, float64 | largest | gradient |\n"
    yield "|---|---|---|---|--:|--:|--:|--:|--:|--:|--:|\n"
    for row in card["errors"]:
        for name in KLS:
            yield f"| {row['model']} | {row['dtype']} | {row['batches']} | {name} | {row[name]:.2g} "
            for pair in ("cached", "live"):
                yield "| " + " | ".join(f"{value:.1e}" for value in row[f"{pair} {name}"]) + " "
            yield "|\n"
    first = card["costs"][0]
    yield f"\nCost on a CPU: `qwen3` ({first['parameters'] / 1e6:.0f} million bfloat16 weights), 2 x "
    yield f"{LENGTH} tokens a step, median of {STEPS - 1} steps; the pass stores {ROWS} documents; memory is\n"
    yield "above that of the loaded libraries, weights and gradients included.\n\n"
    yield "| | CPU s a step | pass, CPU s | peak MiB | rows, GB per million tokens | head, MiB |\n|---|--:|--:|--:|--:|--:|\n"
    for row in card["costs"]:
        yield f"| {row['what']} | {row['step']:.2f} | {row['pass']:.1f} | {row['peak_mib']:.0f} "
        yield f"| {row['rows_gb_per_million']:.3f} | {row['head_mib']:.0f} |\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cost", nargs=2, metavar=("OBJECTIVE", "REFERENCE"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    disable_progress_bars()
    if args.cost:
        objective, reference = args.cost
        print(json.dumps(cost(objective, None if reference == "none" else reference)))
        return
    card = {
        "date": datetime.date.today().isoformat(),
        "hardware": f"{platform.machine()}, {torch.get_num_threads()} thread",
        "versions": {"python": platform.python_version(), **{name: version(name) for name in ("torch", "transformers", "trl")}},
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as folder, open(os.devnull, "w") as nothing:
        world = write_world("recall", folder)
        tokenizer = AutoTokenizer.from_pretrained(world / "model")
        card["errors"] = []
        for make, dtype in ((recall, "float32"), (recall, "bfloat16"), (qwen3, "bfloat16")):
            for name, arranged in ARRANGED.items():
                model, data, options = make(world)
                if "packing" in arranged and make is qwen3:
                    arranged = {**arranged, "max_length": 2 * LENGTH}
                with contextlib.redirect_stdout(nothing):
                    cache = Path(folder, f"{make.__name__}-{dtype}")
                    row = runs_compared(model.to(getattr(torch, dtype)), data, tokenizer, cache, **options, **arranged)
                card["errors"].append({"model": make.__name__, "dtype": dtype, "batches": name, **row})
                print(card["errors"][-1], file=sys.stderr, flush=True)
    card["costs"] = [
        {"what": what, **cost_in_a_process(objective, reference)}
        for what, objective, reference in (
            ("nll, no reference", "nll", "none"),
            ("eksft, live reference", "eksft", "none"),
            ("eksft, cached reference", "eksft", "cache"),
        )
    ]
    stem = RESULTS / f"reference_cache_cpu_{card['date']}"
    stem.with_suffix(".json").write_text(json.dumps(card, indent=1) + "\n")
    stem.with_suffix(".md").write_text(text := "".join(lines(card)))
    print(text)


if __name__ == "__main__":
    main()
