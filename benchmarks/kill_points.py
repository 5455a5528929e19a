"""Kill a training run at random points, some of them inside a save, and go on until it ends: are the weights the same?

    python benchmarks/kill_points.py --points 200 --output benchmarks/results/kill_points.md

A small random Llama with dropout is trained by `manypaths sft --resume_from_checkpoint auto` with the calibrated objective
`sed`, accumulation, a checkpoint at every second of 12 steps, and two checkpoints kept. Each start is a forked process that
is ended at a random point in one of six ways; the next start goes on, until one reaches the end. Then model.safetensors is
compared, byte for byte, with that of a run that nothing has disturbed.
"""

import argparse
import collections
import contextlib
import datetime
import io
import json
import os
import platform
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

os.environ |= {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}

import torch
import transformers
import trl
from chat_from_scratch import make_start

from manypaths.cli.main import main as manypaths
from manypaths.data import formats  # noqa: F401, imported before the forks, as are the next
from manypaths.training import checkpoints, run  # noqa: F401

STEPS, SAVE_STEPS = 12, 2
WORDS = ("one", "two", "three", "four", "five", "six", "seven", "plus", "minus", "times", "is", "equals", "answer")
KINDS = {
    "between": "SIGKILL at a random moment of a random step",
    "at a file": "SIGKILL before a random file of a save is made, moved or removed",
    "inside a file": "killed inside a write (SIGXFSZ): a random file of a save is cut at a random byte",
    "full disk": "the same write fails instead (EFBIG), and the run ends by itself",
    "terminated": "SIGTERM at a random moment of a random step",
    "terminated, then killed": "SIGTERM, and SIGKILL up to 0.2 seconds later",
}


def make_inputs() -> None:
    draw = random.Random(0)
    rows = [
        {"messages": [{"role": role, "content": " ".join(draw.choices(WORDS, k=draw.randint(2, 9)))}
                      for role in ("user", "assistant")]}
        for _ in range(60)
    ]  # fmt: skip
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    make_start(rows, Path("start"), vocab_size=300, **sizes, attention_dropout=0.1)
    Path("chats.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))


def train(folder: str) -> int:
    """The run under test, or what is left of it; returns its exit code."""
    given = {
        "model_name_or_path": "start", "dataset_name": "chats.jsonl", "output_dir": folder, "objective": "sed",
        "max_steps": STEPS, "save_steps": SAVE_STEPS, "save_total_limit": 2, "per_device_train_batch_size": 2,
        "gradient_accumulation_steps": 2, "learning_rate": 1e-2, "use_cpu": "true", "report_to": "none",
        "gradient_checkpointing": "false", "disable_tqdm": "true", "resume_from_checkpoint": "auto",
    }  # fmt: skip
    return manypaths(["sft", *(f"--{name}={value}" for name, value in given.items())])


def forked(work: Callable[[], int | None], log: Path) -> int:
    """The exit code of a process that does this, or minus the signal that ended it; what it prints goes to the log."""
    if process := os.fork():
        return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    with log.open("ab") as file:  # through another process, which no limit of this one stops
        pipe = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=file).stdin.fileno()
    os.dup2(pipe, 1), os.dup2(pipe, 2)
    code = 1
    with contextlib.suppress(BaseException):
        try:
            code = work() or 0
        except BaseException:
            sys.excepthook(*sys.exc_info())
    sys.stdout.flush(), sys.stderr.flush()
    os._exit(code)


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class AtStep(transformers.TrainerCallback):
    """Does something at a random moment of the n-th step from now."""

    def __init__(self, draw: random.Random, left: int, act: Callable[[], None]) -> None:
        self.step, self.delay, self.act = draw.randint(1, left), draw.uniform(0, 0.15), act

    def on_step_begin(self, *_, **__):
        self.step -= 1
        if self.step == 0:
            threading.Timer(self.delay, self.act).start()


