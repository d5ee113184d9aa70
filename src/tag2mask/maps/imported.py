"""Other people's localization maps: their files read as ours, one or a whole folder.

==============================================  =======================================================================
file                                            from
==============================================  =======================================================================
``.npy`` {"keys", "cam", "high_res"}            IRN, AdvCAM, ReCAM, W-OoD, CLIMS ...: class numbers from 0, maps at
                                                stride 4 and at the image's size; the latter are taken where there
``.npy`` {class number: (H, W)}                 PSA, SEAM, MCTformer ...
``.npy`` (C, H, W)                              anybody: one map for every class of the data, in its order
``.npz``                                        tag2mask itself
==============================================  =======================================================================

No file is executed: ``tag2mask.maps.pickled_arrays`` says how.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from tag2mask.data.class_folders import SUFFIXES
from tag2mask.data.files import Folder
from tag2mask.errors import InputError
from tag2mask.maps.merge import EPSILON
from tag2mask.maps.pickled_arrays import read_array_file
from tag2mask.maps.store import StoredMaps, load_maps, quantised, save_maps
from tag2mask.progress import Step

SHOWN = 20
"""So many of the faulty files are named; of more only the number."""


@dataclass(frozen=True)
class ImportSummary:
    """What became of a folder of maps."""

    images: int
    maps: int
    untagged: int
    """Maps left out because their class is no tag of the image; classes of (C, H, W) arrays are not counted."""
    without_map: int
    """Tags of which the files have no map; the class is then nowhere in the image."""


@dataclass(frozen=True)
class _Found:
    """The maps of one file, as they are."""

    classes: np.ndarray
    """(P,) int64."""
    maps: np.ndarray
    """(P, h, w)."""
    chosen: bool
    """Whoever wrote the file chose these classes; False where all are there."""
    peaks: np.ndarray | None = None
    """(C,), where the file knows them."""


def read_maps(path: Path, class_count: int, size_hw: tuple[int, int], tags: np.ndarray | None = None) -> StoredMaps:
    """The maps of one image from a file of any of the forms above.

    Negative values become 0; each map is resized to the image (bilinear, align_corners=False) and divided by its
    maximum + 1e-5. How high the maps of absent classes reach is not in others' files: ``peaks`` is the maximum of each
    map that is there, before it is divided, and 0 elsewhere. With such peaks ``absent_floor`` finds no floor and the
    threshold is that of the rule alone.

    Args:
        path: of the file.
        class_count: C.
        size_hw: (H, W) of the upright image; maps on another grid must have its proportions, within one cell.
        tags: (C,) boolean; maps of other classes are left out. None keeps all.

    Raises:
        InputError: names the file, and what in it is not as expected.
    """
    stored, _ = _read(path, class_count, size_hw, np.ones(class_count, bool) if tags is None else tags)
    return stored


def import_maps(
    folder: Path, ids: Sequence[str], tags: np.ndarray, size_hw: Callable[[int], tuple[int, int]], out: Path, step: Step
) -> ImportSummary:
    """Convert a folder of maps, ``<id>.npy`` or ``<id>.npz``, into ours: ``<id>.npz`` in ``out``.

    All files are read before the first is written, then once more, so that memory holds one image at a time.

    Args:
        folder: of the maps; ids with ``/`` lie in sub-folders.
        ids: N strings.
        tags: (N, C) boolean; of each image the maps of its tagged classes are taken (``read_maps``).
        size_hw: from the place of an image in ``ids`` to its upright (H, W).
        out: another folder.
        step: called with files read and written of 2 N.

    Raises:
        InputError: files are missing or cannot be read, all of them in one message; or most classes in the files are
            no tags of their images, so that their numbers must mean other classes.
    """
    if len(ids) != len(tags):
        raise ValueError(f"{len(ids)} ids, {len(tags)} rows of tags")
    if folder.resolve() == out.resolve():
        raise InputError(f"{folder} would be read and written at once; choose another folder for the imported maps.")
    require_map_files(folder)
    finder = Folder(folder)
    paths: list[Path] = []
    faults: list[str] = []
    kept = untagged = without_map = 0
    for index, image_id in enumerate(ids):
        path = finder.find(f"{image_id}.npy") or finder.find(f"{image_id}.npz")
        if path is None:
            faults.append(f"{folder / image_id}.npy (or .npz): there is no such file.")
        else:
            try:
                stored, left_out = _read(path, tags.shape[1], size_hw(index), tags[index])
                paths.append(path)
                kept, untagged = kept + len(stored.classes), untagged + left_out
                without_map += int(tags[index].sum()) - len(stored.classes)
            except InputError as error:
                faults.append(str(error))
        step(index + 1, 2 * len(ids))
    if faults:
        more = f" And {len(faults) - SHOWN} more." if len(faults) > SHOWN else ""
        raise InputError(
            f"{len(faults)} of {len(ids)} files of maps are missing or unfit, and nothing was written: "
            f"{' '.join(faults[:SHOWN])}{more}"
        )
    if untagged > kept:
        raise InputError(
            f"{folder}: {untagged} of {untagged + kept} maps are of classes that their image is not tagged with; the "
            "numbers mean other classes here; give the data the classes, in the order, that the maps were made with."
        )
    for index, (image_id, path) in enumerate(zip(ids, paths, strict=True)):
        stored = read_maps(path, tags.shape[1], size_hw(index), tags[index])
        save_maps(out / f"{image_id}.npz", stored.classes, stored.maps, stored.peaks)
        step(len(ids) + index + 1, 2 * len(ids))
    return ImportSummary(len(ids), kept, untagged, without_map)


def require_map_files(folder: Path) -> None:
    """Raise ``InputError`` in one sentence where every single file would be missing: it is some other folder."""
    expected = "expected the maps that another program made, one <id>.npy or <id>.npz for each photo of the data"
    if not folder.is_dir():
        raise InputError(f"there is no folder {folder}; {expected}.")
    if not any(path.suffix in (".npy", ".npz") for path in folder.rglob("*")):
        photo = next((path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES), None)
        what = f"photos ({photo.name} ...), not maps" if photo else "no maps"
        raise InputError(f"{folder} holds {what}; {expected}.")


def _read(path: Path, class_count: int, size_hw: tuple[int, int], tags: np.ndarray) -> tuple[StoredMaps, int]:
    """The maps of the tagged classes, and the number of those that somebody chose but that are not tagged."""
    found = _own(path, class_count) if path.suffix == ".npz" else _others(path, class_count)
    classes, maps = found.classes, found.maps
    wanted = tags[classes]  # (P,)
    left_out = int((~wanted).sum()) if found.chosen else 0
    classes, maps = classes[wanted], maps[wanted]
    if len(classes):
        _require_proportions(path, maps.shape[1:], size_hw)
    if not np.isfinite(maps).all():
        raise InputError(f"{path}: the maps have values that are not finite; make them again.")
    if found.peaks is not None and maps.shape[1:] == tuple(size_hw):
        return StoredMaps(classes.astype(np.int16), maps, found.peaks), left_out
    peaks = np.zeros(class_count, np.float32) if found.peaks is None else found.peaks
    positive = np.maximum(maps.astype(np.float32), 0)  # (P, h, w)
    if found.peaks is None and len(classes):
        peaks[classes] = positive.max(axis=(1, 2))
    resized = _resized(positive, size_hw)  # (P, H, W)
    normalised = resized / (resized.max(axis=(1, 2), keepdims=True, initial=0) + EPSILON)
    return StoredMaps(classes.astype(np.int16), quantised(normalised), peaks), left_out


def _own(path: Path, class_count: int) -> _Found:
    stored = load_maps(path)
    if stored.peaks.shape != (class_count,):
        raise InputError(f"{path}: the maps are of {len(stored.peaks)} classes; the data have {class_count}.")
    classes = _classes(path, stored.classes.tolist(), class_count)
    return _Found(classes, stored.maps, chosen=True, peaks=stored.peaks)


def _others(path: Path, class_count: int) -> _Found:
    content = read_array_file(path)
    if isinstance(content, np.ndarray):
        maps = _planes(path, content, "the array")
        if len(maps) != class_count:
            raise InputError(
                f"{path}: the array is of {len(maps)} maps; expected {class_count}, one for each class of the data."
            )
        return _Found(np.arange(class_count), maps, chosen=False)
    if not isinstance(content, dict):
        raise InputError(f"{path}: it holds a {type(content).__name__}; expected an array or a dictionary of maps.")
    if "keys" in content:
        return _with_keys(path, content, class_count)
    numbers = [key for key in content if type(key) is int]
    if len(numbers) < len(content):
        raise InputError(
            f"{path}: the dictionary has the keys {', '.join(repr(key) for key in list(content)[:5])}; expected keys, "
            "cam and high_res, or class numbers."
        )
    planes = [_planes(path, content[number], f"the map of class {number}") for number in numbers]
    if len({plane.shape for plane in planes}) > 1 or any(len(plane) != 1 for plane in planes):
        raise InputError(f"{path}: the maps have different sizes; expected one size for all classes of an image.")
    maps = np.concatenate(planes) if planes else np.zeros((0, 1, 1), np.float32)  # (P, h, w)
    return _Found(_classes(path, numbers, class_count), maps, chosen=True)


def _with_keys(path: Path, content: Mapping[Any, Any], class_count: int) -> _Found:
    keys = content["keys"]
    classes = _classes(path, keys.tolist() if isinstance(keys, np.ndarray) else keys, class_count)
    if len(classes) == 0:
        return _Found(classes, np.zeros((0, 1, 1), np.float32), chosen=True)
    name = next((name for name in ("high_res", "cam") if content.get(name) is not None), None)
    if name is None:
        raise InputError(f"{path}: there are `keys`, but neither `high_res` nor `cam`; make the maps again.")
    maps = _planes(path, content[name], f"`{name}`")
    if len(maps) != len(classes):
        raise InputError(
            f"{path}: `keys` names {len(classes)} classes, `{name}` has {len(maps)} maps; make them again."
        )
    return _Found(classes, maps, chosen=True)


def _classes(path: Path, numbers: Any, class_count: int) -> np.ndarray:
    """Class numbers as (P,) int64, each from 0 and below C, none twice."""
    if not isinstance(numbers, (list, tuple)) or not all(type(number) is int for number in numbers):
        raise InputError(f"{path}: `keys` is no list of class numbers; expected whole numbers from 0.")
    if len(set(numbers)) < len(numbers) or not all(0 <= number < class_count for number in numbers):
        raise InputError(
            f"{path}: the class numbers are {', '.join(map(str, numbers[:SHOWN]))}; expected different ones from 0 to "
            f"{class_count - 1}, without background; make the maps with the classes of the data."
        )
    return np.array(numbers, np.int64)


def _planes(path: Path, value: Any, what: str) -> np.ndarray:
    """An array (h, w) or (P, h, w) as (P, h, w)."""
    if isinstance(value, np.ndarray) and value.dtype.kind in "fiub" and value.ndim in (2, 3) and value[:1].size:
        return value.reshape(-1, *value.shape[-2:])
    shown = f"{value.shape} {value.dtype}" if isinstance(value, np.ndarray) else type(value).__name__
    raise InputError(f"{path}: {what} is {shown}; expected numbers of shape (maps, height, width).")


def _require_proportions(path: Path, grid: tuple[int, ...], size_hw: tuple[int, int]) -> None:
    (h, w), (height, width) = grid, size_hw
    if abs(h / height - w / width) > 1 / min(height, width) + 1e-9:  # a grid of any stride is off by one cell at most
        raise InputError(
            f"{path}: the maps are {w}x{h} (width x height), the upright image is {width}x{height}, of other "
            "proportions; resize the maps to the image, or find out which image they are of."
        )


def _resized(maps: np.ndarray, size_hw: tuple[int, int]) -> np.ndarray:
    if maps.shape[1:] == tuple(size_hw) or len(maps) == 0:
        return maps if len(maps) else np.zeros((0, *size_hw), np.float32)
    planes = torch.from_numpy(np.ascontiguousarray(maps))[None]  # (1, P, h, w)
    return functional.interpolate(planes, size_hw, mode="bilinear", align_corners=False)[0].numpy()  # (P, H, W)
