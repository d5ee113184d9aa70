"""Which negatives show their class after all, because its tag is missing (ours)."""

from __future__ import annotations

import torch
from torch import Tensor

NEIGHBOURS = 3
"""Of them the farthest counts, as one negative that is near could be another missing tag."""


def support_ratio(candidates: Tensor, positives: Tensor) -> Tensor:
    """How much less a negative resembles the other negatives of its class than the class's own positives.

    d_3(n, other negatives) / d_3(n, positives), with d_3 the L2 distance to the third nearest. A context is seen in
    many photos without the class; an object whose tag is missing has its like among the positives alone.

    Args:
        candidates: (R, D) all negatives that are ranked; positives: (P, D).

    Returns:
        (R,); above 1 the positives are nearer. Fewer than three on a side: as many on either; 0 if there is none. With
        more positives than others, which makes them lie closer by number alone, as large a share of them is counted.
    """
    count = min(NEIGHBOURS, len(candidates) - 1, len(positives))
    if count < 1:
        return candidates.new_zeros(len(candidates))
    same_share = max(count, count * len(positives) // (len(candidates) - 1))
    others = torch.cdist(candidates, candidates).fill_diagonal_(torch.inf)  # (R, R)
    to_others = others.kthvalue(count, dim=1).values  # (R,)
    to_positives = torch.cdist(candidates, positives).kthvalue(same_share, dim=1).values  # (R,)
    return to_others / to_positives.clamp(min=torch.finfo(candidates.dtype).tiny)


def likeness(regions: Tensor, positives: Tensor, prototypes: Tensor) -> Tensor:
    """Share of positives (P, D) at least as far from their nearest prototype (K, D) as a region (R, D) is: (R,)."""
    if not len(positives):
        return regions.new_zeros(len(regions))  # nothing to be like
    own, asked = (torch.cdist(rows, prototypes).amin(dim=1) for rows in (positives, regions))  # (P,), (R,)
    return (own >= asked.unsqueeze(1)).to(regions.dtype).mean(dim=1)
