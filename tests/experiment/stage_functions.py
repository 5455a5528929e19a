"""What fake stages do; worker processes import it by name."""

import os
import signal
import time
from pathlib import Path


def add(output_dir, value=0, first=None, second=None, counter=None, **_):
    """Writes value plus what earlier stages wrote."""
    if counter is not None:
        with open(counter, "a") as file:
            file.write("x")
    earlier = [int(Path(folder, "value.txt").read_text()) for folder in (first, second) if folder is not None]
    Path(output_dir).mkdir(parents=True)
    Path(output_dir, "value.txt").write_text(str(value + sum(earlier)))
    Path(output_dir, "model.safetensors").write_text("weights")
    print("added", value)


def fail(output_dir, **_):
    raise ValueError("no luck")


def die(output_dir, **_):
    os.kill(os.getpid(), signal.SIGKILL)


def slow(output_dir, started, **_):
    Path(output_dir).mkdir(parents=True)
    Path(output_dir, "half.txt").write_text("half")
    Path(started).write_text(str(os.getpid()))
    time.sleep(300)


def die_once(output_dir, mark, **_):
    """Killed in the middle of its work the first time."""
    Path(output_dir).mkdir(parents=True)
    Path(output_dir, "value.txt").write_text("7")
    if not Path(mark).exists():
        Path(mark).write_text("")
        os.kill(os.getpid(), signal.SIGKILL)


def cores(output_dir, **_):
    import torch

    Path(output_dir).mkdir(parents=True)
    place = [torch.get_num_threads(), os.environ["CUDA_VISIBLE_DEVICES"], os.getcwd(), os.getpid()]
    Path(output_dir, "value.txt").write_text(" ".join(map(str, place)))
