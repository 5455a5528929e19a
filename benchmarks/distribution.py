"""Which ways of spreading a run over ranks train what one rank trains on the same data.

    python benchmarks/distribution.py [ENGINE ...] [--write]

Runs the cases of tests/many_ranks.py on 2 and 4 ranks of every engine: on as many accelerators as there are, or on CPU
processes, where it takes 20 minutes. DeepSpeed takes part where it is installed. Records the differences in
benchmarks/results/distribution_<device>_<date>.json and writes the tables of docs/distribution.md from it; with --write only
the tables, from the newest record. With engines named, nothing is recorded.
"""

import datetime
import importlib.util
import json
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

import torch

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tests"))

import many_ranks  # noqa: E402

RECORDS = ROOT / "benchmarks/results"
PAGE = ROOT / "docs/distribution.md"
SECONDS = 900  # for the cases of one engine
FEW = ("nll", "empty rank", "packing", "reference", "reference, LoRA")
SHARDED = ("nll", "tied head", "empty rank", "reference", "reference, LoRA, head saved")
VARIANTS = ("fsdp2, one group", "fsdp2, kept whole", "zero3, loaded whole")
BF16 = {"bf16": "nll", "bf16, reference of its own": "reference of its own"}  # its twin in float32


def cases_of(engine: str, ranks: int) -> list[str]:
    if engine == "fully_shard":
        return list(many_ranks.ATTACHED)
    if engine in VARIANTS:
        return list(SHARDED) if ranks < 4 else []
    if ranks == 4:
        return list(FEW)
    offloads = many_ranks.device() != "cpu"  # activations, from an accelerator
    compiles = not engine.startswith("zero")  # for minutes
    left_out = {"activation offloading": not offloads, "torch.compile": not compiles}
    return [case for case in many_ranks.CASES if not left_out.get(case)]


def plan() -> dict[tuple[str, int], list[str]]:
    """{(engine, ranks): cases}, of what is installed and there."""
    limit = torch.accelerator.device_count() if many_ranks.device() != "cpu" else 4
    deepspeed = importlib.util.find_spec("deepspeed") is not None
    engines = [
        engine for engine in many_ranks.ENGINES if engine != "one" and (deepspeed or not engine.startswith("zero"))
    ]
    sizes = [ranks for ranks in (2, 4) if ranks <= limit] or [1]
    return {
        (engine, ranks): cases_of(engine, ranks) for engine in engines for ranks in sizes if cases_of(engine, ranks)
    }


def outcomes(folder: Path, engine: str, ranks: int, cases: list[str]) -> dict[str, dict]:
    """What each case left; the first one without a result stopped the others, which start again."""
    found, left = {}, list(cases)
    while left:
        said = many_ranks.finished(folder, engine, many_ranks.start(folder, engine, ranks, left), SECONDS)
        files = {case: folder / f"{engine}-{ranks}-{case}.pt" for case in left}
        found |= {case: torch.load(file) for case, file in files.items() if file.is_file()}
        left = [case for case in left if case not in found]
        if left:
            found[left.pop(0)] = {"failed": said.strip().splitlines()[-1] if said else "ended without a result"}
    return found


def measure(engines: list[str]) -> dict:
    cells, planned = [], {cell: cases for cell, cases in plan().items() if not engines or cell[0] in engines}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        many_ranks.write_models(folder)
        needed = dict.fromkeys(case for cases in planned.values() for case in cases)
        alone = outcomes(folder, "one", 1, list(needed))
        for (engine, ranks), cases in planned.items():
            found = outcomes(folder, engine, ranks, cases)
            cells += [compared(engine, ranks, case, alone[case], found[case]) for case in cases]
            print(*cells[-len(cases) :], sep="\n", file=sys.stderr, flush=True)
        cells += [compared("bf16 against float32", 1, case, alone[twin], alone[case]) for case, twin in BF16.items()]
    packages = ("torch", "accelerate", "transformers", "trl", "peft", "deepspeed")
    return {
        "date": datetime.date.today().isoformat(),
        "device": many_ranks.device(),
        "versions": {name: version(name) for name in packages if importlib.util.find_spec(name) is not None},
        "cells": cells,
    }


