"""What the loss head costs: fused objectives against full logits and TRL's fused head, side by side.

    python benchmarks/head_cost.py --tokens 512 --hidden 896 --vocab 151936 --rounds 5

Time: forward and backward of each variant, one after the other in one process, `--rounds` times; the best round
counts, as process CPU seconds on a CPU (wall seconds on a GPU), and the ratio to full-logits cross-entropy of the
same run. Memory: peak above the state "weights, hidden states and labels loaded", one fresh process a variant.
Every variant is checked against full-logits cross-entropy or the formula before it is timed.
Writes benchmarks/results/head_cost_<device>_<date>.{json,md}.
"""

import argparse
import datetime
import json
import platform
import re
import subprocess
import sys
import time
from pathlib import Path

import torch
import torch.nn.functional as F

RESULTS = Path(__file__).parent / "results"
TOP_K, THRESHOLD = 10, 0.5
TRL_CHUNK = 32768  # the vocabulary tile its SFTTrainer passes


def full_logits_ce(hidden, weight, labels):
    """Cross-entropy on fp32 logits, as transformers computes it."""
    return F.cross_entropy((hidden @ weight.T).float(), labels)


def released_sed(hidden, weight, labels):
    """The formula of SED-SFT's released code: softmax and top-k mass of full logits in the model's dtype."""
    logits = hidden @ weight.T
    probabilities = logits.softmax(-1)
    p = probabilities.gather(-1, labels[:, None])[:, 0]
    mask = probabilities.topk(TOP_K).values.sum(-1) < THRESHOLD
    return F.cross_entropy(logits.float(), labels) + (mask * (p * (p - 1) + 0.25)).mean()


def trl_head(outputs):
    """TRL's own fused head, as its SFTTrainer calls it (a private function of trl 1.16)."""
    from trl.kernels.chunked_logprob import ChunkedLogProbFunction

    def loss(hidden, weight, labels):
        return -ChunkedLogProbFunction.apply(hidden, weight, None, labels, 1.0, TRL_CHUNK, None, 1.0, outputs)[0].mean()

    return loss


def fused(name, **hyperparameters):
    from manypaths import resolve, token_statistics

    objective = resolve(name, **hyperparameters)
    want = tuple(dict.fromkeys((*objective.statistics, "logprob")))

    def loss(hidden, weight, labels):
        statistics = token_statistics(hidden, weight, labels, want=want, **objective.engine_parameters)
        return objective(statistics).mean()

    return loss


def fused_logged(name, **hyperparameters):
    """With entropy and top-1 accuracy, which the trainer always logs."""
    from manypaths import resolve, token_statistics

    objective = resolve(name, **hyperparameters)
    want = tuple(dict.fromkeys((*objective.statistics, "logprob", "entropy", "is_top1")))

    def loss(hidden, weight, labels):
        statistics = token_statistics(hidden, weight, labels, want=want, **objective.engine_parameters)
        return objective(statistics).mean()

    return loss


def module_nll(hidden, head, labels):
    """Its own forward on chunks of tokens."""
    from manypaths import token_statistics

    return -token_statistics(hidden, head, labels, want=("logprob", "entropy", "is_top1"))["logprob"].mean()


def module_ce(hidden, head, labels):
    return F.cross_entropy(head(hidden).float(), labels)


def adapted(loss, **options):
    """The loss of a head with a LoRA, which trains in the place of the weight."""
    import peft

    heads = {}

    def run(hidden, weight, labels):
        if id(weight) not in heads:
            linear = torch.nn.Linear(*weight.shape[::-1], bias=False, device="meta")
            linear.weight = torch.nn.Parameter(weight.detach(), requires_grad=False)
            config = peft.LoraConfig(r=16, target_modules=["head"], **options)
            heads[id(weight)] = peft.inject_adapter_in_model(config, torch.nn.ModuleDict({"head": linear}))["head"]
        return loss(hidden, heads[id(weight)], labels)

    return run


VARIANTS = {
    "full-logits CE": lambda: full_logits_ce,
    "released SED formula, full logits": lambda: released_sed,
    "TRL fused head, NLL": lambda: trl_head(("log_probs",)),
    "TRL fused head, NLL + entropy + top-1": lambda: trl_head(("log_probs", "entropy", "is_top1")),
    "manypaths nll": lambda: fused("nll"),
    "manypaths sed": lambda: fused("sed", top_k=TOP_K, threshold=THRESHOLD),
    "manypaths gem": lambda: fused("gem"),
    "manypaths nll + entropy + top-1": lambda: fused_logged("nll"),
    "manypaths sed + entropy + top-1": lambda: fused_logged("sed", top_k=TOP_K, threshold=THRESHOLD),
    "full-logits CE, LoRA head": lambda: adapted(module_ce),
    "full-logits CE, DoRA head": lambda: adapted(module_ce, use_dora=True),
    "manypaths nll + entropy + top-1, LoRA head": lambda: adapted(module_nll),
    "manypaths nll + entropy + top-1, DoRA head": lambda: adapted(module_nll, use_dora=True),
}
SED_VARIANTS = ("released SED formula, full logits", "manypaths sed", "manypaths sed + entropy + top-1")


