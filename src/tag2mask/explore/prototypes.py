"""Negative prototypes and what they were made of, read without torch: the photos that lend them, and their tags."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from tag2mask.data import TaggedImages
from tag2mask.errors import InputError
from tag2mask.explore.statistics import Statistics

MOST_REASONS = 6
"""Names that a class is said to be confused with, at most."""
NOTHING = ""
"""In place of a name: photos without any tag."""


@dataclass(frozen=True)
class Sources:
    """Which photo each negative prototype came from.

    Attributes:
        image: (C, K) int64, number of the photo; valid: (C, K) bool, places that are filled, most confident first, then
            those remembered from earlier collections;
        before: (C, K) bool, places that were filled before trimming.
    """

    image: np.ndarray
    valid: np.ndarray
    before: np.ndarray

    def found(self, c: int) -> int:
        """How many negatives of a class there were before trimming."""
        return int(self.before[c].sum())


def read_tensors(path: Path, names: tuple[str, ...]) -> list[np.ndarray]:
    """Some tensors of a safetensors file as arrays."""
    try:
        with safe_open(path, "np") as file:
            return [file.get_tensor(name) for name in names]
    except FileNotFoundError:
        raise InputError(f"there are no prototypes at {path}; train a method that uses them.") from None
    except SafetensorError as error:
        raise InputError(f"{path} is damaged ({error}); delete it and train again.") from error


def read_sources(path: Path) -> Sources:
    """The negatives that act, after trimming. Read again only when the file has changed."""
    if not path.is_file():
        raise InputError(f"there are no prototypes at {path}; train a method that uses them.")
    return _read_sources(path, path.stat().st_mtime_ns)


@lru_cache(64)
def _read_sources(path: Path, changed: int) -> Sources:
    return Sources(*read_tensors(path, ("trimmed_source", "trimmed_valid", "negative_valid")))


def confusions(images: TaggedImages, sources: Sources, statistics: Statistics | None) -> list[dict[str, Any]]:
    """For each class how many photos and negatives it has, and what it is confused with.

    Without statistics by the tags of the photos that lend the negatives: a photo with two tags counts for both. With
    them also by what the masks of the data, where it has any, show under the activated regions.
    """
    rows = []
    for c, name in enumerate(images.classes.names):
        own = sources.image[c, sources.valid[c]]  # (K',)
        tags: Counter[str] = Counter()
        for image in own.tolist():
            tags.update(images.label_names(image) or (NOTHING,))
        row: dict[str, Any] = {
            "class": c, "name": name, "photos": int(images.labels[:, c].sum()), "negatives": len(own),
            "found": sources.found(c),
            "tags": [{"name": tag, "count": count} for tag, count in tags.most_common(MOST_REASONS)],
            "tags_in_all": len(tags), "shown": [], "shown_in_all": 0, "pixels": None, "in_photos": None,
        }  # fmt: skip
        if statistics is not None:
            row["pixels"], row["in_photos"] = int(statistics.pixels[c].sum()), len(statistics.photos_of_class(c))
            shown = [{"name": what, "share": share} for what, share in statistics.shown(c) if share >= 0.01]
            row["shown"], row["shown_in_all"] = shown[:MOST_REASONS], len(shown)
        rows.append(row)
    return rows


def listed(
    images: TaggedImages, sources: Sources, c: int, blocked: set[tuple[int, int]], statistics: Statistics | None
) -> list[dict[str, Any]]:
    """The negatives of a class, by rank."""
    return [
        described(images, int(sources.image[c, rank]), c, int(rank), blocked, statistics)
        for rank in np.flatnonzero(sources.valid[c])
    ]


def described(
    images: TaggedImages, image: int, c: int, rank: int, blocked: set[tuple[int, int]], statistics: Statistics | None
) -> dict[str, Any]:
    """What a card shows of one negative."""
    row: dict[str, Any] = {
        "class": c, "rank": rank, "image": image, "id": images.ids[image], "tags": list(images.label_names(image)),
        "tagged": bool(images.labels[image, c]), "blocked": (image, c) in blocked,
        "score": None, "pixels": None, "photos": None, "region": None, "shown": [],
    }  # fmt: skip
    if statistics is not None:
        row["score"] = statistics.probability(image, c)
        row["pixels"], row["photos"] = int(statistics.pixels[c, rank]), int(statistics.photos[c, rank])
        row["region"] = statistics.region(c, rank)
        row["shown"] = [{"name": n, "share": s} for n, s in statistics.shown(c, rank)[:3] if s >= 0.1]
    return row
