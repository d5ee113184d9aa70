"""The built-in benchmark as one command."""

from __future__ import annotations

import time
from pathlib import Path

from tag2mask.config import RunConfig
from tag2mask.progress import Reporter
from tag2mask.report import write_report
from tag2mask.runs import write_json
from tag2mask.stages import pipeline
from tag2mask.stages.table import print_summary


def run_demo(config: RunConfig, run: Path, resume: bool, quiet: bool) -> int:
    """Train, score, and report; prints the table and the path of the report."""
    start = time.monotonic()
    report = Reporter(quiet)
    pipeline.train(config, run, report, resume)
    summary = pipeline.evaluate_run(run, (), "", report)
    pipeline.prepare_report(run, report)
    summary["seconds"] = round(time.monotonic() - start, 1)
    write_json(run / "summary.json", summary)
    print_summary(summary)
    print(f"{summary['seconds']:.0f} s. Report: {write_report(run)}")
    return 0
