"""Results as Markdown: the report file, and tables and readings for a document."""

import re
from collections.abc import Mapping, Sequence

from .layout import Cell, Row, Table
from .reading import Reading, readings
from .summary import check_runs
from .tables import conditions, facts, method_notes, tables_of
from .wording import READING_HELP, world_story

# what starts code, links, tags, entities, emphasis, struck text or another cell
SPECIAL = re.compile(r"[\\`|~]|\](?=\()|<(?=[A-Za-z/!?])|&(?=#?\w+;)|(?<!\w)_|_(?!\w)")


def report_markdown(results: Mapping, plots: Mapping[str, str]) -> str:
    """The whole report; plots maps a plot's description to its path beside the file.

    Raises ValueError as check_runs does.
    """
    check_runs(results)
    question, story = world_story(results)
    parts = [
        f"# {question}",
        story,
        f"World `{results['world']}`; {conditions(results)}.",
        *_reading_parts(results),
    ]
    parts += [f"![{description}]({path})" for description, path in plots.items()]
    parts += map(markdown_table, tables_of(results))
    parts += ["### Rows", "\n".join(f"- {label}: {note}" for label, note in method_notes(results))]
    parts += ["### How it was run", "\n".join(f"- {name}: {value}" for name, value in facts(results))]
    return "\n\n".join(parts) + "\n"


def markdown_table(table: Table) -> str:
    """A GitHub table under its title, followed by its note."""
    lines = [
        f"| | {' | '.join(markdown_text(heading) for heading, _ in table.columns)} |",
        f"|---|{'---:|' * len(table.columns)}",
        *(f"| {_markdown_label(row)} | {' | '.join(map(_markdown_cell, row.cells))} |" for row in table.rows),
    ]
    return "\n".join([f"### {markdown_text(table.title)}", "", *lines, "", markdown_text(table.note)])


def markdown_text(text: str, emphasis: str = "") -> str:
    """The text on one line, its characters shown as they are, between two `emphasis` ("*" or "**").

    A single asterisk within plain text has no partner and stays.
    """
    line = SPECIAL.sub(r"\\\g<0>", re.sub(r"\s*[\r\n]+\s*", " ", text))
    if emphasis or line.startswith("*") or line.count("*") > 1:
        line = line.replace("*", r"\*")
    return f"{emphasis}{line}{emphasis}"


def markdown_readings(found: Sequence[Reading]) -> str:
    """One bullet per claim."""
    return "\n".join(f"- **{reading.title}.** {reading.text}" for reading in found)


def study_markdown(results: Mapping | Sequence[Mapping]) -> str:
    """Full tables and readings of one or several worlds as Markdown, ready to be put into a document.

    Raises ValueError as summarize does.
    """
    if isinstance(results, Mapping):
        results = [results]
    return "\n\n".join(_world_markdown(world) for world in results) + "\n"


def _world_markdown(results: Mapping) -> str:
    check_runs(results)
    question, story = world_story(results)
    parts = [f"## {results['world']}: {question}", story, f"Measured with {conditions(results)}."]
    return "\n\n".join([*parts, *_reading_parts(results), *map(markdown_table, tables_of(results))])


def _reading_parts(results: Mapping) -> list[str]:
    found = readings(results)
    return ["### Reading", READING_HELP, markdown_readings(found)] if found else []


def _markdown_label(row: Row) -> str:
    return markdown_text(row.label, {"baseline": "**", "control": "*"}.get(row.kind, ""))


def _markdown_cell(cell: Cell) -> str:
    value = markdown_text(cell.value, "**") if cell.strong and cell.value else markdown_text(cell.value)
    return " ".join(part for part in (value, markdown_text(cell.spread) + cell.mark) if part)
