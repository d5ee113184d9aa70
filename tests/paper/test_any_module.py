"""Any module that returns features, class maps and logits can be rectified in about ten lines."""

from __future__ import annotations

import copy
import re
import textwrap
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from tag2mask.fpr import FPRConfig, collect_prototypes, fpr_loss

Batches = list[tuple[Tensor, Tensor, Tensor]]


class TwoConvolutions(nn.Module):
    """The smallest network with class maps."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 16, 3, padding=1)
        self.second = nn.Conv2d(16, 2, 1, bias=False)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        features = self.first(images).relu()  # (N, 16, H, W)
        maps = self.second(features)  # (N, 2, H, W)
        return features, maps, maps.mean(dim=(2, 3))  # logits (N, 2)


def toy_batches(seed: int = 0, count: int = 96, batch_size: int = 16) -> Batches:
    """Red squares (class 0) on green ground, which is there without them too; blue squares (class 1) anywhere."""
    generator = torch.Generator().manual_seed(seed)
    images, labels = 0.1 * torch.randn(count, 3, 12, 12, generator=generator), torch.zeros(count, 2)
    for i in range(count):
        red, blue, alone = (torch.rand(3, generator=generator) < torch.tensor([0.5, 0.5, 0.25])).tolist()
        labels[i] = torch.tensor([red, blue])
        if red or alone:
            images[i, 1, 8:] += 1
        if red:
            images[i, 0, 2:6, 2:6] += 1
        if blue:
            images[i, 2, 2:6, 7:11] += 1
    numbers = torch.arange(count)
    return list(zip(images.split(batch_size), labels.split(batch_size), numbers.split(batch_size), strict=True))


def rectify(network: nn.Module, batches: Batches, optimiser: torch.optim.Optimizer, epochs: int) -> None:
    # readme: begin
    from tag2mask.fpr import FPRConfig, collect_prototypes, fpr_loss

    config = FPRConfig()
    for _ in range(epochs):  # batches: images, tags (N, C), image numbers (N,)
        prototypes = collect_prototypes(network, batches, config)
        for images, tags, _ in batches:
            features, maps, logits = network(images)  # (N, D, H, W), (N, C, H, W), (N, C)
            loss = fpr_loss(features, maps, logits, tags, prototypes, config, steps=epochs * len(batches))
            optimiser.zero_grad()
            loss.total.backward()
            optimiser.step()
    # readme: end


def classify(network: nn.Module, batches: Batches, epochs: int) -> None:
    """Training with tags alone."""
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-2)
    for _ in range(epochs):
        for images, tags, _ in batches:
            optimiser.zero_grad()
            functional.binary_cross_entropy_with_logits(network(images)[2], tags).backward()
            optimiser.step()


@torch.no_grad()
def mean_terms(network: nn.Module, batches: Batches, steps: int) -> tuple[float, float]:
    """Total and classification loss over all batches, with the prototypes of the network as it is."""
    config = FPRConfig()
    prototypes = collect_prototypes(network, batches, config)
    terms = [fpr_loss(*network(images), tags, prototypes, config, steps) for images, tags, _ in batches]
    return tuple(torch.stack(values).mean().item() for values in list(zip(*terms, strict=True))[:2])


def test_the_loss_goes_down() -> None:
    """From a network trained on tags: down with the lines above, up when it is trained on tags alone for as long."""
    torch.manual_seed(0)
    network, batches, epochs = TwoConvolutions(), toy_batches(), 15
    classify(network, batches, epochs=30)
    trained_on = copy.deepcopy(network)
    steps = epochs * len(batches)
    before, _ = mean_terms(network, batches, steps)
    rectify(network, batches, torch.optim.Adam(network.parameters(), lr=1e-2), epochs)
    classify(trained_on, batches, epochs)
    after, classification = mean_terms(network, batches, steps)
    assert after < 0.9 * before
    assert mean_terms(trained_on, batches, steps)[0] > before
    assert classification < 0.35  # it still classifies (chance is 0.69), though it lifts little once negatives are few


def test_readme_shows_these_lines() -> None:
    source = Path(__file__).read_text(encoding="utf-8")
    lines = source.split("# readme: begin\n", 1)[1].split("    # readme: end\n", 1)[0]
    readme = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```$", readme, flags=re.DOTALL | re.MULTILINE)
    shown = [block for block in blocks if "collect_prototypes" in block]
    assert shown, "README.md has no ```python block with collect_prototypes"
    assert shown[0].strip() == textwrap.dedent(lines).strip()
