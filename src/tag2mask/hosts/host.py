"""What rectification asks of a network with class maps, and what a host may say about itself."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from torch import Tensor, nn
from torch.nn import functional

from tag2mask.config import OptimiserConfig
from tag2mask.shares import mean


class HostOutput(NamedTuple):
    """What a host returns for a batch."""

    features: Tensor
    """F, (N, D, H, W)."""
    maps: Tensor
    """M, (N, C, H, W), before any ReLU."""
    logits: Tensor
    """(N, C), the spatial mean of M unless the host scores images in another way."""


class Host(nn.Module):
    """A network with class maps: images -> features F, class maps M, logits.

    A host of one's own writes ``features`` and ``maps``, and has a line in ``hosts.table``. All else has a default that
    a host with more to say overrides: a frozen half whose output may be kept, losses of its own, maps that are refined
    before they localize.

    Attributes:
        mean, std: what inputs in [0, 1] are normalised by, three numbers each.
        frozen_stages: modules that never learn; none unless a host puts some there.
        peaks_are_evidence: whether a localization map's maximum, before it is divided by it, says how sure the host is
            of the class; then no threshold goes below what absent classes reach (``score.absent_floor``).
    """

    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    peaks_are_evidence: bool = True

    def __init__(self) -> None:
        super().__init__()
        self.frozen_stages = nn.ModuleDict()

    def features(self, images: Tensor) -> Tensor:
        """Normalised images (N, 3, H, W) -> F, (N, D, h, w)."""
        raise NotImplementedError("a host needs `features`, or a `trained_part` of its own")

    def maps(self, features: Tensor) -> Tensor:
        """F (N, D, h, w) -> M (N, C, h, w), before any ReLU, linear in F where possible."""
        raise NotImplementedError("this host has no class maps as a function of its features alone")

    def frozen_part(self, images: Tensor) -> list[Tensor]:
        """Normalised images (N, 3, H, W) -> what the trained half starts from; kept on disk if anything is frozen."""
        return [images]

    def levels(self, frozen: list[Tensor]) -> dict[str, Tensor]:
        """Feature maps (N, D, h, w) by name, from ``frozen_part``'s output; what suspected tags are looked for in."""
        return {"features": self.features(frozen[-1])}

    def trained_part(self, frozen: list[Tensor], side: bool = True, level_features: bool = False) -> HostOutput:
        """``frozen_part``'s output -> features (N, D, h, w), class maps (N, C, h, w), logits (N, C).

        Args:
            side: False while the classifier is trained; hosts with a part that joins later leave it out.
            level_features: features are to stand still while the maps are rectified, where the host has such ones.
        """
        features = self.features(frozen[-1])
        maps = self.maps(features)
        return HostOutput(features, maps, maps.mean(dim=(2, 3)))

    def training_part(
        self, frozen: list[Tensor], labels: Tensor, side: bool = True, level_features: bool = False
    ) -> tuple[HostOutput, Tensor | None]:
        """``trained_part``, and what the host minimises beside the classification of its logits, a scalar.

        ``labels``: (N, C), 1 tagged, 0 not tagged, -1 unknown. None where there is nothing else.
        """
        return self.trained_part(frozen, side, level_features), None

    def localization_part(self, frozen: list[Tensor], level_features: bool = False) -> HostOutput:
        """As ``trained_part``, with the maps that objects are localized by."""
        return self.trained_part(frozen, level_features=level_features)

    def attribution_part(self, frozen: list[Tensor]) -> tuple[Tensor, Tensor]:
        """``frozen_part``'s output -> features (N, D, h, w), class maps (N, C, h, w) that are computed from them.

        What gradient-based attribution (Grad-CAM, AdvCAM) differentiates: the gradient of a class map with respect to
        these features is its whole gradient, and the maps are those of ``trained_part``.
        """
        features = self.features(frozen[-1])
        return features, self.maps(features)

    def forward(self, images: Tensor) -> HostOutput:
        return self.trained_part(self.frozen_part(images))

    def parameter_groups(self, config: OptimiserConfig, side: bool) -> list[dict[str, Any]]:
        """Groups of ``params`` with their rate ``lr``, perhaps ``weight_decay``; without ``side`` as in training."""
        learning = [parameter for parameter in self.parameters() if parameter.requires_grad]
        return [{"params": learning, "lr": config.learning_rate}]

    def classifier_parameters(self) -> list[nn.Parameter]:
        """Weights whose gradients ``clip_norm`` leaves alone."""
        return []

    def prepare(self, frozen: list[Tensor]) -> None:
        """Called once with a batch, before the classifier is trained."""

    def finish(self, batches: Iterable[list[Tensor]]) -> None:
        """Called when the classifier is trained, with ``frozen_part``'s output for all training images."""

    def freeze_batch_norm(self, learning: bool) -> None:
        """Called after ``train()``; unless ``learning``, new batch norms use and keep their statistics as well."""
        if not learning:
            for norm in batch_norms(self):
                norm.eval()

    def train(self, mode: bool = True) -> Any:
        """Training mode, in which the frozen half stays as it is: its batch norms keep their statistics."""
        super().train(mode)
        self.frozen_stages.eval()
        return self


def batch_norms(module: nn.Module) -> Iterator[nn.Module]:
    """All batch norms inside a module."""
    return (inner for inner in module.modules() if isinstance(inner, nn.modules.batchnorm._BatchNorm))


def soft_margin(logits: Tensor, labels: Tensor) -> Tensor:
    """- mean of y log sigma(x) + (1 - y) log(1 - sigma(x)) over the known tags, which is Eq. 1 of the paper.

    ``logits``: (N, C); ``labels``: (N, C), 1, 0, or -1 for unknown. 0 where nothing is known.
    """
    known = labels >= 0
    targets = labels[known].to(logits.dtype)
    return mean(functional.binary_cross_entropy_with_logits(logits[known], targets, reduction="none"))
