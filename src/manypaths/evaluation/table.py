"""Everything measured, as two tidy tables: scores, and the items they are made of. One file of results for all.

An evaluation and an experiment write the same two files: `results.json` (scores, what was run, how it was sampled) and
`items.parquet` (a value per problem or text). An experiment's are those of its evaluations, put together.

A row of either table belongs to (method, stage, seed, temperature, task). `temperature` is what was asked for, NaN for
each task's own default; `seed` is NaN where unknown.
"""

import datetime
import io
import json
import math
import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import pandas as pd

from ..run_folder import json_text, write_whole

SCHEMA = 3
RESULTS, ITEMS_FILE = "results.json", "items.parquet"
KEYS = ["method", "stage", "seed", "temperature", "task"]
SCORES = [*KEYS, "metric", "value", "low", "high", "n", "over", "unit", "flags"]
ITEMS = [*KEYS, "item", "metric", "value"]
NUMBERS = ("seed", "temperature", "value", "low", "high", "n")
AVERAGE = "average"  # the task that stands for the mean over benchmarks
LIBRARIES = ("manypaths", "torch", "transformers", "trl", "datasets", "math-verify", "sacrebleu")
OPTIONAL_LIBRARIES = ("vllm", "lm_eval", "sentence-transformers", "ray")


def score_frame(rows: Iterable[Mapping[str, Any]] = ()) -> pd.DataFrame:
    """A table of scores; what a row does not say is NaN, or "" where it is a word."""
    return frame(rows, SCORES)


def item_frame(rows: Iterable[Mapping[str, Any]] = ()) -> pd.DataFrame:
    return frame(rows, ITEMS)


def frame(rows: Iterable[Mapping[str, Any]], columns: Sequence[str]) -> pd.DataFrame:
    table = pd.DataFrame(list(rows), columns=columns)
    words = [name for name in columns if name not in NUMBERS]
    table[words] = table[words].fillna("")
    return table.astype({name: "float64" if name in NUMBERS else "str" for name in columns})


@dataclass(frozen=True)
class Results:
    """The results of one evaluation, of an experiment, or of several of them together.

    runs: what was evaluated, an entry for each; `folder`, with its samples and grades, is an absolute path here and a
    relative one in the file. tasks: how each task was sampled and graded. left_out: what was not run or failed, and why.
    header: created, versions, hardware, settings. folders: where these results were read, in the order given.
    """

    scores: pd.DataFrame = field(default_factory=score_frame)
    items: pd.DataFrame = field(default_factory=item_frame)
    runs: list[dict[str, Any]] = field(default_factory=list)
    tasks: list[dict[str, Any]] = field(default_factory=list)
    left_out: list[dict[str, Any]] = field(default_factory=list)
    experiment: dict[str, Any] | None = None
    header: dict[str, Any] = field(default_factory=dict)
    folders: tuple[Path, ...] = ()


def new_header(settings: Mapping[str, Any]) -> dict[str, Any]:
    """When, with which libraries, on which machine, and what was asked for."""
    now = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
    return {"created": now, "versions": versions(), "hardware": hardware(), "settings": dict(settings)}


def versions() -> dict[str, str]:
    known = {name: version(name) for name in LIBRARIES}
    for name in OPTIONAL_LIBRARIES:
        try:
            known[name] = version(name)
        except PackageNotFoundError:
            continue
    return known


def hardware() -> dict[str, Any]:
    import torch

    gpus = [torch.cuda.get_device_name(place) for place in range(torch.cuda.device_count())]
    return {"machine": platform.machine(), "cpus": os.cpu_count(), "gpus": gpus}


