"""How evaluations came about, and what of them is not to be trusted."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from .evaluation_summary import (
    TRUSTED,
    Entry,
    Evaluation,
    Evaluations,
    grading_rules,
    is_rewarded,
    mixed_rules,
    rates,
    unknown_heat,
    untrusted,
)
from .evaluation_tables import DAGGER, entry_row
from .evaluation_wording import CUT, RATES, benchmark_label
from .layout import Cell, Row, Table, flat

# every other way of sampling should be shared by rows that are compared
MAY_DIFFER = ("backend", "temperature", "seed")
LAST_COMMAND = {
    "created": "written",
    "settings": "options of the last command",
    "versions": "versions at the last command",
}
UNKNOWN = "-"


@dataclass(frozen=True)
class Alert:
    """A warning: what is wrong, where, and what to do."""

    title: str
    where: list[str]
    advice: str


def alerts(found: Evaluations) -> list[Alert]:
    """Loud warnings: samples that were cut off, timed out or unreadable, and what was sampled or graded differently."""
    warnings = []
    for kind, cases in untrusted(found).items():
        title, advice = RATES[kind]
        rows: dict[Entry, list[str]] = {}
        for entry, name, share in cases:
            rows.setdefault(entry, []).append(f"{benchmark_label(name)} {share:.0%}")
        where = [f"{found.name(entry)}: {', '.join(parts)}" for entry, parts in rows.items()]
        if kind == "truncated":
            graders = {_graded_by(found.found[entry, name]) for entry, name, _ in cases}
            advice = " ".join([*(text for grader, text in CUT.items() if grader in graders), advice])
        warnings.append(Alert(f"Not to be trusted: more than {TRUSTED:.0%} of the {title}", where, advice))
    differing = _sampled_differently(found)
    if differing:
        advice = "Compare with care, or sample all models with the same options."
        warnings.append(Alert("Models were sampled differently", differing, advice))
    mixed = _graded_differently(found)
    if mixed:
        advice = "A mean over them means little: grade each folder again by one rule (--regrade FOLDER --grader MODE)."
        warnings.append(Alert("Benchmarks of one row were graded by different rules", mixed, advice))
    return warnings


def _graded_by(evaluation: Evaluation) -> str:
    if evaluation["metric"] is None:
        return "nobody"
    return "reward" if is_rewarded(evaluation) else "gold"


def _graded_differently(found: Evaluations) -> list[str]:
    where = []
    for entry in found.entries:
        rules = mixed_rules(found, entry)
        if rules:
            parts = "; ".join(f"{words} ({', '.join(map(benchmark_label, names))})" for words, names in rules.items())
            where.append(f"{found.name(entry)}: {parts}")
    return where


def _sampled_differently(found: Evaluations) -> list[str]:
    where = []
    for name in (*found.graded, *found.open_ended):
        by_option: dict[str, dict[str, list[str]]] = {}
        for entry in found.entries:
            for option, value in ((found.get(entry, name) or {}).get("sampling") or {}).items():
                by_option.setdefault(option, {}).setdefault(str(value), []).append(found.name(entry))
        for option, values in by_option.items():
            if len(values) > 1 and option not in MAY_DIFFER:
                parts = "; ".join(f"{value} ({', '.join(rows)})" for value, rows in values.items())
                where.append(f"{benchmark_label(name)}, {option}: {parts}")
    return where


def trust_table(found: Evaluations) -> Table | None:
    """Truncated, timed-out and unparsed samples per row, with the worst benchmark."""
    kinds = {"truncated": "cut off", "timeout": "timed out", "unparsed": "unparsed"}
    rows = []
    for entry in found.entries:
        by_name = {name: rates(one) for (own, name), one in found.found.items() if own == entry}
        cells = []
        for kind in kinds:
            shares = {name: own[kind] for name, own in by_name.items() if kind in own}
            worst = max(shares, key=shares.get, default=None)
            if worst is None:
                cells.append(Cell(UNKNOWN))
                continue
            mark = DAGGER if shares[worst] > TRUSTED else ""
            mean = sum(shares.values()) / len(shares)
            spread = f"({benchmark_label(worst)} {shares[worst]:.1%})" if shares[worst] else ""
            cells.append(Cell(f"{mean:.1%}", spread, mark, strong=bool(mark)))
        rows.append(entry_row(found, entry, cells))
    columns = [
        ("cut off", "mean share of samples that ended at the token limit"),
        ("timed out", "mean share of grades that ran out of time; counted as wrong"),
        ("unparsed", "mean share of samples without a readable final answer; counted as wrong"),
    ]
    note = f"Mean over the benchmarks where it is known; {UNKNOWN} where it is for none of them."
    return Table("Cut off, timed out, unparsed", columns, rows, note) if rows else None


def benchmark_facts(found: Evaluations) -> Table | None:
    """Per benchmark: problems, samples, doubtful and excluded golds, prompt hash, how it was sampled."""
    rows = []
    for name in (*found.graded, *found.open_ended):
        own = [one for (_, benchmark), one in found.found.items() if benchmark == name]
        cells = [
            Cell(_distinct(one["num_problems"] for one in own)),
            Cell(_distinct(one.get("num_samples", "") for one in own)),
            Cell(_distinct(_count(one.get("weakly_gradable")) for one in own)),
            Cell(_distinct(_count(one.get("excluded")) for one in own)),
            Cell(_distinct(str(one["prompt_hash"])[:8] for one in own)),
        ]
        rows.append(Row(name, benchmark_label(name), "method", cells))
    columns = [
        ("problems", "problems that were sampled"),
        ("samples", "samples per problem"),
        (
            "weakly gradable",
            "problems whose gold answer is prose, contradictory or the like, so that grades are worth less",
        ),
        ("excluded", "problems left out because of known errors"),
        ("prompts", "start of the hash of all prompts, before any chat template; other hashes, other prompts"),
    ]
    several = any(", " in cell.value for row in rows for cell in row.cells)
    note = "Several values: rows differ, and are not comparable where problems or prompts do." if several else ""
    return Table("Benchmarks", columns, rows, note) if rows else None


def facts(found: Evaluations) -> list[tuple[str, str]]:
    """How the results came about; values that models share stand once.

    Sampling and grader come from the evaluations. Options and versions are those of the command that wrote last: a
    folder may hold what several commands measured.
    """
    lines: dict[str, dict[str, str]] = {}
    for one in found.results:
        own = _evaluation_facts(one.get("evaluations", ())) + flat("model", one.get("model"))
        own += [line for part, name in LAST_COMMAND.items() for line in flat(name, one.get(part))]
        for name, text in own:
            lines.setdefault(name, {})[one["label"]] = text
    found_lines = []
    for name, by_label in lines.items():
        same = len(set(by_label.values())) == 1 and len(by_label) == len(found.results)
        texts = [next(iter(by_label.values()))] if same else [f"{label}: {text}" for label, text in by_label.items()]
        found_lines.append((name, "; ".join(texts)))
    return found_lines


def _evaluation_facts(evaluations: Sequence[Evaluation]) -> list[tuple[str, str]]:
    """Of one model; values say their benchmarks where they do not hold for all."""
    places: dict[str, dict[str, dict[str, None]]] = {}
    for one in evaluations:
        heat = {"temperature": "not known"} if unknown_heat(one) else {}
        parts = {
            "sampling": {**(one.get("sampling") or {}), **heat},
            "grader": grading_rules(one),
            "tokenizers": one.get("tokenizers"),
        }
        for name, text in flat("", parts):
            places.setdefault(name, {}).setdefault(text, {})[benchmark_label(one["benchmark"])] = None
    everywhere = {benchmark_label(one["benchmark"]) for one in evaluations}
    return [
        (name, ", ".join(
            text if set(own) == everywhere else f"{text} ({', '.join(own)})" for text, own in by_text.items()
        ))
        for name, by_text in places.items()
    ]  # fmt: skip


def _distinct(values: Iterable) -> str:
    return ", ".join(dict.fromkeys(map(str, values)))


def _count(ids: Mapping | Sequence | None) -> int:
    """Ids, or ids by reason."""
    return len({one for part in ids.values() for one in part}) if isinstance(ids, Mapping) else len(ids or ())
