"""The tables of a report on evaluations as plain rows and cells, without layout."""

from collections.abc import Iterable, Mapping, Sequence

from ..evaluation.intervals import Interval, mean_of_intervals
from ..evaluation.matched import Matched
from .evaluation_cells import interval_cell, signed_cell, spread
from .evaluation_comparison import AVERAGE, Comparison, LeftOut, curve_benchmarks
from .evaluation_summary import (
    TRUSTED,
    Entry,
    Evaluation,
    Evaluations,
    graded_entries,
    headline,
    mixed_rules,
    rates,
    sampled_often,
    score_of,
)
from .evaluation_wording import (
    CURVES,
    DIVERSITY,
    FAMILY_NOTE,
    INTERVALS,
    MATCHED_TEXT,
    benchmark_label,
    evaluation_score,
    family_ks,
)
from .layout import Cell, Row, Table
from .wording import Score, number

DAGGER = "\u2020"
PERCENT = Score("", "", 100, 1, "")
Comparisons = Mapping[tuple[Entry, str], Comparison]


def benchmark_table(found: Evaluations, means: Mapping[Entry, Interval], made: Comparisons) -> Table | None:
    """One row a model (and temperature), one column a benchmark, and their average; None without graded ones."""
    entries = graded_entries(found)
    if not entries:
        return None
    columns = [(benchmark_label(name), _metric_meaning(found, name)) for name in found.graded]
    names = list(found.graded)
    if means:
        columns.append((AVERAGE, f"plain mean of {len(found.shared)} benchmarks: {', '.join(found.shared)}"))
        names.append(AVERAGE)
    values = {
        entry: [means.get(entry) if name == AVERAGE else headline(found.get(entry, name)) for name in names]
        for entry in entries
    }
    best = {name: _best(found, values, place, name, made) for place, name in enumerate(names)}
    rows = []
    for entry in entries:
        cells = []
        for place, name in enumerate(names):
            mark = "*" if (entry, name) in made and made[entry, name].distinguishable else ""
            parts = found.shared if name == AVERAGE else [name]
            mark += DAGGER if any(_is_untrusted(found.get(entry, part)) for part in parts) else ""
            cells.append(interval_cell(values[entry][place], PERCENT, mark, strong=entry in best[name]))
        rows.append(entry_row(found, entry, cells))
    notes = [_family_note(found, made)] if made else []
    if any(DAGGER in cell.mark for row in rows for cell in row.cells):
        notes.append(f"{DAGGER} more than {TRUSTED:.0%} of the samples were cut off, timed out or could not be read.")
    if means and len(found.shared) < len(found.graded):
        golds = " and gold answers grade" if found.rewarded else ""
        notes.append(f"{AVERAGE} is over what every row has{golds}: {', '.join(found.shared)}.")
    mixed = {found.name(entry): mixed_rules(found, entry) for entry in means}
    notes += [f"{AVERAGE} of {row} mixes grading rules: {'; '.join(rules)}." for row, rules in mixed.items() if rules]
    return Table("Accuracy by benchmark", columns, rows, " ".join(notes))


def difference_table(found: Evaluations, made: Comparisons, left_out: Sequence[LeftOut]) -> Table | None:
    """Every row minus its baseline row, paired by problem; None where nothing could be compared."""
    if not made:
        return None
    entries = list(dict.fromkeys(entry for entry, _ in made))
    names = [name for name in (*found.graded, AVERAGE) if any((entry, name) in made for entry in entries)]
    rows = []
    for entry in entries:
        compared = [made.get((entry, name)) for name in names]
        cells = [_difference_cell(one) for one in compared]
        rows.append(Row(entry.label, found.name(entry), "method", cells, f"minus {found.name(found.baseline(entry))}"))
    return Table(
        f"Differences to {_first_name(found)}",
        [
            (name if name == AVERAGE else benchmark_label(name), "percentage points, paired by problem")
            for name in names
        ],
        rows,
        " ".join([f"* p < 0.05 after Holm's correction over {_comparisons(made)}.", *left_out_notes(found, left_out)]),
    )


def p_value_table(found: Evaluations, made: Comparisons) -> Table | None:
    """The p-values behind the asterisks, as measured and corrected."""
    if not made:
        return None
    entries = list(dict.fromkeys(entry for entry, _ in made))
    names = [name for name in (*found.graded, AVERAGE) if any((entry, name) in made for entry in entries)]
    rows = [
        Row(entry.label, found.name(entry), "method", [_p_cell(made.get((entry, name))) for name in names])
        for entry in entries
    ]
    columns = [(name if name == AVERAGE else benchmark_label(name), "p-value; corrected") for name in names]
    note = (
        f"p of the sign-flip test, and behind the arrow after Holm's correction over {_comparisons(made)}. p is the "
        "chance of a difference at least this large between models that are alike, not the chance that they are alike."
    )
    return Table("p-values", columns, rows, note)


