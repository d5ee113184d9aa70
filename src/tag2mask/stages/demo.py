"""Everything as one command: on the built-in benchmark, and on tagged photos."""

from __future__ import annotations

import time
from pathlib import Path

from tag2mask import ranks
from tag2mask.config import RunConfig
from tag2mask.data import open_images
from tag2mask.data.masks import open_masks
from tag2mask.manifests import write_result
from tag2mask.progress import Reporter
from tag2mask.report import write_report
from tag2mask.stages import pipeline
from tag2mask.stages.mask_figures import markdown
from tag2mask.stages.network import data_of_seed
from tag2mask.stages.refine import Refiner
from tag2mask.stages.table import print_summary


def run_demo(config: RunConfig, run: Path, resume: bool, quiet: bool, full: bool = False) -> int:
    """Train, score, and report; prints the table and the path of the report.

    ``full``: go on to refined masks and a segmenter, for the default method and the CAM trained on.
    """
    start = time.monotonic()
    report = Reporter(quiet)
    pipeline.train(config, run, report, resume)
    summary = pipeline.evaluate_run(run, (), "", report)
    stages = ""
    if full:
        methods = tuple(method for method in ("continued", "fpr") if method in config.methods)
        pipeline.segment_run(run, "irn", methods, report)
        stages = "\n\n".join(markdown(pipeline.evaluate_stages(run, (), split, report)) for split in ("", "val"))
    pipeline.prepare_report(run, report)
    summary["seconds"] = round(time.monotonic() - start, 3)
    write_result(run / "summary.json", summary)
    print_summary(summary)
    if stages:
        print(stages)
    print(f"{summary['seconds']:.0f} s. Report: {write_report(run)}")
    return 0


def run_everything(config: RunConfig, run: Path, refiner: Refiner, report: Reporter) -> int:
    """From tags to a segmenter, every stage in turn; what is finished is not done again."""
    start = time.monotonic()
    data = data_of_seed(config.data, config.seeds[0])
    scored = open_masks(data, open_images(data)) is not None  # a mistake in the data is told before any work
    parts = 5 if scored else 4
    report.say(f"1/{parts} classifier and rectification")
    pipeline.train(config, run, report, resume=True, later=True)
    method = pipeline.default_methods(config, run)
    report.say(f"2/{parts} localization maps, and masks refined by {refiner.upper()}")
    pipeline.refine_run(run, refiner, method, "", report)
    report.say(f"3/{parts} segmenter")
    (folder, *_) = pipeline.segment_run(run, refiner, method, report)
    if scored:
        report.say(f"4/{parts} figures, as there are masks to compare with")
        pipeline.evaluate_run(run, (), "", report)
        print(markdown(pipeline.evaluate_stages(run, (), "", report)))
    report.say(f"{parts}/{parts} report")
    pipeline.prepare_report(run, report)
    page = ranks.once(lambda: write_report(run))
    print(f"{time.monotonic() - start:.0f} s. Segmenter: {folder}. Report: {page}")
    print(f"Next: tag2mask predict {run} PHOTOS")
    return 0