def arm(kind: str, draw: random.Random, folder: str) -> None:
    """Make this process end itself in that way, somewhere in what is left of the run."""
    newest = checkpoints.newest_checkpoint(folder)
    left = max(1, STEPS - (0 if newest is None else checkpoints.step_of(newest)))
    if kind == "between":
        at_step(AtStep(draw, left, die))
    elif kind == "terminated":
        at_step(AtStep(draw, left, lambda: os.kill(os.getpid(), signal.SIGTERM)))
    elif kind == "terminated, then killed":
        at_step(
            AtStep(draw, left, lambda: (os.kill(os.getpid(), signal.SIGTERM), time.sleep(draw.uniform(0, 0.2)), die()))
        )
    elif kind == "at a file":
        kill_at_file(draw.randint(1, 16 * -(-left // SAVE_STEPS)), folder)
    else:
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL if kind == "inside a file" else signal.SIG_IGN)
        cut_a_file(draw, draw.randint(1, 5 * -(-left // SAVE_STEPS)))


def at_step(callback: transformers.TrainerCallback) -> None:
    transformers.trainer.DEFAULT_CALLBACKS.append(callback)


def kill_at_file(number: int, folder: str) -> None:
    count = 0

    def hook(event: str, args: tuple) -> None:
        nonlocal count
        writes = event == "open" and args[2] & (os.O_WRONLY | os.O_RDWR)
        if (writes or event in ("os.mkdir", "os.rename", "os.remove", "os.rmdir")) and f"{folder}" in str(args[0]):
            count += 1
            if count == number:
                die()

    sys.addaudithook(hook)


def cut_a_file(draw: random.Random, number: int) -> None:
    """The n-th file of weights or states from now ends at a random byte."""
    count, save, save_weights = 0, torch.save, transformers.modeling_utils.safe_save_file

    def limited(size: int) -> None:
        nonlocal count
        count += 1
        if count == number:
            resource.setrlimit(resource.RLIMIT_FSIZE, (draw.randrange(size), resource.RLIM_INFINITY))

    def limited_save(value, file, *args, **kwargs):
        whole = io.BytesIO()
        save(value, whole)
        limited(len(whole.getvalue()))
        return save(value, file, *args, **kwargs)

    def limited_weights(tensors, *args, **kwargs):
        limited(sum(tensor.numel() * tensor.element_size() for tensor in tensors.values()))
        return save_weights(tensors, *args, **kwargs)

    torch.save, transformers.modeling_utils.safe_save_file = limited_save, limited_weights


def measure(points: int, seed: int) -> dict[str, object]:
    """Runs killed until there were that many kills, each then led to its end."""
    draw, log = random.Random(seed), Path("log.txt")
    assert forked(make_inputs, log) == 0, log.read_text()
    assert forked(lambda: train("whole"), log) == 0, log.read_text()
    expected = Path("whole/model.safetensors").read_bytes()
    ended, cut_checkpoints, same, other, failures = collections.Counter(), 0, 0, 0, []
    while sum(ended.values()) < points:
        folder = f"run{same + other}"
        for start in range(100):
            kind = draw.choice(list(KINDS))
            chance = random.Random(draw.random())
            undisturbed = start == 8 or sum(ended.values()) >= points
            log = Path(f"{folder}.log")

            def work(kind=kind, chance=chance, folder=folder, undisturbed=undisturbed) -> int:
                if not undisturbed:
                    arm(kind, chance, folder)
                return train(folder)

            code = forked(work, log)
            if code == 0:
                break
            expected_codes = {"full disk": (2,), "terminated": (143, -15)}.get(kind, (-9, -25, 143, -15))
            if undisturbed or code not in expected_codes:
                failures.append(f"{kind}, exit code {code}: {log.read_text()[-2000:]}")
                break
            ended[kind] += 1
            cut_checkpoints += any(checkpoints.flaw(one) for one in checkpoints.checkpoints(folder))
        weights = Path(folder, "model.safetensors")
        if code == 0 and weights.read_bytes() == expected:
            same += 1
            shutil.rmtree(folder)
        else:
            other += 1
        print(f"{sum(ended.values())} kills, {same} runs the same, {other} not", file=sys.stderr, flush=True)
    return {"ended": ended, "cut": cut_checkpoints, "same": same, "other": other, "failures": failures}


def card(result: dict[str, object], seed: int, seconds: float) -> str:
    ended = result["ended"]
    rows = "\n".join(f"| {what} | {ended[kind]} |" for kind, what in KINDS.items())
    return (
        f"# Kill points, {datetime.date.today()}\n\n"
        f"{platform.machine()}, python {platform.python_version()}, torch {torch.__version__}, transformers "
        f"{transformers.__version__}, trl {trl.__version__}; seed {seed}, {seconds:.0f} seconds\n\n"
        f"{sum(ended.values())} starts were ended, and after {result['cut']} of them a cut checkpoint lay in the folder. "
        f"{result['same']} of {result['same'] + result['other']} runs, each ended up to 8 times, reached the weights of the "
        f"undisturbed run bit for bit.\n\n| how a start was ended | starts |\n|---|---|\n{rows}\n"
        + "".join(f"\n```\n{failure}\n```\n" for failure in result["failures"])
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path)
    given = parser.parse_args()
    output, begun = given.output and given.output.absolute(), time.monotonic()
    with tempfile.TemporaryDirectory() as place:
        os.chdir(place)
        text = card(measure(given.points, given.seed), given.seed, time.monotonic() - begun)
    print(text)
    if output:
        output.write_text(text)
