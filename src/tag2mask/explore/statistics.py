"""What one pass of the network over all images found out about the prototypes: a file in the run folder."""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tag2mask.errors import InputError

VERSION = 3
"""Of the file; another version is made again."""
NO_FILE = [-1, -1]
"""What ``file_facts`` says where there is none."""


class Statistics:
    """The arrays of the file, and what is asked of them.

    Arrays: ``pixels`` and ``photos`` (C, K) int64, map pixels and images in which a negative is the nearest to what is
    suppressed; ``uses`` (U, 4) int32 [class, rank, image, pixels], largest first for each negative; ``logits`` (N, C)
    float32; ``pairs`` (P, 4) int32 [class, image, h, w], what has suppressed pixels, with ``ranks``, flat int16, the
    rank of the nearest negative at each of its h * w map pixels or -1; ``sources`` (R, 4) int32 [class, rank, h, w]
    with ``regions``, flat bool, the activated region that became the negative; ``causes`` (R, M) float32, the share of
    each region that the masks of the data call ``cause_names``, M of them, 0 where the data has no masks;
    ``unreadable`` (B,) int32, images that were left out as their photos cannot be read, with ``unreadable_facts``,
    (B, 2) int64, what ``file_facts`` said of them before.
    """

    def __init__(self, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        self.pixels, self.photos, self.uses = arrays["pixels"], arrays["photos"], arrays["uses"]
        self.logits, self.pairs, self.ranks = arrays["logits"], arrays["pairs"], arrays["ranks"]
        self.sources, self.regions, self.causes = arrays["sources"], arrays["regions"], arrays["causes"]
        self.cause_names: list[str] = arrays["cause_names"].tolist()
        self.unreadable: list[int] = arrays.get("unreadable", np.zeros(0)).tolist()  # a fig6.npz may be of before
        self.unreadable_facts: list[list[int]] = arrays.get("unreadable_facts", np.zeros((0, 2))).tolist()
        self._pair_rows = {(int(c), int(i)): n for n, (c, i) in enumerate(self.pairs[:, :2])}
        self._source_rows = {(int(c), int(k)): n for n, (c, k) in enumerate(self.sources[:, :2])}
        self._pair_ends = np.cumsum(self.pairs[:, 2].astype(np.int64) * self.pairs[:, 3])
        sizes = self.sources[:, 2].astype(np.int64) * self.sources[:, 3]  # (R,)
        self._source_ends = np.cumsum(sizes)
        lit = np.concatenate([[0], np.cumsum(self.regions)])
        self._lit = lit[self._source_ends] > lit[self._source_ends - sizes]  # (R,)

    def probability(self, image: int, c: int) -> float | None:
        """Of a class in an image, by the sigmoid of its logit; None for a photo that cannot be read."""
        if image in self.unreadable:
            return None
        return float(1 / (1 + np.exp(-float(self.logits[image, c]))))

    def photos_of_class(self, c: int) -> npt.NDArray[np.int32]:
        """Images in which pixels of a class are suppressed."""
        own: npt.NDArray[np.int32] = self.pairs[self.pairs[:, 0] == c, 1]
        return own

    def images_of(self, c: int, rank: int) -> npt.NDArray[np.int32]:
        """(n, 2) [image, pixels] of a negative, most pixels first."""
        own: npt.NDArray[np.int32] = self.uses[(self.uses[:, 0] == c) & (self.uses[:, 1] == rank)][:, 2:]
        return own

    def suppressed(self, c: int, image: int) -> npt.NDArray[np.int16] | None:
        """(h, w) rank of the nearest negative where the class is suppressed, -1 elsewhere; None if it is nowhere."""
        row = self._pair_rows.get((c, image))
        if row is None:
            return None
        height, width = (int(side) for side in self.pairs[row, 2:])
        end = int(self._pair_ends[row])
        grid: npt.NDArray[np.int16] = self.ranks[end - height * width : end].reshape(height, width)
        return grid

    def region(self, c: int, rank: int) -> dict[str, Any] | None:
        """The region that became a negative, as a grid for the page; None where the weights light nothing any more."""
        row = self._source_rows.get((c, rank))
        if row is None:
            return None
        height, width = (int(side) for side in self.sources[row, 2:])
        end = int(self._source_ends[row])
        region = self.regions[end - height * width : end].reshape(height, width)
        return grid_of(region.astype(np.uint8)) if region.any() else None

    def shown(self, c: int, rank: int | None = None) -> list[tuple[str, float]]:
        """Names of what the regions of a class, or one of them, show by the masks of the data, with mean shares.

        Shares are whole hundredths that add up to at most 1. Regions in which the present weights activate nothing do
        not count.
        """
        chosen = (self.sources[:, 0] == c) & self._lit
        if rank is not None:
            chosen &= self.sources[:, 1] == rank
        if not self.cause_names or not chosen.any():
            return []
        shares = hundredths(self.causes[chosen].mean(axis=0))  # (M,)
        return [(self.cause_names[m], int(shares[m]) / 100) for m in np.argsort(-shares, kind="stable")]


def hundredths(shares: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
    """Shares (M,) in hundredths. The largest remainders are rounded up, so that the whole stays what it is."""
    exact = 100 * shares.astype(np.float64)
    whole = np.floor(exact + 1e-4).astype(np.int64)  # a single 0.29 is 28.999998 in float32
    lacking = round(float(exact.sum())) - int(whole.sum())
    whole[np.argsort(whole - exact, kind="stable")[: max(0, lacking)]] += 1
    return whole


def grid_of(values: npt.NDArray[np.uint8]) -> dict[str, Any]:
    """(h, w) uint8 as the page paints it."""
    return {"h": values.shape[0], "w": values.shape[1], "data": base64.b64encode(values.tobytes()).decode("ascii")}


def statistics_file(
    folder: Path, seed: int, method: str, moment: str, made_of: tuple[Path, ...], settings: str
) -> Path:
    """Where the statistics of these prototypes and weights lie; others, or other settings, have another name."""
    content = hashlib.sha256(f"{VERSION} {settings}".encode())
    for path in made_of:
        if not path.is_file():
            raise InputError(f"there is no {path}; is the training finished?")
        content.update(file_hash(path, path.stat().st_mtime_ns).encode())
    return folder / "explore" / f"seed{seed}-{method}-{moment}-{content.hexdigest()[:16]}.npz"


@lru_cache(256)
def file_hash(path: Path, changed: int) -> str:
    """SHA-256 of a file that was ``changed`` at a time in nanoseconds."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def file_facts(path: Path) -> list[int]:
    """Size in bytes and time of change in nanoseconds: not the same once it is written anew; or ``NO_FILE``."""
    try:
        facts = path.stat()
    except OSError:
        return NO_FILE
    return [facts.st_size, facts.st_ctime_ns]


def save_arrays(path: Path, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
    """Write arrays, compressed and atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    with partial.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)
    os.replace(partial, path)


def load_arrays(path: Path) -> dict[str, npt.NDArray[Any]] | None:
    """Read what ``save_arrays`` wrote; None when there is no such file, or it is damaged and must be made again."""
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except FileNotFoundError:
        return None
    except MemoryError:
        raise
    except Exception:  # damaged bytes make the readers of zip and npy files raise nearly anything
        path.unlink(missing_ok=True)
        return None
