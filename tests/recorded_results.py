"""Recorded results for tests of reports: the studies of the built-in worlds, a small experiment with its texts, and two
evaluations at several temperatures. What a test needs to be otherwise, it changes in these."""

from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path

from manypaths.evaluation.table import Results, load_results

RECORDS = Path(__file__).parents[1] / "benchmarks/results"
HERE = Path(__file__).parent / "report/recorded"


@cache
def study(world: str) -> Results:
    """Six seeds of five objectives and their controls, before and after RL."""
    return load_results(RECORDS / f"playground_{world}_2026-11-20")


@cache
def experiment() -> Results:
    """CE, SED and controls, one seed, before and after RL; samples, problems and grades of CE and SED are on disk."""
    return load_results(HERE / "experiment")


@cache
def evaluations() -> Results:
    """The base and CE, at three temperatures each."""
    return load_results([HERE / "evaluation-base", HERE / "evaluation-CE"])


def kept(results: Results, **values: list) -> Results:
    """The rows with one of these values in each column: kept(results, method=["CE", "SED"], seed=[0])."""

    def fits(entry: Mapping) -> bool:
        return all(entry[name] in own for name, own in values.items() if name in entry)

    tables = {"scores": results.scores, "items": results.items}
    for column, own in values.items():
        tables = {name: table[table[column].isin(own)] for name, table in tables.items()}
    lists = {name: [one for one in getattr(results, name) if fits(one)] for name in ("runs", "tasks")}
    return replace(results, **tables, **lists)


def moved(results: Results, method: str, stage: str, metric: str, by: float) -> Results:
    """A method's values of a metric moved in all tasks, for every seed."""
    scores = results.scores.copy()
    rows = (scores["method"] == method) & (scores["stage"] == stage) & (scores["metric"] == metric)
    scores.loc[rows, ["value", "low", "high"]] += by
    return replace(results, scores=scores)


def renamed(results: Results, names: Mapping[str, str]) -> Results:
    """Other names of methods."""
    tables = {
        name: getattr(results, name).assign(method=getattr(results, name)["method"].replace(dict(names)))
        for name in ("scores", "items")
    }
    lists = {
        name: [{**entry, "method": names.get(entry["method"], entry["method"])} for entry in getattr(results, name)]
        for name in ("runs", "tasks", "left_out")
    }
    experiment = results.experiment
    if experiment:
        experiment = {**experiment, "baseline": names.get(experiment["baseline"], experiment["baseline"])}
    return replace(results, **tables, **lists, experiment=experiment)
