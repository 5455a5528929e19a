"""Differences between models: paired tests on the same problems, and models matched over temperature."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from ..evaluation.intervals import Interval, PairedTest, macro_paired_test, paired_test
from ..evaluation.matched import Curve, Matched, matched_difference
from .evaluation_summary import (
    Entry,
    Evaluation,
    Evaluations,
    graded_entries,
    grading_rules,
    headline,
    sampled_often,
)

AVERAGE = "Avg."
LEVEL = 0.05
# matched score -> the scores compared there; the keys of the curves
MATCHES = {"accuracy": ("self_bleu_diversity", "distinct_answers"), "entropy": ("accuracy", "self_bleu_diversity")}


@dataclass(frozen=True)
class Comparison:
    """`entry` minus `baseline` on one benchmark, or on the average over the shared ones (AVERAGE).

    `adjusted` is the p-value after Holm's correction over all comparisons made together.
    """

    entry: Entry
    baseline: Entry
    benchmark: str
    difference: Interval
    p_value: float
    adjusted: float = 1.0

    @property
    def distinguishable(self) -> bool:
        return self.adjusted < LEVEL


@dataclass(frozen=True)
class LeftOut:
    """A comparison that was not made, and why."""

    entry: Entry
    benchmark: str
    reason: str


def compare(found: Evaluations) -> tuple[dict[tuple[Entry, str], Comparison], list[LeftOut]]:
    """Every row against its baseline row, per graded benchmark and on the average; p-values corrected together."""
    made: dict[tuple[Entry, str], Comparison] = {}
    left_out = []
    for entry in graded_entries(found):
        baseline = found.baseline(entry)
        if baseline is None:
            if entry.label != found.labels()[0]:
                heats = [found.heat(one) for one in found.entries if one.label == found.labels()[0]]
                reason = f"{found.labels()[0]} was only evaluated at {', '.join(heats) or 'nothing like it'}"
                left_out += [LeftOut(entry, name, reason) for name in found.graded if found.get(entry, name)]
            continue
        pairs: dict[str, tuple[Sequence[float], Sequence[float]]] = {}
        for name in found.graded:
            own, other = found.get(entry, name), found.get(baseline, name)
            if not any(one is not None and one["metric"] for one in (own, other)):
                continue
            reason = incomparable(own, other)
            if reason:
                left_out.append(LeftOut(entry, name, reason))
            else:
                pairs[name] = paired_values(own, other, "accuracy")
        tests: dict[str, PairedTest] = {name: paired_test(*pair) for name, pair in pairs.items()}
        if len(found.shared) > 1:
            if set(found.shared) <= set(pairs):
                groups = [{name: pairs[name][side] for name in found.shared} for side in (0, 1)]
                tests[AVERAGE] = macro_paired_test(*groups)
            else:
                left_out.append(LeftOut(entry, AVERAGE, "a benchmark in it could not be compared"))
        for name, test in tests.items():
            made[entry, name] = Comparison(entry, baseline, name, test.difference, test.p_value)
    adjusted = holm([one.p_value for one in made.values()])
    return {key: replace(one, adjusted=p) for (key, one), p in zip(made.items(), adjusted, strict=True)}, left_out


def incomparable(one: Evaluation | None, other: Evaluation | None) -> str | None:
    """Why two evaluations of a benchmark cannot be compared problem by problem; None when they can."""
    if one is None or other is None:
        return "only one of the two was evaluated on it"
    if one["metric"] is None or other["metric"] is None:
        return "only one of the two was graded"
    if one["prompt_hash"] != other["prompt_hash"]:
        return f"other prompts (hash {one['prompt_hash'][:8]} against {other['prompt_hash'][:8]})"
    if set(one["per_problem"]["id"]) != set(other["per_problem"]["id"]):
        return f"other problems ({one['num_problems']} against {other['num_problems']})"
    if grading_rules(one) != grading_rules(other):
        return "other grading rules (--regrade scores the stored samples again)"
    return None


def paired_values(one: Evaluation, other: Evaluation, name: str) -> tuple[list, list]:
    """The values of both in the order of the first one's problems."""
    place = {problem: index for index, problem in enumerate(other["per_problem"]["id"])}
    values = other["per_problem"][name]
    return list(one["per_problem"][name]), [values[place[problem]] for problem in one["per_problem"]["id"]]


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down p-values: below 0.05, the chance of even one false finding among all is below 5 %."""
    order = sorted(range(len(p_values)), key=lambda index: p_values[index])
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted


def curve_of(found: Evaluations, label: str, benchmarks: Sequence[str], order: Mapping[str, Sequence[str]]) -> Curve:
    """One model over its temperatures, its problems in the given order."""
    settings = [entry.setting for entry in heated(found, label)]
    scores: dict[str, dict[str, list]] = {}
    for name in benchmarks:
        for setting in settings:
            evaluation = found.found[Entry(label, setting), name]
            for score, values in _curve_values(evaluation, order[name]).items():
                scores.setdefault(score, {}).setdefault(name, []).append(values)
    whole = {
        score: groups
        for score, groups in scores.items()
        if set(groups) == set(benchmarks) and all(len(rows) == len(settings) for rows in groups.values())
    }
    return Curve(settings, whole)


def heated(found: Evaluations, label: str) -> list[Entry]:
    """A model's rows at temperatures that were asked for, rising."""
    return [entry for entry in found.entries if entry.label == label and entry.setting is not None]


