"""Which models and adapters train exactly: every objective against the naive path, on tiny random models.

    python benchmarks/model_families.py [--write]

Measures all of tests/model_families.py through `attach` and through `SFTTrainer`, records the differences in
benchmarks/results/model_families_<date>.json and writes the tables of docs/models.md from it. With --write only the tables
are written, from the newest record.
"""

import datetime
import json
import re
import sys
import tempfile
import warnings
from importlib.metadata import version
from pathlib import Path

from manypaths.models.refusals import REFUSALS

ROOT = Path(__file__).parent.parent
RECORDS = ROOT / "benchmarks/results"
PAGE = ROOT / "docs/models.md"
PACKAGES = ("torch", "transformers", "trl", "peft", "bitsandbytes", "torchao")
MEASURED = ("exact", "exact in float32", "differs")


def measure() -> dict:
    """All rows: minutes of CPU time."""
    sys.path.insert(0, str(ROOT / "tests"))
    import model_families as tiny

    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for family in tiny.FAMILIES:
            row = tiny.measured_family(family)
            if row["status"] in MEASURED and "multimodal" not in row["features"]:
                row["trainer"] = tiny.measured(tiny.trained_differences, tiny.tiny_model(family), folder)
            rows.append(row)
            print(family, row["status"], row.get("trainer", {}).get("status", ""), file=sys.stderr, flush=True)
        adapters = []
        for adapter in tiny.ADAPTERS:
            row = {"adapter": adapter, **tiny.measured(tiny.attached_differences, tiny.adapted_model(adapter))}
            row["trainer"] = tiny.measured(tiny.trained_differences, tiny.adapted_model(adapter), folder)
            adapters.append(row)
    return {
        "date": datetime.date.today().isoformat(),
        "versions": {name: version(name) for name in PACKAGES},
        "objectives": list(tiny.OBJECTIVES),
        "families": rows,
        "adapters": adapters,
    }


def largest(row: dict) -> str:
    """The largest difference of a loss and of a gradient over the objectives, or the status."""
    if "differences" not in row:
        return row.get("status", "-")
    loss, gradient = (max(pair[i] for pair in row["differences"].values()) for i in (0, 1))
    return f"{loss:.0e}, {gradient:.0e}"


def cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")


def table(header: str, rows: list[list[str]]) -> str:
    columns = header.split(" | ")
    lines = [f"| {header} |", "|" + "---|" * len(columns), *(f"| {' | '.join(map(cell, row))} |" for row in rows)]
    return "\n".join(lines)


def families_table(record: dict) -> str:
    rows = [row for row in record["families"] if row["status"].startswith("exact")]
    body = [
        [row["family"], row["class"], ", ".join(row["features"]) or "-", largest(row), largest(row.get("trainer", {}))]
        for row in rows
    ]
    return table("family | class | its head and loss | attach: loss, gradient | trainer: loss, gradient", body)


def left_out_table(record: dict) -> str:
    rows = [row for row in record["families"] if not row["status"].startswith("exact")]
    rows.sort(key=lambda row: (row["status"], row["family"]))
    return table("family | what | why", [[row["family"], row["status"], reason(row)] for row in rows])


def reason(row: dict) -> str:
    if "differences" in row:
        return f"loss, gradient off by {largest(row)}"
    return row["reason"]


def adapters_table(record: dict) -> str:
    body = []
    for row in record["adapters"]:
        refusals = {part["reason"]: None for part in (row, row["trainer"]) if "reason" in part}
        body.append([row["adapter"], largest(row), largest(row["trainer"]), " / ".join(refusals) or "-"])
    return table("adapter | attach: loss, gradient | trainer: loss, gradient | refused with", body)


def summary(record: dict) -> str:
    families, adapters = record["families"], record["adapters"]
    exact = sum(row["status"].startswith("exact") for row in families)
    versions = ", ".join(f"{name} {number}" for name, number in record["versions"].items())
    return (
        f"{exact} of {len(families)} families and {sum(row['status'].startswith('exact') for row in adapters)} of "
        f"{len(adapters)} adapters train exactly. Measured on {record['date']} with {versions}, for "
        f"{', '.join(f'`{name}`' for name in record['objectives'])}."
    )


def refusals_table(_: dict) -> str:
    """From the code that refuses; what stands in underscores is a fact of the case."""
    body = [[name, *(re.sub(r"{(\w+)}", r"_\1_", text) for text in one)] for name, one in REFUSALS.items()]
    return table("case | reason | instead", body)


PARTS = {
    "summary": summary,
    "families": families_table,
    "left out": left_out_table,
    "adapters": adapters_table,
    "refusals": refusals_table,
}


def page(text: str, record: dict) -> str:
    """The page with its generated parts made anew."""
    for name, build in PARTS.items():
        start, end = f"<!-- {name}: generated by benchmarks/model_families.py -->", f"<!-- /{name} -->"
        head, rest = text.split(start)
        text = f"{head}{start}\n\n{build(record)}\n\n{end}{rest.split(end)[1]}"
    return text


def newest_record() -> dict:
    return json.loads(max(RECORDS.glob("model_families_*.json")).read_text())


def main() -> None:
    if "--write" not in sys.argv:
        warnings.filterwarnings("ignore")
        record = measure()
        lines = json.dumps(record, indent=None, separators=(", ", ": ")).replace('}, {"', '},\n {"')
        (RECORDS / f"model_families_{record['date']}.json").write_text(lines + "\n")
    PAGE.write_text(page(PAGE.read_text(), newest_record()))
    print(summary(newest_record()))


if __name__ == "__main__":
    main()
