"""The samples of one evaluation on disk, written as they come, so that a killed run goes on with nothing lost.

samples.jsonl holds one sample per line, samples.meta.json the settings they were drawn with. The file is locked
while a run writes to it; the kernel frees the lock when the run ends, however it ends.
"""

import errno
import json
import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

from ..data.sources import json_object
from ..generation.samples import Sample
from .results import NO_ROOM, json_text, write_whole

SAMPLES = "samples.jsonl"
SETTINGS = "samples.meta.json"
LOCK = ".lock"
TASKS = "tasks"
BACKENDS = "drawn_with"
MOST_NAMED = 5  # settings in one message
NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS)
NUMBER = (int, float)
FIELDS: dict[str, tuple[type, ...]] = {
    "benchmark": (str,),
    "id": (str,),
    "temperature": (*NUMBER, type(None)),
    "index": (int,),
    "text": (str,),
    "stop": (str, type(None)),
    "num_tokens": (int, type(None)),
    "logprob": (*NUMBER, type(None)),
}


class SampleKey(NamedTuple):
    """What one sample is: number `index` (from 0) for problem `id` of `benchmark` at this temperature.

    Benchmark and temperature are None where a file made elsewhere does not say.
    """

    benchmark: str | None
    id: str
    temperature: float | None
    index: int


class SampleStore:
    """The samples of one folder, open for one run at a time; use it as a context manager.

    samples: what is there, {key: sample}, without token ids. `add` writes one more, at once.
    drawn_with: the backends that samples came from, which `note` adds to.

    Args:
        folder: made when missing.
        settings: JSON values that decide what all samples are (model, numeric type, ...).
        tasks: {name: settings} of sets of samples (prompts, seed, token limit, ...), nested as one likes. What was not
            there before joins; what was there must be the same.

    Raises ValueError where another run holds the folder, its samples were drawn with other settings, or a line is
    damaged. A last line that was cut off by a kill is dropped, to be drawn again.
    """

    def __init__(
        self, folder: str | Path, settings: Mapping[str, Any], tasks: Mapping[str, Mapping[str, Any]] | None = None
    ) -> None:
        self.path = Path(folder) / SAMPLES
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
        try:
            lock(self._file, self.path.parent)
            self._size = cut_torn_line(self._file)
            self.samples = read_samples(self.path)
            self._meta = claimed(Path(folder) / SETTINGS, settings, tasks or {}, len(self.samples))
        except BaseException:
            os.close(self._file)
            raise

    def __enter__(self) -> "SampleStore":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Free the folder for other runs. Closing twice is fine."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    @property
    def drawn_with(self) -> list[str]:
        return self._meta[BACKENDS]

    def note(self, backend: str) -> None:
        """Remember that samples come from this backend."""
        if backend not in self.drawn_with:
            self.drawn_with.append(backend)
            write_meta(self.path.with_name(SETTINGS), self._meta)

    def add(self, key: SampleKey, sample: Sample) -> None:
        """Write a sample. It is there for good on return, or not at all.

        Raises ValueError for a key that is there already, OSError where it cannot be written, on a full disk for
        instance; what was written before stays.
        """
        if key in self.samples:
            raise ValueError(f"{self.path} already holds {named(key)}.")
        line = sample_line(key, sample)
        try:
            write_all(self._file, line)
        except OSError as error:
            os.ftruncate(self._file, self._size)
            if error.errno not in NO_ROOM:
                raise
            raise OSError(
                error.errno,
                f"No room to write to; the {len(self.samples)} samples written so far stay. Free some space and "
                "give the same command again: it goes on from there",
                str(self.path),
            ) from error
        self._size += len(line)
        self.samples[key] = Sample(sample.text, None, sample.stop, sample.num_tokens, sample.logprob)


def read_samples(path: str | Path) -> dict[SampleKey, Sample]:
    """Every sample of a samples.jsonl, in the order of its lines; token ids are not kept there.

    A last line without a line feed was cut off by a kill and does not count.
    Raises FileNotFoundError, or ValueError with file and line for a damaged or repeated sample.
    """
    samples: dict[SampleKey, Sample] = {}
    cure = "Delete the line to have that sample drawn again, or use another --output_dir."
    with Path(path).open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip() or not line.endswith(b"\n"):
                continue
            try:
                row = json_object(line.decode(), Path(path), number)
                key = sample_key(row, f"{path}, line {number}")
                if key in samples:
                    raise ValueError(f"{path}, line {number}: {named(key)} is there twice.")
            except UnicodeDecodeError as error:
                raise ValueError(f"{path}, line {number}: not UTF-8 text. {cure}") from error
            except ValueError as error:
                raise ValueError(f"{error} {cure}") from error
            samples[key] = Sample(row["text"], None, row["stop"], row["num_tokens"], row["logprob"])
    return samples


