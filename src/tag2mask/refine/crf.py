"""Mean-field inference in a dense CRF: labels that follow the edges of the photo.

Every pixel is tied to every other one, by a kernel over places and by one over places and colours (P. Kraehenbuehl
and V. Koltun, "Efficient inference in fully connected CRFs with Gaussian edge potentials", 2011). A step is

    Q_i(l) = exp(-U_i(l) + sum_m w_m sum_j k_m(i, j) Q_j(l)) / Z_i

from Q_i = exp(-U_i) / Z_i on, with the kernels normalised symmetrically (``lattice``) and a pixel meeting itself, as in
pydensecrf, whose results these are to within 1e-4.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from tag2mask.config.crf import CRFConfig
from tag2mask.errors import InputError
from tag2mask.refine.lattice import BLOCK, PermutohedralLattice, Values

PIXELS_AT_ONCE = 8192
"""So many at a time stay in the processor's cache while their probabilities are computed."""


class DenseCRF:
    """The CRF of one photo, for any number of unaries: the foreground and the background pass share its lattices."""

    def __init__(
        self,
        image: npt.NDArray[np.uint8],
        config: CRFConfig,
        backend: Literal["numpy", "pydensecrf"] = "numpy",
    ) -> None:
        """Prepare for ``image`` (H, W, 3) uint8.

        ``backend`` "pydensecrf" hands the work to that package; ``InputError`` where it is not installed.
        """
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
            raise ValueError(f"image is {image.dtype} {image.shape}; expected uint8 (H, W, 3)")
        if backend not in ("numpy", "pydensecrf"):
            raise InputError(f"The CRF back-end is {backend!r}; expected numpy or pydensecrf.")
        self._image, self._config = image, config
        self._kernels: list[tuple[float, PermutohedralLattice]] = []
        self._library: Any = import_pydensecrf() if backend == "pydensecrf" else None
        if backend == "numpy" and config.iterations > 0:
            if config.gaussian_weight > 0:
                features = places(image) / np.float32(config.gaussian_sd)  # (HW, 2)
                self._kernels.append((config.gaussian_weight, PermutohedralLattice(features)))
            if config.bilateral_weight > 0:
                space = places(image) / np.float32(config.bilateral_sd)  # (HW, 2)
                colour = image.reshape(-1, 3).astype(np.float32) / np.float32(config.bilateral_colour_sd)  # (HW, 3)
                features = np.concatenate([space, colour], axis=1)  # (HW, 5)
                self._kernels.append((config.bilateral_weight, PermutohedralLattice(features)))

    def infer(self, energies: Values) -> Values:
        """Probabilities (L, H, W) float32 of the labels, for their energies -log p (L, H, W), finite; L at least 1."""
        return self.infer_many([energies])[0]

    def infer_many(self, energies: Sequence[Values]) -> list[Values]:
        """The same for several unaries, whose label counts may differ, at the cost of little more than one."""
        height, width = self._image.shape[:2]
        for unary in energies:
            if unary.ndim != 3 or len(unary) == 0 or unary.shape[1:] != (height, width):
                raise ValueError(f"energies are {unary.shape}; expected (labels, {height}, {width})")
        flat = [np.ascontiguousarray(unary, np.float32).reshape(len(unary), -1) for unary in energies]  # (L, HW) each
        if self._library is None:
            results = mean_field(flat, self._kernels, self._config.iterations)
        else:
            results = [self._ask_library(unary) for unary in flat]
        return [q.reshape(len(q), height, width) for q in results]

    def _ask_library(self, energies: Values) -> Values:
        """pydensecrf's probabilities (L, HW) for energies (L, HW)."""
        height, width = self._image.shape[:2]
        config = self._config
        field = self._library.DenseCRF2D(width, height, len(energies))
        field.setUnaryEnergy(energies.copy())
        if config.gaussian_weight > 0:
            field.addPairwiseGaussian(sxy=config.gaussian_sd, compat=config.gaussian_weight)
        if config.bilateral_weight > 0:
            field.addPairwiseBilateral(
                sxy=config.bilateral_sd,
                srgb=config.bilateral_colour_sd,
                rgbim=np.array(self._image, order="C"),  # it wants to be able to write
                compat=config.bilateral_weight,
            )
        return np.array(field.inference(config.iterations), np.float32).reshape(len(energies), -1)


