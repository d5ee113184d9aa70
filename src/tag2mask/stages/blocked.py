"""The block list: pairs of photo and class that training counts as unknown, a CSV file with the columns image, class.

A negative prototype that really shows its class comes from a photo whose tag is missing. Blocked, the photo gives that
class no prototype and no classification loss. No torch here: the page that writes the list starts without it.
"""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tag2mask.config import RunConfig
from tag2mask.data import TaggedImages
from tag2mask.data.files import fault, normal, read_text
from tag2mask.errors import InputError
from tag2mask.runs import write_text

FILE = "blocked.csv"
COLUMNS = ("image", "class")
SEVERAL_SEEDS = (
    "built-in scenes differ with the seed, so a block list fits a run of one seed alone; train with --seeds 0, say."
)

Pairs = set[tuple[int, int]]
"""(image, class), by number."""


def blocked_pairs(config: RunConfig, images: TaggedImages) -> npt.NDArray[np.bool_]:
    """Where ``tags.blocked`` lists a pair, (N, C)."""
    result = np.zeros(images.labels.shape, bool)
    if config.tags.blocked:
        if not fits(config):
            raise InputError(f"tags.blocked: {SEVERAL_SEEDS}")
        for image, c in read_blocked(Path(config.tags.blocked), images):
            result[image, c] = True
    return result


def fits(config: RunConfig) -> bool:
    """Whether image ids mean the same photo for every seed of a run."""
    return config.data.kind != "cooccur" or len(config.seeds) == 1


def read_blocked(path: Path, images: TaggedImages) -> Pairs:
    """The pairs of a block list. An ``InputError`` names the row with an image or a class that is not in the data."""
    numbers = {normal(name): number for number, name in enumerate(images.ids)}
    reader = csv.reader(io.StringIO(read_text(path)), strict=True)
    found: Pairs = set()
    columns: list[int] = []
    start, advice = 1, "`tag2mask explore` writes such a file; or begin it with the line image,class"
    try:
        for record in reader:
            where, start = f"{path}, row {start}", reader.line_num + 1
            cells = [cell.strip() for cell in record]
            if not any(cells):
                continue
            if not columns:
                names = [cell.casefold() for cell in cells]
                lacking = [name for name in COLUMNS if name not in names]
                if lacking:
                    raise fault(where, f"the column {lacking[0]} is missing", advice)
                columns, width = [names.index(name) for name in COLUMNS], len(cells)
            elif len(cells) != width:
                raise fault(where, f"the row has {len(cells)} cells, the header {width}", advice)
            else:
                image, name = (cells[column] for column in columns)
                if normal(image) not in numbers:
                    raise fault(where, f"there is no image {image!r} in the data", "correct or delete the row")
                found.add((numbers[normal(image)], images.classes.index(name, where)))
    except csv.Error as error:
        raise fault(f"{path}, row {start}", f"this is not CSV ({error})", advice) from None
    if not columns:
        raise fault(path, "the file has no header", advice)
    return found


def write_blocked(path: Path, pairs: Pairs, images: TaggedImages) -> None:
    """Write a block list, in the order of images and classes."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows((images.ids[image], images.classes.names[c]) for image, c in sorted(pairs))
    write_text(path, text.getvalue())
