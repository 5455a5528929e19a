"""The browser of completions: questions, and what every model answered, grouped by final answer.

Reads problems.jsonl, samples.jsonl and grades.jsonl of the evaluations. A page holds a spread of them and says what it
leaves out.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .claims import STAGE_WORDS
from .compare import Row, Study
from .table import Completions

PROBLEMS = 240  # read at most, over all tasks
BYTES = 2_200_000  # of JSON in the page
LENGTH = 1500  # characters shown of a text
EXAMPLES = 2  # texts shown of one answer
ANSWER = 160  # characters of an answer by which texts are grouped where no final answer is known


def completions(study: Study, folder: Path) -> Completions | None:
    """What the page shows: one seed of every row, the same problems for all. None where there are no texts."""
    columns = [column for row in study.main_rows for stage in study.stages if (column := column_of(study, row, stage))]
    tasks = {task: [] for column in columns for task in column["tasks"]}
    for column in columns:
        for line in lines(column["folder"] / "problems.jsonl"):
            if line["task"] in tasks and line["id"] not in {problem["id"] for problem in tasks[line["task"]]}:
                tasks[line["task"]].append(line)
    total = sum(map(len, tasks.values()))
    if not total:
        return None
    each = max(1, PROBLEMS // len(tasks))
    chosen = {(line["task"], line["id"]): line for rows in tasks.values() for line in spread(rows, each)}
    cells = [answers(column, chosen.keys()) for column in columns]
    shown, size = [], 0
    for key in alternating(list(chosen)):
        problem = {
            "task": key[0], "id": key[1], "question": cut(as_text(chosen[key]["problem"])),
            "answer": cut(as_text(chosen[key]["answer"])), "cells": [cell.get(key, []) for cell in cells],
        }  # fmt: skip
        size += len(json.dumps(problem))
        if size > BYTES and shown:
            break
        shown.append(problem)
    order = list(chosen)
    shown.sort(key=lambda problem: order.index((problem["task"], problem["id"])))
    data = {
        "columns": [{"label": column["label"], "series": column["series"], "last": column["last"],
                     "link": relative(column["folder"] / "samples.jsonl", folder)} for column in columns],
        "problems": shown,
    }  # fmt: skip
    seeds = {column["seed"] for column in columns} - {None}
    text = f"Shows {len(shown)} of {total} problems, spread over {len(tasks)} task{'s' * (len(tasks) > 1)}"
    text += f", of seed {min(seeds):g} alone" if len({seed for _, _, seed in study.runs}) > 1 and seeds else ""
    text += f"; of each answer at most {EXAMPLES} texts, cut at {LENGTH:,} characters. Everything is in samples.jsonl."
    return Completions(data, text)


def column_of(study: Study, row: Row, stage: str) -> dict[str, Any] | None:
    """The first seed of a row whose texts are on disk."""
    for (method, run_stage, seed), run in study.runs.items():
        folder = run.get("folder")
        if (method, run_stage) == (row.method, stage) and folder and (Path(folder) / "samples.jsonl").is_file():
            tasks = {
                name: (entry.get("sampling") or {}).get("temperature")
                for (of, at, of_seed, name), entry in study.facts.items()
                if (of, at, of_seed) == (row, stage, None if seed is None else float(seed))
            }
            label = " · ".join(part for part in (row.label, STAGE_WORDS[stage]) if part)
            return {
                "label": label,
                "series": study.name(row),
                "folder": Path(folder),
                "tasks": tasks,
                "seed": seed,
                "last": stage == study.stages[-1],
            }
    return None


def answers(column: dict[str, Any], chosen: Any) -> dict[tuple[str, str], list[dict[str, Any]]]:
    """{(task, problem): groups of equal answers, the commonest first} of one row."""
    grades = {
        key_of(line): line for line in lines(column["folder"] / "grades.jsonl") if (line["task"], line["id"]) in chosen
    }
    groups: dict[tuple[str, str], dict[tuple[str, str], dict[str, Any]]] = {}
    for line in lines(column["folder"] / "samples.jsonl"):
        key, temperature = (line["task"], line["id"]), column["tasks"].get(line["task"])
        if key not in chosen or line["task"] not in column["tasks"] or temperature not in (None, line["temperature"]):
            continue
        grade = grades.get(key_of(line), {})
        answer = grade.get("extracted") or cut(" ".join(line["text"].split()), ANSWER)
        verdict = verdict_of(grade)
        group = groups.setdefault(key, {}).setdefault(
            (answer, verdict),
            {"answer": answer, "verdict": verdict, "reason": grade.get("reason") or "", "count": 0, "texts": []},
        )
        group["count"] += 1
        text = cut(line["text"])
        if len(group["texts"]) < EXAMPLES and text not in group["texts"]:
            group["texts"].append(text)
    return {key: sorted(by_text.values(), key=lambda group: -group["count"]) for key, by_text in groups.items()}


def verdict_of(grade: dict[str, Any]) -> str:
    if not grade:
        return "not graded"
    if grade["correct"]:
        return "right"
    return "no answer" if "extracted" in grade and not grade["extracted"] else "wrong"


def key_of(line: dict[str, Any]) -> tuple[Any, ...]:
    return line["task"], line["id"], line["temperature"], line["index"]


def lines(path: Path) -> Iterator[dict[str, Any]]:
    if path.is_file():
        with path.open(encoding="utf-8") as file:
            for line in file:
                if line.endswith("\n") and line.strip():
                    yield json.loads(line)


def spread(rows: list[Any], number: int) -> list[Any]:
    """So many of the rows, evenly spread over them."""
    return rows if len(rows) <= number else [rows[place * len(rows) // number] for place in range(number)]


def alternating(keys: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """The tasks in turn, so that a page that is full early has some of each."""
    by_task: dict[str, list[tuple[str, str]]] = {}
    for key in keys:
        by_task.setdefault(key[0], []).append(key)
    longest = max(map(len, by_task.values()), default=0)
    return [items[place] for place in range(longest) for items in by_task.values() if place < len(items)]


def as_text(value: Any) -> str:
    """A problem as it is shown; the messages of a conversation one below the other."""
    if isinstance(value, list):
        return "\n\n".join(
            f"{message['role']}: {message['content']}" if isinstance(message, dict) else str(message)
            for message in value
        )
    return "" if value is None else str(value)


def cut(text: str, length: int = LENGTH) -> str:
    return text if len(text) <= length else text[:length].rstrip() + " …"


def relative(path: Path, folder: Path) -> str:
    return Path(os.path.relpath(path, folder.absolute())).as_posix()
