"""MCTformer piece by piece: its attention, positions, maps and losses against timm and against loops."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional

from tag2mask.config import HostConfig, MctformerConfig, OptimiserConfig
from tag2mask.engine import build_optimiser
from tag2mask.errors import InputError
from tag2mask.hosts.host import soft_margin
from tag2mask.hosts.mctformer import MctformerHost
from tag2mask.hosts.mctformer_attention import TokenAttention, attend, run_blocks
from tag2mask.hosts.mctformer_maps import class_token_contrast, fused_maps, ranked_pooling
from tag2mask.hosts.mctformer_tokens import Positions
from tag2mask.presets import PRESETS

VIT = "test_vit"
"""Width 64, 6 blocks of 2 heads, patches of 16 pixels on a grid of 10."""
LEVELS = {"backbone": "test_efficientnet", "freeze": "all", "levels": ("blocks.2", "blocks.4")}


def host_of(classes: int = 3, *, kind: dict[str, Any] | None = None, **settings: Any) -> MctformerHost:
    """A vision transformer, or with LEVELS new blocks on a convolutional backbone, random; ``kind``: MctformerConfig."""
    own = MctformerConfig(**{"depth": 2, "width": 16, "heads": 2, "grid": 4, **(kind or {})})
    options = {"backbone": VIT, "freeze": "none", **settings}
    torch.manual_seed(0)
    return MctformerHost(HostConfig(kind="mctformer", weights="none", side=0, mctformer=own, **options), classes).eval()


def refusal(**settings: Any) -> str:
    with pytest.raises(InputError) as caught:
        host_of(**settings)
    return str(caught.value)


def stirred(module: nn.Module) -> nn.Module:
    """New norms do nothing yet; random ones show mistakes."""
    for inner in module.modules():
        if isinstance(inner, nn.LayerNorm):
            nn.init.normal_(inner.weight, 1, 0.3)
            nn.init.normal_(inner.bias, 0, 0.3)
    return module


# attention


@pytest.mark.parametrize("backbone", [VIT, "test_vit2", "vit_tiny_patch16_224"])
def test_attention_is_timms_and_its_rows_sum_to_1(backbone: str) -> None:
    torch.manual_seed(0)
    block = stirred(timm.create_model(backbone).blocks[0]).eval()
    tokens = torch.randn(2, 9, block.attn.proj.out_features)
    with torch.no_grad():
        output, weights = attend(block.attn, tokens)
        torch.testing.assert_close(output, block.attn(tokens), atol=1e-5, rtol=1e-5)
    assert weights.shape == (2, 9, 9) and weights.min() >= 0
    torch.testing.assert_close(weights.sum(2), torch.ones(2, 9))


@torch.no_grad()
def test_attention_weights_are_the_mean_of_the_heads_softmax() -> None:
    torch.manual_seed(0)
    attention = timm.create_model(VIT).blocks[0].attn
    tokens, heads = torch.randn(1, 5, 64), attention.num_heads
    queries, keys, _ = attention.qkv(tokens)[0].split(64, dim=1)
    expected = torch.zeros(5, 5)
    for head in range(heads):
        part = slice(head * 64 // heads, (head + 1) * 64 // heads)
        for i in range(5):
            scores = [float(queries[i, part] @ keys[j, part]) / math.sqrt(64 / heads) for j in range(5)]
            total = sum(math.exp(s) for s in scores)
            for j in range(5):
                expected[i, j] += math.exp(scores[j]) / total / heads
    torch.testing.assert_close(attend(attention, tokens)[1][0], expected)


@pytest.mark.parametrize("layers", [1, 3, 99])
def test_blocks_with_attention_give_timms_tokens_and_the_sums_over_layers(layers: int) -> None:
    torch.manual_seed(0)
    blocks = nn.ModuleList(stirred(timm.create_model(VIT)).blocks).eval()
    tokens = torch.randn(2, 3 + 6, 64)
    with torch.no_grad():
        seen, each = tokens, []
        for block in blocks:
            each.append(attend(block.attn, block.norm1(seen))[1])
            seen = block(seen)
        output, attention = run_blocks(blocks, tokens, 3, layers)
    torch.testing.assert_close(output, seen, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(attention.class_to_patch, sum(w[:, :3, 3:] for w in each[-layers:]))
    torch.testing.assert_close(attention.patch_to_patch, sum(w[:, 3:, 3:] for w in each))
    assert (attention.class_layers, attention.patch_layers) == (min(layers, len(blocks)), len(blocks))


# positions, and the whole forward against timm's


def test_positions_are_the_parameter_itself_at_its_own_size() -> None:
    positions = Positions(8, 6)
    assert positions((6, 6)) is positions.embedding
    assert positions((4, 9)).shape == (1, 8, 4, 9)
    assert 0.015 < positions.embedding.std() < 0.025


@pytest.mark.parametrize("size", [(12, 12), (3, 3), (5, 9)])
def test_positions_at_another_size_keep_an_even_embedding_and_mirror_with_it(size: tuple[int, int]) -> None:
    positions = Positions(2, 6)
    with torch.no_grad():
        positions.embedding[:, 1] = 0.7
        given = positions(size)
        torch.testing.assert_close(given[:, 1], torch.full((1, *size), 0.7))
        positions.embedding.copy_(positions.embedding.flip(3))
        torch.testing.assert_close(positions(size), given.flip(3))


def timm_model(host: MctformerHost, backbone: str) -> Any:
    """timm's own transformer with the weights of ours, whose one class token is its class token."""
    model = timm.create_model(backbone, num_classes=0, global_pool="", dynamic_img_size=True).eval()
    patches: Any = host.patches
    state = {f"patch_embed.{k}": v for k, v in patches.embed.state_dict().items()}
    state |= {f"blocks.{k}": v for k, v in host.blocks.state_dict().items()}
    state |= {f"norm.{k}": v for k, v in host.norm.state_dict().items()}
    grid = patches.positions.embedding.flatten(2).transpose(1, 2)  # (1, D, g, g) -> (1, P, D)
    state["cls_token"], state["pos_embed"] = host.class_tokens, torch.cat([host.class_positions, grid], 1)
    model.load_state_dict(state)
    return model


