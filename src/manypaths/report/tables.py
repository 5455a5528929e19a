"""The tables of a report on runs as plain rows and cells, without layout."""

from collections.abc import Mapping, Sequence

from .layout import PLUS_MINUS, Cell, Row, Table, flat
from .summary import (
    Efficiency,
    Estimate,
    difference,
    efficiency,
    estimate,
    label_of,
    methods_of,
    runs_of,
    score_keys,
    seeds_of,
    stages_of,
)
from .wording import (
    BASELINE,
    CONTROLS,
    DIFFERENCE_NOTE,
    INTERVAL_NOTE,
    METHOD_NOTES,
    OVER,
    STAGES,
    Score,
    main_columns,
    number,
)

DAGGERS = ("", "\u2020", "\u2021")


def score_table(results: Mapping, stage: str) -> Table:
    """Every method's scores at one stage with 95 % intervals."""
    columns = columns_of(results)
    methods = [method for method in methods_of(results) if runs_of(results, method, stage)]
    found = {method: [estimate(results, method, stage, column.key) for column in columns] for method in methods}
    marks = _marks([one for row in found.values() for one in row])
    rows = [
        _row(
            results,
            method,
            stage,
            [_cell(one, column, marks) for one, column in zip(found[method], columns, strict=True)],
        )
        for method in methods
    ]
    headings = [(column.label, column.meaning) for column in columns]
    return Table(f"Scores {STAGES[stage]}", headings, rows, f"{_marks_note(marks)} {INTERVAL_NOTE}")


def difference_table(results: Mapping, stage: str) -> Table | None:
    """Every method minus CE, paired, and the share of samples it needs; None when nothing can be compared."""
    columns = columns_of(results)
    found = {
        method: [difference(results, method, stage, column.key) for column in columns]
        for method in methods_of(results)
        if method != BASELINE
    }
    found = {method: row for method, row in found.items() if any(row)}
    if not found:
        return None
    shares = {method: efficiency(results, method, stage) for method in found}
    n = next((share.n for share in shares.values() if share), None)
    marks = _marks([one for row in [*found.values(), shares.values()] for one in row])
    rows = []
    for method, row in found.items():
        cells = [_difference_cell(one, column, marks) for one, column in zip(row, columns, strict=True)]
        rows.append(_row(results, method, stage, cells + ([_share_cell(shares[method], marks)] if n else [])))
    headings = [(column.label, column.meaning) for column in columns]
    if n:
        headings.append((f"k*/{n}", f"share of the {n} samples that suffices for CE's pass@{n}; below 1 = fewer"))
    note = f"{_marks_note(marks)} {DIFFERENCE_NOTE}"
    return Table(f"Differences to {label_of(results, BASELINE)} {STAGES[stage]}", headings, rows, note)


def tables_of(results: Mapping) -> list[Table]:
    """Scores before and after RL, then the paired differences, as far as they were run."""
    stages = stages_of(results)
    tables = [score_table(results, stage) for stage in stages]
    return tables + [table for table in (difference_table(results, stage) for stage in stages) if table]


def columns_of(results: Mapping) -> list[Score]:
    """The columns that these results can fill."""
    return main_columns(set(score_keys(results["runs"])))


def conditions(results: Mapping) -> str:
    """One line: seeds, prompts, samples, temperature."""
    seeds = seeds_of(results)
    evaluation = results["runs"][0]["evaluation"]
    seed_words = "one seed" if len(seeds) == 1 else f"{len(seeds)} seeds"
    return f"{seed_words}, {evaluation['num_prompts']} test prompts, {evaluation['num_samples']} samples per prompt"


def method_notes(results: Mapping) -> list[tuple[str, str]]:
    """(label, what it is) of the rows we know; a user's own objectives explain themselves."""
    return [
        (label_of(results, method), METHOD_NOTES[method]) for method in methods_of(results) if method in METHOD_NOTES
    ]


def facts(results: Mapping) -> list[tuple[str, str]]:
    """How the results came about, one (name, value) a line: time, hardware, settings, versions."""
    seconds = sum(run.get("seconds") or 0 for run in results["runs"])
    found = [("created", str(results.get("created", "unknown")))]
    found.append(("training time", f"{seconds / 60:.1f} min, summed over {len(results['runs'])} runs"))
    hashes = {run["evaluation"].get("prompt_hash") for run in results["runs"]}
    found.append(("test prompts (hash)", ", ".join(sorted(str(one)[:12] for one in hashes if one)) or "not recorded"))
    found += [(f"left out: {one['label']}, seed {one['seed']}", one["reason"]) for one in results.get("left_out", [])]
    for section in ("hardware", "settings", "versions"):
        found += flat(section, results.get(section))
    return found


def _row(results: Mapping, method: str, stage: str, cells: list[Cell]) -> Row:
    kind = "baseline" if method == BASELINE else "control" if method in CONTROLS else "method"
    num_seeds = len(runs_of(results, method, stage))
    return Row(method, label_of(results, method), kind, cells, hint=f"{num_seeds} run{'s' if num_seeds != 1 else ''}")


def _marks(found: Sequence[Estimate | Efficiency | None]) -> dict[str, str]:
    """What the intervals range over, each with its dagger; the commonest kind of a report stays unmarked."""
    kinds = {one.interval_over for one in found if one and one.interval_over}
    present = [over for over in OVER if over in kinds]
    return dict(zip(present, DAGGERS, strict=False))


def _marks_note(marks: Mapping[str, str]) -> str:
    if not marks:
        return "No intervals: each number rests on a single value."
    unmarked = f"Numbers behind {PLUS_MINUS} or in brackets:"
    return " ".join(f"{mark or unmarked} 95 % intervals over {OVER[over]}." for over, mark in marks.items())


def _cell(found: Estimate | None, score: Score, marks: Mapping[str, str], signed: bool = False) -> Cell:
    if found is None:
        return Cell("")
    value = number(score, found.value, signed)
    if found.low is None or found.high is None:
        return Cell(value)
    spread = f"{PLUS_MINUS} {number(score, (found.high - found.low) / 2)}"
    return Cell(value, spread, marks[found.interval_over], strong=signed and found.sign() != 0)


def _difference_cell(found: Estimate | None, score: Score, marks: Mapping[str, str]) -> Cell:
    return _cell(found, score, marks, signed=True)


def _share_cell(share: Efficiency | None, marks: Mapping[str, str]) -> Cell:
    if share is None:
        return Cell("")
    if share.value is None:
        seeds = f" {round((1 - share.reached) * share.num_seeds)}/{share.num_seeds}" if share.num_seeds > 1 else ""
        return Cell(f"not reached{seeds}")
    if share.low is None:
        return Cell(f"{share.value:.2f}")
    high = f"{share.high:.2f}" if share.high is not None else "..."
    strong = share.high is not None and share.high < 1
    return Cell(f"{share.value:.2f}", f"[{share.low:.2f}, {high}]", marks[share.interval_over], strong)
