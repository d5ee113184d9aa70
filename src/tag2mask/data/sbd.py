"""The Semantic Boundaries Dataset beside PASCAL VOC 2012, and the list ``train_aug`` that the two make together.

SBD has labels of pixels for more images of VOC. VOC's ``train`` and all of SBD without VOC's ``val`` are 10,582 images,
on which the field trains. No list is shipped here: it is computed from the two.

benchmark_RELEASE/dataset/train.txt, val.txt    one image id a line
benchmark_RELEASE/dataset/cls/<id>.mat          masks, read by ``sbd_masks.py`` for evaluation alone
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tag2mask.config import DataConfig
from tag2mask.data.files import fault, normal, read_text

AUGMENTED = "train_aug"
"""The list that is computed."""
FOLDERS = ("SBD", "sbd", "benchmark_RELEASE")
"""What SBD's folder is called by people and by its own archive."""


def find_sbd(config: DataConfig) -> Path | None:
    """The folder with SBD's lists: the one that is named, else one in VOC's folder, beside it, or beside VOCdevkit.

    Raises ``DataError`` when the one that is named has no lists.
    """
    root = Path(config.root)
    if config.sbd:
        found = _with_lists(root / config.sbd)
        if found is None:
            what = "data.sbd names no folder with the lists train.txt and val.txt"
            raise fault(root / config.sbd, what, "name SBD's folder benchmark_RELEASE, or `dataset` in it")
        return found
    homes = [root, *list(root.absolute().parents)[:2]]
    return next((found for home in homes for name in FOLDERS if (found := _with_lists(home / name))), None)


def _with_lists(folder: Path) -> Path | None:
    for home in (folder, folder / "dataset", folder / "benchmark_RELEASE" / "dataset"):
        if (home / "train.txt").is_file() and (home / "val.txt").is_file():
            return home
    return None


def augmented_ids(voc_lists: Path, sbd: Path) -> Iterator[tuple[str, str]]:
    """The place (file and row) and the id of each image of ``train_aug``, sorted by id.

    VOC's train, SBD's train and SBD's val, each image once, without those of VOC's val.
    """
    held_out = {image_id for _, image_id in listed_ids(voc_lists / "val.txt")}
    places: dict[str, str] = {}
    for path in (voc_lists / "train.txt", sbd / "train.txt", sbd / "val.txt"):
        for where, image_id in listed_ids(path):
            if image_id not in held_out:
                places.setdefault(image_id, where)
    for image_id in sorted(places):
        yield places[image_id], image_id


def listed_ids(path: Path) -> Iterator[tuple[str, str]]:
    """The place (file and row) and the id of each image of a list file; blank lines are passed over."""
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if image_id := normal(line):
            yield f"{path}, row {number}", image_id
