"""What becomes a transformer's patch tokens: a photo's patches, or the levels of a frozen convolutional backbone."""

from __future__ import annotations

from typing import Any, NamedTuple

import timm
import torch
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn
from torch.nn import functional

from tag2mask.config import HostConfig
from tag2mask.errors import InputError
from tag2mask.hosts.backbone import build_stages, deep_levels, load_weights, stage_key
from tag2mask.hosts.cam import finest, resized, side_by_side
from tag2mask.hosts.mctformer_attention import check_blocks

FIRST_GAIN, LAST_GAIN = 0.7, 1.4
"""Of new blocks; in between it grows evenly. Sharper from the start, class tokens see each other and no patch."""
VISION_TRANSFORMERS = ("vision_transformer", "deit")
"""Modules of timm whose models are its VisionTransformer."""
INITIAL_DEVIATION = 0.02
"""Of new tokens and positions."""


class Positions(nn.Module):
    """A learnt position embedding of patches, (1, D, g, g), bicubically interpolated to other grids."""

    def __init__(self, width: int, grid: int) -> None:
        super().__init__()
        self.embedding = nn.Parameter(torch.empty(1, width, grid, grid))
        nn.init.trunc_normal_(self.embedding, std=INITIAL_DEVIATION)

    def forward(self, size: tuple[int, int] | torch.Size) -> Tensor:
        """(height, width) of the grid -> (1, D, height, width); the parameter itself at its own size."""
        if self.embedding.shape[2:] == torch.Size(size):
            return self.embedding
        return functional.interpolate(self.embedding, size, mode="bicubic", align_corners=False)


class PhotoPatches(nn.Module):
    """A vision transformer's own patch embedding, with positions."""

    def __init__(self, model: VisionTransformer, config: HostConfig) -> None:
        super().__init__()
        self.embed, self.norm = model.patch_embed, model.norm_pre
        width, loaded = model.embed_dim, model.pos_embed
        self.positions = Positions(width, config.mctformer.grid)
        if config.mctformer.positions == "loaded" and loaded is not None:
            rows, columns = model.patch_embed.grid_size
            patches = loaded[0, -rows * columns :]  # (P, D), behind those of other tokens
            grid = patches.detach().T.reshape(1, width, rows, columns)  # (1, D, rows, columns)
            self.positions.embedding = nn.Parameter(grid.contiguous())

    def forward(self, frozen: list[Tensor]) -> Tensor:
        """Images (N, 3, H, W) -> patch tokens (N, D, h, w)."""
        patches = self.embed(whole_patches(frozen[0], self.embed.patch_size))  # (N, 3, H, W) -> (N, h, w, D)
        patches = patches.permute(0, 3, 1, 2)  # (N, D, h, w)
        placed = patches + self.positions(patches.shape[2:])
        return self.norm(placed.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)  # last dimension D, and back

    def level_features(self, frozen: list[Tensor]) -> Tensor | None:
        """There are no features below the trained layers."""
        return None


class FrozenBlocks(nn.Module):
    """A vision transformer up to a block, as it was trained, with its own class token."""

    def __init__(self, model: VisionTransformer, count: int) -> None:
        super().__init__()
        self.model = model
        model.blocks = model.blocks[:count]
        model.norm = nn.Identity()

    def forward(self, images: Tensor) -> list[Tensor]:
        """Images (N, 3, H, W) -> patch tokens (N, D, h, w) alone, in a list."""
        images = whole_patches(images, self.model.patch_embed.patch_size)
        rows, columns = (
            side // patch for side, patch in zip(images.shape[2:], self.model.patch_embed.patch_size, strict=True)
        )
        tokens = self.model.forward_features(images)[:, self.model.num_prefix_tokens :]  # (N, P, D)
        return [tokens.transpose(1, 2).unflatten(2, (rows, columns))]  # (N, P, D) -> (N, D, h, w)


