"""A report on evaluations as sections, and these as Markdown and as one self-contained HTML page."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

from manypaths.evaluation.intervals import Interval
from manypaths.evaluation.matched import Matched
from manypaths.report.evaluation_comparison import Comparison, LeftOut, compare, matched
from manypaths.report.evaluation_conditions import Alert, alerts, benchmark_facts, facts, trust_table
from manypaths.report.evaluation_summary import Entry, Evaluations, averages, gather
from manypaths.report.evaluation_tables import (
    all_scores,
    benchmark_table,
    curve_table,
    difference_table,
    diversity_table,
    forgetting_table,
    ledger_table,
    matched_table,
    other_tables,
    p_value_table,
)
from manypaths.report.evaluation_wording import (
    DIVERSITY_TEXT,
    FORGETTING_TEXT,
    PAIRS_TEXT,
    TABLE_TEXT,
    TRUST_TEXT,
    benchmark_label,
)
from manypaths.report.html import html_definitions, html_details, html_drawing, html_page, html_table
from manypaths.report.layout import Table
from manypaths.report.markdown import markdown_table
from manypaths.report.plots import Plot

FEW_TEMPERATURES = (
    "More diverse, or only hotter? This comparison needs at least two temperatures of each model: evaluate with "
    "--temperatures 0.6,0.8,1.0,1.2."
)


@dataclass(frozen=True)
class Digest:
    """Everything a report shows, computed once: results in order, averages, tests, matched comparisons, warnings."""

    found: Evaluations
    means: dict[Entry, Interval]
    made: dict[tuple[Entry, str], Comparison]
    left_out: list[LeftOut]
    matched: dict[str, list[Matched]]
    unmatched: list[str]
    alerts: list[Alert]


@dataclass(frozen=True)
class Section:
    """A heading, what to know before reading, then tables and plots; `is_folded` hides them until asked for."""

    title: str
    text: str
    parts: list[Table | Plot]
    is_folded: bool = False


def digest(results: Sequence[Mapping]) -> Digest:
    """Raises ValueError as gather does."""
    found = gather(results)
    made, left_out = compare(found)
    pairs, unmatched = matched(found)
    return Digest(found, averages(found), made, left_out, pairs, unmatched, alerts(found))


def sections(whole: Digest, plots: Mapping[str, Plot]) -> list[Section]:
    """All sections that the results can fill, in reading order."""
    found = whole.found
    scores = benchmark_table(found, whole.means, whole.made)
    sections = [
        _section("Accuracy", TABLE_TEXT, scores, plots.get("accuracy")),
        _section("Paired comparisons", PAIRS_TEXT, difference_table(found, whole.made, whole.left_out)),
        _section("", "", plots.get("pass_at_k")),
        _section("", "", plots.get("many_samples"), curve_table(found)),
        _section(
            "Diversity",
            "" if "diversity" in plots else DIVERSITY_TEXT,
            plots.get("diversity"),
            diversity_table(found, found.graded, "Diversity on graded benchmarks"),
            *(diversity_table(found, [name], f"Open-ended: {benchmark_label(name)}") for name in found.open_ended),
        ),
        _heat(whole, plots.get("heat")),
        _section(
            "What was forgotten",
            FORGETTING_TEXT if "forgetting" not in plots else "",
            plots.get("forgetting"),
            forgetting_table(found),
            ledger_table(found),
        ),
        _section("Other measurements", "", *other_tables(found)),
        _section("What may distort the numbers", TRUST_TEXT, trust_table(found), benchmark_facts(found)),
        Section("p-values", "", [table for table in [p_value_table(found, whole.made)] if table], is_folded=True),
        Section("All scores", "", all_scores(found), is_folded=True),
    ]
    return [section for section in sections if section and (section.parts or section.text)]


def evaluation_html(whole: Digest, plots: Mapping[str, Plot]) -> str:
    """The report as one page that opens offline."""
    labels = whole.found.labels()
    parts = [
        f'<p class="kicker">manypaths eval{escape(_when(whole))}</p>',
        f"<h1>{escape(_title(labels))}</h1>",
        f'<p class="lead">{escape(lead(whole))}</p>',
        *map(_html_alert, whole.alerts),
    ]
    for section in sections(whole, plots):
        content = "\n".join(_html_part(part) for part in section.parts)
        if section.is_folded:
            parts += [html_details(section.title, content)] if section.parts else []
            continue
        heading = section.title or section.parts[0].title
        text = f'<p class="caption">{escape(section.text)}</p>' if section.text else ""
        parts += [f"<h2>{escape(heading)}</h2>", text, content]
    parts.append(html_details("How it was run", html_definitions(facts(whole.found))))
    return html_page(f"{_title(labels)}: manypaths report", [part for part in parts if part])


def evaluation_markdown(whole: Digest, plots: Mapping[str, Plot], links: Mapping[str, str]) -> str:
    """The report as Markdown; links maps a plot's title to its path beside the file."""
    parts = [f"# {_title(whole.found.labels())}", lead(whole)]
    for alert in whole.alerts:
        parts.append("\n".join([f"> **{alert.title}.** {alert.advice}", ">", *(f"> - {line}" for line in alert.where)]))
    for section in sections(whole, plots):
        if section.is_folded and not section.parts:
            continue
        parts.append(f"## {section.title or section.parts[0].title}")
        parts += [section.text] if section.text else []
        for part in section.parts:
            if isinstance(part, Plot):
                parts += [f"![{part.title}]({links[part.title]})", part.caption]
            else:
                parts.append(markdown_table(part).strip())
    parts += ["## How it was run", "\n".join(f"- {name}: {value}" for name, value in facts(whole.found))]
    return "\n\n".join(parts) + "\n"


