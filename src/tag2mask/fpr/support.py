"""Which negatives show no context: their class itself, without its tag, or what another class shares with it (ours)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

NEIGHBOURS = 3
"""Of them the farthest counts, as one negative that is near could be another missing tag."""


def support_ratio(candidates: Tensor, tags: Tensor, positives: Sequence[Tensor], class_index: int) -> Tensor:
    """How much less a negative resembles its fellows than the positives of the class whose negative it is.

    d_3(n, fellows) / d_3(n, positives), with d_3 the L2 distance to the third nearest, and as fellows the other
    negatives whose photo shares no tag with its own. A context is seen with other things, or alone. An object whose tag
    is missing has its like among the positives alone; so has a part that two classes share, as the wheels of a bus
    among the negatives of car, since other photos of buses do not count. Another object is no such part where the
    positives of a class that its photo is tagged with are as near as those of the class: its ratio is 0.

    Args:
        candidates: (R, D) all negatives of the class that are ranked; tags: (R, C) boolean, of their photos.
        positives: for each class (P, D).
        class_index: of the class whose negatives they are.

    Returns:
        (R,); above 1 the class's positives are nearer. 0 as well, as nothing is known, without a fellow or a positive.
        Fewer than three on a side: as many on either. With more positives than what they are held against, which makes
        them lie closer by number alone, as large a share of them is counted.
    """
    own = positives[class_index]
    if not len(candidates) or not len(own):
        return candidates.new_zeros(len(candidates))
    to_own = torch.cdist(candidates, own)  # (R, P)
    strange = (tags.float() @ tags.float().T == 0).fill_diagonal_(False)  # (R, R): no tag in common
    fellows = strange.sum(dim=1)  # (R,)
    ratio = times_farther(torch.cdist(candidates, candidates).masked_fill(~strange, torch.inf), fellows, to_own)  # (R,)
    for other, like in enumerate(positives):
        tagged = tags[:, other].nonzero().flatten()  # (T,)
        if len(tagged) and len(like):
            count = fellows.new_full((len(tagged),), len(like))  # (T,)
            explained = times_farther(torch.cdist(candidates[tagged], like), count, to_own[tagged]) <= 1  # (T,)
            ratio[tagged[explained]] = 0
    return ratio.masked_fill(fellows == 0, 0)


def times_farther(to_others: Tensor, others: Tensor, to_own: Tensor) -> Tensor:
    """d_3 of distances (R, M), of which the ``others`` (R,) smallest count, by d_3 of (R, P), P at least 1."""
    count = others.clamp(max=min(NEIGHBOURS, to_own.shape[1]))  # (R,)
    same_share = torch.maximum(count, count * to_own.shape[1] // others.clamp(min=1))  # (R,), P at most
    return nth_nearest(to_others, count) / nth_nearest(to_own, same_share)


def nth_nearest(distances: Tensor, n: Tensor) -> Tensor:
    """The n-th smallest (R,), above 0, of each row of distances (R, M); the smallest where n is 0."""
    smallest = distances.topk(max(1, int(n.max())), dim=1, largest=False, sorted=True).values  # (R, largest n)
    found = smallest.gather(1, n.clamp(min=1).unsqueeze(1) - 1).squeeze(1)  # (R,)
    return found.clamp(min=torch.finfo(distances.dtype).tiny)


def likeness(regions: Tensor, positives: Tensor, prototypes: Tensor) -> Tensor:
    """Share of positives (P, D) at least as far from their nearest prototype (K, D) as a region (R, D) is: (R,)."""
    if not len(positives):
        return regions.new_zeros(len(regions))  # nothing to be like
    own, asked = (torch.cdist(rows, prototypes).amin(dim=1) for rows in (positives, regions))  # (P,), (R,)
    return (own >= asked.unsqueeze(1)).to(regions.dtype).mean(dim=1)