def diversity_table(found: Evaluations, names: Sequence[str], title: str) -> Table | None:
    """Diversity scores averaged over the benchmarks that every row has sampled more than once."""
    entries = [entry for entry in found.entries if any((entry, name) in found.found for name in names)]
    columns, shared = [], {}
    for key in DIVERSITY:
        shared[key] = [name for name in names if all(score_of(found.get(entry, name), key) for entry in entries)]
        if shared[key]:
            columns.append(evaluation_score(key))
    if not any(column.key not in ("entropy", "length") for column in columns):
        return None
    rows = [
        entry_row(found, entry, [
            interval_cell(mean_of_intervals(score_of(found.get(entry, name), column.key) for name in shared[column.key]),
                          column)
            for column in columns
        ])
        for entry in entries
    ]  # fmt: skip
    widest = max(shared.values(), key=len)
    where = f"Mean over {', '.join(map(benchmark_label, widest))}. " if len(widest) > 1 else ""
    parts = [
        f"{column.label} only over {', '.join(map(benchmark_label, shared[column.key]))}."
        for column in columns
        if len(shared[column.key]) < len(widest)
    ]
    return Table(title, [(column.label, column.meaning) for column in columns], rows, " ".join([where.strip(), *parts]))


def curve_table(found: Evaluations) -> Table | None:
    """pass@k, votes and best-of-k at every k, averaged over the benchmarks that all rows sampled more than once."""
    entries = graded_entries(found)
    names = found.alike([name for name in found.graded if all(sampled_often(found.get(e, name)) for e in entries)])
    if not names:
        return None
    stored = [set(found.found[entry, name]["scores"]) for entry in entries for name in names]
    common = set.intersection(*stored)
    keys = [f"{family}@{k}" for family in CURVES for k in family_ks(common, family)]
    rows = [
        entry_row(found, entry, [
            interval_cell(mean_of_intervals(score_of(found.found[entry, name], key) for name in names), PERCENT)
            for key in keys
        ])
        for entry in entries
    ]  # fmt: skip
    columns = [(evaluation_score(key).label, evaluation_score(key).meaning) for key in keys]
    where = (
        f"Mean over {', '.join(map(benchmark_label, names))}." if len(names) > 1 else f"On {benchmark_label(names[0])}."
    )
    return Table("One sample and many, in percent", columns, rows, where) if keys else None


def matched_table(found: Evaluations, made: Mapping[str, list[Matched]]) -> Table | None:
    """Differences at matched accuracy and at matched entropy, one row a model."""
    kinds = list(dict.fromkeys((one.match, one.compare) for row in made.values() for one in row))
    if not kinds:
        return None
    over = ", ".join(map(benchmark_label, curve_benchmarks(found)))
    intro = f"{MATCHED_TEXT.format(base=found.labels()[0])} Over {over}."
    rows, notes = [], []
    for label, row in made.items():
        by_kind = {(one.match, one.compare): one for one in row}
        cells = []
        for kind in kinds:
            one = by_kind.get(kind)
            cells.append(_matched_cell(one))
            if one is not None and one.reason:
                notes.append(f"{label}: {one.reason}.")
        compared = " ".join(dict.fromkeys(_where(one) for one in row if one.values))
        notes += [f"{label}: {compared}"] if compared else []
        rows.append(Row(label, label, "method", cells))
    columns = [
        (
            f"{evaluation_score(compare).label} at equal {evaluation_score(match).label}",
            evaluation_score(compare).meaning,
        )
        for match, compare in kinds
    ]
    return Table(
        f"Differences to {found.labels()[0]}, matched", columns, rows, " ".join([intro, *dict.fromkeys(notes)])
    )


def all_scores(found: Evaluations) -> list[Table]:
    """Every stored score, one table a benchmark."""
    tables = []
    for name in (*found.graded, *found.open_ended):
        own = {entry: found.found[entry, name] for entry in found.entries if (entry, name) in found.found}
        keys = list(dict.fromkeys(key for one in own.values() for key in one["scores"]))
        tables.append(
            score_table(
                benchmark_label(name),
                {found.name(entry): one["scores"] for entry, one in own.items()},
                keys,
                f"{INTERVALS}.",
                found.name(found.entries[0]),
            )
        )
    return tables


def score_table(
    title: str, scores: Mapping[str, Mapping], keys: Iterable[str], note: str, baseline: str | None = None
) -> Table:
    """Scores by row; a key that a row lacks is an empty cell."""
    columns = [evaluation_score(key) for key in keys]
    rows = [
        Row(label, label, "baseline" if label == baseline else "method", [
            interval_cell(score_of({"scores": own}, column.key), column) for column in columns
        ])
        for label, own in scores.items()
    ]  # fmt: skip
    return Table(title, [(column.label, column.meaning) for column in columns], rows, note)