def lead(whole: Digest) -> str:
    """What was evaluated, in a sentence or two."""
    found = whole.found
    models = "One model" if len(found.results) == 1 else f"{len(found.results)} models"
    parts = [f"{len(found.graded)} graded benchmark{'s' if len(found.graded) != 1 else ''}"] if found.graded else []
    if found.open_ended:
        parts.append(f"{len(found.open_ended)} open-ended set{'s' if len(found.open_ended) != 1 else ''} of prompts")
    settings = list(dict.fromkeys(entry.setting for entry in found.entries))
    own = "the default temperature of each benchmark"
    heat = " and ".join([own] * (None in settings) + [", ".join(f"{one:g}" for one in settings if one is not None)])
    heat = heat.removesuffix(" and ") if None in settings else f"temperature {heat}"
    text = f"{models}{', ' if parts else ''}{', '.join(parts)}{f', sampled at {heat}' if settings else ''}."
    if whole.made:
        clear = sum(one.distinguishable for one in whole.made.values())
        text += f" Of {len(whole.made)} paired comparisons, {clear or 'none'} can be told from chance after correction."
    return text


def _section(title: str, text: str, *parts: Table | Plot | None) -> Section | None:
    kept = [part for part in parts if part is not None]
    return Section(title, text, kept) if kept else None


def _heat(whole: Digest, plot: Plot | None) -> Section | None:
    """Diversity over temperature, or what is missing for it."""
    found, title = whole.found, "Diversity is not heat"
    if not any((one.get("num_samples") or 1) > 1 for one in found.found.values()):
        return None
    table = matched_table(found, whole.matched)
    reasons = [f"Not matched with {found.labels()[0]}: {reason}." for reason in whole.unmatched]
    if plot is None and table is None:
        return Section(title, " ".join([FEW_TEMPERATURES, *reasons]), [])
    if table is None and len(found.results) > 1 and not reasons:
        reasons = [FEW_TEMPERATURES]
    return Section(title, " ".join(reasons), [part for part in (plot, table) if part is not None])


def _title(labels: Sequence[str]) -> str:
    return (
        f"Evaluation of {labels[0]}" if len(labels) == 1 else f"Evaluation of {', '.join(labels[:-1])} and {labels[-1]}"
    )


def _when(whole: Digest) -> str:
    days = sorted({str(one["created"])[:10] for one in whole.found.results if one.get("created")})
    return f"; {days[0]}" + (f" to {days[-1]}" if len(days) > 1 else "") if days else ""


def _html_part(part: Table | Plot) -> str:
    if isinstance(part, Plot):
        return f'<p class="caption">{escape(part.caption)}</p>\n{html_drawing(part)}'
    return html_table(part)


def _html_alert(alert: Alert) -> str:
    items = "".join(f"<li>{escape(line)}</li>" for line in alert.where)
    return (
        f'<section class="alert" role="alert">\n<h3>{escape(alert.title)}</h3>\n<p>{escape(alert.advice)}</p>\n'
        f"<ul>{items}</ul>\n</section>"
    )
