"""The texts of an evaluation on disk: every sample as it comes, what was asked, and why each got its grade.

samples.jsonl has one sample per line and is only ever added to, so that a killed run goes on with nothing lost.
problems.jsonl and grades.jsonl are written whole. All three lie in a folder that a `RunFolder` holds.
"""

import mmap
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..data.sources import json_lines, json_object, read_text
from ..generation.precomputed import samples_of_rows
from ..generation.samples import Sample, SampleKey
from ..run_folder import NO_ROOM, json_text, plain, write_whole
from .benchmarks import Problem
from .tasks import Task

SAMPLES, PROBLEMS, GRADES = "samples.jsonl", "problems.jsonl", "grades.jsonl"


class SampleLog:
    """The samples.jsonl of a folder. `samples` are those that are there, by key; `add` writes one more, at once.

    A last line that was cut off by a kill is dropped, to be drawn again. The file appears with the first sample.
    Raises ValueError for a damaged line, with its number.
    """

    def __init__(self, folder: str | Path) -> None:
        self.path = Path(folder) / SAMPLES
        self.samples = read_samples(self.path) if self.path.is_file() else {}
        self._file: int | None = None

    def __enter__(self) -> "SampleLog":
        return self

    def __exit__(self, *error: Any) -> None:
        if self._file is not None:
            os.close(self._file)

    def add(self, key: SampleKey, sample: Sample) -> None:
        """Write a sample. It is there for good on return, or not at all.

        Raises OSError where it cannot be written, on a full disk for instance; what was written before stays.
        """
        if self._file is None:
            self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
            cut_torn_line(self._file)
        size = os.fstat(self._file).st_size
        try:
            write_all(self._file, (json_text({**key._asdict(), **vars(sample)}) + "\n").encode())
        except OSError as error:
            os.ftruncate(self._file, size)
            if error.errno not in NO_ROOM:
                raise
            raise OSError(
                error.errno,
                f"No room to write to; the {len(self.samples)} samples written so far stay. Free some space and "
                "give the same command again: it goes on from there",
                str(self.path),
            ) from error
        self.samples[key] = sample


def read_samples(path: Path) -> dict[SampleKey, Sample]:
    """Every sample of a samples.jsonl in the order of its lines; a last line without a line feed does not count."""
    cure = "Delete the line to have that sample drawn again, or use another --output_dir."
    rows: dict[int, dict[str, Any]] = {}
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if line.strip() and line.endswith(b"\n"):
                    rows[number] = json_object(line.decode(), path, number)
        return samples_of_rows(rows, path)
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}, line {len(rows) + 1}: not UTF-8 text. {cure}") from error
    except ValueError as error:
        raise ValueError(f"{error} {cure}") from error


def write_all(file: int, line: bytes) -> None:
    """The system may take a part at a time."""
    while line:
        line = line[os.write(file, line) :]


def cut_torn_line(file: int) -> None:
    """Drop what follows the last line feed."""
    if os.fstat(file).st_size:
        with mmap.mmap(file, 0, access=mmap.ACCESS_READ) as content:
            end = content.rfind(b"\n") + 1
        os.ftruncate(file, end)


def problem_rows(tasks: Iterable[Task]) -> dict[str, list[dict[str, Any]]]:
    """The rows of problems.jsonl for each set, whatever number of tasks it is in."""
    return {
        task.name: [
            {"task": task.name, "id": problem.id, "problem": problem.text, "answer": problem.answer,
             "prompt": plain(prompt), "row": plain(problem.row) if task.grader not in (None, "math") else {}}
            for problem, prompt in zip(task.problems, task.prompts, strict=True)
        ]
        for task in tasks
    }  # fmt: skip


def check_same_problems(tasks: Iterable[Task], folder: Path) -> None:
    """ValueError where the folder holds another problem, or another prompt for it, under the same names."""
    known = {(row["task"], row["id"]): json_text(row) for row in read_lines(folder / PROBLEMS)}
    for name, rows in problem_rows(tasks).items():
        for row in rows:
            if (name, row["id"]) in known and known[name, row["id"]] != json_text(row):
                raise ValueError(
                    f"{folder} holds another set called {name}, or other prompts for it ({row['id']} differs). Give the set "
                    "another name, or use another --output_dir."
                )


def write_problems(tasks: Iterable[Task], folder: Path) -> None:
    """problems.jsonl; sets of earlier runs stay, and the longer of two beginnings of one set does."""
    sets: dict[str, list[dict[str, Any]]] = {}
    for row in read_lines(folder / PROBLEMS):
        sets.setdefault(row["task"], []).append(row)
    for name, rows in problem_rows(tasks).items():
        if len(rows) > len(sets.get(name, ())):
            sets[name] = rows
    write_lines(folder / PROBLEMS, [row for rows in sets.values() for row in rows])


def read_problems(folder: Path, name: str, number: int) -> tuple[list[Problem], list[Any]]:
    """The first so many problems of a set and their prompts."""
    rows = [row for row in read_lines(folder / PROBLEMS) if row["task"] == name][:number]
    if len(rows) < number:
        raise ValueError(f"{folder / PROBLEMS} has {len(rows)} problems of {name}, its results are of {number}.")
    problems = [Problem(row["id"], row["problem"], row["answer"], row["row"]) for row in rows]
    return problems, [row["prompt"] for row in rows]


def write_grades(task: Task, notes: Sequence[Sequence[Mapping[str, Any]]], folder: Path) -> None:
    """grades.jsonl with the notes [P][n] of a task in place of its earlier ones; samples without notes have no line."""
    keys = task.keys(len(notes[0]))
    flat = [note for row in notes for note in row]
    rows = [json_text({**key._asdict(), **note}) for key, note in zip(keys, flat, strict=True) if note]
    start = json_text({"task": task.name})[:-1] + ", "  # lines of other tasks are kept without being read
    path = folder / GRADES
    others = [
        line
        for line in (read_text(path).split("\n")[:-1] if path.is_file() else ())
        if not line.startswith(start) or json_object(line, path, 0)["temperature"] != task.sampled_at
    ]
    write_whole(path, "".join(f"{line}\n" for line in [*others, *rows]))


def read_lines(path: Path) -> list[dict[str, Any]]:
    return list(json_lines(read_text(path), path).values()) if path.is_file() else []


def write_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """A JSONL file, whole or not at all."""
    write_whole(path, "".join(json_text(row) + "\n" for row in rows))
