"""The command line. Its sub-commands are the stages; nothing heavy is imported before one of them runs."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from tag2mask import __version__
from tag2mask.errors import InputError

COMMANDS: dict[str, tuple[str, Callable[[list[str]], int]]] = {}
EPILOG = """`tag2mask COMMAND --help` shows every option of a command.
Exit codes: 0 done, 1 findings, 2 bad input, 130 stopped."""


def command(summary: str) -> Callable[[Callable[[list[str]], int]], Callable[[list[str]], int]]:
    """Register a function as a sub-command under its own name."""

    def register(function: Callable[[list[str]], int]) -> Callable[[list[str]], int]:
        COMMANDS[function.__name__] = (summary, function)
        return function

    return register


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; user errors become one line and exit code 2."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if not given or given[0] in ("-h", "--help", "help"):
        print(usage())
        return 0
    if given[0] == "--version":
        print(f"tag2mask {__version__}")
        return 0
    try:
        if given[0] not in COMMANDS:
            raise InputError(f"there is no command {given[0]!r}{nearest(given[0])}; run `tag2mask --help`.")
        return COMMANDS[given[0]][1](given[1:])
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        place = f" ({error.filename})" if error.filename else ""
        print(f"error: {error.strerror or error}{place}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; what was finished is kept (train and demo go on with --resume)", file=sys.stderr)
        return 130


def usage() -> str:
    """The overview that `tag2mask --help` prints."""
    rows = "\n".join(f"  {name:<10} {summary}" for name, (summary, _) in COMMANDS.items())
    title = "tag2mask: photos with tags in, segmentation masks out."
    return f"{title}\n\nusage: tag2mask COMMAND ...\n\n{rows}\n\n{EPILOG}"


def nearest(name: str) -> str:
    """A suggestion for a mistyped command."""
    import difflib

    near = difflib.get_close_matches(name, list(COMMANDS), n=1)
    return f", did you mean {near[0]!r}" if near else ""


USAGES = {
    "demo": "tag2mask demo --out RUN [--table] [--resume] [OPTION ...]",
    "check": "tag2mask check FOLDER [OPTION ...]",
    "train": "tag2mask train --out RUN [--config FILE.yaml] [--resume] [OPTION ...]",
    "localize": "tag2mask localize RUN [--methods cam,fpr] [--split val]",
    "evaluate": "tag2mask evaluate RUN [--methods cam,fpr] [--split val] [--suppressed]",
    "report": "tag2mask report RUN",
    "sweep": "tag2mask sweep RUN --out FOLDER --vary KEY=VALUE,VALUE [--methods fpr] [--seeds 0,1] [--jobs 2]",
    "audit": "tag2mask audit RUN [--seed S] [--limit 200] [--apply FILE --labels-out FILE]",
}


def new_parser(name: str, description: str) -> Any:
    """A parser for one command."""
    from tag2mask.settings import SettingsParser

    return SettingsParser(
        prog=f"tag2mask {name}",
        usage=USAGES[name],
        description=description,
        allow_abbrev=False,
        exit_on_error=True,
        env_prefix=False,
    )


def common(parser: Any) -> None:
    """Options of every command that works for a while."""
    parser.add_argument("--quiet", action="store_true", help="Print results and warnings alone.")


@command("the built-in benchmark, from nothing to a report, in minutes")
def demo(arguments: list[str]) -> int:
    """Train CAM, controls and FPR on the built-in scenes and show the table."""
    from tag2mask.settings import add_run_settings, run_config, with_lists

    parser = new_parser(
        "demo",
        "Draw scenes, train a class activation map, train it on with and without False Positive Rectification, and "
        "show what comes out: a table and a report to open in a browser. Any setting of `tag2mask train` may be added.",
    )
    parser.add_argument("--out", required=True, type=str, help="Folder of the run.")
    parser.add_argument(
        "--table", action="store_true", help="All methods, three seeds of network and scenes."
    )
    parser.add_argument("--resume", action="store_true", help="Go on with a run that was cut off.")
    common(parser)
    add_run_settings(parser, "demo")
    parser.set_defaults({"methods": ("continued", "halo", "sharpen", "fpr")})
    if "--table" in arguments:
        every = ("continued", "focal", "halo", "sharpen", "rc", "pr", "paper", "training_free", "fpr")
        parser.set_defaults({"seeds": (0, 1, 2), "methods": every})
    values = parser.parse_args(with_lists(arguments))
    config = run_config(values)  # before the heavy imports, so that a mistake is told at once
    from tag2mask.stages.demo import run_demo

    return run_demo(config, Path(values.out), values.resume, values.quiet)


@command("list every problem of a data set at once")
def check(arguments: list[str]) -> int:
    """Check a data set; exit code 1 when there are errors."""
    from tag2mask.settings import add_run_settings, run_config, with_lists

    parser = new_parser(
        "check", "Read a whole data set, photos, tags and masks, and print every problem at once."
    )
    parser.add_argument(
        "root", nargs="?", default="", type=str, help="Folder of the data set (same as --data.root)."
    )
    add_run_settings(parser)
    values = parser.parse_args(with_lists(guess_kind(arguments)))
    if values.root:
        values.data.root = values.root
    from tag2mask.data.check import check as find

    config = run_config(values).data
    findings = find(config)
    for finding in findings:
        print(f"{finding.severity}: {finding.where}: {finding.what}; {finding.todo}")
    errors = sum(finding.severity == "error" for finding in findings)
    print(f"{errors} errors, {len(findings) - errors} warnings")
    return 1 if errors else 0


def guess_kind(arguments: list[str]) -> list[str]:
    """For `check FOLDER`: the layout of the folder, unless --data.kind says it."""
    values = {
        b for a, b in pairwise(arguments) if a.startswith("--") and "=" not in a
    }  # of options, not the folder
    folder = next((a for a in arguments if not a.startswith("-") and a not in values), "")
    if not folder or any(a.startswith(("--data.kind", "--data.root", "--config")) for a in arguments):
        return arguments
    if not Path(folder).is_dir():
        raise InputError(f"there is no folder {folder!r}; give the folder of the data set.")
    kind = "voc" if (Path(folder) / "ImageSets").is_dir() else "folder"
    split = (
        []
        if any(a.startswith("--data.split") for a in arguments) or kind == "voc"
        else ["--data.split", "all"]
    )
    return [*arguments, "--data.kind", kind, "--data.root", folder, *split]


@command("train the classifier (CAM), then FPR and its controls")
def train(arguments: list[str]) -> int:
    """Train on a data set."""
    from tag2mask.settings import add_run_settings, preset_of, run_config, with_lists

    parser = new_parser(
        "train",
        "Train the classifier that gives the class activation map, then train it on with False Positive Rectification "
        "and with the controls. Example: tag2mask train --out runs/mine --data.kind folder --data.root photos",
    )
    parser.add_argument("--out", required=True, type=str, help="Folder of the run.")
    parser.add_argument(
        "--preset", default="laptop", type=str, help="Defaults: laptop, demo, paper or authors."
    )
    parser.add_argument(
        "--resume", action="store_true", help="Go on with a run that was cut off, to the same weights."
    )
    common(parser)
    add_run_settings(parser, preset_of(arguments))
    values = parser.parse_args(with_lists(arguments))
    config, run = run_config(values), Path(values.out)
    from tag2mask.progress import Reporter
    from tag2mask.stages import pipeline

    pipeline.train(config, run, Reporter(values.quiet), values.resume)
    print(f"trained: {run}. Next: tag2mask localize {run}   or, with masks, tag2mask evaluate {run}")
    return 0


def run_parser(name: str, description: str) -> Any:
    """A parser for the commands that work on a run folder."""
    parser = new_parser(name, description)
    parser.add_argument("run", type=str, help="Folder of a run, the --out of `tag2mask train`.")
    parser.add_argument(
        "--methods", default="", type=str, help="Some methods alone, such as cam,fpr; default: all."
    )
    parser.add_argument(
        "--split", default="", type=str, help="Another split than the one trained on, such as val."
    )
    common(parser)
    return parser


def method_names(text: str) -> tuple[str, ...]:
    """``cam,fpr`` as a tuple."""
    return tuple(name for name in text.split(",") if name)


@command("write the localization maps and masks of every image")
def localize(arguments: list[str]) -> int:
    """Localization maps, one compressed file for each image, and masks, one palette PNG for each."""
    values = run_parser(
        "localize",
        "Write localization maps for the tagged classes of each image, and masks from them: palette PNGs, "
        "0 background, 1 the first class, at a threshold that the maps alone decide. Maps that exist are left alone.",
    ).parse_args(arguments)
    from tag2mask.progress import Reporter
    from tag2mask.stages import pipeline

    folders = pipeline.localize_run(
        Path(values.run), method_names(values.methods), values.split, Reporter(values.quiet)
    )
    for maps, masks, threshold in folders:
        print(f"maps {maps}   masks {masks} (threshold {threshold:.2f}, by the maps alone)")
    return 0


@command("score the maps against masks")
def evaluate(arguments: list[str]) -> int:
    """Figures by protocol; writes summary.json."""
    parser = run_parser(
        "evaluate",
        "Score every method of a run against the masks, under every threshold protocol; writes summary.json.",
    )
    parser.add_argument(
        "--suppressed",
        action="store_true",
        help="Instead: how many of the pixels that FPR pushes down and lifts are rightly chosen; writes "
        "suppressed.json.",
    )
    values = parser.parse_args(arguments)
    if values.suppressed and (values.methods or values.split):
        raise InputError("--suppressed looks at the CAM and the photos of its training; leave out --methods, --split.")
    from tag2mask.progress import Reporter
    from tag2mask.stages import pipeline
    from tag2mask.stages.table import print_summary

    run = Path(values.run)
    if values.suppressed:
        from tag2mask.stages.suppressed import markdown, measure_suppressed

        print(markdown(measure_suppressed(run, Reporter(values.quiet))))
        return 0
    summary = pipeline.evaluate_run(run, method_names(values.methods), values.split, Reporter(values.quiet))
    print_summary(summary)
    return 0


@command("make the report page of a run")
def report(arguments: list[str]) -> int:
    """A self-contained HTML page."""
    parser = new_parser("report", "Write report.html into a run folder: one file, no server, no network.")
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


@command("the same run with other settings, as a table")
def sweep(arguments: list[str]) -> int:
    """Vary settings of a run, in parallel; every cell is a run folder of its own."""
    parser = new_parser(
        "sweep",
        "Train and score a run again for every combination of some settings, and print a table. Frozen features are "
        "shared, and the CAM as well where the settings come after it; what is finished is not computed again. "
        "Example: tag2mask sweep runs/mine --out runs/weights --vary fpr.pixel_weight=0.4,4,40 --methods continued,fpr",
    )
    parser.add_argument("run", type=str, help="Folder of a trained run.")
    parser.add_argument("--out", required=True, type=str, help="Folder of the sweep.")
    parser.add_argument("--vary", required=True, action="append", type=str, help="KEY=VALUE,VALUE; may be repeated.")
    parser.add_argument("--methods", default="", type=str, help="Methods, such as continued,fpr; default: the run's.")
    parser.add_argument("--seeds", default="", type=str, help="Seeds, such as 0,1,2; default: the run's.")
    parser.add_argument("--split", default="", type=str, help="Another split to score, such as val.")
    parser.add_argument("--jobs", default=1, type=int, help="Cells at a time, each on one thread.")
    common(parser)
    values = parser.parse_args(arguments)
    if values.jobs < 1:
        raise InputError(f"--jobs is {values.jobs}; expected 1 or more.")
    if not all(part.isdigit() for part in method_names(values.seeds)):
        raise InputError(f"--seeds {values.seeds!r}; expected numbers such as 0,1,2.")
    seeds = tuple(int(part) for part in method_names(values.seeds))
    from tag2mask.progress import Reporter
    from tag2mask.stages.sweep import markdown, sweep

    result = sweep(
        Path(values.run), Path(values.out), values.vary, method_names(values.methods), seeds, values.split,
        values.jobs, Reporter(values.quiet),
    )  # fmt: skip
    print(markdown(result))
    return 0


@command("rank suspected missing and wrong tags, and correct them")
def audit(arguments: list[str]) -> int:
    """Suspects with a page to accept or reject them, or, with --apply, a corrected label file."""
    parser = new_parser(
        "audit",
        "Rank the tags that look missing or wrong, by classifiers that did not see them, and write audit/suspects.csv "
        "and audit/audit.html into the run folder: accept or reject there and save decisions.csv. With --apply, write "
        "the label file with the accepted changes made, and where each came from. No mask is read.",
    )
    parser.add_argument("run", type=str, help="Folder of a run with a trained CAM, the --out of `tag2mask train`.")
    parser.add_argument("--seed", default=None, type=int | None, help="Seed of the run; default: its first.")
    parser.add_argument("--limit", default=200, type=int, help="How many suspects to show, of both kinds together.")
    parser.add_argument("--apply", default="", type=str, help="CSV file of decisions; needs --labels-out.")
    parser.add_argument("--labels-out", default="", type=str, help="Corrected label file; needs --apply.")
    common(parser)
    values = parser.parse_args(arguments)
    if bool(values.apply) != bool(values.labels_out):
        raise InputError("--apply and --labels-out go together; give the decisions and the file to write.")
    run = Path(values.run)
    if values.apply:
        from tag2mask.stages.corrections import apply_decisions

        done = apply_decisions(run, Path(values.apply), Path(values.labels_out))
        print(f"corrected labels: {done.labels} ({done.added} tags added, {done.removed} removed)")
        print(f"provenance: {done.provenance}   To train on them: --data.labels {done.labels.resolve()}")
        return 0
    from tag2mask.progress import Reporter
    from tag2mask.report.audit_page import write_audit_page
    from tag2mask.stages.audit import audit_run

    reporter = Reporter(values.quiet)
    found = audit_run(run, values.seed, values.limit, reporter)
    with reporter.task("pictures of the page") as step:
        page = write_audit_page(run, found, step)
    missing, wrong = found.flagged["missing"], found.flagged["wrong"]
    shown = f" (the first {len(found.suspects)})" if len(found.suspects) < missing + wrong else ""
    print(f"{missing} tags look missing, {wrong} look wrong: {page.with_name('suspects.csv')}{shown}")
    print(f"page: {page}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
