"""From tags to localization maps, figures and a report."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

from tag2mask.commands import WHOSE_DEFAULTS, check_apart, command, common, method_names, new_parser, run_parser
from tag2mask.commands.attribution import with_attribution
from tag2mask.errors import InputError


@command("the built-in benchmark, from nothing to a report, in minutes")
def demo(arguments: list[str]) -> int:
    """Train CAM, controls and FPR on the built-in scenes and show the table."""
    from tag2mask.settings import add_run_settings, host_of, run_config, with_lists

    parser = new_parser(
        "demo",
        "tag2mask demo --out RUN [--host seam] [--table] [--full] [--resume] [OPTION ...]",
        "Draw scenes, train a class activation map, train it on with and without False Positive Rectification, and "
        "show what comes out: a table and a report to open in a browser. Any setting of `tag2mask train` may be added.",
    )
    parser.add_argument("--out", required=True, type=str, help="Folder of the run.")
    parser.add_argument(
        "--table", action="store_true", help="All methods, three seeds of network and scenes."
    )
    parser.add_argument("--full", action="store_true", help="Go on to refined masks and a segmenter.")
    parser.add_argument("--resume", action="store_true", help="Go on with a run that was cut off.")
    common(parser)
    arguments, host = host_of(arguments)
    add_run_settings(parser, "demo", host)
    parser.set_defaults({"methods": ("continued", "halo", "sharpen", "fpr")})
    if "--table" in arguments:
        every = ("continued", "focal", "halo", "sharpen", "rc", "pr", "paper", "training_free", "fpr")
        parser.set_defaults({"seeds": (0, 1, 2), "methods": every})
    values = parser.parse_args(with_lists(arguments))
    config = run_config(values)  # before the heavy imports, so that a mistake is told at once
    from tag2mask.stages.demo import run_demo

    return run_demo(config, Path(values.out), values.resume, values.quiet, values.full)


@command("list every problem of a data set at once, its counts and what a run will cost")
def check(arguments: list[str]) -> int:
    """Check a data set; exit code 1 when there are errors."""
    from tag2mask.settings import add_run_settings, preset_of, run_config, with_lists

    parser = new_parser(
        "check",
        "tag2mask check FOLDER [OPTION ...]",
        "Read a whole data set, photos, tags and masks, and print every problem at once; then its counts, which "
        "classes go together, checksums of tags and masks, and what a run of these settings takes in disk and memory.",
    )
    parser.add_argument(
        "root", nargs="?", default="", type=str, help="Folder of the data set (same as --data.root)."
    )
    parser.add_argument("--preset", default="laptop", type=str, help="Whose settings the cost is told for.")
    common(parser)
    add_run_settings(parser, preset_of(arguments))
    if preset_of(arguments) == "laptop":
        parser.set_defaults({"methods": ("fpr",)})  # as `tag2mask run` has them
    values = parser.parse_args(with_lists(guess_kind(arguments, everything=True)))
    if values.root:
        values.data.root = values.root
    config = run_config(values)
    from tag2mask.data.check import inspect
    from tag2mask.progress import Reporter

    with Reporter(values.quiet).task("photos") as step:
        found = inspect(config.data, lambda done, total: step(done, total))
    for finding in found.findings:
        print(f"{finding.severity}: {finding.where}: {finding.what}; {finding.todo}")
    if found.images is not None and len(found.images):
        from tag2mask.data.facts import tag_lines
        from tag2mask.data.published import agreement
        from tag2mask.stages.cost import cost_lines, estimate_cost

        cost = estimate_cost(config, found.images, found.pixels)
        lines = tag_lines(found.images)
        if found.splits:
            counts = ", ".join(f"{name}: {count:,}" for name, count in found.splits.items())
            lines.insert(1, f"rows by their split: {counts}")
        for line in [*lines, *agreement(config.data, found.images), *cost_lines(cost, config)]:
            print(line)
        print(f"tags  sha256 {found.labels_sha256}")
        if found.masks_sha256 or found.masks_unfit:
            print(f"masks sha256 {found.masks_sha256 or '- (not all are fit)'}")
    errors = sum(finding.severity == "error" for finding in found.findings)
    warnings = len(found.findings) - errors
    print(f"{errors} error{'s'[: errors != 1]}, {warnings} warning{'s'[: warnings != 1]}")
    return 1 if errors else 0


def guess_kind(arguments: list[str], everything: bool) -> list[str]:
    """For commands on a FOLDER: its layout, unless data.kind is said; ``everything``: all splits of it."""
    from tag2mask.settings import given

    folder = ""
    for before, argument in pairwise(["", *arguments]):
        is_value = before.startswith("--") and "=" not in before and before != "--quiet"  # which takes none
        if not (is_value or argument.startswith("-")):
            folder = argument
            break
    if not folder:
        return arguments
    path = Path(folder)
    if path.is_file():
        raise InputError(f"{folder} is a file; give the folder of the data set, such as {str(path.parent)!r}.")
    if given(arguments, "data.kind"):
        return arguments
    if not path.is_dir():
        raise InputError(f"there is no folder {folder!r}; give the folder of the data set.")
    from tag2mask.data.layout import has_table, layout_of

    kind = "folder" if given(arguments, "data.labels") and layout_of(path) == "classes" else layout_of(path)
    if kind in ("folder", "classes") and not has_table(path) and not given(arguments, "data.labels"):
        if (path / "settings.yaml").is_file() and (path / "versions.json").is_file():
            raise InputError(f"{folder} is the folder of a run (it has a settings.yaml); give that of the photos.")
        if kind == "folder":
            raise InputError(
                f"{folder} has no table of tags (labels.csv, labels.tsv, labels.parquet) and no other layout (a folder "
                "for each class, COCO's annotations/instances_*.json, VOC's ImageSets, a saved Hugging Face dataset, "
                "tar files); write labels.csv with the columns image and labels, or name a table in --data.labels."
            )
    all_splits = everything and kind in ("folder", "shards") and not given(arguments, "data.split")
    split = ["--data.split", "all"] if all_splits else []
    return [*arguments, "--data.kind", kind, "--data.root", folder, *split]


@command("train the classifier (CAM), then FPR and its controls")
def train(arguments: list[str]) -> int:
    """Train on a data set."""
    from tag2mask.settings import add_run_settings, given, host_of, preset_of, run_config, with_lists

    parser = new_parser(
        "train",
        "tag2mask train --out RUN [--host seam] [--config FILE.yaml] [--resume] [OPTION ...]",
        "Train the classifier that gives the class activation map, then train it on with False Positive Rectification "
        "and with the controls. Example: tag2mask train --out runs/mine --data.kind folder --data.root photos",
    )
    parser.add_argument("--out", required=True, type=str, help="Folder of the run.")
    parser.add_argument("--preset", default="laptop", type=str, help=WHOSE_DEFAULTS)
    parser.add_argument(
        "--resume", action="store_true", help="Go on with a run that was cut off, to the same weights."
    )
    common(parser)
    arguments, host = host_of(arguments)
    add_run_settings(parser, preset_of(arguments), host)
    values = parser.parse_args(with_lists(arguments))
    config, run = run_config(values), Path(values.out)
    check_apart(values.out, config.data.root)
    from tag2mask.progress import Reporter
    from tag2mask.stages import pipeline

    if not given(arguments, "data"):
        Reporter(values.quiet).say("no --data: the built-in scenes")
    pipeline.train(config, run, Reporter(values.quiet), values.resume)
    print(f"trained: {run}. Next: tag2mask localize {run}   or, with masks, tag2mask evaluate {run}")
    return 0


@command("write the localization maps and masks of every image")
def localize(arguments: list[str]) -> int:
    """Localization maps, one compressed file for each image, and masks, one palette PNG for each."""
    parser = run_parser(
        "localize",
        "tag2mask localize RUN [--methods cam,fpr] [--split val] [--method advcam [--maps.advcam.iterations 19]]",
        "Write localization maps for the tagged classes of each image, and masks from them: palette PNGs, "
        "0 background, 1 the first class, at a threshold that the maps alone decide. Maps that exist are left alone. "
        "--methods names what was trained, --method how it localizes; by AdvCAM an image takes seconds, and what was "
        "cut off goes on.",
    )
    values, maps = with_attribution(parser, arguments)
    from tag2mask.progress import Reporter
    from tag2mask.stages import pipeline

    folders = pipeline.localize_run(
        Path(values.run), method_names(values.methods), values.split, Reporter(values.quiet), maps
    )
    for folder, masks, threshold in folders:
        print(f"maps {folder}   masks {masks} (threshold {threshold:.2f}, by the maps alone)")
    return 0


@command("score the maps against masks")
def evaluate(arguments: list[str]) -> int:
    """Figures by protocol; writes summary.json."""
    parser = run_parser(
        "evaluate",
        "tag2mask evaluate RUN [--methods cam,fpr] [--split val] "
        "[--method advcam | --stages | --suppressed | --budget N]",
        "Score every method of a run against the masks, under every threshold protocol; writes summary.json, and "
        "summary.advcam.json of maps by --method advcam, which are made first where they are missing.",
    )
    parser.add_argument(
        "--suppressed",
        action="store_true",
        help="Instead: how many of the pixels that FPR pushes down and lifts are rightly chosen; writes "
        "suppressed.json.",
    )
    parser.add_argument(
        "--stages",
        action="store_true",
        help="Instead: masks of every stage that the run has, from maps to segmenter; writes stages.json.",
    )
    parser.add_argument(
        "--budget",
        default="",
        type=str,
        help="Instead: mIoU at the threshold that so many annotated training photos choose, such as 1,10,50, averaged "
        "over draws; writes budget.json.",
    )
    values, maps = with_attribution(parser, arguments)
    if values.suppressed and (values.methods or values.split or values.stages or values.budget):
        raise InputError(
            "--suppressed looks at the CAM and the photos of its training; leave out --methods, --split and the others."
        )
    if values.method and (values.suppressed or values.stages or values.budget):
        raise InputError("--method goes with the figures of maps; masks of other maps: --stages --methods fpr/advcam.")
    if "/" in values.methods and not values.stages:
        raise InputError("figures of maps by another method: such as --methods cam,fpr --method advcam.")
    from tag2mask import ranks
    from tag2mask.progress import Reporter
    from tag2mask.stages import pipeline
    from tag2mask.stages.table import print_summary

    run = Path(values.run)
    if values.suppressed:
        from tag2mask.stages.suppressed import markdown, measure_suppressed

        print(markdown(ranks.once(lambda: measure_suppressed(run, Reporter(values.quiet)))))
        return 0
    if values.budget:
        from tag2mask.stages.selection import markdown as budget_table
        from tag2mask.stages.selection import measure_budget

        if not all(part.isdigit() and int(part) for part in method_names(values.budget)):
            raise InputError(f"--budget {values.budget!r}; expected numbers of photos such as 1,10,50.")
        budgets = tuple(int(part) for part in method_names(values.budget))
        methods, reporter = method_names(values.methods), Reporter(values.quiet)
        print(budget_table(ranks.once(lambda: measure_budget(run, budgets, methods, values.split, reporter))))
        return 0
    if values.stages:
        from tag2mask.stages.mask_figures import markdown as stage_table

        methods, reporter = method_names(values.methods), Reporter(values.quiet)
        print(stage_table(pipeline.evaluate_stages(run, methods, values.split, reporter)))
        return 0
    summary = pipeline.evaluate_run(run, method_names(values.methods), values.split, Reporter(values.quiet), maps)
    print_summary(summary)
    return 0


@command("make the report page of a run")
def report(arguments: list[str]) -> int:
    """A self-contained HTML page."""
    parser = new_parser(
        "report", "tag2mask report RUN",
        "Write report.html into a run folder: one file, no server, no network.")
    parser.add_argument("run", type=str, help="Folder of a run.")
    common(parser)
    values = parser.parse_args(arguments)
    from tag2mask.progress import Reporter
    from tag2mask.report import write_report
    from tag2mask.stages import pipeline

    run = Path(values.run)
    pipeline.prepare_report(run, Reporter(values.quiet))
    print(f"report: {write_report(run)}")
    return 0


@command("look whether every file of a run is what was written")
def verify(arguments: list[str]) -> int:
    """Read a run's files and compare them with its manifests; exit code 1 when one is damaged or missing."""
    parser = new_parser(
        "verify", "tag2mask verify RUN",
        "Read every file of a run whole and compare it with the manifests that the run has written. Prints what is "
        "damaged, missing or not described, and what to do; changes nothing. Exit code 1 when something is damaged or "
        "missing.")
    parser.add_argument("run", type=str, help="Folder of a run.")
    common(parser)
    values = parser.parse_args(arguments)
    from tag2mask.progress import Reporter
    from tag2mask.stages.verify import verify_run

    with Reporter(values.quiet).task("files") as step:
        faults, sound = verify_run(Path(values.run), step)
    for fault in faults:
        print(f"{fault.kind}: {fault.path}; {fault.todo}")
    counts = {kind: sum(fault.kind == kind for fault in faults) for kind in ("damaged", "missing", "not described")}
    print(", ".join([f"{sound} files are as written", *(f"{count} {kind}" for kind, count in counts.items())]))
    return 1 if counts["damaged"] or counts["missing"] else 0
