"""What can be reproduced, and how: which runs an item needs, and what it tells from them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from tag2mask.errors import InputError
from tag2mask.progress import Reporter
from tag2mask.reproduce import fig3, fig5, fig6, fig7, fig8, scalars, table1, table2, table4, table5
from tag2mask.reproduce.cells import Cell, compute, merged
from tag2mask.reproduce.draw import charts
from tag2mask.reproduce.fig3 import photos_of
from tag2mask.reproduce.page import write_page
from tag2mask.reproduce.result import Result, read_result
from tag2mask.reproduce.scales import Scale
from tag2mask.settings import flattened


@dataclass(frozen=True)
class Item:
    """A table or figure of the paper."""

    title: str
    cells: Callable[[Scale, Path], list[Cell]]
    """(scale, output folder) -> the runs it needs."""
    tell: Callable[[Scale, Path, str, str], Result]
    """(scale, output folder, protocol, command) -> the result, from finished runs."""


ITEMS: dict[str, Item] = {
    "table1": Item("every host without and with FPR", table1.cells, table1.tell),
    "table2": Item("segmenters", table2.cells, table2.tell),
    "table3": Item("masks by stage", table2.cells, table2.tell_coco),
    "table4": Item("co-occurring classes, beside W-OoD", table4.cells, table4.tell),
    "table5": Item("what each term adds", table5.cells, table5.tell),
    "fig3": Item("localization maps", fig3.cells, fig3.tell),
    "fig4": Item("segmentations", fig3.segmentation_cells, fig3.tell_segmentations),
    "fig5": Item("prototypes by epoch", fig5.cells, fig5.tell),
    "fig6": Item("suppressed pixels and their prototypes", fig6.cells, fig6.tell),
    "fig7": Item("weights of the terms, and the number of prototypes", fig7.cells, fig7.tell),
    "fig8": Item("false discovery rate by class", fig8.cells, fig8.tell),
    "scalars": Item("loss, probability of absent classes, classes that improve", scalars.cells, scalars.tell),
}
"""By the names that the command takes."""


def chosen_items(names: tuple[str, ...]) -> tuple[str, ...]:
    """Items by name; ``all`` stands for every one."""
    for name in names:
        if name not in ITEMS and name != "all":
            raise InputError(f"reproduce {name!r}: expected one of {', '.join(ITEMS)}, or all.")
    return tuple(ITEMS) if "all" in names else tuple(dict.fromkeys(names))


def reproduce(
    names: tuple[str, ...], scale: Scale, out: Path, protocol: str, jobs: int, command: str, report: Reporter
) -> list[Result]:
    """Compute items and write NAME.json and NAME.md of each, and a page of all that ``out`` has; runs are resumed.

    Raises:
        InputError: an unknown item, no matplotlib, a set without masks, or no run of an item could be computed.
    """
    chosen = chosen_items(names)
    charts()  # whether it is there is known before hours of runs
    require_masks_of(scale)
    out.mkdir(parents=True, exist_ok=True)
    wanted = {name: ITEMS[name].cells(scale, out) for name in chosen}
    cells = merged(cell for own in wanted.values() for cell in own)
    failed = compute(cells, out, jobs, report)
    if cells and len(failed) == len(cells):
        raise InputError(f"none of {len(cells)} runs could be computed; {next(iter(failed.items()))[1]}")
    results = []
    for name in chosen:
        result = ITEMS[name].tell(scale, out, protocol, command.replace(" ".join(names), name, 1))
        own = {cell.name for cell in wanted[name]}
        result = replace(
            result, missing={run: why for run, why in failed.items() if run in own},
            settings=settings_of([cell for cell in cells if cell.name in own], out),
        )  # fmt: skip
        result.write(out)
        results.append(result)
    there = [out / f"{name}.json" for name in ITEMS]  # of earlier commands as well
    write_page([read_result(path) for path in there if path.is_file()], out)
    return results


def require_masks_of(scale: Scale) -> None:
    """Figures are held against masks; photos of one's own without any are told of before a run begins.

    Raises:
        InputError: a set has none.
    """
    for dataset in scale.sets:
        if photos_of(dataset, scale.seeds[0])[1] is None:
            raise InputError(
                f"{dataset.data.root} has no masks, which the figures are held against; add them as "
                "docs/your-photos.md says (at laptop --data.root may also be left away)."
            )


def settings_of(cells: list[Cell], out: Path) -> dict[str, Any]:
    """Settings of the first run, and of each other one those that differ, by dotted name; what lies in ``out`` is told
    from there.
    """
    found: dict[str, Any] = {}
    first: dict[str, Any] = {}
    for cell in cells:
        own = dict(flattened(asdict(cell.config)))
        own = {k: v.removeprefix(f"{out.resolve()}/") if isinstance(v, str) else v for k, v in own.items()}
        found[cell.name] = {name: value for name, value in own.items() if not first or value != first[name]}
        first = first or own
    return found
