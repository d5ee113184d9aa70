"""What the tests of the lattice and of the CRF measure against: kernels summed pair by pair, and pictures."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pytest
import torch
from threadpoolctl import threadpool_limits

from tag2mask.config.crf import CRFConfig


class Exact:
    """The kernels and the mean field by their definitions, O(N^2), in float64."""

    @staticmethod
    def kernel(features: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
        """(N, N) symmetrically normalised Gaussian of features (N, d)."""
        features = np.asarray(features, np.float64)
        kernel = np.array([np.exp(-((features - one) ** 2).sum(axis=1) / 2) for one in features])
        scale = 1 / np.sqrt(kernel.sum(axis=1))
        return scale[:, None] * kernel * scale[None, :]

    @staticmethod
    def mean_field(image: npt.NDArray[np.uint8], energies: npt.NDArray[np.float32], config: CRFConfig) -> npt.NDArray[np.float64]:
        """(L, H, W) probabilities."""
        height, width = image.shape[:2]
        place = np.array([(x, y) for y in range(height) for x in range(width)], np.float64)
        colour = np.array([image[y, x] for y in range(height) for x in range(width)], np.float64)
        smooth = Exact.kernel(place / config.gaussian_sd)
        appearance = Exact.kernel(np.hstack([place / config.bilateral_sd, colour / config.bilateral_colour_sd]))
        total = config.gaussian_weight * smooth + config.bilateral_weight * appearance
        unary = np.exp(-energies.reshape(len(energies), -1).astype(np.float64))
        q = unary / unary.sum(axis=0)
        for _ in range(config.iterations):
            q = unary * np.exp(q @ total)
            q /= q.sum(axis=0)
        return q.reshape(energies.shape)


@pytest.fixture
def exact() -> type[Exact]:
    return Exact


@pytest.fixture
def disc() -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.intp]]:
    """A noisy picture (32, 42, 3) of a bright disc on a dark ground, and where the disc is."""
    generator = np.random.default_rng(0)
    rows, columns = np.indices((32, 42))
    inside = (rows - 16) ** 2 + (columns - 21) ** 2 < 11**2
    picture = np.where(inside[:, :, None], (190, 120, 60), (70, 90, 110)) + generator.normal(0, 4, (32, 42, 3))
    return picture.clip(0, 255).astype(np.uint8), inside.astype(np.intp)


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with threadpool_limits(limits=1):
        yield
    torch.set_num_threads(before)
