"""Stage functions that worker processes import."""

import time
from pathlib import Path


def add(folder, parents, *, value):
    (folder / "value.txt").write_text(str(value))
    return {"value": value + sum(result["value"] for _, result in parents)}


def read_parent(folder, parents):
    return {"text": (parents[0][0] / "value.txt").read_text()}


def count_runs(folder, parents, *, counter):
    with Path(counter).open("a") as file:
        file.write("x")
    return {"value": 1}


def fail(folder, parents):
    (folder / "half.txt").write_text("half")
    raise ValueError("no luck")


def slow(folder, parents, *, started):
    (folder / "half.txt").write_text("half")
    Path(started).write_text("yes")
    time.sleep(120)
    return {}
