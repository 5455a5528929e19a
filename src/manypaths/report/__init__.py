"""From a results dictionary to something a person reads: terminal, Markdown, HTML, plots, honest sentences."""

from collections.abc import Mapping
from pathlib import Path

from .compare import check_report_folder, load_results, report, write_evaluation_report
from .evaluation_terminal import print_evaluation
from .html import report_html
from .markdown import report_markdown, study_markdown
from .plots import plots_of, save_plots
from .reading import Reading, readings
from .summary import check_runs, summarize
from .terminal import print_table

__all__ = [
    "Reading",
    "load_results",
    "print_evaluation",
    "print_table",
    "readings",
    "report",
    "study_markdown",
    "summarize",
    "write_evaluation_report",
    "write_report",
]


def write_report(results: Mapping, folder: str | Path) -> Path:
    """Write report.html, report.md and plots/*.svg, *.png into `folder`; returns the path of report.html.

    The folder is made when missing; older reports in it are replaced. Stages or methods that were not run are
    left out. Raises ValueError when there are no runs, or two share method, stage and seed,
    or a file is where the folder should be.
    """
    check_runs(results)
    check_report_folder(folder)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    plots = plots_of(results)
    files = save_plots(plots, folder / "plots")
    links = {title: f"plots/{name}" for title, name in files.items()}
    (folder / "report.md").write_text(report_markdown(results, links), encoding="utf-8")
    page = folder / "report.html"
    page.write_text(report_html(results, plots), encoding="utf-8")
    return page
