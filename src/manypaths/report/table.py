"""What a report is made of, without layout: sections of text, tables, cards, figures; and cells from estimates."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..evaluation.statistics import Difference, Estimate, with_holm
from . import glossary
from .compare import Row, Study
from .glossary import number

LEVEL = 0.05  # of p-values after Holm's correction
LOPSIDED = 0.1  # of an interval's width: how far its middle may lie from the value before its limits are shown
DAGGER, DOUBLE_DAGGER = "\u2020", "\u2021"


@dataclass(frozen=True)
class Cell:
    """A number as shown: its text, its spread ("± 1.3", "[0.4, 0.5]"), a mark; `sort` is what it is sorted by."""

    text: str = ""
    spread: str = ""
    mark: str = ""
    strong: bool = False
    sort: float | None = None
    tone: str = ""
    link: str = ""


@dataclass(frozen=True)
class Line:
    """A line of a table; `row` is the series it belongs to, `kind` is baseline, method or control."""

    label: str
    cells: list[Cell]
    kind: str = "method"
    hint: str = ""


@dataclass(frozen=True)
class Table:
    """`columns`: (heading, meaning). `corner` is the heading of the labels."""

    title: str
    columns: list[tuple[str, str]]
    lines: list[Line]
    note: str = ""
    corner: str = ""


@dataclass(frozen=True)
class Card:
    """A question with its verdict. `tone` colours the badge, whose words say the same."""

    title: str
    tone: str
    badge: str
    text: str
    table: Table
    note: str = ""


@dataclass(frozen=True)
class Alert:
    """Something that distorts numbers: what, where, what to do."""

    title: str
    where: list[str]
    advice: str


@dataclass(frozen=True)
class Panel:
    """One chart, a Vega-Lite specification."""

    title: str
    chart: dict[str, Any]


@dataclass(frozen=True)
class Figure:
    """Charts under one caption; `series` are the labels whose marks they share."""

    name: str
    title: str
    caption: str
    panels: list[Panel]
    series: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Facts:
    """Names beside their values or meanings."""

    pairs: list[tuple[str, str]]


@dataclass(frozen=True)
class Completions:
    """What the browser of completions shows: `data` is JSON, `text` says what was left out."""

    data: dict[str, Any]
    text: str


Part = Table | Card | Alert | Figure | Facts | Completions


@dataclass(frozen=True)
class Section:
    """A heading, what to know before reading, and parts; a folded one opens when it is asked for."""

    title: str
    text: str
    parts: Sequence[Part]
    folded: bool = False

    @property
    def key(self) -> str:
        return "".join(letter if letter.isalnum() else "-" for letter in self.title.lower())


@dataclass(frozen=True)
class Report:
    """A whole report: a neutral question as title, a verdict as a badge, and sections."""

    kicker: str
    title: str
    lead: str
    tone: str
    badge: str
    verdict: str
    facts: list[tuple[str, str]]
    sections: list[Section]


def estimate_cell(estimate: Estimate | None, unit: str, mark: str = "", strong: bool = False) -> Cell:
    """Value and half its interval, or the limits of a lopsided one."""
    if estimate is None:
        return Cell()
    return Cell(number(estimate.value, unit), spread(estimate, unit), mark, strong, estimate.value)


def difference_cell(difference: Difference | None, unit: str) -> Cell:
    """A difference; strong when it can be told from zero after Holm's correction."""
    if difference is None:
        return Cell()
    estimate = difference.estimate
    clear = is_clear(difference)
    return Cell(
        number(estimate.value, unit, signed=True), spread(estimate, unit, signed=True), "*" if clear else "", clear,
        estimate.value,
    )  # fmt: skip


def spread(estimate: Estimate, unit: str, signed: bool = False) -> str:
    if estimate.low is None or estimate.high is None:
        return ""
    if estimate.high == estimate.low:
        return ""  # values that all agree do not tell their spread
    width, middle = estimate.high - estimate.low, (estimate.high + estimate.low) / 2
    if abs(middle - estimate.value) > LOPSIDED * width:
        return limits(estimate, unit, signed)
    return f"± {number(width / 2, unit)}"


def limits(estimate: Estimate, unit: str, signed: bool = False) -> str:
    return f"[{number(estimate.low, unit, signed)}, {number(estimate.high, unit, signed)}]"


def is_clear(difference: Difference | None) -> bool:
    return difference is not None and difference.adjusted is not None and difference.adjusted < LEVEL


Column = tuple[str, str]  # task, metric