def write_results(results: Results, folder: str | Path) -> Path:
    """items.parquet and results.json in `folder`, which is made when missing; each whole or not at all."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    results.items.to_parquet(buffer, index=False)
    write_whole(folder / ITEMS_FILE, buffer.getvalue())

    def relative(inner: str) -> str:
        return os.path.relpath(inner, folder.absolute())

    content = {
        "schema": SCHEMA,
        **results.header,
        "runs": [with_path(run, "folder", relative) for run in results.runs],
        "tasks": results.tasks,
        "scores": results.scores.to_dict("records"),
        "left_out": [with_path(entry, "log", relative) for entry in results.left_out],
        "experiment": results.experiment,
    }
    path = folder / RESULTS
    write_whole(path, json_text(without_nan(content), indent=1) + "\n")
    return path


def with_path(entry: Mapping[str, Any], name: str, change: Any) -> dict[str, Any]:
    return {**entry, name: change(entry[name])} if entry.get(name) else dict(entry)


def without_nan(value: Any) -> Any:
    """The same with null for NaN, which is no JSON."""
    if isinstance(value, Mapping):
        return {key: without_nan(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_nan(inner) for inner in value]
    return None if isinstance(value, float) and math.isnan(value) else value


Folders = str | Path | Iterable[str | Path]


def load_scores(folders: Folders) -> pd.DataFrame:
    """The scores of evaluations and experiments, in any mix: folders, or paths of their results.json."""
    return load_results(folders).scores


def load_items(folders: Folders) -> pd.DataFrame:
    """The values per problem or text of evaluations and experiments, in any mix."""
    return load_results(folders).items


def load_results(folders: Folders) -> Results:
    """Evaluations and experiments, in any mix, put together.

    Raises FileNotFoundError for what is not there, ValueError for a file of another kind or schema, or where two hold
    the same method, stage, seed, temperature and task.
    """
    folders = [folders] if isinstance(folders, (str, Path)) else list(folders)
    return join([read_results(Path(folder)) for folder in folders])


def read_results(path: Path) -> Results:
    folder = path.parent if path.is_file() else path
    path = folder / RESULTS
    if not path.is_file():
        raise FileNotFoundError(f"{folder} holds no finished evaluation or experiment: it has no {RESULTS}.")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        schema = content["schema"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is not a file of results of manypaths. Name the folder of an evaluation.") from error
    if schema != SCHEMA:
        raise ValueError(f"{path} has schema {schema}, this version reads {SCHEMA}: evaluate again in a new folder.")
    if not (folder / ITEMS_FILE).is_file():
        raise FileNotFoundError(f"{folder} lacks {ITEMS_FILE}, which belongs to its {RESULTS}: evaluate again.")

    def absolute(inner: str) -> str:
        return os.path.normpath(folder.absolute() / inner)

    return Results(
        score_frame(content["scores"]),
        pd.read_parquet(folder / ITEMS_FILE).astype({name: "str" for name in ITEMS if name not in NUMBERS}),
        [with_path(run, "folder", absolute) for run in content["runs"]],
        content["tasks"],
        [with_path(entry, "log", absolute) for entry in content["left_out"]],
        content["experiment"],
        {name: content[name] for name in ("created", "versions", "hardware", "settings")},
        (folder,),
    )


def given(results: Results, method: str, stage: str, seed: float | None, **facts: Any) -> Results:
    """The same results of one evaluation under another method, stage and seed; `facts` are added to its run."""
    names = {"method": method, "stage": stage, "seed": seed}
    columns = {**names, "seed": math.nan if seed is None else float(seed)}
    return replace(
        results,
        scores=results.scores.assign(**columns),
        items=results.items.assign(**columns),
        runs=[{**run, **names, **facts} for run in results.runs],
        tasks=[{**task, **names} for task in results.tasks],
    )


def join(several: Sequence[Results]) -> Results:
    """All rows of several results. The header is that of the first, and so is the experiment, if any has one.

    Raises ValueError where two hold the same method, stage, seed, temperature and task.
    """
    owners: dict[tuple[Any, ...], Results] = {}
    for results in several:
        for values in results.scores[KEYS].drop_duplicates().itertuples(index=False, name=None):
            key = tuple(None if value != value else value for value in values)
            if key in owners:
                raise ValueError(twice(key, owners[key], results))
            owners[key] = results
    experiments = [results.experiment for results in several if results.experiment is not None]
    return Results(
        pd.concat([score_frame(), *(results.scores for results in several)], ignore_index=True),
        pd.concat([item_frame(), *(results.items for results in several)], ignore_index=True),
        [run for results in several for run in results.runs],
        [task for results in several for task in results.tasks],
        [entry for results in several for entry in results.left_out],
        experiments[0] if experiments else None,
        several[0].header if several else {},
        tuple(folder for results in several for folder in results.folders),
    )


def twice(key: tuple[Any, ...], first: Results, second: Results) -> str:
    method, stage, seed, temperature, task = key
    facts = [f"stage {stage}" * bool(stage), "" if seed is None else f"seed {seed:g}"]
    facts += ["" if temperature is None else f"temperature {temperature:g}"]
    detail = ", ".join(fact for fact in facts if fact)
    places = [", ".join(map(str, results.folders)) or "one of them" for results in (first, second)]
    return (
        f"{places[0]} and {places[1]} both hold {task} of {method!r}{f' ({detail})' if detail else ''}. Give one of them "
        "another name: manypaths eval --rescore FOLDER --label NAME."
    )