def problem(args, dtype):
    """Hidden states aligned with some rows of the head, so that the distribution has a shape, as a trained one has."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(args.vocab, args.hidden, generator=generator) / args.hidden**0.5
    labels = torch.randint(args.vocab, (args.tokens,), generator=generator)
    hidden = torch.randn(args.tokens, args.hidden, generator=generator) + 8 * weight[labels]
    device = args.device
    return (
        hidden.to(device, dtype).requires_grad_(),
        weight.to(device, dtype).requires_grad_(),
        labels.to(device),
    )


def step(loss, hidden, weight, labels):
    hidden.grad = weight.grad = None
    value = loss(hidden, weight, labels)
    value.backward()
    return value.detach()


def clock(device):
    if device == "cuda":
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time()


def measure_time(args, dtype):
    hidden, weight, labels = problem(args, dtype)
    losses = {name: build() for name, build in VARIANTS.items()}
    tolerance = 2e-2 if dtype == torch.bfloat16 else 1e-3
    for name, loss in losses.items():
        expected = released_sed if name in SED_VARIANTS else full_logits_ce
        if "gem" not in name:
            difference = abs(step(loss, hidden, weight, labels) - step(expected, hidden, weight, labels)).item()
            if difference > tolerance:
                raise SystemExit(f"{name} is off by {difference:.3g} from its formula: not timed.")
    best = dict.fromkeys(losses, float("inf"))
    for round_number in range(args.rounds):
        for name, loss in losses.items():
            start = clock(args.device)
            step(loss, hidden, weight, labels)
            best[name] = min(best[name], clock(args.device) - start)
        print(f"  round {round_number + 1}/{args.rounds} done", file=sys.stderr, flush=True)
    return best


def status_mib(field):
    return int(re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]) / 1024


def measure_memory(args, dtype, name):
    """Peak MiB above the loaded state, in this (fresh) process."""
    hidden, weight, labels = problem(args, dtype)
    loss = VARIANTS[name]()
    tiny = torch.zeros(2, args.hidden, dtype=dtype, device=args.device)
    step(loss, tiny.requires_grad_(), torch.zeros(64, args.hidden, dtype=dtype, device=args.device).requires_grad_(),
         labels[:2] % 64)  # loads every library before the baseline  # fmt: skip
    if args.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step(loss, hidden, weight, labels)
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak, VmHWM
    before = status_mib("VmRSS")
    step(loss, hidden, weight, labels)
    return status_mib("VmHWM") - before


def hardware(device):
    if device == "cuda":
        return torch.cuda.get_device_name()
    match = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    return f"{match[1] if match else platform.processor()}, {torch.get_num_threads()} thread(s)"


def versions():
    from importlib.metadata import version

    return {name: version(name) for name in ("torch", "transformers", "trl")} | {"python": platform.python_version()}


def table(rows, unit):
    lines = [
        f"| variant | dtype | {unit} | time / full-logits CE | peak MiB | memory / full-logits CE |",
        "|---|---|--:|--:|--:|--:|",
    ]
    for row in rows:
        lines.append(
            f"| {row['variant']} | {row['dtype']} | {row['seconds']:.2f} | {row['time_ratio']:.2f} "
            f"| {row['peak_mib']:.0f} | {row['memory_ratio']:.2f} |"
        )
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=512)
    parser.add_argument("--hidden", type=int, default=896)
    parser.add_argument("--vocab", type=int, default=151936)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--memory-of", nargs=2, metavar=("VARIANT", "DTYPE"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.memory_of:
        print(measure_memory(args, getattr(torch, args.memory_of[1]), args.memory_of[0]))
        return
    rows = []
    for dtype in ("bfloat16", "float32"):
        print(f"{dtype}: time", file=sys.stderr)
        seconds = measure_time(args, getattr(torch, dtype))
        print(f"{dtype}: memory", file=sys.stderr)
        shape = [f"--{name}={getattr(args, name)}" for name in ("tokens", "hidden", "vocab", "device", "threads")]
        peaks = {
            name: float(
                subprocess.run(
                    [sys.executable, __file__, *shape, "--memory-of", name, dtype],
                    check=True,
                    capture_output=True,
                    text=True,
                ).stdout.split()[-1]
            )
            for name in VARIANTS
        }
        for name in VARIANTS:
            rows.append(
                {
                    "variant": name,
                    "dtype": dtype,
                    "seconds": seconds[name],
                    "time_ratio": seconds[name] / seconds["full-logits CE"],
                    "peak_mib": peaks[name],
                    "memory_ratio": peaks[name] / peaks["full-logits CE"],
                }
            )
    date = datetime.date.today().isoformat()
    card = {
        "date": date,
        "hardware": hardware(args.device),
        "versions": versions(),
        "shape": {"tokens": args.tokens, "hidden": args.hidden, "vocab": args.vocab},
        "rounds": args.rounds,
        "rows": rows,
    }
    unit = "wall s" if args.device == "cuda" else "CPU s"
    text = (
        f"# Cost of the loss head, {date}\n\n{card['hardware']}; "
        + ", ".join(f"{name} {version}" for name, version in card["versions"].items())
        + f". T={args.tokens}, D={args.hidden}, V={args.vocab}; forward and backward, best of {args.rounds} alternating "
        f"rounds in one process; memory in a fresh process per variant.\n\n{table(rows, unit)}\n"
    )
    RESULTS.mkdir(exist_ok=True)
    stem = RESULTS / f"head_cost_{args.device}_{date}"
    stem.with_suffix(".json").write_text(json.dumps(card, indent=1) + "\n")
    stem.with_suffix(".md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
