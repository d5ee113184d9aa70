"""report.html: what a run found, on one page that opens from disk."""

from tag2mask.report.page import write_report

__all__ = ["write_report"]