def mean_field(
    energies: Sequence[Values], kernels: Sequence[tuple[float, PermutohedralLattice]], iterations: int
) -> list[Values]:
    """Probabilities of several unaries over one set of pixels.

    The filters are linear and the probabilities of a pixel sum to 1, so the messages of a unary's labels sum to that of
    a unary of ones. Hence the last label of each is not filtered: two labels cost one column.

    Args:
        energies: one (L, N) float32 for each unary.
        kernels: weight and lattice over N pixels.
        iterations: steps after the first guess, which is the softmax of the negative energies.

    Returns:
        One (L, N) float32 for each unary.
    """
    n = energies[0].shape[1]
    ends = np.cumsum([0, *(len(unary) - 1 for unary in energies)]).tolist()  # rows of the kept labels of each unary
    width = min(BLOCK, 1 << max(0, ends[-1] - 1).bit_length())  # 1, 2 or 4
    kept = np.zeros((-(-ends[-1] // width), n, width), np.float32)  # (B, N, width); columns behind the last stay 0
    probabilities = [np.empty_like(unary) for unary in energies]
    total = weighted_messages(np.ones((n, 1), np.float32), kernels)[:, 0]  # (N,)
    for iteration in range(iterations + 1):
        for block in kept if iteration > 0 else ():
            block[:] = weighted_messages(block, kernels)  # (N, width)
        for begin in range(0, n, PIXELS_AT_ONCE):
            pixels = slice(begin, begin + PIXELS_AT_ONCE)
            rows = np.ascontiguousarray(kept[:, pixels].transpose(0, 2, 1))  # (B, P, width) -> (B, width, P)
            messages = rows.reshape(-1, rows.shape[2])  # (B width, P), a view of the same
            for unary, result, start, end in zip(energies, probabilities, ends, ends[1:], strict=False):
                logits = -unary[:, pixels]  # (L, P)
                logits[:-1] += messages[start:end]
                if iteration > 0:
                    logits[-1] += total[pixels] - messages[start:end].sum(axis=0)
                logits -= logits.max(axis=0)
                np.exp(logits, out=logits)
                logits /= logits.sum(axis=0)
                messages[start:end] = logits[:-1]
                if iteration == iterations:
                    result[:, pixels] = logits
            kept[:, pixels] = rows.transpose(0, 2, 1)  # (B, width, P) -> (B, P, width)
    return probabilities


def weighted_messages(values: Values, kernels: Sequence[tuple[float, PermutohedralLattice]]) -> Values:
    """Sum of the filtered values (N, L), each filter times its weight; zeros without a kernel."""
    messages = np.zeros_like(values)
    for weight, lattice in kernels:
        filtered = lattice.filter(values)
        filtered *= np.float32(weight)
        messages += filtered
    return messages


def places(image: npt.NDArray[np.uint8]) -> Values:
    """Column and row of each pixel, (HW, 2) float32."""
    rows, columns = np.indices(image.shape[:2], np.float32)  # (H, W) each
    return np.stack([columns.ravel(), rows.ravel()], axis=1)  # (HW, 2)


def hard_energies(labels: npt.NDArray[np.integer], count: int, confidence: float = 0.7) -> Values:
    """Energies (L, H, W) float32 of hard labels: -log(confidence) for the given one, the others share the rest.

    The others get -log((1 - confidence) / (L - 1)) each. ``labels`` is (H, W) with values 0..L-1, ``count`` is L, at
    least 1, ``confidence`` lies between 0 and 1. There is no "unsure" label: every value is a label like any other.
    """
    if count < 1 or labels.size == 0 or labels.min() < 0 or labels.max() >= count:
        raise ValueError(f"labels must lie in 0..{count - 1}")
    other = -np.log((1 - confidence) / max(1, count - 1))
    given = labels == np.arange(count)[:, None, None]  # (H, W) -> (L, H, W)
    return np.where(given, np.float32(-np.log(confidence)), np.float32(other))


def soft_energies(scores: Values, floor: float = 1e-5) -> Values:
    """Energies -log(score) of scores (L, H, W), clipped to [floor, 1] and not made to sum to 1; float32."""
    return -np.log(np.clip(np.asarray(scores, np.float32), np.float32(floor), np.float32(1)))


def import_pydensecrf() -> Any:
    """The module of the compiled dense CRF; ``InputError`` where it is not installed."""
    try:
        return importlib.import_module("pydensecrf.densecrf")
    except ModuleNotFoundError as error:
        raise InputError(
            "The CRF back-end is pydensecrf, which is not installed; use numpy, or pip install pydensecrf2 (it needs a "
            "C++ compiler)."
        ) from error