def compared(engine: str, ranks: int, case: str, one: dict, many: dict) -> dict:
    cell = {"engine": engine, "ranks": ranks, "case": case}
    for result in (one, many):
        if "after" not in result:
            return cell | result
    loss, update = many_ranks.difference(one, many)
    return cell | {"loss": float(f"{loss:.1e}"), "update": float(f"{update:.1e}")}


def shown(cell: dict | None) -> str:
    """The larger of the differences of loss and update, or why there is none."""
    if cell is None:
        return "-"
    return f"{max(cell['loss'], cell['update']):.0e}" if "loss" in cell else next(w for w in cell if w in WORDS)


WORDS = ("refused", "failed")


def table(header: tuple[str, ...], rows: list[list[str]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in (header, ["---"] * len(header), *rows))


def matrix(record: dict, own_loop: bool) -> str:
    cells = [cell for cell in record["cells"] if (cell["engine"] == "fully_shard") == own_loop]
    columns = list(dict.fromkeys((cell["engine"], cell["ranks"]) for cell in cells))
    found = {(cell["case"], cell["engine"], cell["ranks"]): cell for cell in cells}
    names = [f"{engine}, {ranks} ranks" if ranks > 1 else f"{engine}, 1 rank" for engine, ranks in columns]
    cases = dict.fromkeys(cell["case"] for cell in cells)
    body = [[case, *(shown(found.get((case, *column))) for column in columns)] for case in cases]
    return table(("case", *names), body)


def reasons(record: dict) -> str:
    body = [
        [cell["engine"], str(cell["ranks"]), cell["case"], word, cell[word]]
        for cell in record["cells"]
        for word in WORDS
        if word in cell
    ]
    return table(("engine", "ranks", "case", "what", "why"), body) if body else "Nothing was refused, nothing failed."


def summary(record: dict) -> str:
    exact = [cell for cell in record["cells"] if "loss" in cell and "bf16" not in cell["case"]]
    worst = max(max(cell["loss"], cell["update"]) for cell in exact)
    versions = ", ".join(f"{name} {number}" for name, number in record["versions"].items())
    return (
        f"Largest difference of {len(exact)} cells in float32: {worst:.0e}. Measured on {record['date']} on ranks of device "
        f"{record['device']} with {versions}."
    )


PARTS = {
    "summary": summary,
    "matrix": lambda record: matrix(record, own_loop=False),
    "own loop": lambda record: matrix(record, own_loop=True),
    "reasons": reasons,
}


def page(text: str, record: dict) -> str:
    """The page with its generated parts made anew."""
    for name, build in PARTS.items():
        start, end = f"<!-- {name}: generated by benchmarks/distribution.py -->", f"<!-- /{name} -->"
        head, rest = text.split(start)
        text = f"{head}{start}\n\n{build(record)}\n\n{end}{rest.split(end)[1]}"
    return text


def main() -> None:
    engines = [word for word in sys.argv[1:] if word != "--write"]
    if "--write" not in sys.argv:
        record = measure(engines)
        print(matrix(record, own_loop=False), matrix(record, own_loop=True), reasons(record), sep="\n\n")
        if engines:
            return
        lines = json.dumps(record).replace('}, {"', '},\n {"')
        (RECORDS / f"distribution_{record['device']}_{record['date']}.json").write_text(lines + "\n")
    record = json.loads(max(RECORDS.glob("distribution_*.json"), key=lambda path: path.stem[-10:]).read_text())
    PAGE.write_text(page(PAGE.read_text(), record))
    print(summary(record))


if __name__ == "__main__":
    main()
