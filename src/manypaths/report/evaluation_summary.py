"""What results of `manypaths eval` hold: rows, benchmarks, scores, averages, and warnings. No words, no layout."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..evaluation.benchmarks import BENCHMARKS
from ..evaluation.intervals import Interval, mean_of_intervals
from ..evaluation.results import SCHEMA

PARTS = ("evaluations", "tokens", "ledger", "evaluation", "forgetting")
KEYS = ("benchmark", "temperature", "metric", "scores", "per_problem", "num_problems", "prompt_hash")
TRUSTED = 0.05  # largest share of truncated, timed-out or unparsed samples that needs no warning

Evaluation = Mapping[str, Any]


@dataclass(frozen=True)
class Entry:
    """A row of every table: one model at one temperature setting (None: each benchmark at its own default)."""

    label: str
    setting: float | None


@dataclass(frozen=True)
class Evaluations:
    """Several models' results by row and benchmark.

    `graded` and `open_ended` name the benchmarks with and without a headline score, in canonical order; `rewarded`
    are the graded ones whose grades come from a reward function, not from gold answers. `shared` are those graded by
    golds that every row with such a benchmark has: those that "Avg." averages over.
    """

    results: list[Mapping]
    entries: list[Entry]
    graded: list[str]
    open_ended: list[str]
    rewarded: list[str]
    shared: list[str]
    found: dict[tuple[Entry, str], Evaluation]

    def get(self, entry: Entry, benchmark: str) -> Evaluation | None:
        return self.found.get((entry, benchmark))

    def alike(self, names: Sequence[str]) -> list[str]:
        """Those of the benchmarks that one mean may be taken over: graded by golds, or all where none of them is."""
        return [name for name in names if name not in self.rewarded] or list(names)

    def labels(self) -> list[str]:
        return [one["label"] for one in self.results]

    def name(self, entry: Entry) -> str:
        """The label, with the temperature where rows differ in it."""
        if len({one.setting for one in self.entries}) < 2:
            return entry.label
        return f"{entry.label}, {self.heat(entry)}"

    def heat(self, entry: Entry) -> str:
        """The row's temperature in short."""
        own = [one for (row, _), one in self.found.items() if row == entry]
        unknown = {unknown_heat(one) for one in own}
        if True in unknown:
            return "T partly not known" if False in unknown else "T not known"
        if entry.setting is None and any(map(is_recorded, own)):
            told = {one["temperature"] for one in own}
            return temperature_name(told.pop()) if len(told) == 1 else "T by benchmark"
        return temperature_name(entry.setting)

    def baseline(self, entry: Entry) -> Entry | None:
        """The row to compare with: the first model at the same setting; for a single model, its first row."""
        first = self.entries[0] if len(self.results) == 1 else Entry(self.results[0]["label"], entry.setting)
        return None if first == entry or first not in self.entries else first


def temperature_name(setting: float | None) -> str:
    return "default T" if setting is None else f"T={setting:g}"