def ledger_table(found: Evaluations) -> Table | None:
    """Perplexity and KL against the base on held-aside text."""
    return _part_table(
        "The ledger: held-aside text under base and tuned model",
        {one["label"]: one.get("ledger") for one in found.results},
        "95 % intervals over texts. It shows drift on that text only; drift need not be loss.",
    )


def other_tables(found: Evaluations) -> list[Table]:
    """Token scores of data, and the evaluation on a built-in world."""
    tables = [
        _part_table(
            "Token scores of the data",
            {one["label"]: one.get("tokens") for one in found.results},
            "95 % intervals over rows of the data. Lower cross-entropy (ce) on data the model was trained on is no merit.",
        ),
        _part_table(
            "Built-in world",
            {one["label"]: one.get("evaluation") for one in found.results},
            "95 % intervals over test prompts.",
        ),
    ]
    return [table for table in tables if table]


def left_out_notes(found: Evaluations, left_out: Sequence[LeftOut]) -> list[str]:
    """What was not compared and why, a sentence a row and reason."""
    by_reason: dict[tuple[str, str], list[str]] = {}
    for one in left_out:
        name = one.benchmark if one.benchmark == AVERAGE else benchmark_label(one.benchmark)
        by_reason.setdefault((found.name(one.entry), one.reason), []).append(name)
    return [f"Left out: {row}, {', '.join(names)}: {reason}." for (row, reason), names in by_reason.items()]


def entry_row(found: Evaluations, entry: Entry, cells: list[Cell]) -> Row:
    is_first = entry.label == found.results[0]["label"] if len(found.results) > 1 else entry == found.entries[0]
    return Row(entry.label, found.name(entry), "baseline" if is_first else "method", cells)


def _difference_cell(one: Comparison | None) -> Cell:
    if one is None:
        return Cell("")
    value = number(PERCENT, one.difference.value, signed=True)
    around = spread(one.difference, PERCENT, signed=True)
    return Cell(value, around, "*" if one.distinguishable else "", strong=one.distinguishable)


def _p_cell(one: Comparison | None) -> Cell:
    return Cell("") if one is None else Cell(_p(one.p_value), f"\u2192 {_p(one.adjusted)}", strong=one.distinguishable)


def _p(value: float) -> str:
    return f"{value:.4f}" if value < 0.01 else f"{value:.2f}"


def _matched_cell(one: Matched | None) -> Cell:
    if one is None:
        return Cell("")
    if one.difference is None:
        return Cell("not comparable")
    return signed_cell(one.difference, evaluation_score(one.compare))


def _where(one: Matched) -> str:
    score = evaluation_score(one.match)
    low, high = number(score, min(one.values)), number(score, max(one.values))
    return f"{score.label} {low} to {high}{' %' if score.factor == 100 else ' nats'}."


def _best(found: Evaluations, values: Mapping, place: int, name: str, made: Comparisons) -> set[Entry]:
    """Per group of rows that are compared: the highest, where a corrected test backs it."""
    groups: dict[Entry, list[Entry]] = {}
    for entry in values:
        if values[entry][place] is not None:
            groups.setdefault(found.baseline(entry) or entry, []).append(entry)
    best = set()
    for baseline, members in groups.items():
        top = max(members, key=lambda entry: values[entry][place].value)
        others = [entry for entry in members if entry != baseline]
        backed = [top] if top != baseline else others
        if others and all((entry, name) in made and made[entry, name].distinguishable for entry in backed):
            best.add(top)
    return best


def _family_note(found: Evaluations, made: Comparisons) -> str:
    several = len(found.results) > 1 and len({entry.setting for entry in found.entries}) > 1
    group = " at its temperature" if several else ""
    first = f"{found.results[0]['label']}" if len(found.results) > 1 else "first"
    return FAMILY_NOTE.format(count=len(made), first=first, group=group)


def _comparisons(made: Comparisons) -> str:
    return f"{len(made)} comparison{'s' if len(made) != 1 else ''}"


def _first_name(found: Evaluations) -> str:
    return found.labels()[0] if len(found.results) > 1 else found.name(found.entries[0])


def _metric_meaning(found: Evaluations, name: str) -> str:
    metrics = dict.fromkeys(one["metric"] for (_, own), one in found.found.items() if own == name and one["metric"])
    return "; ".join(f"{metric}: {evaluation_score(metric).meaning}" for metric in metrics)


def _is_untrusted(evaluation: Evaluation | None) -> bool:
    return evaluation is not None and any(share > TRUSTED for share in rates(evaluation).values())


def _part_table(title: str, parts: Mapping[str, Mapping | None], note: str) -> Table | None:
    scores = {label: part["scores"] for label, part in parts.items() if part}
    keys = list(dict.fromkeys(key for own in scores.values() for key in own))
    return score_table(title, scores, keys, note) if keys else None
