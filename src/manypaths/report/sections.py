"""From results to a report: which sections there are, in which order, and what each says."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..evaluation.statistics import LEAST_FOR_T
from . import claims, glossary
from .browser import completions, relative
from .claims import STAGE_WORDS, joined
from .compare import MAIN, Study
from .figures import figures
from .glossary import number
from .table import (
    Alert,
    Cell,
    Facts,
    Figure,
    Line,
    Part,
    Report,
    Section,
    Table,
    difference_table,
    estimate_cell,
    score_table,
)

SAMPLING = ["temperature", "top_p", "top_k", "max_new_tokens", "prompt_format", "chat_template"]  # what changes scores
HINT = (
    "More diverse, or only sampled hotter? To compare models at equal accuracy, evaluate each at several temperatures: "
    "--temperatures 0.6,0.8,1.0,1.2."
)
QUALITY = {
    "truncated": (
        "Answers were cut off at the token limit",
        "Raise --max_new_tokens and sample again: a cut answer counts as wrong, and its diversity is that of a beginning.",
    ),
    "timed_out": (
        "Grades ran out of time",
        "They count as wrong. Grade the stored samples again (--rescore) on a machine that is less busy.",
    ),
    "unparsed": (
        "Answers have no final answer that can be read",
        "They count as wrong whatever they say. Look at the completions below: the chat template, the prompt or the token "
        "limit may not suit the model.",
    ),
}


def report_of(study: Study, folder: Path) -> Report:
    """Everything that is said about these results. `folder` is where the report will lie: links start there."""
    asked = claims.questions(study)
    claims_of = [claims.claims(study, question) for question in asked]
    tone, badge, verdict = claims.overall(study, claims_of)
    pictures = figures(study)
    sections = [
        section("What may distort the numbers", "", *alerts(study)),
        section("What beats what", "For each question the best objective and the best of the cheap controls.",
                claims.what_beats_what(study, asked)),
        section("Question by question", card_text(study), *(
            claims.card(study, question, answers) for question, answers in zip(asked, claims_of, strict=True) if answers)),
        benchmarks(study, pictures.get("benchmarks")),
        section("Accuracy and diversity", "", pictures.get("accuracy_diversity")),
        section("One sample and many", "", pictures.get("samples"), *samples_tables(study)),
        section("All scores in one place", "", *main_tables(study)),
        diversity(study),
        temperature(study, pictures.get("temperature")),
        section("What was forgotten", "", pictures.get("forgetting"), *forgetting_tables(study)),
        section("Token scores of given texts", "", *token_tables(study)),
        section("Completions", "What the models answered, grouped by final answer.", completions(study, folder)),
        section("Training", "", pictures.get("training"), calibrations(study)),
        section("Not run, or failed", "", left_out(study, folder)),
        section("Every score", "", *every_score(study), folded=True),
        section("Names: rows and columns", "", names(study), folded=True),
        section("How it was run", "", task_table(study), facts(study), folded=True),
    ]  # fmt: skip
    title, lead = title_and_lead(study)
    kind = "experiment" if study.results.experiment else "training" if is_training(study) else "evaluation"
    day = str(study.results.header.get("created", ""))[:10]
    return Report(
        " · ".join(part for part in ("manypaths", kind, day) if part), title, lead, tone, badge, verdict, strip(study),
        [part for part in sections if part is not None],
    )  # fmt: skip


def section(title: str, text: str, *parts: Part | None, folded: bool = False) -> Section | None:
    kept = [part for part in parts if part is not None]
    return Section(title, text, kept, folded) if kept else None


def title_and_lead(study: Study) -> tuple[str, str]:
    """The question, and how to read the answers."""
    methods = list(dict.fromkeys(row.method for row in study.rows))
    title = (study.results.experiment or {}).get("title")
    if not title and is_training(study):
        title = f"How did {methods[0]} train?"
    elif not title:
        title = f"What can {methods[0]} do?" if len(methods) == 1 else f"Which model does best: {one_of(methods)}?"
    if len(methods) == 1:
        return title, ""
    lead = f"Every method is compared with {study.baseline_name}"
    if study.controls:
        lead += (
            ", the usual training, and with controls: cheap alternatives that a new objective has to beat before it is worth "
            "its trouble"
        )
    lead += ". A difference counts only where it is told from chance after correction for all comparisons made."
    if study.results.experiment and len({seed for _, _, seed in study.runs}) < LEAST_FOR_T:
        lead += " With fewer than three seeds that chance is in the problems: another training run may differ by more."
    return title, lead


def one_of(names: Sequence[str]) -> str:
    return joined(names).replace(" and ", " or ") if len(names) < 6 else f"{len(names)} models"


def strip(study: Study) -> list[tuple[str, str]]:
    """The study in a few numbers; those at its end of a lone training run."""
    if is_training(study):
        run = study.rows[0], study.stages[0], "training"
        last = {name: study.values.get((*run, name), {}) for name in ("ce", "entropy", "top1", "reward", "length")}
        return [
            (f"{glossary.metric(name).label} at the end", glossary.number(score["value"], score["unit"]))
            for name, by_metric in last.items()
            for score in by_metric.values()
        ]
    seeds = len({seed for _, _, seed in study.runs} - {None})
    facts = [("methods", str(len({row.method for row in study.rows} - study.controls.keys())))]
    facts += [("controls", str(len(study.controls)))] if study.controls else []
    facts += [("seeds", str(seeds))] if seeds > 1 or study.results.experiment else []
    main = [task for task in study.results.tasks if task["group"] == MAIN]
    problems = {task["task"]: task["num_problems"] for task in main}
    if problems:
        facts += [("tasks", str(len(problems)))] if len(problems) > 1 else []
        facts.append(("problems", f"{sum(problems.values()):,}"))
        facts.append(("samples each", " to ".join(map(str, extremes(task["num_samples"] for task in main)))))
    return facts


def is_training(study: Study) -> bool:
    """Whether these are not the results of evaluations but what training logged."""
    return all(key[2] == "training" for key in study.values)


def extremes(values: Iterable[int]) -> list[int]:
    values = list(values)
    return sorted({min(values), max(values)})


def card_text(study: Study) -> str:
    ks = study.ks(study.headline) if study.headline else []
    text = (
        f"pass@1 is accuracy, pass@{ks[-1]} the share of problems solved when {ks[-1]} tries count. "
        if len(ks) > 1
        else ""
    )
    if study.setting is not None and study.main_rows != study.rows:
        text += f"Sampled at temperature {study.setting:g}. "
    if study.controls:
        text += "A gain is called clear when a method is ahead of the baseline and of every control."
    elif study.results.experiment:
        text += "No controls were run: cheap alternatives, such as stopping earlier, may do as well."
    return text.strip()


def alerts(study: Study) -> list[Alert]:
    """Shares of samples that distort scores, and rows that were sampled, asked or graded in different ways."""
    alerts_of = []
    for metric, (title, advice) in QUALITY.items():
        worst: dict[str, dict[str, float]] = {}
        for (row, stage, task, name), seeds in study.values.items():
            share = max(score["value"] for score in seeds.values())
            if name == metric and any(metric in score["flags"].split(";") for score in seeds.values()):
                label = " ".join(part for part in (row.label, STAGE_WORDS[stage]) if part)
                worst.setdefault(label, {})[task] = share
        where = [
            f"{label}: " + ", ".join(f"{glossary.task(task)} {share:.0%}" for task, share in tasks.items())
            for label, tasks in worst.items()
        ]
        alerts_of += [Alert(title, where, advice)] if where else []
    differing = [text for task in study.tasks(MAIN) for text in sampled_differently(study, task)]
    if differing:
        alerts_of.append(
            Alert("Models were not sampled alike", differing, "Their scores differ by more than the models do.")
        )
    others = [
        f"{row.label}, {glossary.task(task)}: {reason}"
        for row in study.main_rows
        for stage in study.stages
        for task in study.tasks(MAIN)
        if (other := study.baseline_of(row)) and (reason := study.obstacle(row, other, stage, task))
    ]
    if others:
        alerts_of.append(
            Alert(f"Not comparable with {study.baseline_name}", others, "These are left out of comparisons.")
        )
    return alerts_of


def sampled_differently(study: Study, task: str) -> list[str]:
    """Settings in which rows differ; controls differ on purpose."""
    settings: dict[str, dict[str, list[str]]] = {}
    for row in study.main_rows if study.methods > 1 else ():
        entries = [entry for key, entry in study.facts.items() if key[0] == row and key[3] == task]
        if entries and not study.is_control(row):
            how = {**(entries[0].get("sampling") or {}), "samples": entries[0]["num_samples"]}
            for name in (*SAMPLING, "samples"):
                settings.setdefault(name, {}).setdefault(str(how.get(name)), []).append(row.label)
    return [
        f"{glossary.task(task)}, {name}: " + "; ".join(f"{value} ({', '.join(rows)})" for value, rows in values.items())
        for name, values in settings.items()
        if len(values) > 1
    ]


def benchmarks(study: Study, figure: Figure | None) -> Section | None:
    """Accuracy by benchmark with paired differences, where there are several benchmarks or a lone model."""
    tasks = study.tasks(MAIN)
    if len(tasks) < 2 and len(study.rows) > 1:
        return None
    tasks = [*tasks, study.headline] if study.headline not in (None, *tasks) else tasks
    columns, parts = [(task, "pass@1") for task in tasks], [figure]
    for stage in study.stages:
        parts.append(score_table(study, titled("Accuracy, %", study, stage), stage, columns, study.rows))
        title = titled(f"Differences to {study.baseline_name}, points", study, stage)
        parts.append(difference_table(study, title, stage, columns, study.rows))
    return section("Accuracy by benchmark", "", *parts)


def samples_tables(study: Study) -> list[Part]:
    task, tables = study.headline, []
    for stage in study.stages if task and not study.results.experiment else ():
        columns = [(task, f"{family}@{k}") for family in ("pass", "maj", "weighted_maj", "best_of", "expected_max")
                   for k in study.ks(task, family) if k > 1 or family == "pass"]  # fmt: skip
        if len(columns) > 1:
            tables.append(score_table(study, titled("One sample and many", study, stage), stage, columns, study.rows))
    return tables


def titled(title: str, study: Study, stage: str) -> str:
    return f"{title}, {STAGE_WORDS[stage]}" if len(study.stages) > 1 else title


def main_columns(study: Study) -> list[tuple[str, str]]:
    """What a comparison is read by: accuracy, coverage, diversity, drift, and what was forgotten."""
    task = study.headline
    ks = study.ks(task) if task else []
    chosen = sorted({1, *(k for k in ks if k == 8), *ks[-1:]})
    metrics = [f"pass@{k}" for k in chosen] + ["distinct_correct", "self_bleu", "entropy", "kl_to_reference"]
    columns = [(task, metric) for metric in metrics] if task else []
    for group in study.side_groups:
        columns += [(group, f"pass@{k}") for k in sorted({1, *study.ks(group)[-1:]})]
    return columns


def main_tables(study: Study) -> list[Part | None]:
    """Scores and differences to the baseline, for each stage."""
    columns, parts = main_columns(study), []
    for stage in study.stages if len(study.rows) > 1 else ():
        parts.append(score_table(study, titled("Scores", study, stage), stage, columns, study.rows))
        title = titled(f"Differences to {study.baseline_name}", study, stage)
        parts.append(difference_table(study, title, stage, columns, study.rows))
    return parts


def diversity(study: Study) -> Section | None:
    """Every measure of diversity, of graded tasks and of open-ended ones."""
    open_ended = [name for name in study.tasks(MAIN, "self_bleu") if name not in study.tasks(MAIN)]
    measured = {key[3] for key in study.values if key[2] == study.headline} & set(glossary.DIVERSITY)
    graded = [study.headline] if not measured <= {metric for _, metric in main_columns(study)} else []
    parts = []
    for task in graded + open_ended:
        name = glossary.task(task).capitalize() if task == study.headline else f"Open-ended: {glossary.task(task)}"
        for stage in study.stages:
            columns = [(task, metric) for metric in glossary.DIVERSITY]
            parts.append(score_table(study, titled(name, study, stage), stage, columns, study.rows))
    text = (
        "How different the answers to one problem are. All of it also moves with the temperature, and with mistakes; values "
        "for other numbers of samples or other lengths are not comparable."
    )
    return section("Diversity", text, *parts)


def temperature(study: Study, figure: Figure | None) -> Section | None:
    """The comparison over temperature, or what is missing for it."""
    many = any(task["num_samples"] > 1 for task in study.results.tasks)
    if not many or (study.results.experiment and figure is None):
        return None
    matched = study.matched()
    lines, notes = [], []
    kinds = list(
        dict.fromkeys(
            (comparison.match, comparison.compare) for comparisons in matched.values() for comparison in comparisons
        )
    )
    for method, comparisons in matched.items():
        by_kind = {(comparison.match, comparison.compare): comparison for comparison in comparisons}
        cells = []
        for kind in kinds:
            comparison = by_kind.get(kind)
            unit = study.unit(kind[1])
            if comparison is None or comparison.difference is None:
                cells.append(Cell("" if comparison is None else "not comparable"))
                notes += [f"{method}: {comparison.reason}."] if comparison else []
                continue
            cell = estimate_cell(comparison.difference, unit)
            cells.append(
                Cell(
                    number(comparison.difference.value, unit, signed=True),
                    cell.spread,
                    strong=bool(comparison.difference.sign()),
                    sort=cell.sort,
                )
            )
            notes += [f"{method}: {comparison.reason}."] if comparison.reason else []
        lines.append(Line(method, cells))
    columns = [(f"{glossary.metric(compared).label} at equal {glossary.metric(match).label}", glossary.metric(compared).meaning)
               for match, compared in kinds]  # fmt: skip
    note = (
        f"Difference to {study.baseline_name} where both have the same accuracy, or entropy, averaged over the range that both "
        "reach. 95 % intervals over problems; bold leaves out zero, not corrected. " + " ".join(dict.fromkeys(notes))
    )
    table = Table(f"Differences to {study.baseline_name} at equal values", columns, lines, note) if lines else None
    text = HINT if (table is None and study.methods > 1) or figure is None else ""
    return Section("Diversity is not temperature", text, [part for part in (figure, table) if part is not None])


def forgetting_tables(study: Study) -> list[Part | None]:
    """Side groups by task, general tasks, and loss added to texts."""
    tables: dict[str, list[tuple[str, str]]] = {}
    for group in study.side_groups:
        tasks = study.tasks(group)
        tables[f"{group.capitalize()}, % right"] = [
            (task, "pass@1") for task in (tasks if len(tasks) == 1 else [*tasks, group])
        ]
    general = dict.fromkeys(key[2] for key in study.values if key[3] in ("change", "alignment_tax"))
    tables["General tasks, change and alignment tax"] = [
        (task, name) for name in ("change", "alignment_tax") for task in general
    ]
    return [
        score_table(study, titled(title, study, stage), stage, columns, study.rows)
        for title, columns in tables.items()
        for stage in study.stages
    ]


def token_tables(study: Study) -> list[Part | None]:
    """Token scores of every text set."""
    note = "A lower cross-entropy on data that a model was trained on is no merit."
    return [
        score_table(study, titled(glossary.task(task).capitalize(), study, stage), stage,
                    [(task, metric) for metric in glossary.TOKEN_SCORES], study.rows, note)
        for task in dict.fromkeys(key[2] for key in study.values if key[3] == "ce" and key[2] != "training")
        for stage in study.stages
    ]  # fmt: skip


def every_score(study: Study) -> list[Part | None]:
    """One table a task and stage, with all of its metrics."""
    columns: dict[str, dict[tuple[str, str], None]] = {}
    for _, _, task, metric in study.values:
        columns.setdefault(task, {})[task, metric] = None
    return [
        score_table(study, titled(glossary.task(task).capitalize(), study, stage), stage, metrics, study.rows)
        for task, metrics in columns.items()
        for stage in study.stages
    ]


def calibrations(study: Study) -> Facts | None:
    """What thresholds were set to, of the first seed of each method."""
    notes: dict[str, str] = {}
    for (method, _, _), run in study.runs.items():
        text = (run.get("training") or {}).get("calibration")
        if text:
            notes.setdefault(method, str(text))
    return Facts(list(notes.items())) if notes else None


def left_out(study: Study, folder: Path) -> Table | None:
    """What does not stand in the tables, and why; a failed one links to its log."""
    entries: dict[tuple[str, str, str], list[Mapping[str, Any]]] = {}
    for entry in study.results.left_out:
        entries.setdefault((entry["method"], entry["stage"] or "", entry["reason"]), []).append(entry)
    lines = []
    for (method, stage, reason), same in entries.items():
        seeds = ", ".join(f"{entry['seed']:g}" for entry in same if entry["seed"] is not None)
        log = next((entry["log"] for entry in same if entry.get("log")), None)
        link = Cell("log", link=relative(Path(log), folder)) if log else Cell()
        lines.append(Line(method, [Cell(STAGE_WORDS.get(stage, stage)), Cell(seeds), Cell(reason, tone="text"), link]))
    columns = [("stage", ""), ("seeds", "training seeds"), ("why", ""), ("log", "")]
    return Table("", columns, lines) if lines else None


def names(study: Study) -> Facts:
    """What rows and columns are."""
    pairs = {}
    for (method, _, _), run in study.runs.items():
        settings = ", ".join(f"{name} {value}" for name, value in (run.get("objective_kwargs") or {}).items())
        about = glossary.CONTROLS.get(study.controls.get(method, "")) or glossary.OBJECTIVES.get(run.get("objective"))
        about = about or run.get("objective") or run.get("model") or ""
        text = " ".join(part for part in (about, f"({settings})" if settings else "", run.get("notes") or "") if part)
        pairs.setdefault(method, text)
    for name in dict.fromkeys(key[3] for key in study.values):
        family = name.partition("@")[0]
        if name != "pass@1" and family in glossary.FAMILIES:
            pairs[f"{family.replace('_', '-')}@k"] = glossary.FAMILIES[family].format(k="k")
        else:
            pairs[glossary.metric(name).label] = glossary.metric(name).meaning
    return Facts([(name, text) for name, text in pairs.items() if text])


def task_table(study: Study) -> Table | None:
    """Per task: problems, samples, doubtful references, prompts; several values where rows differ."""
    lines = []
    for task in study.groups:
        entries = [entry for key, entry in study.facts.items() if key[3] == task]
        if entries:
            columns = {
                "group": [entry["group"] for entry in entries],
                "problems": [entry["num_problems"] for entry in entries],
                "samples": [entry["num_samples"] for entry in entries],
                "unreliable references": [count(entry.get("unreliable_reference")) for entry in entries],
                "excluded": [count(entry.get("excluded")) for entry in entries],
                "prompts": [str(entry.get("prompt_hash") or "")[:8] for entry in entries],
            }
            lines.append(
                Line(
                    glossary.task(task),
                    [Cell(", ".join(dict.fromkeys(map(str, values)))) for values in columns.values()],
                )
            )
    if not lines:
        return None
    meanings = {
        "unreliable references": "problems whose reference answer may be wrong or unfit to compare with",
        "excluded": "problems left out because of known errors",
        "prompts": "start of the hash of all prompts; other hashes, other prompts",
    }
    return Table("Tasks", [(name, meanings.get(name, "")) for name in columns], lines, corner="task")


def count(ids: Any) -> int:
    """Ids, or ids by reason."""
    return len({item for part in ids.values() for item in part}) if isinstance(ids, Mapping) else len(ids or ())


def facts(study: Study) -> Facts:
    """How the results came about; values that all runs share stand once."""
    places: dict[str, dict[str, dict[str, None]]] = {}
    for (row, _, _, task), entry in study.facts.items():
        grader = {
            name: value for name, value in (entry.get("grader") or {}).items() if name not in ("counts", "timeout_rate")
        }
        for name, value in flat("sampling", entry.get("sampling")) + flat("grader", grader):
            places.setdefault(name, {}).setdefault(value, {})[f"{row.label}, {glossary.task(task)}"] = None
    pairs = []
    for name, values in places.items():
        texts = [
            value if len(values) == 1 else f"{value} ({shortened(list(where))})" for value, where in values.items()
        ]
        pairs.append((name, "; ".join(texts) if len(texts) < 5 else f"{len(texts)} different values; see results.json"))
    seconds = sum(run.get("seconds") or 0 for run in study.results.runs)
    pairs += [("time", f"{seconds / 60:.1f} minutes, summed over {len(study.results.runs)} runs")] if seconds else []
    header = study.results.header
    for name in ("created", "hardware", "versions", "settings"):
        pairs += (
            flat(name, header.get(name))
            if isinstance(header.get(name), Mapping)
            else [(name, str(header.get(name, "")))]
        )
    return Facts([(name, value) for name, value in pairs if value])


def shortened(where: list[str]) -> str:
    return "; ".join(where) if len(where) < 4 else f"{'; '.join(where[:2])} and {len(where) - 2} more"


def flat(name: str, value: Any) -> list[tuple[str, str]]:
    """A nested mapping as (dotted name, text) pairs; what is not set is left out."""
    if isinstance(value, Mapping):
        return [pair for key, inner in value.items() for pair in flat(f"{name}.{key}", inner)]
    return (
        []
        if value is None or value == []
        else [(name, ", ".join(map(str, value)) if isinstance(value, list) else str(value))]
    )
