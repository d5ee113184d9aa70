"""report.html: what a run found, on one page that opens from disk."""

from pathlib import Path


def write_report(run: Path) -> Path:
    return run / "report.html"
