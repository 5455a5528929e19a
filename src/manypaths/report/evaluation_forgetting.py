"""The table of what was forgotten: general tasks under the base and under the tuned model."""

from collections.abc import Mapping
from typing import Any

from .evaluation_cells import interval_cell, signed_cell
from .evaluation_summary import Evaluations, score_of
from .evaluation_wording import TAX_TEXT, task_label
from .layout import Cell, Row, Table
from .wording import Score

PERCENT = Score("", "", 100, 1, "")
COLUMNS = [
    ("base", "score of the base, percent"),
    ("tuned", "score of the tuned model, percent"),
    ("difference", "tuned minus base, percentage points; in the last rows base minus tuned"),
    ("metric", "metric of lm-eval and, where it has several, the filter that reads the answer"),
    ("shots", "solved examples in the prompt"),
    ("items", "questions that both models answered"),
]


def forgetting_of(found: Evaluations) -> dict[str, Mapping[str, Any]]:
    """{model: what it forgot} of the models where that was measured."""
    return {one["label"]: one["forgetting"] for one in found.results if (one.get("forgetting") or {}).get("tasks")}


def forgetting_table(found: Evaluations) -> Table | None:
    """A row a task and model with base, tuned, their difference and how it was measured; last the alignment tax."""
    results = forgetting_of(found)
    if not results:
        return None
    tasks = dict.fromkeys(task for own in results.values() for task in own["tasks"])
    rows, notes = [], []
    for task in tasks:
        for label, own in results.items():
            if task in own["tasks"]:
                name = task_label(task) if len(results) == 1 else f"{task_label(task)}: {label}"
                part = own["tasks"][task]
                hint = f"base: {own.get('base', 'unknown')}; task version {part.get('version', 'unknown')}"
                rows.append(Row(task, name, "method", _task_cells(part), hint))
                notes += [f"{name}: {note}." for note in _task_notes(part)]
    for label, own in results.items():
        name = "alignment tax" if len(results) == 1 else f"alignment tax: {label}"
        rows.append(Row(label, name, "method", _tax_cells(own), f"base: {own.get('base', 'unknown')}"))
        if own.get("limit") is not None:
            notes.append(f"{label}: only the first {own['limit']} items of each task.")
    return Table("Base and tuned", COLUMNS, rows, " ".join([TAX_TEXT, *notes]))


def _task_cells(part: Mapping[str, Any]) -> list[Cell]:
    shots = part.get("shots")
    return [
        *(interval_cell(score_of({"scores": part}, side), PERCENT) for side in ("base", "tuned")),
        signed_cell(score_of({"scores": part}, "difference"), PERCENT),
        Cell(", ".join(str(part[key]) for key in ("metric", "filter") if part.get(key) not in (None, "none"))),
        Cell(", ".join(map(str, shots)) if isinstance(shots, (list, tuple)) else "" if shots is None else str(shots)),
        Cell(str(part["difference"].get("n", ""))),
    ]


def _tax_cells(own: Mapping[str, Any]) -> list[Cell]:
    tax = score_of({"scores": own}, "alignment_tax")
    number = len(own["tasks"])
    tasks = Cell(f"{number} task{'s' if number != 1 else ''}")
    return [Cell(""), Cell(""), signed_cell(tax, PERCENT), Cell("base - tuned"), Cell(""), tasks]


def _task_notes(part: Mapping[str, Any]) -> list[str]:
    notes = [part["difference"]["note"]] if part["difference"].get("note") else []
    cut = [f"{part[side]['truncated']} ({side})" for side in ("base", "tuned") if part[side].get("truncated")]
    return [*notes, *([f"{' and '.join(cut)} items did not fit the context"] if cut else [])]
