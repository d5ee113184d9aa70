"""Negatives of the collection before fill the places that those of this one leave empty."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tag2mask.fpr import FPRConfig, Prototypes, collect_prototypes
from tag2mask.fpr.pools import PrototypePools
from tag2mask.fpr.prototypes import build_prototypes
from tag2mask.presets import AUTHORS, PAPER

CLASSES, CHANNELS = 3, 4


def pools_of(seed: int, photos: int, lends: float, capacity: int) -> PrototypePools:
    """Random regions of photos, a share ``lends`` of which activate a class without having it."""
    generator = torch.Generator().manual_seed(seed)
    labels = (torch.rand(photos, CLASSES, generator=generator) < 0.4).float()
    area = (torch.rand(photos, CLASSES, generator=generator) < lends).float()
    pools = PrototypePools(CLASSES, CHANNELS, 64, capacity)
    regions = torch.randn(photos, CLASSES, CHANNELS, generator=generator)
    pools.add(regions, area, torch.randn(photos, CLASSES, generator=generator), labels, torch.arange(photos))
    return pools


def negatives_of(prototypes: Prototypes, c: int) -> list[tuple[int, list[float], float]]:
    """(photo, feature, factor) of the negatives of a class, by rank."""
    factor = prototypes.trimmed_factor
    factors = torch.ones_like(prototypes.trimmed_valid, dtype=torch.float32) if factor is None else factor
    return [
        (int(prototypes.trimmed_source[c, k]), prototypes.trimmed[c, k].tolist(), float(factors[c, k]))
        for k in prototypes.trimmed_valid[c].nonzero().flatten().tolist()
    ]


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 10**6), st.integers(1, 14), st.floats(0, 1), st.integers(1, 6), st.integers(1, 2),
    st.sampled_from(["off", "drop", "weigh"]),
)  # fmt: skip
def test_equals_the_loops(seed: int, photos: int, lends: float, negatives: int, refill: int, support: str) -> None:
    """Over three collections, as what was kept once is kept again."""
    kept: Prototypes | None = None
    for round_number in range(3):
        pools = pools_of(seed + round_number, photos, lends, negatives * refill)
        settings_of = {"count": 2, "negatives": negatives, "support": support, "seed": seed}
        alone = build_prototypes(pools, **settings_of)  # type: ignore[arg-type]
        now = build_prototypes(pools, **settings_of, earlier=kept)  # type: ignore[arg-type]
        for c in range(CLASSES):
            expected = negatives_of(alone, c)
            candidates = pools.negative.ranked(c)[2].tolist()
            full = len(candidates) == negatives * refill
            for negative in negatives_of(kept, c) if kept and not full else []:
                if len(expected) < negatives and negative[0] not in candidates:
                    expected.append(negative)
            assert negatives_of(now, c) == expected
        assert torch.equal(now.negative, alone.negative) and torch.equal(now.positive, alone.positive)
        again = build_prototypes(pools, **settings_of, earlier=now)  # type: ignore[arg-type]
        assert [negatives_of(again, c) for c in range(CLASSES)] == [negatives_of(now, c) for c in range(CLASSES)]
        kept = now


def pass_over(level: float, config: FPRConfig, earlier: Prototypes | None) -> Prototypes:
    """Two photos of a class, and one of water without it whose map of the class reaches ``level``."""
    features = torch.tensor([[1.0, 0], [1, 0], [0, 1]])[:, :, None, None].expand(3, 2, 2, 2)
    maps = torch.tensor([5.0, 4.0, level])[:, None, None, None].expand(3, 1, 2, 2)
    batch = (None, torch.tensor([[1.0], [1.0], [0.0]]), torch.arange(3))
    return collect_prototypes(
        lambda _: (features, maps, maps.mean(dim=(2, 3))), [batch], config, earlier=earlier
    )


def test_water_stays_known_when_the_map_has_let_go_of_it() -> None:
    config = FPRConfig(prototypes=1, negatives=2)
    first = pass_over(2.0, config, None)
    assert negatives_of(first, 0) == [(2, [0.0, 1.0], 1.0)] and first.without_negatives() == []
    later = pass_over(-1.0, config, first)
    assert negatives_of(later, 0) == [(2, [0.0, 1.0], 1.0)] and later.without_negatives() == []
    assert pass_over(-1.0, replace(config, keep_negatives=False), first).without_negatives() == [0]
    assert pass_over(-1.0, config, None).without_negatives() == [0]


@pytest.mark.parametrize("literal", [PAPER, AUTHORS])
def test_the_paper_forgets(literal: FPRConfig) -> None:
    config = replace(literal, superclass_trim=False, kmeans_restarts=1)
    first = pass_over(2.0, config, None)
    assert len(negatives_of(first, 0)) == 1
    assert pass_over(-1.0, config, first).without_negatives() == [0]


def test_a_full_pool_keeps_nothing() -> None:
    """A photo that still lends a negative, but ranks below a full pool, must not come in as it was."""
    pools = PrototypePools(1, 1, 4, 1)
    pools.add(
        torch.tensor([[[1.0]], [[5.0]]]), torch.ones(2, 1), torch.tensor([[2.0], [1.0]]), torch.zeros(2, 1), torch.arange(2)
    )
    alone = build_prototypes(pools, count=1, negatives=1)
    earlier = replace(alone, trimmed=alone.trimmed + 8, trimmed_source=torch.ones_like(alone.trimmed_source))
    gap = build_prototypes(pools, count=1, negatives=2, earlier=earlier)
    assert negatives_of(gap, 0) == [(0, [1.0], 1.0)]


def test_features_that_move_are_not_kept() -> None:
    config = FPRConfig(prototypes=1, negatives=2, feature_space="trained")
    assert pass_over(-1.0, config, pass_over(2.0, config, None)).without_negatives() == [0]