class FrozenPatches(nn.Module):
    """Patch tokens that frozen blocks made; they hold their positions."""

    def forward(self, frozen: list[Tensor]) -> Tensor:
        """Patch tokens (N, D, h, w), as they are."""
        return frozen[0]

    def level_features(self, frozen: list[Tensor]) -> Tensor | None:
        """The same: features that stand still."""
        return frozen[0]


class FrozenLevels(nn.Module):
    """A convolutional backbone that never learns, up to the last of some levels."""

    def __init__(self, stages: nn.ModuleDict, names: list[str]) -> None:
        super().__init__()
        last = max(list(stages).index(name) for name in names)
        self.stages = nn.ModuleDict(dict(list(stages.items())[: last + 1]))
        self.names = [name for name in stages if name in names]

    def forward(self, images: Tensor) -> list[Tensor]:
        """Images (N, 3, H, W) -> levels (N, D, h, w), in the order of the chain."""
        x, levels = images.contiguous(memory_format=torch.channels_last), []
        for name, stage in self.stages.items():
            x = stage(x)
            if name in self.names:
                levels.append(x)
        return levels


class LevelPatches(nn.Module):
    """Levels by their root mean square, each through a 1x1 convolution, added at the finest of their grids.

    That is one 1x1 convolution of the levels side by side, at a fraction of its cost where they differ in stride.
    """

    level_scale: Tensor

    def __init__(self, channels: list[int], width: int, grid: int) -> None:
        super().__init__()
        self.register_buffer("level_scale", torch.ones(len(channels)))
        self.projections = nn.ModuleList(nn.Conv2d(c, width, 1, bias=False) for c in channels)
        for projection in self.projections.parameters():
            nn.init.normal_(projection, std=sum(channels) ** -0.5)  # tokens of deviation 1
        self.positions = Positions(width, grid)

    def measure(self, levels: list[Tensor]) -> None:
        """Take the levels' scale from a batch, before training."""
        roots = [level.square().mean().sqrt() for level in levels]
        self.level_scale.copy_(torch.stack(roots).clamp(min=torch.finfo(torch.float32).tiny))

    def scaled(self, levels: list[Tensor]) -> list[Tensor]:
        """The levels by their scale, each (N, D, h, w)."""
        return [level / scale for scale, level in zip(self.level_scale, levels, strict=True)]

    def forward(self, frozen: list[Tensor]) -> Tensor:
        """Levels (N, D, h, w) -> patch tokens (N, width, H, W) at the finest grid."""
        size = finest(frozen)
        total = self.positions(size)  # (1, width, H, W)
        for projection, level in zip(self.projections, self.scaled(frozen), strict=True):
            total = total + resized(projection(level), size)  # (N, width, h, w) -> (N, width, H, W)
        return total

    def level_features(self, frozen: list[Tensor]) -> Tensor | None:
        """The scaled levels side by side, (N, D, H, W): features that stand still."""
        return side_by_side(self.scaled(frozen))


class Transformer(NamedTuple):
    """All of a network but its class tokens and its head."""

    frozen: nn.Module | None
    """Images -> a list of tensors; None where nothing is frozen."""
    patches: PhotoPatches | FrozenPatches | LevelPatches
    """That list, or one of the images themselves -> patch tokens (N, D, h, w)."""
    blocks: nn.ModuleList
    norm: nn.Module
    """Of the last layer's tokens."""
    width: int
    """D."""
    trained_before: bool
    """Whether the blocks are a vision transformer's; else they are new."""
    mean: tuple[float, ...]
    std: tuple[float, ...]


def build_transformer(config: HostConfig) -> Transformer:
    """A timm vision transformer, or new blocks over the levels of a frozen convolutional backbone.

    Raises:
        InputError: a backbone, weights, or a ``host.freeze`` that it cannot be.
    """
    if timm.is_model(config.backbone):
        family = timm.model_entrypoint(config.backbone).__module__.rpartition(".")[2]
        if family in VISION_TRANSFORMERS:
            return vision_transformer(config)
    return transformer_over_levels(config)


