"""The same run with other settings, and tags that look wrong."""

from __future__ import annotations

from pathlib import Path

from tag2mask.commands import command, common, method_names, new_parser
from tag2mask.errors import InputError


@command("the same run with other settings, as a table")
def sweep(arguments: list[str]) -> int:
    """Vary settings of a run, in parallel; every cell is a run folder of its own."""
    parser = new_parser(
        "sweep",
        "tag2mask sweep RUN --out FOLDER --vary KEY=VALUE,VALUE [--methods fpr] [--seeds 0,1] [--jobs 2]",
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
        "tag2mask audit RUN [--seed S] [--limit 200] [--apply FILE --labels-out FILE]",
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
        tags = "tag" if done.added == 1 else "tags"
        print(f"corrected labels: {done.labels} ({done.added} {tags} added, {done.removed} removed)")
        print(f"provenance: {done.provenance}")
        print(f"To train on them: {done.next_run}")
        return 0
    from tag2mask.progress import Reporter
    from tag2mask.report.audit_page import looking, write_audit_page
    from tag2mask.stages.audit import audit_run

    reporter = Reporter(values.quiet)
    found = audit_run(run, values.seed, values.limit, reporter)
    with reporter.task("pictures of the page") as step:
        page = write_audit_page(run, found, step)
    missing, wrong = found.flagged["missing"], found.flagged["wrong"]
    shown = f" (the first {len(found.suspects)})" if len(found.suspects) < missing + wrong else ""
    both = f"{looking(missing, 'missing')}, {looking(wrong, 'wrong')}"
    print(f"{both}: {page.with_name('suspects.csv')}{shown}")
    if found.caution:
        print(found.caution)
    if found.not_judged:
        print(f"not judged, as too little could be learnt of them: {', '.join(found.not_judged)}")
    print(f"page: {page}")
    return 0
