"""Questions that a comparison answers, and verdicts: every method against the baseline and against every control.

All comparisons of a question are one family for Holm's correction. A method that is ahead of the baseline but not of a
control has not been shown to be worth more than that cheap alternative, and is not called a gain.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from ..evaluation.statistics import Difference, Estimate, with_holm
from . import glossary
from .compare import Row, Study
from .glossary import number
from .table import Card, Cell, Line, Table, difference_cell, estimate_cell, is_clear, limits

UNTRAINED = ("no_sft", "no_sft_sharpened")  # they forget nothing, so they are not a control of forgetting
STAGE_WORDS = {"sft": "before RL", "rl": "after RL", "": ""}


@dataclass(frozen=True)
class Question:
    """`short` names it in a table. `better` is +1 where more is better, -1 where less is. `ignored` are kinds of controls
    that do not apply."""

    title: str
    short: str
    stage: str
    task: str
    metric: str
    better: int = 1
    ignored: tuple[str, ...] = ()


@dataclass(frozen=True)
class Claim:
    """What was seen of one method: its value, its differences to the baseline and to each control, and the verdict.

    detectable: the smallest true difference to the baseline that this study would have seen with 80 % power.
    """

    question: Question
    row: Row
    value: Estimate
    to_baseline: Difference
    to_controls: dict[Row, Difference]
    detectable: float | None
    verdict: str


# verdict of a method -> tone and words
VERDICTS = {
    "clear": ("good", "clear gain"),
    "unchecked": ("open", "gain, no control ran"),
    "matched": ("warn", "as good as a control"),
    "beaten": ("bad", "a control is better"),
    "same": ("none", "no difference seen"),
    "behind": ("bad", "behind"),
}
# the best verdict of a question's methods -> the question's badge
BADGES = {
    "clear": "Clear gain",
    "unchecked": "Gain, but no control ran",
    "matched": "No better than a control",
    "beaten": "A control does better",
    "same": "No gain seen",
    "behind": "The baseline is ahead",
}


def questions(study: Study) -> list[Question]:
    """What can be asked of several methods; nothing about stages or measures that were not run."""
    if study.methods == 1:
        return []
    asked, task = [], study.headline
    ks = study.ks(task) if task else []
    for stage in study.stages if task else ():
        when = when_of(study, stage)
        asked.append(Question(f"Which model is most accurate{when}?", f"accuracy{when}", stage, task, "pass@1"))
        if stage != "rl":
            title, short = (
                f"Which model finds the most different right answers{when}?",
                f"different right answers{when}",
            )
            asked.append(Question(title, short, stage, task, "distinct_correct"))
        if len(ks) > 1:
            title, short = f"Which model solves most with {ks[-1]} tries{when}?", f"solved in {ks[-1]} tries{when}"
            asked.append(Question(title, short, stage, task, f"pass@{ks[-1]}"))
    forgetting = [(group, "pass@1", 1, f"Which model still does best on {group}", group) for group in study.side_groups]
    forgetting.append(("lm-eval", "alignment_tax", -1, "Which model forgets least of general tasks", "general tasks"))
    for name in dict.fromkeys(key[2] for key in study.values if key[3] == "ce_increase"):
        label = glossary.task(name)
        forgetting.append((name, "ce_increase", -1, f"Which model's loss on {label} grows least", f"loss on {label}"))
    for group, metric, better, title, short in forgetting:
        measured = [
            stage for stage in study.stages if any(study.scores(row, stage, group, metric) for row in study.main_rows)
        ]
        if measured:
            when = when_of(study, measured[-1])
            asked.append(Question(f"{title}{when}?", f"{short}{when}", measured[-1], group, metric, better, UNTRAINED))
    return [question for question in asked if sum(bool(values_of(study, question, row)) for row in study.main_rows) > 1]


def when_of(study: Study, stage: str) -> str:
    return f" {STAGE_WORDS[stage]}" if len(study.stages) > 1 and stage else ""


def values_of(study: Study, question: Question, row: Row):
    return study.scores(row, question.stage, question.task, question.metric)


def claims(study: Study, question: Question) -> list[Claim]:
    """One claim a method, tested against the baseline and every control that has this measure."""
    place = (question.stage, question.task, question.metric)
    rows = [row for row in study.main_rows if values_of(study, question, row)]
    controls = controls_of(study, question)
    family: dict[tuple[Row, Row], Difference] = {}
    for row in rows:
        if study.is_control(row) or study.baseline_of(row) is None:
            continue
        for other in (study.baseline_of(row), *controls):
            difference = study.difference(row, other, *place)
            if difference is not None:
                family[row, other] = difference
    family = with_holm(family)
    result = []
    for row in rows:
        baseline = study.baseline_of(row)
        if (row, baseline) not in family:
            continue
        to_controls = {other: family[row, other] for other in controls if (row, other) in family}
        verdict = verdict_of(family[row, baseline], list(to_controls.values()), question.better)
        power = study.detectable(row, baseline, *place, len(family))
        result.append(
            Claim(question, row, study.estimate(row, *place), family[row, baseline], to_controls, power, verdict)
        )
    return result


def controls_of(study: Study, question: Question) -> list[Row]:
    return [
        row
        for row in study.main_rows
        if study.is_control(row)
        and study.controls[row.method] not in question.ignored
        and values_of(study, question, row)
    ]


def verdict_of(to_baseline: Difference, to_controls: Sequence[Difference], better: int) -> str:
    """A key of VERDICTS, from differences that are told from zero after correction."""
    side, sides = sign(to_baseline, better), [sign(difference, better) for difference in to_controls]
    if side <= 0:
        return "same" if side == 0 else "behind"
    if not sides:
        return "unchecked"
    if min(sides) < 0:
        return "beaten"
    return "clear" if min(sides) > 0 else "matched"


def sign(difference: Difference, better: int) -> int:
    """+1 where the difference is a clear gain, -1 where it is a clear loss, else 0."""
    if not is_clear(difference):
        return 0
    return better if difference.estimate.value > 0 else -better


def card(study: Study, question: Question, answers: Sequence[Claim]) -> Card:
    """A question with its methods, as it is shown."""
    best = min((claim.verdict for claim in answers), key=list(VERDICTS).index)
    unit, baseline = study.unit(question.metric), study.baseline_name
    controls = controls_of(study, question)
    top = leader(study, question, controls)
    columns = [
        (glossary.heading(question.metric, unit), glossary.metric(question.metric).meaning),
        (f"against {baseline}", f"difference to {baseline}, with its 95 % interval"),
    ]
    if top is not None:
        columns.append(
            ("against the best control", f"difference to {study.name(top)}, the control with the best value")
        )
    shares = needed(study, question, answers)
    if shares:
        n = question.metric.removeprefix("pass@")
        columns.append((f"samples, of {n}", f"share of {baseline}'s {n} samples that suffices to solve as much"))
    if any(claim.detectable for claim in answers):
        columns.append(
            ("would have seen", "smallest true difference to the baseline that this study sees with 80 % power")
        )
    columns.append(("verdict", "from all differences to the baseline and the controls, after Holm's correction"))
    empty = [Cell()] * len(columns)
    lines = [Line(baseline, [level(study, question, study.baseline_of(answers[0].row)), *empty[1:]], "baseline")]
    for claim in answers:
        cells = [estimate_cell(claim.value, unit), difference_cell(claim.to_baseline, unit)]
        if top is not None:
            cells.append(difference_cell(claim.to_controls.get(top), unit))
        if shares:
            cells.append(shares.get(claim.row, Cell()))
        if any(claim.detectable for claim in answers):
            told = claim.detectable is not None
            cells.append(Cell(number(claim.detectable, unit), sort=claim.detectable) if told else Cell())
        tone, words = VERDICTS[claim.verdict]
        rank = list(VERDICTS).index(claim.verdict)
        lines.append(Line(study.name(claim.row), [*cells, Cell(words, tone=tone, sort=-rank)], "method"))
    for row in controls:
        cells = [level(study, question, row), against_baseline(study, question, row)]
        lines.append(Line(study.name(row), [*cells, *empty[2:]], "control"))
    tested = sum(1 + len(claim.to_controls) for claim in answers)
    note = f"Holm's correction over the {tested} differences of methods to {baseline} and to controls."
    text, table = sentence(study, question, answers), Table("", columns, lines)
    return Card(question.title, VERDICTS[best][0], BADGES[best], text, table, note)


def level(study: Study, question: Question, row: Row) -> Cell:
    estimate = study.estimate(row, question.stage, question.task, question.metric)
    return estimate_cell(estimate, study.unit(question.metric))


def against_baseline(study: Study, question: Question, row: Row) -> Cell:
    """A control's own difference, which no verdict rests on."""
    baseline = study.baseline_of(row)
    return difference_cell(
        study.difference(row, baseline, question.stage, question.task, question.metric), study.unit(question.metric)
    )


