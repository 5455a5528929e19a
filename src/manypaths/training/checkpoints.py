"""Which checkpoints a run can go on from, to the very weights that it would have reached undisturbed.

The trainer writes its state last, so a kill inside a save leaves a checkpoint without it; a full disk and whoever tidies
up may leave others. transformers itself resumes from what is there, and where optimizer, scheduler or random state are
missing, it trains on to other weights.
"""

import json
import zipfile
from collections.abc import Callable
from pathlib import Path

from safetensors import SafetensorError, safe_open

STATE = "trainer_state.json"
UNFINISHED = f"its {STATE}, which is written last, is missing or cut off"
# What has to be there besides the trainer's state. DeepSpeed keeps all but random state in global_step*, FSDP in folders.
PARTS = {
    "weights": ("model*.safetensors", "adapter_model*", "*/adapter_model*", "pytorch_model*", "global_step*"),
    "optimizer state": ("*optimizer*", "global_step*"),
    "scheduler state": ("scheduler.pt", "global_step*"),
    "random state": ("rng_state*.pth",),
}
ZIPPED = ("*optimizer*.pt", "optimizer.bin", "scheduler.pt", "scaler.pt", "rng_state*.pth", "*_model*.bin")


def resumed_from(
    asked: str | bool | None, folder: str | Path, processes: int | None, say: Callable[[str], None]
) -> str | None:
    """The checkpoint to go on from, None to start.

    Args:
        asked: None or false: start. true: the newest complete checkpoint in `folder`. auto: that, or start where no save was
            ever finished. Else the folder of a checkpoint.
        processes: of this run, which all need their own random state; None where it is not known yet.
        say: is told what is chosen and what is passed over.

    Raises ValueError for a checkpoint that is not complete, or where `true` and `auto` find only such, FileNotFoundError for
    a folder that is not there.
    """
    word = str(asked).lower()
    if asked is None or word == "false":
        return None
    if word not in ("true", "auto"):
        if not Path(asked).is_dir():
            raise FileNotFoundError(f"There is no checkpoint folder {asked} to resume from.")
        if what := flaw(Path(asked), processes):
            raise ValueError(
                f"{asked} cannot be resumed from: {what}. Take another, or `true` for the newest complete one."
            )
        return str(asked)
    flaws: dict[str, str] = {}
    for checkpoint in checkpoints(folder):
        what = flaw(checkpoint, processes)
        if what is None:
            say(f"resuming from {checkpoint}{passed_over(flaws)}")
            return str(checkpoint)
        flaws[checkpoint.name] = what
    if word == "true" or any(what != UNFINISHED for what in flaws.values()):
        raise ValueError(
            f"{folder} holds no complete checkpoint to resume from{passed_over(flaws)}. To start over, set "
            "--resume_from_checkpoint to false."
        )
    if flaws:
        say(f"starting: {folder} holds no complete checkpoint{passed_over(flaws)}")
    return None


def passed_over(flaws: dict[str, str]) -> str:
    return "".join(f"; passed over {name}: {what}" for name, what in flaws.items())


def newest_checkpoint(folder: str | Path) -> Path | None:
    """The newest complete checkpoint."""
    return next((checkpoint for checkpoint in checkpoints(folder) if flaw(checkpoint) is None), None)


def checkpoints(folder: str | Path) -> list[Path]:
    """All that are there, newest first."""
    numbered = [path for path in Path(folder).glob("checkpoint-*") if path.name.rpartition("-")[2].isdigit()]
    return sorted(numbered, key=step_of, reverse=True)


def step_of(checkpoint: Path) -> int:
    return int(checkpoint.name.rpartition("-")[2])


def flaw(checkpoint: Path, processes: int | None = None) -> str | None:
    """What keeps a run of so many processes from going on from this checkpoint; None where nothing does.

    Reads headers and directories of files, not their content.
    """
    try:
        json.loads((checkpoint / STATE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return UNFINISHED
    lacking = [part for part, patterns in PARTS.items() if not any(any(checkpoint.glob(name)) for name in patterns)]
    if lacking:
        hint = " (save_only_model leaves them out)" if len(lacking) == 3 and "weights" not in lacking else ""
        return f"it lacks {', '.join(lacking)}{hint}"
    shards = {name for index in checkpoint.glob("*.index.json") for name in weight_files(index)}
    states = [] if processes is None else [rng_file(rank, processes) for rank in range(processes)]
    absent = sorted(name for name in {*shards, *states} if not (checkpoint / name).is_file())
    if absent:
        other = " and may come from another number of processes" if absent[0] in states else ""
        return f"it lacks {', '.join(absent)}{other}"
    cut = sorted(path.name for path in written(checkpoint) if not is_whole(path))
    return f"cut off: {', '.join(cut)}" if cut else None


def weight_files(index: Path) -> list[str]:
    try:
        return list(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    except (ValueError, KeyError):
        return [f"the files named in {index.name}"]


def rng_file(rank: int, processes: int) -> str:
    return "rng_state.pth" if processes == 1 else f"rng_state_{rank}.pth"


def written(checkpoint: Path) -> set[Path]:
    files = [*checkpoint.rglob("*.safetensors"), *(path for name in ZIPPED for path in checkpoint.glob(name))]
    return {path for path in files if path.is_file()}


def is_whole(file: Path) -> bool:
    """Whether a file of safetensors or torch.save was written to its end: both say how long they are."""
    try:
        if file.suffix == ".safetensors":
            with safe_open(file, framework="pt"):
                return True
        with zipfile.ZipFile(file):
            return True
    except (SafetensorError, zipfile.BadZipFile):
        return False
