"""Results as one self-contained HTML page: opens offline, asks the network for nothing."""

from collections.abc import Mapping, Sequence
from html import escape

from .layout import Cell, Row, Table
from .plots import Plot, inline_svg
from .reading import VERDICTS, Reading, readings
from .style import CSS
from .summary import check_runs
from .tables import columns_of, conditions, facts, method_notes, tables_of
from .wording import READING_HELP, world_story


def report_html(results: Mapping, plots: Sequence[Plot]) -> str:
    """The whole report as one page: story, readings, pictures, tables, and how it was run.

    Raises ValueError as check_runs does.
    """
    check_runs(results)
    question, story = world_story(results)
    parts = [
        f'<p class="kicker">manypaths report, world <b>{escape(results["world"])}</b>; '
        f"{escape(conditions(results))}; {escape(str(results.get('created', '')))[:10]}</p>",
        f"<h1>{escape(question)}</h1>",
        f'<p class="lead">{escape(story)}</p>',
        _claims(readings(results)),
        *map(html_figure, plots),
        "<h2>All numbers</h2>",
        '<p class="note">Accuracies in percent, differences in percentage points. Point at a heading for its '
        "meaning, or open the glossary below.</p>",
        *map(html_table, tables_of(results)),
        _glossary(results),
        html_details("How it was run", html_definitions(facts(results))),
    ]
    return html_page(f"{results['world']}: manypaths report", [part for part in parts if part])


def html_page(title: str, parts: Sequence[str]) -> str:
    """A page of its own around the parts."""
    body = "\n".join(parts)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{CSS}</style>\n</head>\n"
        f"<body>\n<main>\n{body}\n</main>\n</body>\n</html>\n"
    )


def html_figure(plot: Plot) -> str:
    """A plot under its heading and caption."""
    return f'<h2>{escape(plot.title)}</h2>\n<p class="caption">{escape(plot.caption)}</p>\n{html_drawing(plot)}'


def html_drawing(plot: Plot) -> str:
    """A plot alone."""
    return f'<figure><div class="scroll">{inline_svg(plot)}</div></figure>'


def html_table(table: Table) -> str:
    """A table under its title, followed by its note."""
    headings = "".join(
        f'<th scope="col" title="{escape(meaning)}">{escape(heading)}</th>' for heading, meaning in table.columns
    )
    rows = "\n".join(map(_row, table.rows))
    return (
        f'<h3>{escape(table.title)}</h3>\n<div class="scroll"><table>\n<thead><tr><th></th>{headings}</tr></thead>\n'
        f'<tbody>\n{rows}\n</tbody></table></div>\n<p class="note">{escape(table.note)}</p>'
    )


def html_details(title: str, content: str, is_open: bool = False) -> str:
    """Content that folds away under its title."""
    return f"<details{' open' if is_open else ''}><summary>{escape(title)}</summary>\n{content}</details>"


def html_definitions(lines: Sequence[tuple[str, str]]) -> str:
    """Names beside their meanings or values."""
    items = "\n".join(f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>" for name, text in lines)
    return f"<dl>\n{items}\n</dl>"


def _claims(found: Sequence[Reading]) -> str:
    if not found:
        return ""
    claims = "".join(map(_claim, found))
    return f'<h2>In short</h2>\n<p class="caption">{escape(READING_HELP)}</p>\n<div class="claims">\n{claims}</div>'


def _claim(reading: Reading) -> str:
    plain = reading.plain[:1].upper() + reading.plain[1:]
    control = f'<p class="numbers">{escape(reading.control)}</p>\n' if reading.control else ""
    return (
        f'<section class="claim {reading.verdict}">\n<h3>{escape(reading.title)} '
        f'<span class="badge">{VERDICTS[reading.verdict]}</span></h3>\n'
        f'<p class="plain">{escape(plain)}</p>\n<p class="numbers">{escape(reading.finding)}</p>\n'
        f'{control}<p class="basis">{escape(reading.basis)}</p>\n</section>\n'
    )


def _row(row: Row) -> str:
    cells = "".join(map(_cell, row.cells))
    return f'<tr class="{row.kind}"><th scope="row" title="{escape(row.hint)}">{escape(row.label)}</th>{cells}</tr>'


def _cell(cell: Cell) -> str:
    value = f"<b>{escape(cell.value)}</b>" if cell.strong else escape(cell.value)
    spread = f" <small>{escape(cell.spread)}{cell.mark}</small>" if cell.spread or cell.mark else ""
    return f"<td>{value}{spread}</td>"


def _glossary(results: Mapping) -> str:
    columns = [(column.label, column.meaning) for column in columns_of(results)]
    return html_details("Glossary: rows and columns", html_definitions(method_notes(results) + columns), is_open=True)