def needed(study: Study, question: Question, answers: Sequence[Claim]) -> dict[Row, Cell]:
    """How many samples give what the baseline has with all of its own; nothing for other measures than pass@n."""
    family, _, n = question.metric.partition("@")
    if family != "pass" or int(n) == 1:
        return {}
    cells = {}
    for claim in answers:
        share = study.samples_needed(claim.row, study.baseline_of(claim.row), question.stage, question.task, int(n))
        if share is not None:
            told = share.value != float("inf")
            cells[claim.row] = (
                Cell(
                    number(share.value, "ratio"),
                    limits(share, "ratio") if share.low is not None else "",
                    sort=share.value,
                )
                if told
                else Cell("not reached", sort=float("1e9"))
            )
    return cells


def sentence(study: Study, question: Question, answers: Sequence[Claim]) -> str:
    """Who is where, in words."""
    words = {
        "clear": f"{{}} {{is}} ahead of {study.baseline_name} and of every control.",
        "unchecked": f"{{}} {{is}} ahead of {study.baseline_name}; no control ran, so a cheap alternative may do as well.",
        "matched": f"{{}} {{is}} ahead of {study.baseline_name}, but not clearly of every control: {{controls}}.",
        "beaten": f"{{}} {{is}} ahead of {study.baseline_name}, but a control does better: {{controls}}.",
        "same": f"{{}} cannot be told from {study.baseline_name}.",
        "behind": f"{{}} {{is}} behind {study.baseline_name}.",
    }
    parts = []
    for verdict, text in words.items():
        group = [claim for claim in answers if claim.verdict == verdict]
        if not group:
            continue
        at_most = -1 if verdict == "beaten" else 0
        rivals = [
            study.name(row)
            for row in group[0].to_controls
            if any(sign(claim.to_controls[row], question.better) <= at_most for claim in group)
        ]
        names = joined([study.name(claim.row) for claim in group])
        parts.append(text.format(names, controls=joined(rivals), **{"is": "is" if len(group) == 1 else "are"}))
    return " ".join(parts)


