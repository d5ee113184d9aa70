"""Maps of another attribution than class activation, beside those of a method: ``fpr/advcam`` stands in for ``fpr``.

A method's maps by AdvCAM lie in ``seed0/fpr/advcam/maps/<split>``, and whatever is made of them beside: to every stage
after the maps ``fpr/advcam`` is a method like others, with the weights of ``fpr``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from tag2mask import ranks
from tag2mask.config import MapsConfig
from tag2mask.config.maps import ATTRIBUTIONS, LIBRARY_ATTRIBUTIONS
from tag2mask.data import TaggedImages
from tag2mask.errors import InputError
from tag2mask.maps.attribution import extractor_of
from tag2mask.maps.store import load_maps
from tag2mask.progress import Reporter, Step
from tag2mask.stages.localize import ImageMaps, map_path

IMPORTED = "imported"
"""The method whose maps another program has made."""
PEAKS = "outside of what tagged classes claim"
"""What stored peaks are, so that a run's own maps of an earlier version are made anew; imported ones stay."""
WITHOUT_GRADIENT = ("training_free", IMPORTED)
"""Methods whose maps are not a network's alone: rectified after the network, or another program's."""


def attributed(method: str, attribution: str) -> str:
    """The name under which a method's maps by an attribution are kept; the method itself for class activation."""
    return method if attribution == "cam" else f"{method}/{attribution}"


def parts_of(name: str) -> tuple[str, str]:
    """``fpr/advcam`` as the method whose weights are used, ``fpr``, and the attribution; ``cam`` for a plain method.

    Raises:
        InputError: an unknown attribution, one whose library is not installed, or a method that has none.
    """
    method, _, attribution = name.partition("/")
    if not attribution:
        return method, "cam"
    if attribution not in ATTRIBUTIONS[1:]:
        raise InputError(
            f"there is no attribution {attribution!r}; expected one of {', '.join(ATTRIBUTIONS)}, as in `--method`."
        )
    if method in WITHOUT_GRADIENT:
        raise InputError(f"the maps of {method} are class activation maps alone; leave it out, or use --method cam.")
    if attribution in LIBRARY_ATTRIBUTIONS:
        extractor_of(attribution)
    return method, attribution


def all_attributed(methods: tuple[str, ...], attribution: str, report: Reporter) -> tuple[str, ...]:
    """The names of all methods' maps by an attribution; what has none is left out, and said.

    Raises:
        InputError: nothing is left, or the attribution's library is not installed.
    """
    if attribution == "cam" or any("/" in method for method in methods):
        return methods
    without = [method for method in methods if method in WITHOUT_GRADIENT]
    if without:
        report.say(f"{', '.join(without)}: class activation maps alone, so left out by --method {attribution}.")
    if len(without) == len(methods):
        raise InputError(f"none of {', '.join(methods)} has maps by {attribution}; name another method, such as fpr.")
    names = tuple(attributed(method, attribution) for method in methods if method not in WITHOUT_GRADIENT)
    parts_of(names[0])
    return names


def maps_config(maps: MapsConfig, name: str) -> MapsConfig:
    """The settings with which the maps of ``fpr/advcam`` are made."""
    return replace(maps, method=parts_of(name)[1])


def map_settings(maps: MapsConfig) -> dict[str, Any]:
    """The settings that decide what maps are, and ``PEAKS``, as they come back from JSON; kept beside their folder."""
    every = asdict(maps)
    own = every.pop("advcam")
    if maps.method == "advcam":
        own.pop("batch_size")  # memory alone
        own["scales"] = own["scales"] or every["scales"]
        every = {"method": maps.method, "flip": maps.flip, "advcam": own}
    plain: dict[str, Any] = json.loads(json.dumps(every))
    return {**plain, "peaks": PEAKS}


def stored_image_maps(images: TaggedImages, folder: Path, step: Step) -> Iterator[ImageMaps]:
    """The maps of all images as they were stored, for scoring; logits are not stored."""
    for index, name in ranks.mine(enumerate(images.ids)):
        stored = load_maps(map_path(folder, name))
        yield ImageMaps(index, stored.classes.astype(np.int64), stored.maps, None, stored.peaks)
        step(index + 1, len(images))
