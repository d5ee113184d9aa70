"""Prototypes of all epochs in the plane: one common embedding, so that movement from epoch to epoch means something."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import numpy.typing as npt

from tag2mask.explore.prototypes import read_tensors
from tag2mask.explore.statistics import save_arrays

MOST_POINTS = {"pca": 100_000, "tsne": 4000}
"""t-SNE of more takes minutes on two cores, and a browser is slow to draw more than the other."""
COMPONENTS = 50
"""t-SNE works on so many principal components."""
Kind = Literal["pca", "tsne"]
KINDS: tuple[Kind, ...] = ("pca", "tsne")
POSITIVE, NEGATIVE = 0, 1
NO_IMAGE = -1


def points(
    files: dict[int, Path], cosine: bool, most: int
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int32], int]:
    """Prototypes of all epochs.

    Args:
        most: where there are more, ``thinned`` ones are given.

    Returns:
        (P, D) features; (P, 5) [kind, class, rank, epoch, image], where positives have no image; how many there are
        in all.
    """
    rows: list[npt.NDArray[np.float32]] = []
    about: list[tuple[int, int, int, int, int]] = []
    for epoch, path in sorted(files.items()):
        names = ("positive", "positive_valid", "trimmed", "trimmed_valid", "trimmed_source")
        positive, positive_valid, negative, negative_valid, source = read_tensors(path, names)
        for kind, values, valid in ((POSITIVE, positive, positive_valid), (NEGATIVE, negative, negative_valid)):
            for c, rank in np.argwhere(valid).tolist():
                rows.append(values[c, rank])
                about.append((kind, c, rank, epoch, int(source[c, rank]) if kind == NEGATIVE else NO_IMAGE))
    features = np.array(rows, np.float32).reshape(len(rows), -1)
    table = np.array(about, np.int32).reshape(-1, 5)
    kept = thinned(table[:, 3], most)
    features, table = features[kept], table[kept]
    if cosine:
        features = features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
    return features, table, len(rows)


def thinned(epochs: npt.NDArray[np.int32], most: int) -> npt.NDArray[np.int64]:
    """Rows that are kept of points (P,) in the order of their epochs: the first and the last epoch whole.

    Of those between, which are looked at for where the others move, evenly spread ones that bring them to ``most``.
    """
    if len(epochs) <= most:
        return np.arange(len(epochs))
    at_an_end = (epochs == epochs[0]) | (epochs == epochs[-1])
    ends, between = np.flatnonzero(at_an_end), np.flatnonzero(~at_an_end)
    if len(ends) > most:
        return evenly(ends, most)
    return np.sort(np.concatenate([ends, evenly(between, most - len(ends))]))


def evenly(rows: npt.NDArray[np.int64], count: int) -> npt.NDArray[np.int64]:
    """So many of the rows, from the first to the last."""
    return rows[np.linspace(0, len(rows) - 1, count).round().astype(np.int64)]


def embedded(features: npt.NDArray[np.float32], kind: Kind) -> tuple[npt.NDArray[np.float32], float]:
    """(P, D) -> (P, 2), the larger side from -1 to 1; and the share of the variance in the plane (0 for t-SNE)."""
    from sklearn.decomposition import PCA  # a second of import that no other page needs

    if len(features) < 3:
        return np.linspace(-1, 1, 2 * len(features), dtype=np.float32).reshape(-1, 2), 0.0
    model = PCA(n_components=min(2 if kind == "pca" else COMPONENTS, *features.shape), random_state=0)
    plane, share = model.fit_transform(features), float(model.explained_variance_ratio_[:2].sum())
    if kind == "tsne":
        from sklearn.manifold import TSNE

        perplexity = min(30.0, (len(features) - 1) / 3)
        plane, share = TSNE(2, perplexity=perplexity, init="pca", random_state=0).fit_transform(plane), 0.0
    if plane.shape[1] == 1:  # features of a single channel
        plane = np.column_stack([plane, np.zeros(len(plane))])
    plane = plane - (plane.max(axis=0) + plane.min(axis=0)) / 2
    return cast(npt.NDArray[np.float32], (plane / max(float(np.abs(plane).max()), 1e-12)).astype(np.float32)), share


def embed(files: dict[int, Path], cosine: bool, kind: Kind, target: Path) -> Iterator[tuple[int, int]]:
    """Write the plane into ``target``; yields (done, total)."""
    yield 0, 2
    features, table, count = points(files, cosine, MOST_POINTS[kind])
    yield 1, 2
    plane, share = embedded(features, kind)
    save_arrays(target, {"plane": plane, "about": table, "facts": np.array([count, share])})
    yield 2, 2


def told(arrays: dict[str, npt.NDArray[Any]]) -> dict[str, Any]:
    """What the page gets of it."""
    return {
        "plane": [[round(float(x), 4), round(float(y), 4)] for x, y in arrays["plane"]],
        "about": arrays["about"].tolist(),
        "all": int(arrays["facts"][0]),
        "variance": round(float(arrays["facts"][1]), 3),
    }