def score_table(
    study: Study, title: str, stage: str, columns: Iterable[Column], rows: Sequence[Row], note: str = ""
) -> Table | None:
    """Estimates of rows by columns. What most intervals range over is said below; a dagger marks the others."""
    columns = [column for column in columns if any(study.scores(row, stage, *column) for row in rows)]
    cells_of = {row: [study.estimate(row, stage, *column) for column in columns] for row in rows}
    cells_of = {row: cells for row, cells in cells_of.items() if any(cells)}
    if not cells_of:
        return None
    marks, about = intervals(cell for cells in cells_of.values() for cell in cells if cell)
    lines = []
    for row, estimates in cells_of.items():
        cells = []
        for estimate, (task, metric) in zip(estimates, columns, strict=True):
            mark = (marks.get(estimate.over, "") if estimate else "") + distorted(study, row, stage, task)
            cells.append(estimate_cell(estimate, study.unit(metric), mark))
        lines.append(line(study, row, stage, cells))
    if any(DOUBLE_DAGGER in cell.mark for each in lines for cell in each.cells):
        about += f" {DOUBLE_DAGGER} More than 5 % of the samples were cut off, timed out or had no readable answer."
    return Table(title, headings(study, columns), lines, f"{note} {about}".strip())


def difference_table(
    study: Study, title: str, stage: str, columns: Iterable[Column], rows: Sequence[Row]
) -> Table | None:
    """Differences to the baseline, all of them one family for Holm's correction."""
    pairs = [(row, other) for row in rows if (other := study.baseline_of(row))]
    columns = list(columns)
    family = {(row, column): study.difference(row, other, stage, *column) for row, other in pairs for column in columns}
    family = with_holm({key: difference for key, difference in family.items() if difference is not None})
    if not family:
        return None
    columns = [column for column in columns if any(column == compared for _, compared in family)]
    lines = [
        line(
            study, row, stage, [difference_cell(family.get((row, column)), study.unit(column[1])) for column in columns]
        )
        for row in dict.fromkeys(row for row, _ in family)
    ]
    return Table(title, headings(study, columns), lines, about_family(family.values()))


def about_family(family: Iterable[Difference]) -> str:
    """What the asterisks of a table of differences mean."""
    family = list(family)
    tested = sum(difference.adjusted is not None for difference in family)
    if not tested:
        return "Nothing could be tested: there are no three seeds, and no values of the same problems."
    pairs = Counter(difference.estimate.over for difference in family).most_common(1)[0][0]
    paired = {"seeds": "paired by training seed", "problems": "paired by problem", "tasks": "paired by problem"}
    return (
        f"* p < 0.05 after Holm's correction over the {tested} differences of this table; they are "
        f"{paired.get(pairs, 'not paired')}, with 95 % intervals that are not corrected."
    )


def intervals(estimates: Iterable[Estimate]) -> tuple[dict[str, str], str]:
    """{over: mark} and the sentence that explains them; the commonest kind goes unmarked."""
    kinds = [
        estimate
        for estimate, _ in Counter(estimate.over for estimate in estimates if estimate.low is not None).most_common()
    ]
    if not kinds:
        return {}, "No intervals: each number rests on too few values."
    marks = dict(zip(kinds, ("", DAGGER, DAGGER * 2, DAGGER * 3), strict=False))
    words = [f"{mark or '±'} 95 % intervals over {glossary.OVER.get(kind, kind)}." for kind, mark in marks.items()]
    return marks, " ".join(words)


def distorted(study: Study, row: Row, stage: str, task: str) -> str:
    """The mark of scores that truncated, timed-out or unparsed samples distort."""
    names = study.members(task) if task not in study.groups or task == "average" else [task]
    flags = {
        word for name in names for key in [(row, stage, name, "pass@1")] for score in study.values.get(key, {}).values()
        for word in score["flags"].split(";")
    }  # fmt: skip
    return DOUBLE_DAGGER if flags & set(glossary.QUALITY) else ""


def headings(study: Study, columns: Sequence[Column]) -> list[tuple[str, str]]:
    """Columns go by their metric, by their task where the metric is the same in all, or by both."""
    explained = []
    for task, metric in columns:
        name, unit = glossary.heading(metric, study.unit(metric)), study.unit(metric)
        meaning = glossary.metric(metric).meaning + (", %" if unit == "share" else "")
        if len({own for own, _ in columns}) > 1:
            meaning = f"{glossary.task(task)}: {meaning}"
            if len({own for _, own in columns}) == 1:
                name = glossary.task(task)
            elif task != study.headline:
                name = f"{glossary.task(task)} {name}"
        explained.append((name, meaning))
    return explained


def line(study: Study, row: Row, stage: str, cells: list[Cell]) -> Line:
    seeds = len({seed for key, by_seed in study.values.items() if key[:2] == (row, stage) for seed in by_seed})
    return Line(row.label, cells, kind_of(study, row), f"{seeds} seed{'s' * (seeds != 1)}")


def kind_of(study: Study, row: Row) -> str:
    return "control" if study.is_control(row) else "baseline" if study.baseline_of(row) is None else "method"
