"""One report, three renderings: the terminal, Markdown, and one HTML page that needs no network."""

import json
from collections.abc import Callable, Mapping, Sequence
from functools import singledispatch
from typing import Any

import jinja2
import vl_convert
from altair.utils import _importers as altair_versions
from markupsafe import Markup
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from . import figures
from .compare import Study
from .table import Alert, Card, Cell, Completions, Facts, Figure, Report, Table

TONES = {"good": "green", "warn": "yellow", "bad": "red", "open": "cyan", "none": "dim"}
LABEL_WIDTH = 26  # longer names continue on the next line
SAFE = str.maketrans(
    {character: f"\\{character}" for character in "\\`*_{}[]<>#|$~"}
)  # what Markdown would take for markup


def html(report: Report, study: Study) -> str:
    """The page, with styles, scripts, chart library and data inside."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("manypaths.report", "."), autoescape=True, trim_blocks=True, lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )  # fmt: skip
    environment.tests["of_kind"] = lambda part, kind: type(part).__name__ == kind

    def source(name: str) -> Markup:
        return Markup(environment.loader.get_source(environment, name)[0])

    names = figures.series_of(study)
    themes = {mode: figures.theme(study, mode) for mode in figures.PALETTES}
    shapes = list(figures.SHAPES.values())
    drawn = any(isinstance(part, Figure) for section in report.sections for part in section.parts)
    return environment.get_template("page.html.j2").render(
        report=report,
        css=source("page.css"),
        javascript=source("page.js"),
        charts=Markup(vl_convert.javascript_bundle(vl_version=version()) if drawn else ""),
        colors={mode: theme["range"]["category"] for mode, theme in themes.items()},
        marks={
            label: {"index": names.index(name), "shape": shapes[names.index(name) % len(shapes)]}
            for label, name in [*zip(names, names, strict=True), *((row.label, study.name(row)) for row in study.rows)]
        },
        themes=themes,
        as_json=as_json,
        without_legends=figures.without_legends,
    )


def as_json(value: Any) -> Markup:
    """JSON that may stand in a script element, whatever its texts hold."""
    text = json.dumps(value, allow_nan=False)
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))


def version() -> str:
    return altair_versions.vl_version_for_vl_convert()


def svgs(report: Report, study: Study) -> dict[str, str]:
    """{name: SVG} of every figure."""

    def convert(spec: Mapping[str, Any]) -> str:
        return vl_convert.vegalite_to_svg(json.dumps(spec), vl_version=version())

    parts = [part for section in report.sections for part in section.parts]
    return {part.name: figures.svg(study, part, convert) for part in parts if isinstance(part, Figure)}


def markdown(report: Report, link: Callable[[str], str], level: int = 1) -> str:
    """The report as Markdown. link: the path of a figure by its name. level: of the title."""
    blocks = [f"{'#' * level} {safe(report.title)}", f"*{safe(report.kicker)}.* {safe(report.lead)}".strip()]
    blocks += [f"**{report.badge}.** {safe(report.verdict)}"] if report.badge else []
    blocks += [f"{'; '.join(f'{name}: {value}' for name, value in report.facts)}."] if report.facts else []
    for section in report.sections:
        if any(isinstance(part, Completions) for part in section.parts):
            continue
        blocks += [f"{'#' * (level + 1)} {safe(section.title)}"] + [safe(section.text)] * bool(section.text)
        for part in section.parts:
            blocks.append(as_markdown(part, level + 2, link))
    return "\n\n".join(blocks) + "\n"


@singledispatch
def as_markdown(part: Any, level: int, link: Callable[[str], str]) -> str:
    raise TypeError(type(part))


@as_markdown.register
def _(table: Table, level: int, link: Callable[[str], str]) -> str:
    heading = f"{'#' * level} {safe(table.title)}\n\n" if table.title else ""
    head = f"| {safe(table.corner)} | " + " | ".join(safe(name) for name, _ in table.columns) + " |"
    rule = "|---|" + "---:|" * len(table.columns)
    rows = [
        f"| {emphasis(line.kind, safe(line.label))} | {' | '.join(map(markdown_cell, line.cells))} |"
        for line in table.lines
    ]
    note = f"\n\n{safe(table.note)}" if table.note else ""
    return heading + "\n".join([head, rule, *rows]) + note


@as_markdown.register
def _(card: Card, level: int, link: Callable[[str], str]) -> str:
    table = as_markdown(card.table, level, link)
    return f"{'#' * level} {safe(card.title)}\n\n**{card.badge}.** {safe(card.text)}\n\n{table}\n\n{safe(card.note)}"


@as_markdown.register
def _(alert: Alert, level: int, link: Callable[[str], str]) -> str:
    return "\n".join(
        [f"> **{alert.title}.** {safe(alert.advice)}", ">", *(f"> - {safe(line)}" for line in alert.where)]
    )


@as_markdown.register
def _(figure: Figure, level: int, link: Callable[[str], str]) -> str:
    return f"![{figure.title}]({link(figure.name)})\n\n{safe(figure.caption)}"


@as_markdown.register
def _(facts: Facts, level: int, link: Callable[[str], str]) -> str:
    return "\n".join(f"- **{safe(name)}**: {safe(value)}" for name, value in facts.pairs)


def markdown_cell(cell: Cell) -> str:
    text = safe(cell.text) + safe(cell.mark)
    text = f"[{text}]({cell.link})" if cell.link else f"**{text}**" if cell.strong and text else text
    return f"{text} {safe(cell.spread)}".strip()


def emphasis(kind: str, text: str) -> str:
    return f"**{text}**" if kind == "baseline" else f"*{text}*" if kind == "control" else text


def safe(text: str) -> str:
    """Plain text in Markdown, on one line."""
    return " ".join(str(text).split()).translate(SAFE)


def terminal(report: Report, console: Console) -> None:
    """The verdict, the questions, and the tables that are not folded."""
    console.print(Text(f"\n{report.title}", style="bold"))
    if report.badge:
        console.print(Text.assemble((f" {report.badge} ", f"reverse {TONES[report.tone]}"), f" {report.verdict}"))
    console.print(Text(", ".join(f"{value} {name}" for name, value in report.facts), style="dim"))
    for section in report.sections:
        if section.folded or (
            all(isinstance(part, (Figure, Completions, Facts)) for part in section.parts) and section.parts
        ):
            continue
        console.print(Text(f"\n{section.title}", style="bold underline"))
        if section.text:
            console.print(Text(section.text, style="dim"))
        for part in section.parts:
            on_terminal(part, console)


@singledispatch
def on_terminal(part: Any, console: Console) -> None:
    """Figures, facts and completions are for pages."""


@on_terminal.register
def _(card: Card, console: Console) -> None:
    badge = (f" {card.badge} ", f"reverse {TONES[card.tone]}")
    console.print(Text.assemble("\n", (card.title, "bold"), "  ", badge, f"\n{card.text}"))


@on_terminal.register
def _(alert: Alert, console: Console) -> None:
    console.print(Text(f"! {alert.title}", style="bold red"))
    for line in alert.where:
        console.print(Text(f"  {line}", style="red"))
    console.print(Text(f"  {alert.advice}"))


@on_terminal.register
def _(table: Table, console: Console) -> None:
    """Columns that do not fit go into further blocks with the same rows."""
    if table.title:
        console.print(Text(f"\n{table.title}", style="bold"))
    cells = [[terminal_cell(cell) for cell in line.cells] for line in table.lines]
    heads = [name.replace(" ", "\n") for name, _ in table.columns]
    widths = [max(width(heads[place]), *(width(row[place].plain) for row in cells)) for place in range(len(heads))]
    label = min(LABEL_WIDTH, max(len(line.label) for line in table.lines))
    for block in blocks(widths, console.width - label):
        drawn = RichTable(box=SIMPLE_HEAD, padding=0, show_edge=False)
        drawn.add_column("", overflow="fold", width=label)
        for place in block:
            drawn.add_column(heads[place], justify="right", overflow="fold", max_width=console.width - label - 2)
        for line, row in zip(table.lines, cells, strict=True):
            style = {"baseline": "bold", "control": "italic"}.get(line.kind, "")
            drawn.add_row(Text(line.label, style=style), *(row[place] for place in block))
        console.print(drawn)
    if table.note:
        console.print(Text(table.note, style="dim"))


def blocks(widths: Sequence[int], room: int) -> list[list[int]]:
    """Columns in as few blocks as fit, each column with one space beside it."""
    parts: list[list[int]] = []
    left = 0
    for place, wide in enumerate(widths):
        if not parts or wide + 1 > left:
            parts.append([])
            left = room
        parts[-1].append(place)
        left -= wide + 1
    return parts


def width(text: str) -> int:
    return max(map(len, text.split("\n")))


def terminal_cell(cell: Cell) -> Text:
    """The value above its spread."""
    text = Text(cell.text + cell.mark, style=TONES.get(cell.tone, "bold" if cell.strong else ""))
    if cell.spread:
        text.append("\n" + cell.spread.replace("± ", "±").replace(", ", "\n"), style="not bold dim")
    return text