def gather(results: Sequence[Mapping]) -> Evaluations:
    """Check results of `manypaths eval` and put them in order.

    Raises ValueError for none, for a dictionary that is not of this kind, and for two with one label.
    """
    results = list(results)
    if not results:
        raise ValueError("There are no results to report: pass at least one results.json of `manypaths eval`.")
    for place, one in enumerate(results, start=1):
        check_result(one, f"Result {place}")
    labels = [one["label"] for one in results]
    double = next((label for label in labels if labels.count(label) > 1), None)
    if double is not None:
        raise ValueError(
            f"Two results have the label {double!r}; give one another name with `manypaths eval --regrade FOLDER "
            "--label NAME`, or evaluate it with --label NAME."
        )
    found: dict[tuple[Entry, str], Evaluation] = {}
    for one in results:
        for evaluation in one.get("evaluations", ()):
            key = (Entry(one["label"], setting_of(evaluation)), evaluation["benchmark"])
            if key in found:
                at = temperature_name(key[0].setting)
                raise ValueError(f"{one['label']!r} has two evaluations of {key[1]} at {at}; keep one.")
            found[key] = evaluation
    entries = _in_reading_order(dict.fromkeys(entry for entry, _ in found), labels)
    names = _canonical(dict.fromkeys(benchmark for _, benchmark in found))
    graded = [name for name in names if any(one["metric"] for (_, own), one in found.items() if own == name)]
    open_ended = [name for name in names if name not in graded]
    rewarded = [name for name in graded if any(is_rewarded(one) for (_, own), one in found.items() if own == name)]
    by_gold = [name for name in graded if name not in rewarded]
    rows = [entry for entry in entries if any((entry, name) in found for name in by_gold)]
    shared = [name for name in by_gold if all((found.get((entry, name)) or {}).get("metric") for entry in rows)]
    return Evaluations(results, entries, graded, open_ended, rewarded, shared, found)


def check_result(result: Any, where: str) -> None:
    """ValueError, starting with `where`, when this is not the content of a results.json of `manypaths eval`."""
    if not isinstance(result, Mapping):
        raise ValueError(f"{where} is no dictionary; pass the content of a results.json of `manypaths eval`.")
    if "runs" in result:
        raise ValueError(
            f"{where} holds training runs, whose report is made with them; this one is for `manypaths eval`."
        )
    schema = result.get("schema")
    if schema != SCHEMA:
        newer = isinstance(schema, int) and schema > SCHEMA
        advice = "update manypaths" if newer else "run `manypaths eval` again"
        raise ValueError(f"{where} has schema {schema}, this version reads {SCHEMA}: {advice}.")
    if not isinstance(result.get("label"), str) or not result["label"]:
        raise ValueError(f"{where} has no label; results of `manypaths eval` name their model.")
    if not any(result.get(part) for part in PARTS):
        raise ValueError(f"{where} ({result['label']}) holds no scores: none of {', '.join(PARTS)}.")
    for number, evaluation in enumerate(result.get("evaluations", ()), start=1):
        missing = [key for key in KEYS if key not in evaluation]
        metric = evaluation.get("metric")
        if metric is not None and metric not in evaluation.get("scores", ()):
            missing.append(f"scores.{metric}")
        if missing:
            raise ValueError(f"{where} ({result['label']}): evaluation {number} lacks {', '.join(missing)}.")


def setting_of(evaluation: Evaluation) -> float | None:
    """The temperature that was asked for; None where each benchmark has its own default."""
    return evaluation["setting"] if "setting" in evaluation else evaluation["temperature"]


def is_recorded(evaluation: Evaluation) -> bool:
    """Texts that were made elsewhere, not sampled here."""
    return (evaluation.get("sampling") or {}).get("backend") == "recorded"


def unknown_heat(evaluation: Evaluation) -> bool:
    """Texts made elsewhere need not say their temperature."""
    return setting_of(evaluation) is None and evaluation["temperature"] is None


def score_of(evaluation: Evaluation | None, name: str | None) -> Interval | None:
    """A stored score; None where there is none."""
    score = None if evaluation is None else evaluation["scores"].get(name)
    if score is None or score["value"] is None:
        return None
    return Interval(score["value"], score.get("low"), score.get("high"), score.get("n") or 1)


def headline(evaluation: Evaluation | None) -> Interval | None:
    return None if evaluation is None else score_of(evaluation, evaluation["metric"])


def is_rewarded(evaluation: Evaluation) -> bool:
    """Graded by a reward function, so that "right" means what its threshold says."""
    return "reward" in (evaluation.get("grader") or {})


def grading_rules(evaluation: Evaluation) -> dict[str, Any]:
    """How answers were graded, without the outcome; empty where nothing was."""
    grader = evaluation.get("grader") or {}
    return {name: value for name, value in grader.items() if name not in ("counts", "timeout_rate")}


