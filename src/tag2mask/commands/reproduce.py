"""The paper's tables and figures."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tag2mask.commands import command, common, method_names, new_parser
from tag2mask.errors import InputError

PROTOCOLS = ("gtfree", "fixed", "matched", "oracle")


@command("a table or figure of the paper, ours beside theirs")
def reproduce(arguments: list[str]) -> int:
    """Compute items of the paper, on the built-in scenes or on photos of one's own."""
    from tag2mask.config import DataConfig
    from tag2mask.settings import build, with_lists

    parser = new_parser(
        "reproduce",
        "tag2mask reproduce table1 --out FOLDER [--scale laptop|voc|coco] [--data.root FOLDER] [--jobs 2] [OPTION ...]",
        "Compute tables and figures of the paper and write JSON, Markdown and pictures: ours, the paper's, and two "
        "controls beside every gain. `laptop` is the built-in scenes and, if given, photos of one's own; `voc` and "
        "`coco` need the data set and say what they cost before they start. Runs are shared between items, computed in "
        "parallel, and a command that was cut off goes on where it was.",
    )
    parser.add_argument("names", nargs="+", type=str, metavar="ITEM", help="table1..table5, fig3..fig8, scalars, all.")
    parser.add_argument("--out", required=True, type=str, help="Folder of the results; give the same one to go on.")
    parser.add_argument("--scale", default="laptop", type=str, help="laptop, voc or coco.")
    parser.add_argument(
        "--preset", default="", type=str,
        help="default: ours, on a frozen network (usual at laptop). paper, authors: settings of the paper (usual at "
        "voc, coco) or of the authors' release; at laptop with weights for so short a training, and one scale.",
    )  # fmt: skip
    parser.add_argument("--seeds", default="", type=str, help="Seeds, such as 0,1,2, which is the default.")
    parser.add_argument(
        "--jobs", default=1, type=int,
        help="Runs at a time, each on one thread; at voc and coco on its share of the cores.",
    )  # fmt: skip
    parser.add_argument("--protocol", default="gtfree", type=str, help=f"Of the figures: {', '.join(PROTOCOLS)}.")
    parser.add_argument("--yes", action="store_true", help="Start a scale that costs hours without being asked again.")
    parser.add_class_arguments(DataConfig, "data")
    common(parser)
    values = parser.parse_args(with_lists(arguments, "data"))
    if values.jobs < 1:
        raise InputError(f"--jobs is {values.jobs}; expected 1 or more.")
    if values.protocol not in PROTOCOLS:
        raise InputError(f"--protocol {values.protocol!r} is unknown; expected one of {', '.join(PROTOCOLS)}.")
    if not all(part.isdigit() for part in method_names(values.seeds)):
        raise InputError(f"--seeds {values.seeds!r}; expected numbers such as 0,1,2.")
    seeds = tuple(int(part) for part in method_names(values.seeds))
    given = values.as_dict()["data"]
    if given["root"] and not any(a == "--data" or a.startswith(("--data=", "--data.kind")) for a in arguments):
        given["kind"] = kind_of(values.scale, given["root"])
    own = build(DataConfig, given, "the settings", "data.") if given["root"] else None
    from tag2mask.reproduce.scales import scale_of

    scale = scale_of(values.scale, own, seeds, values.preset)
    if scale.cost:
        print(scale.cost)
        if not values.yes:
            raise InputError(f"--scale {values.scale} takes long; add --yes to start it.")
    from tag2mask.progress import Reporter
    from tag2mask.reproduce.items import chosen_items, reproduce

    names = chosen_items(tuple(values.names))
    options = ["--scale", values.scale, "--preset", scale.sets[0].form, "--seeds", ",".join(map(str, scale.seeds))]
    options += ["--protocol", values.protocol, *data_options(given), "--out", values.out]
    command_line = f"tag2mask reproduce {' '.join(values.names)} {shlex.join(options)}"
    results = reproduce(
        tuple(values.names), scale, Path(values.out), values.protocol, values.jobs, command_line, Reporter(values.quiet)
    )
    for name, result in zip(names, results, strict=True):
        print(result.markdown())
        print(f"written: {Path(values.out) / name}.json and .md")
    return 1 if any(result.missing for result in results) else 0


def kind_of(scale: str, root: str) -> str:
    """Which layout the photos have: at ``voc`` and ``coco`` the set's own, else what the folder looks like."""
    from tag2mask.data.layout import layout_of

    if not Path(root).is_dir():
        raise InputError(f"--data.root: there is no folder {root!r}; give the folder of the data set.")
    return layout_of(Path(root)) if scale == "laptop" else scale


def data_options(given: dict[str, Any]) -> Iterator[str]:
    """The options of the data that are not their defaults, as they are typed."""
    from tag2mask.config import DataConfig
    from tag2mask.settings import flattened

    usual = dict(flattened(asdict(DataConfig())))
    for name, value in flattened(given):
        plain = tuple(value) if isinstance(value, list) else value
        if plain != usual[name]:
            yield from (f"--data.{name}", ",".join(plain) if isinstance(plain, tuple) else str(plain))
