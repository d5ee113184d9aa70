"""What the negative prototypes are and what they suppress: the pictures behind the figures (the paper's Figure 6)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from tag2mask.config import FPRConfig, RunConfig
from tag2mask.engine import collect
from tag2mask.fpr import relative_activation, suppressed_pixels
from tag2mask.fpr.rectification import nearest_squared
from tag2mask.runs import method_folder
from tag2mask.stages.network import SeedSetup

IMAGES_FOR_A_CLASS = 4
"""Pictures of suppressed pixels kept for each class, those with the most of them."""
NOT_SUPPRESSED = 255


@torch.no_grad()
def collect_evidence(config: RunConfig, setup: SeedSetup, run: Path) -> None:
    """Write ``evidence.npz`` beside the prototypes of the method ``fpr``.

    Seen with the weights that the host has: give it those of the class activation map, and it is what the first
    rectification step saw. Arrays:
    ``source`` (R, 2) [class, image], in the order of confidence; ``source_map`` (R, h, w) uint8, the class's relative
    activation there; ``shown`` (S, 2) [class, image] and ``nearest`` (S, h, w) uint8: for each suppressed pixel the
    rank of its nearest negative prototype, 255 where nothing is suppressed.
    """
    folder = method_folder(run, setup.seed, "fpr")
    fpr: FPRConfig = config.fpr
    if not fpr.needs_prototypes() or not folder.is_dir():
        return
    targets = torch.tensor(setup.images.labels, dtype=torch.float32, device=setup.device)
    prototypes = collect(setup.host, setup.inputs, targets, fpr, setup.superclasses, setup.seed + 1000)
    setup.host.eval()
    valid, sources = prototypes.trimmed_valid, prototypes.trimmed_source
    source = [(c, int(sources[c, k])) for c, k in valid.nonzero().tolist()]
    source_maps = []
    for c, image in source:
        output = setup.host.trained_part(setup.inputs.plain(np.array([image])))
        source_maps.append((relative_activation(output.maps)[0, c] * 255).byte().cpu().numpy())
    best: dict[int, list[tuple[int, int, np.ndarray]]] = {c: [] for c in range(len(setup.images.classes))}
    labels = torch.tensor(setup.images.labels, device=setup.device)
    for batch in setup.inputs.plain_batches(32):
        output = setup.host.trained_part(setup.inputs.plain(batch))
        present = labels[torch.from_numpy(batch)] & (output.maps.amax(dim=(2, 3)) > 0)
        pixels = suppressed_pixels(
            output.features, output.maps, present, prototypes, fpr.theta, fpr.margin, fpr.pixel_epsilon
        )  # (N, C, h, w)
        for row, c in pixels.flatten(2).any(2).nonzero().tolist():
            features = output.features[row].flatten(1).unsqueeze(0)  # (1, D, hw)
            ranks = [
                nearest_squared(
                    features, prototypes.trimmed[c : c + 1, k : k + 1], valid[c : c + 1, k : k + 1]
                )
                for k in range(valid.shape[1])
            ]
            nearest = torch.cat(ranks).argmin(0).view(pixels.shape[2:])  # (h, w)
            shown = torch.where(pixels[row, c], nearest, NOT_SUPPRESSED).byte().cpu().numpy()
            best[c].append((int(pixels[row, c].sum()), int(batch[row]), shown))
            best[c] = sorted(best[c], key=lambda item: (-item[0], item[1]))[:IMAGES_FOR_A_CLASS]
    chosen = [(c, image, shown) for c, items in best.items() for _, image, shown in items]
    np.savez_compressed(
        folder / "evidence.npz",
        source=np.array(source, np.int64).reshape(-1, 2),
        source_map=np.array(source_maps, np.uint8),
        shown=np.array([(c, image) for c, image, _ in chosen], np.int64).reshape(-1, 2),
        nearest=np.array([shown for _, _, shown in chosen], np.uint8),
    )