def sample_key(row: dict[str, Any], where: str) -> SampleKey:
    """The key of a line; ValueError for a field that is missing or of another type."""
    for name, types in FIELDS.items():
        if name not in row:
            raise ValueError(f"{where}: no {name}.")
        if not isinstance(row[name], types) or isinstance(row[name], bool):
            raise ValueError(f"{where}: {name} cannot be {shortened(row[name])}.")
    return SampleKey(row["benchmark"], row["id"], row["temperature"], row["index"])


def sample_line(key: SampleKey, sample: Sample) -> bytes:
    row = {**key._asdict(), "text": sample.text, "stop": sample.stop}
    row |= {"num_tokens": sample.num_tokens, "logprob": sample.logprob}
    return (json_text(row) + "\n").encode()


def named(key: SampleKey) -> str:
    heat = "" if key.temperature is None else f" at temperature {key.temperature}"
    return f"sample {key.index} of {key.benchmark or 'problem'} {key.id}{heat}"


def write_all(file: int, line: bytes) -> None:
    """The system may take a part at a time."""
    while line:
        line = line[os.write(file, line) :]


def cut_torn_line(file: int) -> int:
    """Drop what follows the last line feed; returns the size in bytes that is left."""
    size = os.fstat(file).st_size
    end, block = size, 1 << 16
    while end > 0:
        start = max(0, end - block)
        feed = os.pread(file, end - start, start).rfind(b"\n")
        if feed >= 0:
            end = start + feed + 1
            break
        end = start
    if end < size:
        os.ftruncate(file, end)
    return end


def lock(file: int, folder: Path) -> None:
    """An exclusive lock until the file is closed; ValueError where another process has it."""
    import fcntl

    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise ValueError(
            f"Another run is writing to {folder}. Wait until it ends, or use another --output_dir."
        ) from error
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        warnings.warn(
            f"{folder} is on a file system without locks: see to it that no second run writes there.", stacklevel=2
        )


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """The folder, made when missing, for this run alone. One that was made and got nothing goes again."""
    is_new = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with (folder / LOCK).open("ab") as file:
            lock(file.fileno(), folder)
            yield
    finally:
        if is_new and [path.name for path in folder.iterdir()] == [LOCK]:
            (folder / LOCK).unlink()
            folder.rmdir()


def claimed(path: Path, settings: Mapping[str, Any], tasks: Mapping[str, Any], num_samples: int) -> dict[str, Any]:
    """What stands beside the samples from now on, after a check that they were drawn with these settings."""
    settings, tasks = json.loads(json.dumps([dict(settings), dict(tasks)]))
    meta = {**settings, TASKS: tasks, BACKENDS: []}
    cure = f"Use another --output_dir, or delete {SAMPLES} and {SETTINGS} in {path.parent} to draw anew."
    if num_samples:
        if not path.is_file():
            raise ValueError(f"{path.parent / SAMPLES} has {num_samples} samples but {path.name} is missing. {cure}")
        try:
            stored = json.loads(path.read_text(encoding="utf-8"))
            meta[BACKENDS], known = stored.pop(BACKENDS), stored.pop(TASKS)
        except (ValueError, KeyError) as error:
            raise ValueError(f"{path} is damaged ({error}). {cure}") from error
        meta[TASKS] = joined(tasks, known)
        changes = differences(stored, settings) + differences(joined(known, tasks), meta[TASKS], TASKS)
        if changes:
            more = f" and {len(changes) - MOST_NAMED} more" if len(changes) > MOST_NAMED else ""
            raise ValueError(
                f"{path.parent} holds {num_samples} samples drawn with other settings: "
                f"{'; '.join(changes[:MOST_NAMED])}{more}. {cure}"
            )
    write_meta(path, meta)
    return meta


def write_meta(path: Path, meta: Mapping[str, Any]) -> None:
    write_whole(path, json.dumps(meta, indent=1) + "\n")


def joined(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    """Both, nested mappings joined likewise; where values differ the first's."""
    both = {key: joined(first[key], second[key]) for key in first if isinstance(first[key], dict) and key in second}
    return {**second, **first, **both}


def differences(stored: Any, asked: Any, name: str = "") -> list[str]:
    """Each setting that differs, as "name: stored value, now asked value"; names of nested ones are dotted."""
    if isinstance(stored, dict) and isinstance(asked, dict):
        found = []
        for key in [*stored, *(key for key in asked if key not in stored)]:
            dotted = f"{name}.{key}" if name else key
            found += differences(stored.get(key, ABSENT), asked.get(key, ABSENT), dotted)
        return found
    if stored == asked:
        return []
    return [f"{name}: {shortened(stored)}, now {shortened(asked)}"]


ABSENT = type("Absent", (), {"__repr__": lambda self: "absent"})()


def shortened(value: Any, length: int = 80) -> str:
    text = repr(value)
    return text if len(text) <= length else text[: length - 3] + "..."
