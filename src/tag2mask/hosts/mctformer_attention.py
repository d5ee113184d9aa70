"""Attention weights of a transformer's blocks, taken out in the pass that makes its tokens."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from timm.layers import Attention
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from tag2mask.errors import InputError


class TokenAttention(NamedTuple):
    """What tokens look at, averaged over the heads; an even look at everything is 1 / (number of tokens) everywhere."""

    class_to_patch: Tensor
    """(N, C, P), from class tokens (rows) to patches, summed over the last layers."""
    patch_to_patch: Tensor
    """(N, P, P), from patches (rows) to patches, summed over all layers."""
    class_layers: int
    """Layers in ``class_to_patch``."""
    patch_layers: int
    """Layers in ``patch_to_patch``."""


def check_blocks(blocks: nn.Sequential, name: str) -> None:
    """Make sure that the blocks are of the plain kind whose attention is known here.

    Raises:
        InputError: another kind of block or of attention.
    """
    for block in blocks:
        if type(block) is not Block or type(block.attn) is not Attention:
            raise InputError(
                f"host.backbone {name!r} has blocks of another kind than a plain vision transformer's; choose one such "
                "as deit_small_patch16_224 or vit_base_patch16_224."
            )


def attend(attention: Any, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """timm's ``Attention`` and its weights.

    One head after the other: the weights of one stay in the processor's cache until they are used and added up, those
    of all heads at once do not.

    Args:
        attention: the module; its dropouts and normalisations act as in its own forward.
        tokens: (N, T, D).

    Returns:
        New tokens (N, T, D), and the mean of the heads' weights (N, T, T), each row of which sums to 1.
    """
    n, count, _ = tokens.shape
    heads = attention.num_heads
    qkv = attention.qkv(tokens).reshape(n, count, 3, heads, -1)  # (N, T, 3, heads, d)
    queries, keys, values = qkv.permute(2, 3, 0, 1, 4)  # (heads, N, T, d) each
    queries, keys = attention.q_norm(queries) * attention.scale, attention.k_norm(keys)
    outputs: list[Tensor] = []
    total: Tensor | None = None
    for query, key, value in zip(queries, keys, values, strict=True):
        weights = torch.softmax(query @ key.transpose(1, 2), dim=-1)  # (N, T, T)
        outputs.append(attention.attn_drop(weights) @ value)  # (N, T, d)
        total = added(total, weights)
    assert total is not None  # there is at least one head
    mixed = torch.cat(outputs, dim=2)  # (N, T, heads * d)
    norm, gate = getattr(attention, "norm", None), getattr(attention, "gate", None)  # newer timm
    mixed = mixed if norm is None else norm(mixed)
    mixed = mixed if gate is None else mixed * gate(tokens).sigmoid()
    return attention.proj_drop(attention.proj(mixed)), total / heads


def added(total: Tensor | None, part: Tensor) -> Tensor:
    """``total + part``; in the memory of ``total``, which is nobody else's, where no gradient is wanted."""
    if total is None:
        return part
    return total + part if torch.is_grad_enabled() else total.add_(part)


def run_blocks(blocks: nn.ModuleList, tokens: Tensor, class_count: int, layers: int) -> tuple[Tensor, TokenAttention]:
    """All blocks one after the other, with their attention.

    Args:
        blocks: timm's, at least one.
        tokens: (N, C + P, D), class tokens first.
        class_count: C.
        layers: the last layers whose class-to-patch attention is summed; all where there are fewer.

    Returns:
        New tokens (N, C + P, D), not normalised, and the attention.
    """
    first = max(0, len(blocks) - layers)
    class_to_patch: Tensor | None = None
    patch_to_patch: Tensor | None = None
    for number, block in enumerate(blocks):
        whole: Any = block
        update, weights = attend(whole.attn, whole.norm1(tokens))
        tokens = tokens + whole.drop_path1(whole.ls1(update))
        tokens = tokens + whole.drop_path2(whole.ls2(whole.mlp(whole.norm2(tokens))))
        own = weights[:, class_count:, class_count:]  # (N, T, T) -> (N, P, P)
        patch_to_patch = added(patch_to_patch, own)
        if number >= first:
            own = weights[:, :class_count, class_count:]  # (N, T, T) -> (N, C, P)
            class_to_patch = added(class_to_patch, own)
    assert class_to_patch is not None and patch_to_patch is not None  # there is at least one block
    return tokens, TokenAttention(class_to_patch, patch_to_patch, len(blocks) - first, len(blocks))