def curve_benchmarks(found: Evaluations) -> list[str]:
    """The benchmarks that the curves average over: graded ones with two samples, else open-ended ones."""
    entries = [entry for entry in found.entries if entry.setting is not None]
    often = {
        name: [found.get(entry, name) for entry in entries]
        for name in (*found.graded, *found.open_ended)
        if all(sampled_often(found.get(entry, name)) for entry in entries)
    }
    graded = [name for name in found.graded if name in often and all(map(headline, often[name]))]
    return found.alike(graded) or [name for name in found.open_ended if name in often]


def matched(found: Evaluations) -> tuple[dict[str, list[Matched]], list[str]]:
    """{model: its differences to the first model at matched scores}, and reasons for what could not be compared."""
    names, labels = curve_benchmarks(found), found.labels()
    if len(labels) < 2 or not names or not heated(found, labels[0]):
        return {}, []
    made, reasons = {}, []
    for label in labels[1:]:
        reason = _other_problems(found, labels[0], label, names)
        if reason:
            reasons.append(f"{label}: {reason}")
            continue
        first = heated(found, labels[0])[0]
        order = {name: found.found[first, name]["per_problem"]["id"] for name in names}
        own, base = (curve_of(found, one, names, order) for one in (label, labels[0]))
        if min(len(own.temperatures), len(base.temperatures)) < 2:
            reasons.append(f"{label}: fewer than two temperatures of one of the models")
            continue
        made[label] = [
            matched_difference(own, base, match=match, compare=score)
            for match, scores in MATCHES.items()
            for score in scores
            if all(name in curve.scores for name in (match, score) for curve in (own, base))
        ]
    return made, reasons


def _other_problems(found: Evaluations, base: str, label: str, names: Sequence[str]) -> str | None:
    first = heated(found, base)[0]
    for entry in (*heated(found, base), *heated(found, label)):
        for name in names:
            one, other = found.found[entry, name], found.found[first, name]
            reason = incomparable(one, other) if one["metric"] else _other_prompts(one, other)
            if reason:
                return f"{name}: {reason}"
            if one.get("num_samples") != other.get("num_samples"):
                return f"{name}: {one.get('num_samples')} against {other.get('num_samples')} samples per problem"
    return None


def _other_prompts(one: Evaluation, other: Evaluation) -> str | None:
    same = one["prompt_hash"] == other["prompt_hash"] and set(one["per_problem"]["id"]) == set(
        other["per_problem"]["id"]
    )
    return None if same else "other prompts"


def _curve_values(evaluation: Evaluation, order: Sequence[str]) -> dict[str, list[float | None]]:
    """Per problem, in the given order; scores with no value at all are left out."""
    table = evaluation["per_problem"]
    place = {problem: index for index, problem in enumerate(table["id"])}
    values = {name: table[name] for name in ("accuracy", "entropy", "distinct_answers") if table.get(name)}
    if table.get("self_bleu"):
        values["self_bleu_diversity"] = [None if one is None else 100.0 - one for one in table["self_bleu"]]
    return {
        name: [column[place[problem]] for problem in order]
        for name, column in values.items()
        if any(one is not None for one in column)
    }
