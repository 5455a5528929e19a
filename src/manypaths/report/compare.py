"""The function behind `manypaths report`: results of one or several models from disk to a report."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from .evaluation_page import Digest, digest, evaluation_html, evaluation_markdown
from .evaluation_plots import evaluation_plots
from .evaluation_summary import check_result
from .evaluation_terminal import print_digest
from .plots import save_plots

RESULTS = "results.json"


def report(paths: Sequence[str | Path], folder: str | Path) -> Path:
    """Compare evaluated models: print the tables, write report.html, report.md and plots/; returns report.html.

    paths: output folders of `manypaths eval`, or their results.json; the first is what others are compared with.
    Raises ValueError as load_results does, or when there can be no such folder; then nothing is written.
    """
    check_report_folder(folder)
    whole = digest(load_results(paths))
    page = _write(whole, folder)
    print_digest(whole, Console())
    print(f"report: {page}")
    return page


def write_evaluation_report(results: Sequence[Mapping], folder: str | Path) -> Path:
    """Write report.html, report.md and plots/*.svg, *.png into `folder`; returns the path of report.html.

    The folder is made when missing; an older report in it is replaced.
    Raises ValueError for no results, other dictionaries, two with one label, or a file where the folder should be;
    then nothing is written.
    """
    return _write(digest(results), folder)


def check_report_folder(folder: str | Path) -> None:
    """ValueError when the report cannot be written there because a file is in the way."""
    plots = Path(folder) / "plots"
    for place in (plots, *plots.parents):
        if place.exists() and not place.is_dir():
            raise ValueError(f"{place} is a file, and a report is a folder: give another --output_dir.")


def load_results(paths: Sequence[str | Path]) -> list[dict[str, Any]]:
    """The content of every results.json; a folder stands for the one in it.

    Raises ValueError for no paths, a file that is missing or not JSON, and one of another kind or schema.
    """
    if isinstance(paths, (str, Path)):
        paths = [paths]
    if not paths:
        raise ValueError("There is nothing to report: give folders of `manypaths eval`, or their results.json.")
    return [_load(Path(path)) for path in paths]


def _load(path: Path) -> dict[str, Any]:
    file = path / RESULTS if path.is_dir() else path
    if not file.is_file():
        where = f"{path} has no {RESULTS}" if path.is_dir() else f"{path} does not exist"
        raise ValueError(f"{where}: give a folder that `manypaths eval` has finished, or its {RESULTS}.")
    try:
        result = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{file} is not JSON ({error}); evaluate again, or give another file.") from error
    check_result(result, str(file))
    return result


def _write(whole: Digest, folder: str | Path) -> Path:
    check_report_folder(folder)
    plots = evaluation_plots(whole.found, whole.means)
    html = evaluation_html(whole, plots)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    names = save_plots(list(plots.values()), folder / "plots") if plots else {}
    links = {title: f"plots/{name}" for title, name in names.items()}
    (folder / "report.md").write_text(evaluation_markdown(whole, plots, links), encoding="utf-8")
    page = folder / "report.html"
    page.write_text(html, encoding="utf-8")
    return page
