"""MCTformer: a transformer with a token for each class, whose attention refines its class maps.

L. Xu et al., "Multi-class Token Transformer for Weakly Supervised Semantic Segmentation", CVPR 2022.

Where vision transformers' weights are to be had, any of timm's serves. Where they are not, a few new blocks stand on a
frozen convolutional backbone.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from tag2mask.config import HostConfig, OptimiserConfig
from tag2mask.hosts.host import Host, HostOutput, soft_margin
from tag2mask.hosts.mctformer_attention import TokenAttention, run_blocks
from tag2mask.hosts.mctformer_maps import class_token_contrast, fused_maps, ranked_pooling
from tag2mask.hosts.mctformer_tokens import INITIAL_DEVIATION, LevelPatches, build_transformer


class Tokens(NamedTuple):
    """What the last layer gives."""

    classes: Tensor
    """(N, C, D)."""
    features: Tensor
    """F, the patch tokens (N, D, h, w)."""
    attention: TokenAttention | None


class MctformerHost(Host):
    """C class tokens beside the patch tokens; class maps by a 3x3 convolution of the patch tokens.

    The logits are the patch logits: the spatial mean of the maps, or their ranked pooling (version plus). Those of the
    class tokens, the mean over D of each, have a loss of their own in ``training_part``, and so has the likeness of the
    class tokens to each other (plus).

    Features that stand still (``level_features``): the scaled levels of a frozen convolutional backbone, the tokens
    behind a vision transformer's frozen blocks; of one that learns as a whole there are none, and the patch tokens F
    take their place.

    Args:
        config: backbone, weights, freezing, levels, and what ``host.mctformer`` says.
        class_count: C.
    """

    # A class token looks somewhere in every photo: attention sums to 1 whether or not the class is there.
    peaks_are_evidence = False

    def __init__(self, config: HostConfig, class_count: int) -> None:
        super().__init__()
        self.config, self.refined = config.mctformer, config.rectified_maps == "refined"
        transformer = build_transformer(config)
        self.mean, self.std = transformer.mean, transformer.std
        if transformer.frozen is not None:
            self.frozen_stages["below"] = transformer.frozen.requires_grad_(False)
        self.patches, self.blocks, self.norm = transformer.patches, transformer.blocks, transformer.norm
        self.trained_before = transformer.trained_before
        self.class_tokens = nn.Parameter(torch.empty(1, class_count, transformer.width))
        self.class_positions = nn.Parameter(torch.empty(1, class_count, transformer.width))
        for parameter in (self.class_tokens, self.class_positions):
            nn.init.trunc_normal_(parameter, std=INITIAL_DEVIATION)
        self.head = nn.Conv2d(transformer.width, class_count, 3, padding=1, bias=False)
        nn.init.normal_(self.head.weight, std=0.01)

    def parameter_groups(self, config: OptimiserConfig, side: bool) -> list[dict[str, Any]]:
        """Blocks that were trained before at the backbone's rate; vectors, tokens and positions do not decay."""
        groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
        for name, parameter in self.named_parameters():
            if parameter.requires_grad:
                before = self.trained_before and name.startswith(("blocks.", "norm.", "patches.embed."))
                decays = parameter.dim() > 1 and not name.endswith(("class_tokens", "class_positions", "embedding"))
                key = (config.backbone_rate if before else config.learning_rate, decays)
                groups.setdefault(key, []).append(parameter)
        return [
            {"params": group, "lr": rate, **({} if decays else {"weight_decay": 0.0})}
            for (rate, decays), group in groups.items()
        ]

    def classifier_parameters(self) -> list[nn.Parameter]:
        """The head."""
        return list(self.head.parameters())

    @torch.no_grad()
    def prepare(self, frozen: list[Tensor]) -> None:
        """Measure the scale (root mean square) of the levels in one large batch, before training."""
        if isinstance(self.patches, LevelPatches):
            self.patches.measure(frozen)

    def frozen_part(self, images: Tensor) -> list[Tensor]:
        """Normalised images (N, 3, H, W) -> levels or patch tokens (N, D, h, w); the images where nothing is frozen."""
        below = self.frozen_stages["below"] if len(self.frozen_stages) else None
        return [images] if below is None else below(images)

    def levels(self, frozen: list[Tensor]) -> dict[str, Tensor]:
        """Frozen levels or tokens by number, (N, D, h, w); the last layer's patch tokens where nothing is frozen."""
        if not len(self.frozen_stages):
            return {"tokens": self.tokens(frozen, False).features}
        return {f"level{number}": level for number, level in enumerate(frozen)}

    def tokens(self, frozen: list[Tensor], with_attention: bool) -> Tokens:
        """``frozen_part``'s output through the blocks."""
        patches = self.patches(frozen)  # (N, D, h, w)
        rows = patches.flatten(2).transpose(1, 2)  # (N, D, h, w) -> (N, P, D)
        classes = (self.class_tokens + self.class_positions).expand(len(rows), -1, -1)  # (1, C, D) -> (N, C, D)
        tokens, count = torch.cat([classes, rows], dim=1), classes.shape[1]  # (N, C + P, D)
        attention: TokenAttention | None = None
        if with_attention:
            tokens, attention = run_blocks(self.blocks, tokens, count, self.config.attention_layers)
        else:
            for block in self.blocks:
                tokens = block(tokens)
        features = self.norm(tokens[:, count:]).transpose(1, 2).unflatten(2, patches.shape[2:])  # (N, D, h, w)
        # A new norm's outputs have the mean 0 whatever comes in: class tokens of new blocks are read before it.
        classes = self.norm(tokens[:, :count]) if self.trained_before else tokens[:, :count]  # (N, C, D)
        return Tokens(classes, features, attention)

    def maps(self, features: Tensor) -> Tensor:
        """Patch tokens F (N, D, h, w) -> class maps M (N, C, h, w)."""
        maps: Tensor = self.head(features)
        return maps

    def output(self, tokens: Tokens, frozen: list[Tensor], level_features: bool) -> HostOutput:
        """Features (N, D, h, w), maps (N, C, h, w), fused and refined where there is attention, patch logits (N, C)."""
        plus = self.config.version == "plus"
        maps = self.maps(tokens.features)
        logits = ranked_pooling(maps, self.config.pool_decay) if plus else maps.mean(dim=(2, 3))
        if tokens.attention is not None:
            maps = fused_maps(maps, tokens.attention, root=plus or self.config.root, spread=self.config.affinity)
        still = self.patches.level_features(frozen) if level_features else None
        return HostOutput(tokens.features if still is None else still, maps, logits)

    def trained_part(self, frozen: list[Tensor], side: bool = True, level_features: bool = False) -> HostOutput:
        """As every host's, with the head's maps, or with the fused ones where ``host.rectified_maps`` says refined."""
        return self.output(self.tokens(frozen, self.refined), frozen, level_features)

    def training_part(
        self, frozen: list[Tensor], labels: Tensor, side: bool = True, level_features: bool = False
    ) -> tuple[HostOutput, Tensor | None]:
        """``trained_part``, and the loss of the class tokens: their classification, in version plus their contrast."""
        tokens = self.tokens(frozen, self.refined)
        loss = soft_margin(tokens.classes.mean(dim=2), labels)  # (N, C, D) -> (N, C)
        if self.config.version == "plus":
            loss = loss + self.config.contrast_weight * class_token_contrast(tokens.classes)
        return self.output(tokens, frozen, level_features), loss

    def attribution_part(self, frozen: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Patch tokens of the last layer (N, D, h, w), and the head's maps of them (N, C, h, w), whatever is rectified.

        The attention by which maps are fused is no function of these tokens.
        """
        features = self.tokens(frozen, False).features
        return features, self.maps(features)

    def localization_part(self, frozen: list[Tensor], level_features: bool = False) -> HostOutput:
        """The fused, refined maps."""
        return self.output(self.tokens(frozen, True), frozen, level_features)
