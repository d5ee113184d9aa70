"""Class names, their super-classes and their colours."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import yaml

from tag2mask.data.files import DataError, fault, normal, read_text

VOC_SUPERCLASSES = {
    "person": ("person",),
    "animal": ("bird", "cat", "cow", "dog", "horse", "sheep"),
    "vehicle": ("aeroplane", "bicycle", "boat", "bus", "car", "motorbike", "train"),
    "indoor": ("bottle", "chair", "diningtable", "pottedplant", "sofa", "tvmonitor"),
}
"""The four super-classes of PASCAL VOC."""

VOC_NAMES = tuple(sorted(name for members in VOC_SUPERCLASSES.values() for name in members))
"""The 20 classes of PASCAL VOC; their official order, which numbers the masks, is the alphabetical one."""

COCO_SUPERCLASSES = {
    "person": ("person",),
    "vehicle": ("bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat"),
    "outdoor": ("traffic light", "fire hydrant", "stop sign", "parking meter", "bench"),
    "animal": ("bird", "cat", "dog", "horse", "sheep", "cow", "elephant", "bear", "zebra", "giraffe"),
    "accessory": ("backpack", "umbrella", "handbag", "tie", "suitcase"),
    "sports": (
        "frisbee", "skis", "snowboard", "sports ball", "kite", "baseball bat", "baseball glove", "skateboard",
        "surfboard", "tennis racket",
    ),
    "kitchen": ("bottle", "wine glass", "cup", "fork", "knife", "spoon", "bowl"),
    "food": (
        "banana", "apple", "sandwich", "orange", "broccoli", "carrot", "hot dog", "pizza", "donut", "cake",
    ),
    "furniture": ("chair", "couch", "potted plant", "bed", "dining table", "toilet"),
    "electronic": ("tv", "laptop", "mouse", "remote", "keyboard", "cell phone"),
    "appliance": ("microwave", "oven", "toaster", "sink", "refrigerator"),
    "indoor": ("book", "clock", "vase", "scissors", "teddy bear", "hair drier", "toothbrush"),
}  # fmt: skip
"""The twelve super-categories of COCO."""

COCO_NAMES = tuple(name for members in COCO_SUPERCLASSES.values() for name in members)
"""The 80 classes of COCO in the order of their category ids, which have gaps: the mask value is the position + 1."""


@dataclass(frozen=True)
class Classes:
    """The classes of a data set. Class c has the value c + 1 in masks; 0 is background, which is never a tag."""

    names: tuple[str, ...]
    superclasses: tuple[str, ...] | None = None
    """One super-class name for each class, in the order of ``names``; None where the data has none."""

    def __post_init__(self) -> None:
        if len(self._positions) != len(self.names):
            raise ValueError(f"class names repeat: {self.names}")
        if self.superclasses is not None and len(self.superclasses) != len(self.names):
            raise ValueError(f"{len(self.names)} classes, but {len(self.superclasses)} super-classes")

    @cached_property
    def _positions(self) -> dict[str, int]:
        return {normal(name): position for position, name in enumerate(self.names)}

    def __len__(self) -> int:
        return len(self.names)

    def find(self, name: str) -> int | None:
        """Position of a class, or None. Unicode form and white space around the name do not matter."""
        return self._positions.get(normal(name))

    def index(self, name: str, where: str) -> int:
        """Position of a class. An ``InputError`` names ``where`` (file and row) and suggests the nearest name."""
        position = self.find(name)
        if position is None:
            raise unknown_class(name, where, self.names)
        return position

    def superclass_ids(self) -> tuple[int, ...] | None:
        """A number for the super-class of each class, counted from 0 in order of first appearance."""
        if self.superclasses is None:
            return None
        order = list(dict.fromkeys(self.superclasses))
        return tuple(order.index(name) for name in self.superclasses)


def unknown_class(name: str, where: str, known: Sequence[str]) -> DataError:
    """The error for a name that is no class, with advice: a wrong separator, a near miss, or the list of classes."""
    if any(mark in name for mark in ",|/") and len(name.replace("|", ",").replace("/", ",").split(",")) > 1:
        advice = "several names are joined by `;`"
    else:
        folded = {normal(each).casefold(): each for each in known}
        close = difflib.get_close_matches(normal(name).casefold(), list(folded), n=1)
        shown = ", ".join(known[:20]) + (" ..." if len(known) > 20 else "")
        advice = f"did you mean {folded[close[0]]!r}?" if close else f"the classes are {shown}"
    return fault(where, f"unknown class {name!r}", advice.removesuffix("?"))


def read_classes(path: Path) -> tuple[str, ...]:
    """Class names, one a line; line k names the mask value k, so a blank line between names is an error."""
    lines = [normal(line) for line in read_text(path).rstrip().split("\n")]
    rows: dict[str, int] = {}
    for row, name in enumerate(lines, start=1):
        where = f"{path}, row {row}"
        if not name:
            raise fault(where, "a blank line between the names", "delete it: line k names the mask value k")
        if name.casefold() == "background":
            raise fault(where, "background is no class", "delete the line: 0 in masks is always background")
        if ";" in name:
            raise fault(
                where, f"class name {name!r} holds a `;`", "write one name a line; `;` joins names in tags"
            )
        if name in rows:
            raise fault(where, f"class {name!r} is already in row {rows[name]}", "name each class once")
        rows[name] = row
    return tuple(lines)


def read_superclasses(path: Path, names: Sequence[str], known: Sequence[str] = ()) -> tuple[str, ...]:
    """Super-class of each of ``names``, from YAML ``{super-class: [class, ...]}``.

    Each of ``names`` must stand there exactly once. Names in ``known`` may stand there too and are passed over: the
    classes of the data that are not in use.
    """
    try:
        content = yaml.safe_load(read_text(path))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = str(path) if mark is None else f"{path}, row {mark.line + 1}"
        raise fault(where, "this is not YAML", "write lines such as `animal: [cat, dog]`") from None
    if not isinstance(content, dict):
        raise fault(path, "no super-classes found", "write lines such as `animal: [cat, dog]`")
    superclass_of: dict[str, str] = {}
    for superclass, members in content.items():
        where = f"{path}, super-class {superclass!r}"
        if not isinstance(superclass, str) or not isinstance(members, list):
            raise fault(
                where, "this is not a list of class names", "write lines such as `animal: [cat, dog]`"
            )
        for member in members:
            if not isinstance(member, str):
                raise fault(
                    where, f"{member!r} is not a text", "put class names such as no, on or 12 in quotes"
                )
            member = normal(member)
            if member not in names and member not in known:
                raise unknown_class(member, where, [*names, *(name for name in known if name not in names)])
            if member in superclass_of:
                earlier = superclass_of[member]
                raise fault(
                    where, f"class {member!r} is already in {earlier!r}", "put each class in one super-class"
                )
            superclass_of[member] = superclass
    for name in names:
        if name not in superclass_of:
            raise fault(path, f"class {name!r} has no super-class", "put it in one, alone if need be")
    return tuple(superclass_of[name] for name in names)


def built_in_superclasses(names: Sequence[str], partly: bool = False) -> tuple[str, ...] | None:
    """Super-classes of data that have the 20 classes of VOC or the 80 of COCO, one for each of ``names``; else None.

    ``partly``: some of VOC's 20 are enough.
    """
    for groups in (VOC_SUPERCLASSES,) if partly else (VOC_SUPERCLASSES, COCO_SUPERCLASSES):
        group_of = {name: group for group, members in groups.items() for name in members}
        if names and (set(names) <= set(group_of) if partly else set(names) == set(group_of)):
            return tuple(group_of[name] for name in names)
    return None


def palette(count: int) -> np.ndarray:
    """The PASCAL VOC colours of the mask values 0..``count``, (count + 1, 3) uint8; 0 is black.

    Bits 0, 1, 2 of a value are the highest bits of red, green and blue, bits 3, 4, 5 the next ones, and so on. The
    value 255 (ignore) comes out as the usual (224, 224, 192).
    """
    values = np.arange(count + 1)
    colours = np.zeros((count + 1, 3), dtype=np.uint8)
    for place in range(8):
        for channel in range(3):
            bit = (values >> (3 * place + channel)) & 1
            colours[:, channel] |= (bit << (7 - place)).astype(np.uint8)
    return colours
