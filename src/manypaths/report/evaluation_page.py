"""A report on evaluations as sections, and these as Markdown and as one self-contained HTML page."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

from ..evaluation.intervals import Interval
from ..evaluation.matched import Matched
from .evaluation_comparison import Comparison, LeftOut, compare, matched
from .evaluation_conditions import Alert, alerts, benchmark_facts, facts, trust_table
from .evaluation_forgetting import forgetting_table
from .evaluation_summary import Entry, Evaluations, averages, gather, is_recorded, unknown_heat
from .evaluation_tables import (
    all_scores,
    benchmark_table,
    curve_table,
    difference_table,
    diversity_table,
    ledger_table,
    left_out_notes,
    matched_table,
    other_tables,
    p_value_table,
)
from .evaluation_wording import (
    DIVERSITY_TEXT,
    FORGETTING_TEXT,
    PAIRS_TEXT,
    TABLE_TEXT,
    TRUST_TEXT,
    benchmark_label,
)
from .html import html_definitions, html_details, html_drawing, html_page, html_table
from .layout import Table
from .markdown import markdown_table, markdown_text
from .plots import Plot

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
        _pairs(whole),
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
    parts = [f"# {markdown_text(_title(whole.found.labels()))}", markdown_text(lead(whole))]
    for alert in whole.alerts:
        where = (f"> - {markdown_text(line)}" for line in alert.where)
        parts.append("\n".join([f"> **{alert.title}.** {alert.advice}", ">", *where]))
    for section in sections(whole, plots):
        if section.is_folded and not section.parts:
            continue
        parts.append(f"## {section.title or section.parts[0].title}")
        parts += [markdown_text(section.text)] if section.text else []
        for part in section.parts:
            if isinstance(part, Plot):
                parts += [f"![{part.title}]({links[part.title]})", markdown_text(part.caption)]
            else:
                parts.append(markdown_table(part).strip())
    lines = (f"- {markdown_text(name)}: {markdown_text(value)}" for name, value in facts(whole.found))
    parts += ["## How it was run", "\n".join(lines)]
    return "\n\n".join(parts) + "\n"


def lead(whole: Digest) -> str:
    """What was evaluated, in a sentence or two."""
    found = whole.found
    models = "One model" if len(found.results) == 1 else f"{len(found.results)} models"
    parts = [f"{len(found.graded)} graded benchmark{'s' if len(found.graded) != 1 else ''}"] if found.graded else []
    if found.open_ended:
        parts.append(f"{len(found.open_ended)} open-ended set{'s' if len(found.open_ended) != 1 else ''} of prompts")
    text = f"{', '.join([models, *parts, *_sampled(found)])}{_made_elsewhere(found)}."
    if whole.made:
        clear = sum(one.distinguishable for one in whole.made.values())
        text += f" Of {len(whole.made)} paired comparisons, {clear or 'none'} can be told from chance after correction."
    return text


def _sampled(found: Evaluations) -> list[str]:
    """How hot the samples were drawn that were drawn here."""
    drawn = {entry.setting for (entry, _), one in found.found.items() if not is_recorded(one)}
    asked = ", ".join(f"{one:g}" for one in sorted(drawn - {None}))
    heat = ["the default temperature of each benchmark"] if None in drawn else []
    heat += [asked if heat else f"temperature {asked}"] if asked else []
    return [f"sampled at {' and '.join(heat)}"] if heat else []


def _made_elsewhere(found: Evaluations) -> str:
    """Whose texts were not drawn here, and what is known of their temperature."""
    whose: dict[str, list[str]] = {}
    recorded = {key: one for key, one in found.found.items() if is_recorded(one)}
    for label in found.labels():
        total = sum(entry.label == label for entry, _ in found.found)
        own = {key: one for key, one in recorded.items() if key[0].label == label}
        told = {key: one["temperature"] for key, one in own.items() if not unknown_heat(one)}
        temperatures = ", ".join(f"{one:g}" for one in sorted(set(told.values())))
        for heat, keys in (
            (f" at temperature {temperatures}", list(told)),
            (", temperature not known", [key for key in own if key not in told]),
        ):
            names = dict.fromkeys(benchmark_label(name) for _, name in keys)
            if keys:
                whose.setdefault(heat, []).append(label if len(keys) == total else f"{label} ({', '.join(names)})")
    if len(whose) == 1 and len(recorded) == len(found.found):
        return f"; the texts were made elsewhere{next(iter(whose))}"
    return "".join(f"; texts of {', '.join(names)} were made elsewhere{heat}" for heat, names in whose.items())


def _pairs(whole: Digest) -> Section | None:
    """The paired differences, or why there are none."""
    table = difference_table(whole.found, whole.made, whole.left_out)
    if table is not None:
        return Section("Paired comparisons", PAIRS_TEXT, [table])
    return Section("Paired comparisons", uncompared(whole), []) if whole.left_out else None


def uncompared(whole: Digest) -> str:
    """Why there is no paired comparison; empty when there are some, or nothing to compare."""
    if whole.made or not whole.left_out:
        return ""
    return " ".join(["Nothing could be compared.", *left_out_notes(whole.found, whole.left_out)])


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
