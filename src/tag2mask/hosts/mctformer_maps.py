"""What MCTformer makes of tokens, class maps and attention: pooled logits, losses, fused maps."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from tag2mask.hosts.mctformer_attention import TokenAttention
from tag2mask.shares import mean


def ranked_pooling(maps: Tensor, decay: float) -> Tensor:
    """Pixels in falling order, the r-th one weighted by decay^r, the weights divided by their sum.

    Args:
        maps: (N, C, H, W).
        decay: from 0 (the maximum) to 1 (the mean).

    Returns:
        (N, C).
    """
    ranked = maps.flatten(2).sort(dim=2, descending=True).values  # (N, C, HW)
    # In at least 32 bits: bf16 counts to 256.
    kind = torch.promote_types(maps.dtype, torch.float32)
    weights = decay ** torch.arange(ranked.shape[2], device=maps.device, dtype=kind)  # (HW,)
    return (ranked * (weights / weights.sum())).sum(dim=2)  # (N, C, HW) -> (N, C)


def class_token_contrast(tokens: Tensor) -> Tensor:
    """Every class token is to be the one most like itself: cross-entropy of the cosines against the identity.

    Args:
        tokens: class tokens (N, C, D).

    Returns:
        A scalar, the mean over images and classes; 0 for a single class.
    """
    n, count, _ = tokens.shape
    directions = functional.normalize(tokens, dim=2)
    cosines = directions @ directions.transpose(1, 2)  # (N, C, C)
    own = torch.arange(count, device=tokens.device).repeat(n)  # (N * C,)
    return mean(functional.cross_entropy(cosines.flatten(0, 1), own, reduction="none"))


def fused_maps(maps: Tensor, attention: TokenAttention, root: bool, spread: bool = True) -> Tensor:
    """Class maps by what the class tokens look at, spread to the patches that look alike.

    relu(M) * class-to-patch attention, perhaps its square root, then patch-to-patch attention @ map; of every map its
    minimum is taken off. The sums over layers become means, and attention is multiplied by the number of patches: an
    even one then leaves a map as it is. Both are one factor for all pixels, which goes when a map is divided by its
    maximum, and keeps maps of different sizes, and the weights of losses on them, comparable.

    Args:
        maps: M, (N, C, H, W), before any ReLU.
        attention: of P = H * W patches.
        root: take the square root of the product (MCTformer+).
        spread: by patch-to-patch attention.

    Returns:
        (N, C, H, W), 0 or more.
    """
    patches = maps.shape[2] * maps.shape[3]
    look = attention.class_to_patch * (patches / attention.class_layers)  # (N, C, P)
    fused = maps.flatten(2).relu() * look  # (N, C, P)
    if root:  # the slope at 0 is infinite, and half of the pixels are there
        fused = torch.where(fused > 0, fused.clamp(min=1e-12).sqrt(), 0.0)
    if spread:
        fused = fused @ (attention.patch_to_patch / attention.patch_layers).transpose(1, 2)  # (N, C, P)
    return (fused - fused.amin(dim=2, keepdim=True)).view(maps.shape)  # (N, C, P) -> (N, C, H, W)
