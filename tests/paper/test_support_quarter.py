"""Where fewer than a quarter of the negatives have support, none is kept."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tag2mask.fpr import FPRConfig
from tag2mask.fpr.support import supported
from tests.paper.flat_images import flat_image, sources


@settings(max_examples=100, deadline=None)
@given(st.lists(st.sampled_from([0.0, 0.5, 1.0, 1.01, math.inf]), max_size=20))
def test_supported_are_those_of_at_most_1_unless_fewer_than_a_quarter(ratios: list[float]) -> None:
    passes = [one <= 1 for one in ratios]
    expected = passes if 4 * sum(passes) >= len(passes) else [False] * len(passes)
    assert supported(torch.tensor(ratios)).tolist() == expected


@pytest.mark.parametrize(("mistagged", "kept"), [(6, [20, 21]), (7, [])])
def test_where_more_than_three_quarters_show_the_class_nothing_else_is_left(mistagged: int, kept: list[int]) -> None:
    """Two rails beside six or seven trains whose tag is missing, each unlike the others."""
    shown = [flat_image(8 + i, 1, 0, i) for i in range(8)]
    without = (8.3, 9.4, 10.6, 12.4, 13.6, 14.5, 11.6)[:mistagged]
    shown += [flat_image(value, 0, 9, 10 + i) for i, value in enumerate(without)]
    shown += [flat_image(1 + i / 10, 0, 8, 20 + i) for i in range(2)]
    assert sources(shown, FPRConfig(prototypes=1)) == kept


def test_what_other_tests_drop_counts_for_the_quarter() -> None:
    """Of nine negatives three have support, two rails and a train that is like the class."""
    shown = [flat_image(8 + i, 1, 0, i) for i in range(8)]
    shown += [flat_image(value, 0, 9, 10 + i) for i, value in enumerate((8.3, 9.4, 10.5, 10.6, 12.4, 13.6, 14.5))]
    shown += [flat_image(1 + i / 10, 0, 8, 20 + i) for i in range(2)]
    assert sources(shown, FPRConfig(prototypes=1)) == [11, 20, 21]
    assert sources(shown, FPRConfig(prototypes=1, likeness_trim=0.01)) == [20, 21]
