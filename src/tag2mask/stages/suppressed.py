"""What is pushed down and lifted in the first step, held against masks: the mechanism, which the paper leaves out.

Reads masks, so it is a diagnostic. Everything is seen with the weights of the class activation map, on its grid.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from tag2mask.data.masks import IGNORE
from tag2mask.engine import collect, set_up_torch
from tag2mask.fpr import activated_pixels, compared_pixels, halo_pixels
from tag2mask.manifests import write_result
from tag2mask.progress import Reporter
from tag2mask.runs import holding_run
from tag2mask.stages.network import set_up_seed
from tag2mask.stages.pipeline import read_settings, require_masks
from tag2mask.stages.tags import read_training_tags, tags_of_pools
from tag2mask.stages.train import load_method

BACKGROUND, OTHER_CLASS = "background", "another class"


@dataclass
class Counts:
    """Pixels of one way to choose them."""

    suppressed: int = 0
    rightly_suppressed: int = 0
    """Of those, not of the class."""
    lifted: int = 0
    """Psi, those above the height of their class's lift as well."""
    rightly_lifted: int = 0
    """Of those, of the class."""
    causes: Counter[str] = field(default_factory=Counter)
    """What the rightly suppressed pixels show."""

    def shares(self, false: int, true: int) -> dict[str, Any]:
        """Percent; ``false`` and ``true`` are the activated pixels that are not, and are, of their class."""
        return {
            "suppressed: precision": percent(self.rightly_suppressed, self.suppressed),
            "suppressed: recall": percent(self.rightly_suppressed, false),
            "suppressed: of the objects": percent(self.suppressed - self.rightly_suppressed, true),
            "lifted: precision": percent(self.rightly_lifted, self.lifted),
            "lifted: recall": percent(self.rightly_lifted, true),
            "causes": {name: percent(n, self.rightly_suppressed) for name, n in self.causes.most_common()},
        }


def percent(part: int, whole: int) -> float:
    """0 of 0 is 0."""
    return round(100 * part / max(1, whole), 1)


@holding_run
@torch.no_grad()
def measure_suppressed(run: Path, report: Reporter) -> dict[str, Any]:
    """Precision and recall of the pixels that prototypes choose, and of those that activation alone chooses.

    Returns:
        What suppressed.json holds: for each seed and way (``prototypes``, ``activation``) the shares of ``Counts``.
        Recall is of the activated pixels (theta) of present classes.
    """
    config = read_settings(run)
    fpr, device = config.fpr, set_up_torch(config.threads, config.device)
    result: dict[str, Any] = {"split": config.data.split, "seeds": {}}
    for seed in config.seeds:
        setup = set_up_seed(config, run, seed, device, report)
        masks = require_masks(setup)
        load_method(setup, "cam", run)
        tags = tags_of_pools(config.tags, setup, read_training_tags(run, setup), fpr, run, report)
        targets = torch.tensor(tags, dtype=torch.float32, device=device)
        levels = fpr.feature_space == "levels"
        prototypes = collect(setup.host, setup.inputs, targets, fpr, setup.superclasses, seed + 1000)
        counts = {"prototypes": Counts(), "activation": Counts()}
        false = true = 0
        with report.task(f"seed {seed}: suppressed pixels against masks") as step:
            for batch in setup.inputs.plain_batches(32):
                output = setup.host.trained_part(setup.inputs.plain(batch), level_features=levels)
                present = targets[torch.from_numpy(batch)] > 0
                present &= output.maps.amax(dim=(2, 3)) > 0
                chosen = {
                    "prototypes": compared_pixels(
                        output.features, output.maps, present, prototypes, fpr.theta, fpr.margin, fpr.pixel_epsilon,
                        fpr.distance == "cosine",
                    ),
                    "activation": (
                        halo_pixels(output.maps, present, fpr.theta, fpr.halo_below, fpr.pixel_epsilon),
                        halo_pixels(output.maps, present, fpr.halo_below, float("inf"), fpr.pixel_epsilon),
                    ),
                }  # fmt: skip
                activated = activated_pixels(output.maps, fpr.theta, fpr.pixel_epsilon) & present[:, :, None, None]
                shape = output.maps.shape[2:]
                for row, index in enumerate(batch.tolist()):
                    mask = on_grid(masks.mask(index), shape)
                    context = on_grid(masks.context(index), shape) if masks.contexts else None
                    for c in present[row].nonzero().flatten().tolist():
                        own, known = mask == c + 1, mask != IGNORE
                        active = activated[row, c].cpu() & known
                        false += int((active & ~own).sum())
                        true += int((active & own).sum())
                        for name, (suppressed, lifted) in chosen.items():
                            count = counts[name]
                            down, up = suppressed[row, c].cpu() & known, lifted[row, c].cpu() & known
                            count.suppressed += int(down.sum())
                            count.rightly_suppressed += int((down & ~own).sum())
                            count.lifted += int(up.sum())
                            count.rightly_lifted += int((up & own).sum())
                            names = masks.contexts.names if masks.contexts else ()
                            count.causes.update(causes(down & ~own, mask, context, names))
                step(int(batch[-1]) + 1, len(setup.images))
        result["seeds"][str(seed)] = {name: count.shares(false, true) for name, count in counts.items()}
    write_result(run / "suppressed.json", result)
    return result


def on_grid(mask: np.ndarray, size: tuple[int, ...]) -> Tensor:
    """(H, W) uint8 -> (h, w), the value at each cell's centre."""
    return functional.interpolate(torch.from_numpy(mask)[None, None].float(), size, mode="nearest-exact")[0, 0].byte()


def causes(wrong: Tensor, mask: Tensor, context: Tensor | None, names: tuple[str, ...]) -> Counter[str]:
    """What pixels (h, w) that are not of their class show: another class, a named context, or plain background."""
    found = Counter({OTHER_CLASS: int((wrong & (mask > 0)).sum())})
    background = wrong & (mask == 0)
    if context is None:
        found[BACKGROUND] = int(background.sum())
        return found
    numbers, amounts = np.unique(context[background].numpy(), return_counts=True)
    for number, amount in zip(numbers.tolist(), amounts.tolist(), strict=True):
        found[names[number - 1] if number else BACKGROUND] += amount
    return found


def markdown(result: dict[str, Any]) -> str:
    """A row for each way, means over seeds."""
    seeds = list(result["seeds"].values())
    names = ("suppressed: precision", "suppressed: recall", "lifted: precision", "lifted: recall")
    lines = ["| chosen by | " + " | ".join(names) + " | what is rightly suppressed |", "|---" * 6 + "|"]
    for way in ("prototypes", "activation"):
        row = [f"{np.mean([seed[way][name] for seed in seeds]):.1f}" for name in names]
        every = {name for seed in seeds for name in seed[way]["causes"]}
        shares = {name: float(np.mean([seed[way]["causes"].get(name, 0.0) for seed in seeds])) for name in every}
        shown = sorted(shares.items(), key=lambda item: -item[1])[:6]
        row.append(", ".join(f"{name} {share:.0f}" for name, share in shown if share >= 1))
        lines.append(f"| {way} | " + " | ".join(row) + " |")
    seen = ", ".join(result["seeds"])
    lines.append(f"\nPercent, on the grid of the maps; split {result['split']}, seeds {seen}. Reads masks.")
    return "\n".join(lines)
