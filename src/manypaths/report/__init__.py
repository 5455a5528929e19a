"""From results to something a person reads: one report on the terminal, as Markdown and as one offline HTML page."""

from .write import ReportConfig, print_report, report, study_markdown, training_report, write_report

__all__ = ["ReportConfig", "print_report", "report", "study_markdown", "training_report", "write_report"]
