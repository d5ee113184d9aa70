"""Images with labels of their pixels, augmented together: for what is trained on seeds or pseudo masks."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from tag2mask.data.kept_planes import KeptPlanes
from tag2mask.data.views import mirrored_draws, random_crop_of_both, zoomed_labels
from tag2mask.hosts.inputs import PhotoInputs

KEPT_BYTES = 1 << 25
"""What the kept squares may take, packed: with cached features a step is short, and reading masks would be most."""


class LabelledInputs:
    """What a trained half reads, and the labels of the same pixels.

    Args:
        inputs: photos or cached frozen features.
        read_label: image number -> (H, W) uint8 at the photo's own size, 255 unsure.
        scales: crop views: factors of the photo's size between which one is drawn.
        hsv_jitter: crop views: largest change of hue, saturation and value, of 255 levels each.
    """

    def __init__(
        self, inputs: PhotoInputs, read_label: Callable[[int], np.ndarray], scales: tuple[float, float],
        hsv_jitter: int = 0,
    ) -> None:  # fmt: skip
        self.inputs, self.read_label, self.scales, self.hsv_jitter = inputs, read_label, scales, hsv_jitter
        self._squares = KeptPlanes(KEPT_BYTES)

    def __len__(self) -> int:
        return len(self.inputs.images)

    def training(self, indices: np.ndarray, seed: int, epoch: int) -> tuple[list[Tensor], Tensor]:
        """Augmented input of the trained half and labels (N, S, S) uint8, a function of (seed, epoch, image)."""
        views = self.inputs.views
        if views.kind == "crop":
            host = self.inputs.host
            pairs = [
                random_crop_of_both(
                    self.inputs.images.image(i), self.read_label(i), views.size, self.scales, host.mean, host.std,
                    seed, epoch, i, self.hsv_jitter,
                )
                for i in indices.tolist()
            ]  # fmt: skip
            photos = torch.stack([photo for photo, _ in pairs]).to(self.inputs.device)  # (N, 3, S, S)
            labels = torch.stack([label for _, label in pairs]).to(self.inputs.device)  # (N, S, S)
            return host.frozen_part(photos), labels
        levels = self.inputs.training(indices, seed, epoch)
        labels = torch.stack([self._square(i) for i in indices.tolist()]).to(self.inputs.device)  # (N, S, S)
        mirrored = torch.from_numpy(mirrored_draws(seed, epoch, indices)).to(labels.device)
        labels = torch.where(mirrored[:, None, None], labels.flip(2), labels)
        return levels, zoomed_labels(labels, views.zoom, seed, epoch, indices)

    def _square(self, index: int) -> Tensor:
        """A label as a square of the views' size, nearest, (S, S) uint8; the first ones are kept."""
        square = self._squares.get(index)
        if square is None:
            size = self.inputs.views.size
            picture = Image.fromarray(self.read_label(index)).resize((size, size), Image.Resampling.NEAREST)
            square = np.array(picture)
            self._squares.keep(index, square)
        return torch.tensor(square)