def joined(names: Sequence[str]) -> str:
    """Names in a sentence; those that hold a comma in quotation marks."""
    names = [f"\u201c{name}\u201d" if "," in name else name for name in names]
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}" if names else ""


def leader(study: Study, question: Question, rows: Sequence[Row]) -> Row | None:
    """The row with the best value."""
    estimates = {row: study.estimate(row, question.stage, question.task, question.metric) for row in rows}
    return max(estimates, key=lambda row: question.better * estimates[row].value, default=None)


def what_beats_what(study: Study, asked: Sequence[Question]) -> Table | None:
    """Per question the best method and the best control, and whether they can be told apart."""
    contests: dict[Question, tuple[Row, Row]] = {}
    for question in asked:
        rows = [row for row in study.main_rows if values_of(study, question, row) and not study.is_control(row)]
        best, rival = leader(study, question, rows), leader(study, question, controls_of(study, question))
        if best is not None and rival is not None:
            contests[question] = (best, rival)
    family = {
        question: study.difference(*pair, question.stage, question.task, question.metric)
        for question, pair in contests.items()
    }
    family = with_holm({question: difference for question, difference in family.items() if difference is not None})
    lines = []
    for question, difference in family.items():
        best, rival = contests[question]
        unit, side = study.unit(question.metric), sign(difference, question.better)
        tone, words = {1: ("good", f"{study.name(best)} is ahead"), -1: ("bad", f"{study.name(rival)} is ahead")}.get(
            side, ("none", "cannot be told apart")
        )
        value, other = level(study, question, best), level(study, question, rival)
        lines.append(
            Line(question.short, [
                Cell(study.name(best), value.text), Cell(study.name(rival), other.text), difference_cell(difference, unit),
                Cell(words, tone=tone, sort=side),
            ])
        )  # fmt: skip
    columns = [
        ("best objective", "the baseline or a method, with its value"), ("best control", "with its value"),
        ("difference", "objective minus control, with its 95 % interval"), ("can they be told apart?", ""),
    ]  # fmt: skip
    note = (
        f"Holm's correction over the {len(lines)} rows. The best were chosen by these very values, which flatters both."
    )
    return Table("", columns, lines, note, "question") if lines else None


def overall(study: Study, claims_of: Sequence[Sequence[Claim]]) -> tuple[str, str, str]:
    """Tone, badge and sentence for the whole report: how the last stage ended, and what was seen before it."""
    groups = [group for group in claims_of if group]
    if not groups:
        return "", "", ""
    last = [group for group in groups if group[0].question.stage == study.stages[-1]] or groups
    before = [group for group in groups if group not in last]
    when = when_of(study, last[0][0].question.stage).strip()
    best = min((claim.verdict for group in last for claim in group), key=list(VERDICTS).index)
    names, count = leaders(study, last, best)
    of = f"In {count} of {len(last)} question{'s' * (len(last) != 1)}{f' {when}' * bool(when)}"
    baseline, are = study.baseline_name, "are" if len(names) > 1 else "is"
    text = {
        "clear": f"{of}, {joined(names)} {are} ahead of {baseline} and of every control.",
        "unchecked": f"{of}, {joined(names)} {are} ahead of {baseline}; no control ran, so a cheap alternative may do as well.",
    }.get(best, f"No method is ahead of both {baseline} and every control{f' {when}' * bool(when)}.")
    if best in ("same", "behind"):
        text = f"No method is clearly ahead of {baseline}{f' {when}' * bool(when)}."
    early, number_early = leaders(study, before, "clear")
    if early:
        text += f" Before RL, {joined(early)} {'are' if len(early) > 1 else 'is'} in {number_early} of {len(before)} questions."
    badge = "Clear gain in part" if best == "clear" and count < len(last) else BADGES[best]
    return VERDICTS[best][0], badge, text


def leaders(study: Study, groups: Sequence[Sequence[Claim]], verdict: str) -> tuple[list[str], int]:
    """The methods with this verdict, and in how many questions."""
    names = dict.fromkeys(study.name(claim.row) for group in groups for claim in group if claim.verdict == verdict)
    return list(names), sum(any(claim.verdict == verdict for claim in group) for group in groups)
