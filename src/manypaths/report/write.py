"""Reports of finished evaluations and experiments: the subcommand, and the functions that write and print one."""

from dataclasses import dataclass, field, replace
from pathlib import Path

from rich.console import Console

from ..config import helped
from ..evaluation.scores import UNITS
from ..evaluation.table import Results, load_results, new_header, score_frame
from ..run_folder import RunFolder, content_fingerprint, read_run, write_whole
from ..training.curves import curves
from . import render
from .compare import Study
from .sections import report_of


@dataclass
class ReportConfig:
    """Which results to report, and where to."""

    results: list[str] | None = field(
        default=None,
        metadata={"help": "Folders of evaluations and experiments, or their results.json; the baseline first."},
    )
    output_dir: str = helped("report", "Folder of report.html, report.md and plots/.")


def report(config: ReportConfig) -> Path:
    """`manypaths report`: print and write a report of finished evaluations and experiments; the path of report.html.

    Raises ValueError or FileNotFoundError for results that cannot be read or put together, or a folder that holds
    another run; then nothing is written.
    """
    if not config.results:
        raise ValueError(
            "There is nothing to report: give --results with folders of finished evaluations or experiments."
        )
    results = load_results(config.results)
    inputs = {"results": [content_fingerprint(folder / "results.json") for folder in results.folders]}
    with RunFolder(config.output_dir, "report", inputs) as folder:
        page = write_report(results, folder.path)
        folder.record()
    print_report(results)
    print(f"report: {page}")
    return page


def write_report(results: Results, folder: str | Path) -> Path:
    """report.html, report.md and plots/*.svg in `folder`, which the caller holds; older ones are replaced."""
    folder = Path(folder)
    study = Study(results)
    page = report_of(study, folder)
    plots = render.svgs(page, study)
    if plots:
        (folder / "plots").mkdir(parents=True, exist_ok=True)
    for name, svg in plots.items():
        write_whole(folder / "plots" / f"{name}.svg", svg)
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / "report.md", render.markdown(page, lambda name: f"plots/{name}.svg"))
    write_whole(folder / "report.html", render.html(page, study))
    return folder / "report.html"


def training_report(folder: str | Path) -> Path | None:
    """report.html and report.md of a training run beside its model: what was logged, the threshold, the settings.

    `folder` is the output folder of `manypaths sft` or `grpo`, at its end. None where fewer steps were trained than make a
    line in the log.
    """
    folder = Path(folder)
    run, logged = read_run(folder), curves(folder)
    if not logged.get("step"):
        return None
    stage = {"sft": "sft", "grpo": "rl"}[run["subcommand"]]
    settings = run["settings"]
    names = {"method": folder.absolute().name, "stage": stage, "seed": settings.get("seed")}
    facts = {name: settings.get(name) for name in ("objective", "objective_kwargs")}
    facts |= {"training": logged, "weights": None, "folder": None}
    fixed = {**names, "task": "training", "n": 1, "over": "the last log step"}
    scores = [
        {**fixed, "metric": name, "value": values[-1], "unit": UNITS.get(name, "")}
        for name, values in logged.items()
        if name not in ("step", "calibration")
    ]
    results = Results(score_frame(scores), runs=[{**names, **facts}], header=new_header(settings))
    return write_report(results, folder)


def print_report(results: Results, console: Console | None = None) -> None:
    """The verdicts and tables on the terminal."""
    render.terminal(report_of(Study(results), Path()), console or Console())


def study_markdown(results: Results, link: str) -> str:
    """The main sections of a report as a part of a document; `link` is the path of a figure with {name} in it."""
    page = report_of(Study(results), Path())
    page = replace(page, sections=[section for section in page.sections if not section.folded])
    return render.markdown(page, lambda name: link.format(name=name), level=2)