def mixed_rules(found: Evaluations, entry: Entry) -> dict[str, list[str]]:
    """{grading rules in words: benchmarks} of a row whose golds were not all graded alike, else nothing."""
    rules: dict[str, list[str]] = {}
    for name in found.graded:
        one = found.get(entry, name)
        if one is not None and one["metric"] and not is_rewarded(one):
            own = grading_rules(one)
            words = ", ".join(f"{key} {value}" for key, value in own.items()) or "not known"
            rules.setdefault(words, []).append(name)
    return rules if len(rules) > 1 else {}


def sampled_often(evaluation: Evaluation | None) -> bool:
    return evaluation is not None and (evaluation.get("num_samples") or 1) > 1


def averages(found: Evaluations) -> dict[Entry, Interval]:
    """The mean headline score over the shared benchmarks for every row that has them; nothing for fewer than two.

    Made of the scores that stand beside it, as the "macro" of a result is: a result that has more benchmarks than
    others is averaged over fewer here, in the same way.
    """
    if len(found.shared) < 2:
        return {}
    means = {
        entry: mean_of_intervals(headline(found.get(entry, name)) for name in found.shared)
        for entry in graded_entries(found)
    }
    return {entry: mean for entry, mean in means.items() if mean is not None}


def graded_entries(found: Evaluations) -> list[Entry]:
    return [entry for entry in found.entries if any((entry, name) in found.found for name in found.graded)]


def drawn_entries(found: Evaluations) -> list[Entry]:
    """The rows of the pictures: all temperatures of a single model, or all models at one temperature.

    That is the first temperature that all of them have; without one, each model's own first.
    """
    if len(found.results) == 1:
        return found.entries
    own = {label: [entry.setting for entry in found.entries if entry.label == label] for label in found.labels()}
    own = {label: settings for label, settings in own.items() if settings}
    common = next(
        (s for s in next(iter(own.values()), ()) if all(s in settings for settings in own.values())), math.nan
    )
    return [Entry(label, common if common in settings else settings[0]) for label, settings in own.items()]


def rates(evaluation: Evaluation) -> dict[str, float]:
    """Shares of samples that were cut off, whose grading ran out of time, and without a readable answer.

    Those that nobody measured are left out: a reward function does not say whether it could read an answer.
    """
    found = {}
    if evaluation.get("truncated") is not None:
        found["truncated"] = evaluation["truncated"]
    grader = evaluation.get("grader") or {}
    if is_rewarded(evaluation):
        return found
    counts = grader.get("counts") or {}
    total = sum(counts.values())
    if grader.get("timeout_rate") is not None:
        found["timeout"] = grader["timeout_rate"]
    elif total and "timeout" in counts:
        found["timeout"] = counts["timeout"] / total
    if total and "unparsed" in counts:
        found["unparsed"] = counts["unparsed"] / total
    return found


def untrusted(found: Evaluations) -> dict[str, list[tuple[Entry, str, float]]]:
    """{kind of rate: [(row, benchmark, share)]} of all shares above TRUSTED."""
    lists: dict[str, list[tuple[Entry, str, float]]] = {}
    for entry in found.entries:
        for name in (*found.graded, *found.open_ended):
            evaluation = found.get(entry, name)
            for kind, share in (rates(evaluation) if evaluation else {}).items():
                if share > TRUSTED:
                    lists.setdefault(kind, []).append((entry, name, share))
    return lists


def _in_reading_order(entries: Iterable[Entry], labels: Sequence[str]) -> list[Entry]:
    """By temperature, then model: rows that are compared stand together."""
    return sorted(
        entries,
        key=lambda entry: (entry.setting is not None, entry.setting or 0.0, labels.index(entry.label)),
    )


def _canonical(names: Iterable[str]) -> list[str]:
    order = list(BENCHMARKS)
    return sorted(names, key=lambda name: order.index(name) if name in order else len(order))