def vision_transformer(config: HostConfig) -> Transformer:
    """A timm ViT; its register tokens are left out where class tokens join, as those take their place."""
    try:
        model: Any = timm.create_model(
            config.backbone, pretrained=config.weights == "timm", num_classes=0, global_pool="", dynamic_img_size=True
        )
    except (RuntimeError, OSError, ValueError, TypeError, AssertionError) as error:
        raise InputError(
            f"host.backbone {config.backbone!r} with weights {config.weights!r} cannot be built: {error}"
        ) from error
    if config.weights not in ("timm", "none"):
        load_weights(config.weights, config.backbone, model)
    check_blocks(model.blocks, config.backbone)
    settings: dict[str, Any] = model.pretrained_cfg
    names = [f"blocks.{number}" for number in range(len(model.blocks))]
    wanted = config.freeze.replace("_", ".")
    if config.freeze != "none" and wanted not in names[:-1]:
        raise InputError(
            f"host.freeze is {config.freeze!r}; expected `none` or one of {', '.join(names[:-1])}: class tokens join "
            "behind it and need a block that learns."
        )
    frozen: nn.Module | None = None
    patches: PhotoPatches | FrozenPatches
    blocks, norm = nn.ModuleList(model.blocks), model.norm
    if config.freeze == "none":
        patches = PhotoPatches(model, config)
    else:
        count = names.index(wanted) + 1
        blocks = blocks[count:]
        frozen, patches = FrozenBlocks(model, count), FrozenPatches()
    return Transformer(
        frozen, patches, blocks, norm, model.embed_dim, True, tuple(settings["mean"]), tuple(settings["std"])
    )


@torch.no_grad()
def transformer_over_levels(config: HostConfig) -> Transformer:
    """New blocks; the levels stand in for the patch embedding, which without ImageNet takes long to learn."""
    own = config.mctformer
    if config.freeze != "all":
        raise InputError(
            f"host.freeze is {config.freeze!r}; expected `all`, as host.kind mctformer keeps a convolutional backbone "
            "frozen below its blocks."
        )
    stages, mean, std = build_stages(config)
    names = [stage_key(name, stages, "host.levels") for name in config.levels]
    frozen = FrozenLevels(stages, names or list(deep_levels(config.backbone, stages))).eval()
    channels = [level.shape[1] for level in frozen(torch.zeros(1, 3, 64, 64))]
    frozen.to(memory_format=torch.channels_last)
    blocks = nn.ModuleList(Block(own.width, own.heads, qkv_bias=True) for _ in range(own.depth))
    for number, block in enumerate(blocks):
        share = number / max(1, own.depth - 1)  # 0 in the first block, 1 in the last
        look_for_the_like(block, FIRST_GAIN * (1 - share) + LAST_GAIN * share)
    patches = LevelPatches(channels, own.width, own.grid)
    return Transformer(frozen, patches, blocks, nn.LayerNorm(own.width, eps=1e-6), own.width, False, mean, std)


@torch.no_grad()
def look_for_the_like(block: Any, gain: float) -> None:
    """Let the attention of a new block begin with what is alike: its keys start as its queries.

    Both are one random projection, which keeps inner products, so that a patch of grass looks at grass from the first
    step on. Independent ones begin, and on a few hundred photos stay, as an even look at everything.

    Args:
        block: timm's.
        gain: how sharply; a token that is normalised to D begins with scores of gain^2 * sqrt(d) for itself.
    """
    projection, width = block.attn.qkv, block.attn.proj.in_features
    alike = torch.randn(width, width) * (gain * width**-0.5)
    projection.weight[:width] = alike
    projection.weight[width : 2 * width] = alike
    nn.init.zeros_(projection.bias)


def whole_patches(images: Tensor, patch: tuple[int, int]) -> Tensor:
    """Images (N, 3, H, W) resized to the nearest whole number of patches, bilinear; the same tensor where they fit."""
    height, width = (max(1, round(side / p)) * p for side, p in zip(images.shape[2:], patch, strict=True))
    return resized(images, (height, width))