@pytest.mark.parametrize("with_attention", [False, True])
def test_one_class_token_is_timms_transformer(with_attention: bool) -> None:
    host = stirred(host_of(1, kind={"grid": 10}))
    nn.init.normal_(host.class_tokens)
    images = torch.randn(2, 3, 160, 160)
    with torch.no_grad():
        expected = timm_model(host, VIT).forward_features(images)
        tokens = host.tokens([images], with_attention)
    torch.testing.assert_close(tokens.classes, expected[:, :1], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(tokens.features.flatten(2).transpose(1, 2), expected[:, 1:], atol=1e-4, rtol=1e-4)
    assert tokens.features.shape == (2, 64, 10, 10)


def test_loaded_weights_and_positions(tmp_path: Path) -> None:
    torch.manual_seed(5)
    model = stirred(timm.create_model(VIT))
    save_file(dict(model.state_dict()), tmp_path / "vit.safetensors")
    own = MctformerConfig(positions="loaded")
    settings = HostConfig(kind="mctformer", backbone=VIT, weights=str(tmp_path / "vit.safetensors"), freeze="none")
    host = MctformerHost(replace(settings, mctformer=own), 2)
    patches: Any = host.patches
    assert torch.equal(patches.positions((10, 10)), model.pos_embed[:, 1:].transpose(1, 2).unflatten(2, (10, 10)))
    assert all(torch.equal(a, b) for a, b in zip(host.blocks.parameters(), model.blocks.parameters(), strict=True))


def test_class_tokens_have_no_order() -> None:
    """Permuted class tokens and head give permuted maps and attention."""
    host, images, order = host_of(4), torch.randn(1, 3, 96, 64), [2, 0, 3, 1]
    nn.init.normal_(host.class_tokens)
    with torch.no_grad():
        maps, tokens = host.localization_part([images]).maps, host.tokens([images], False).classes
        for parameter in (host.class_tokens, host.class_positions):
            parameter.copy_(parameter[:, order])
        host.head.weight.copy_(host.head.weight[order])
        torch.testing.assert_close(host.localization_part([images]).maps, maps[:, order], atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(host.tokens([images], False).classes, tokens[:, order], atol=1e-5, rtol=1e-4)


# maps and losses against loops


def attention_of(n: int, classes: int, patches: int) -> TokenAttention:
    return TokenAttention(torch.rand(n, classes, patches), torch.rand(n, patches, patches), 3, 5)


@pytest.mark.parametrize("root", [False, True])
def test_fused_maps_against_loops(root: bool) -> None:
    torch.manual_seed(0)
    n, classes, height, width = 2, 3, 3, 4
    patches = height * width
    maps, attention = torch.randn(n, classes, height, width), attention_of(n, classes, patches)
    expected = torch.zeros(n, classes, patches)
    for i in range(n):
        for c in range(classes):
            fused = []
            for p in range(patches):
                value = max(0.0, float(maps[i, c, p // width, p % width])) * float(attention.class_to_patch[i, c, p])
                fused.append(math.sqrt(value * patches / 3) if root else value * patches / 3)
            for p in range(patches):
                expected[i, c, p] = sum(float(attention.patch_to_patch[i, p, q]) / 5 * fused[q] for q in range(patches))
            expected[i, c] -= expected[i, c].min()
    given = fused_maps(maps, attention, root)
    torch.testing.assert_close(given, expected.view(n, classes, height, width))
    assert given.min() == 0


def test_even_attention_and_an_identity_of_patches_give_the_map() -> None:
    maps = torch.rand(1, 2, 3, 3)
    maps[:, :, 0, 0] = 0
    attention = TokenAttention(torch.full((1, 2, 9), 3 / 9), 12 * torch.eye(9)[None], 3, 12)
    torch.testing.assert_close(fused_maps(maps, attention, False), maps)


def test_fused_maps_without_the_spread_are_the_product_above_its_minimum() -> None:
    maps, attention = torch.randn(2, 3, 2, 2), attention_of(2, 3, 4)
    product = maps.relu() * attention.class_to_patch.view(maps.shape) * 4 / 3
    torch.testing.assert_close(fused_maps(maps, attention, False, spread=False), product - product.amin((2, 3), keepdim=True))


def test_new_blocks_look_at_what_is_alike() -> None:
    host = host_of(kind={"width": 64, "heads": 1}, **LEVELS)
    with torch.no_grad():
        kinds = torch.randn(2, 64)
        tokens = kinds[torch.tensor([0, 0, 0, 1, 1, 1])][None]  # (1, 6, 64)
        weights = attend(host.blocks[-1].attn, host.blocks[-1].norm1(tokens))[1][0]  # type: ignore[union-attr,operator]
    assert weights[:3, :3].sum(1).min() > 0.9 and weights[3:, 3:].sum(1).min() > 0.9


def test_fused_maps_have_finite_gradients_where_the_map_is_0() -> None:
    maps = torch.tensor([-1.0, 0.0, 0.0, 2.0]).view(1, 1, 2, 2).requires_grad_()
    fused_maps(maps, attention_of(1, 1, 4), root=True).square().sum().backward()
    assert maps.grad is not None and maps.grad.isfinite().all() and maps.grad[0, 0, 1, 1] != 0


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.996, 1.0])
def test_ranked_pooling_against_loops(decay: float) -> None:
    maps = torch.randn(2, 3, 4, 5)
    for i in range(2):
        for c in range(3):
            ranked = sorted(maps[i, c].flatten().tolist(), reverse=True)
            weights = [decay**r for r in range(20)]
            expected = sum(w * v for w, v in zip(weights, ranked, strict=True)) / sum(weights)
            assert ranked_pooling(maps, decay)[i, c].item() == pytest.approx(expected, abs=1e-5)
    torch.testing.assert_close(ranked_pooling(maps, 1.0), maps.mean((2, 3)))
    torch.testing.assert_close(ranked_pooling(maps, 0.0), maps.amax((2, 3)))
    large = torch.randn(1, 2, 40, 40).bfloat16()  # which counts to 256
    torch.testing.assert_close(ranked_pooling(large, decay), ranked_pooling(large.float(), decay), atol=1e-4, rtol=1e-4)


def test_contrast_of_class_tokens_against_loops() -> None:
    torch.manual_seed(0)
    tokens, total = torch.randn(2, 4, 6), 0.0
    for image in tokens:
        for a in range(4):
            cosines = [float(image[a] @ image[b] / (image[a].norm() * image[b].norm())) for b in range(4)]
            total -= math.log(math.exp(cosines[a]) / sum(math.exp(c) for c in cosines)) / 8
    assert class_token_contrast(tokens).item() == pytest.approx(total, abs=1e-5)
    torch.testing.assert_close(class_token_contrast(5 * tokens), class_token_contrast(tokens))
    assert class_token_contrast(torch.eye(4)[None]) < class_token_contrast(torch.ones(1, 4, 4))
    assert class_token_contrast(tokens[:, :1]) == 0


def test_soft_margin_leaves_unknown_tags_out() -> None:
    logits, labels = torch.randn(3, 4), (torch.rand(3, 4) < 0.5).float()
    torch.testing.assert_close(soft_margin(logits, labels), functional.multilabel_soft_margin_loss(logits, labels))
    labels[0], labels[2, 1] = -1, -1
    known = torch.tensor([[False] * 4, [True] * 4, [True, False, True, True]])
    expected = torch.log1p(torch.exp(torch.where(labels > 0, -logits, logits)))[known].mean()
    torch.testing.assert_close(soft_margin(logits, labels), expected)
    assert soft_margin(logits, torch.full((3, 4), -1.0)) == 0


# the host


@pytest.mark.parametrize("version", ["v2", "plus"])
@pytest.mark.parametrize("settings", [{}, {"freeze": "blocks.3"}, LEVELS])
def test_output_of_each_part(settings: dict[str, Any], version: str) -> None:
    host = stirred(host_of(kind={"version": version}, **settings))
    images, plus = torch.randn(2, 3, 96, 64), version == "plus"
    with torch.no_grad():
        frozen = host.frozen_part(images)
        host.prepare(frozen)
        output, localized = host.trained_part(frozen), host.localization_part(frozen)
        tokens = host.tokens(frozen, True)
        labels = torch.tensor([[1.0, 0, -1], [0, -1, 1]])
        trained, loss = host.training_part(frozen, labels)
    assert tokens.attention is not None and loss is not None
    maps = host.head(output.features)
    torch.testing.assert_close(output.maps, maps)
    torch.testing.assert_close(output.logits, ranked_pooling(maps, 0.996) if plus else maps.mean((2, 3)))
    torch.testing.assert_close(localized.maps, fused_maps(maps, tokens.attention, plus), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(localized.logits, output.logits)
    expected = soft_margin(tokens.classes.mean(2), labels) + (class_token_contrast(tokens.classes) if plus else 0)
    torch.testing.assert_close(loss, expected, atol=1e-5, rtol=1e-4)
    for one, other in zip(trained, output, strict=True):
        assert torch.equal(one, other)


def test_refined_maps_carry_the_gradient_where_they_are_rectified() -> None:
    host = host_of(rectified_maps="refined", **LEVELS)
    frozen = host.frozen_part(torch.randn(2, 3, 64, 64))
    output, localized = host.trained_part(frozen), host.localization_part(frozen)
    torch.testing.assert_close(output.maps, localized.maps)
    torch.testing.assert_close(output.logits, host.maps(output.features).mean((2, 3)))
    output.maps.square().sum().backward()
    assert host.class_tokens.grad is not None and host.class_tokens.grad.abs().max() > 0


def test_levels_stand_still_on_the_grid_of_the_maps_while_the_blocks_learn() -> None:
    host = host_of(**LEVELS).train()
    images = 3 * torch.randn(2, 3, 64, 96) + 1
    frozen = host.frozen_part(images)
    host.prepare(frozen)
    assert not host.frozen_stages.training and not any(level.requires_grad for level in frozen)
    before = host.trained_part(frozen, level_features=True)
    scaled = [level / level.square().mean().sqrt() for level in frozen]
    size = frozen[0].shape[2:]
    expected = torch.cat([functional.interpolate(s, size, mode="bilinear", align_corners=False) for s in scaled], 1)
    torch.testing.assert_close(before.features, expected)
    assert before.features.shape[2:] == before.maps.shape[2:]
    optimiser = build_optimiser(host, OptimiserConfig(learning_rate=0.01), side=True)
    weights = {name: p.clone() for name, p in host.named_parameters()}
    output, loss = host.training_part(frozen, torch.ones(2, 3))
    assert loss is not None
    (loss + output.maps.square().mean()).backward()
    optimiser.step()
    changed = {name for name, p in host.named_parameters() if not torch.equal(weights[name], p)}
    assert changed == {name for name in weights if not name.startswith("frozen_stages.")}
    after = host.trained_part(frozen, level_features=True)
    assert torch.equal(after.features, before.features) and not torch.equal(after.maps, before.maps)


def test_level_features_of_a_vision_transformer() -> None:
    frozen_first = host_of(freeze="blocks.3")
    assert len(frozen_first.blocks) == 2 and list(frozen_first.levels([torch.zeros(1)])) == ["level0"]
    images = torch.randn(1, 3, 64, 96)
    (tokens,) = frozen_first.frozen_part(images)
    assert tokens.shape == (1, 64, 4, 6) and not tokens.requires_grad
    assert torch.equal(frozen_first.trained_part([tokens], level_features=True).features, tokens)
    whole = host_of()
    assert whole.frozen_part(images)[0] is images
    assert torch.equal(whole.trained_part([images], level_features=True).features, whole.trained_part([images]).features)
    assert whole.levels([images])["tokens"].shape == (1, 64, 4, 6)


def test_frozen_blocks_are_timms_first_blocks() -> None:
    host = host_of(freeze="blocks.3")
    frozen: Any = host.frozen_stages["below"]
    model, images = frozen.model, torch.randn(1, 3, 160, 160)
    with torch.no_grad():
        tokens = model.blocks(model.norm_pre(model._pos_embed(model.patch_embed(images))))
        expected = tokens[:, 1:].transpose(1, 2).view(1, 64, 10, 10)
        torch.testing.assert_close(host.frozen_part(images)[0], expected)


@pytest.mark.parametrize("size", [(70, 100), (5, 40)])
def test_sizes_that_are_no_whole_number_of_patches(size: tuple[int, int]) -> None:
    grid = tuple(max(1, round(side / 16)) for side in size)
    for settings in ({}, {"freeze": "blocks.0"}):
        host = host_of(**settings)
        with torch.no_grad():
            assert host.localization_part(host.frozen_part(torch.randn(1, 3, *size))).maps.shape[2:] == grid


def test_rates_and_decay() -> None:
    config = OptimiserConfig(learning_rate=0.3, backbone_rate=0.02, weight_decay=0.05)
    for settings, backbone in (({}, 0.02), (LEVELS, 0.3)):
        host = host_of(**settings)
        groups = build_optimiser(host, config, side=False).param_groups
        found = {id(p): (group["lr"], group["weight_decay"]) for group in groups for p in group["params"]}
        given = {name: found[id(p)] for name, p in host.named_parameters() if p.requires_grad}
        assert len(found) == len(given)
        assert given["blocks.0.attn.qkv.weight"] == (backbone, 0.05)
        assert given["blocks.0.attn.qkv.bias"] == given["norm.weight"] == (backbone, 0.0)
        assert given["head.weight"] == (0.3, 0.05)
        assert given["class_tokens"] == given["class_positions"] == given["patches.positions.embedding"] == (0.3, 0.0)
    assert host.classifier_parameters() == [host.head.weight]


def test_what_cannot_be_is_refused_in_one_sentence() -> None:
    assert "class tokens join" in refusal(freeze="all") and "blocks.4" in refusal(freeze="blocks.5")
    assert "frozen below" in refusal(**{**LEVELS, "freeze": "none"})
    assert "plain vision transformer" in refusal(backbone="vit_base_patch16_rpn_224")
    assert "Did you mean" in refusal(backbone="vit_tinny_patch16_224", freeze="all")
    for wrong in ({"depth": 0}, {"pool_decay": 1.1}, {"contrast_weight": -1}, {"width": 10, "heads": 3}):
        with pytest.raises(InputError, match="host.mctformer"):
            MctformerConfig(**wrong)


@pytest.mark.parametrize(("preset", "rate", "size"), [("mctformer", 5e-4 * 64 / 512, 224), ("mctformer_plus", 5e-4 * 32 / 512, 448)])
def test_presets_are_the_published_recipes(preset: str, rate: float, size: int) -> None:
    config = PRESETS[preset]
    assert config.host.backbone.startswith("deit_small_patch16_224") and config.views.size == size == 16 * config.host.mctformer.grid
    phase = config.classify
    assert phase.learning_rate == phase.backbone_rate == pytest.approx(rate)
    assert (phase.kind, phase.weight_decay, phase.schedule, phase.warm_up) == ("adamw", 0.05, "cosine", 5)
    model = MctformerHost(replace(config.host, weights="none"), 20)
    assert (len(model.blocks), model.blocks[0].attn.num_heads, model.class_tokens.shape) == (12, 6, (1, 20, 384))
