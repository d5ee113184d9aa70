"""Which negatives show no context: their class itself, without its tag, or what another class shares with it (ours)."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

NEIGHBOURS = 3
"""Of them the farthest counts, as one negative that is near could be another missing tag."""
MARGIN = 0.95
"""Fellows must be nearer than this share of the distance to the positives."""
FEWEST_APART = 0.1
"""Of the photos without the class that have tags, the share without a tag in common with a photo, of which fewer make
all other negatives its fellows; of the other negatives, the share that fellows stand for at least."""
LEAST_SUPPORTED = 0.25
"""Of the negatives that are ranked, the share that must have support."""


def supported(ratio: Tensor) -> Tensor:
    """Which negatives have a ``support_ratio`` (R,) of at most 1; none where they are fewer than a quarter.

    What fires then, on photos without its tag, is mostly the class itself or what it shares with another, and what
    passes of it does so by chance.
    """
    passes = ratio <= 1  # (R,)
    return passes & (passes.sum() >= LEAST_SUPPORTED * len(passes))


def support_ratio(
    candidates: Tensor, tags: Tensor, positives: Callable[[int], Tensor], class_index: int, all_tags: Tensor
) -> Tensor:
    """How much less a negative resembles its fellows than the positives of the class whose negative it is.

    d_3(n, fellows) / (0.95 d_3(n, positives)), with d_3 the L2 distance to the third nearest. Fellows are the other
    negatives whose photo has no tag in common with its own; all others where that is so of less than a tenth of the
    tagged photos without the class, as with two classes. A context is seen with various things, or alone. An object
    whose tag is missing has its like among the positives alone; so has a part that two classes share, as the wheels of
    a bus among the negatives of car, and so has a context that is seen with a single other class.

    Args:
        candidates: (R, D) all negatives of the class that are ranked.
        tags: (R, C) boolean, of their photos; what may be there counts as tagged, the class itself never is.
        positives: class number -> (P, D); class_index: of the class whose negatives they are.
        all_tags: (N, C) boolean, of all photos, tagged or not; what may be there counts as tagged.

    Returns:
        (R,); above 1 a negative is not supported. Infinite without a fellow; 0 for a single negative, or without
        positives. Fewer than three on a side: as many on either. Of more positives than fellows as large a share
        counts, though fellows count as a tenth of the others at least; of fewer positives no more are asked for.
    """
    own = positives(class_index)
    if len(candidates) < 2 or not len(own):
        return candidates.new_zeros(len(candidates))
    to_own = torch.cdist(candidates, own)  # (R, P)
    fellows = ~torch.eye(len(candidates), dtype=torch.bool, device=candidates.device)  # (R, R)
    fellows &= no_common_tag(tags, tags) | few_apart(tags, all_tags[~all_tags[:, class_index]]).unsqueeze(1)
    number = fellows.sum(dim=1)  # (R,)
    count = number.clamp(1, min(NEIGHBOURS, len(own)))  # (R,); where there is none, the nearest is infinitely far
    stand_for = number.clamp(min=max(1, math.ceil(FEWEST_APART * (len(candidates) - 1))))  # (R,)
    same_share = torch.maximum(count, count * len(own) // stand_for)  # (R,), P at most
    to_fellows = nth_nearest(torch.cdist(candidates, candidates).masked_fill(~fellows, torch.inf), count)  # (R,)
    return to_fellows / (MARGIN * nth_nearest(to_own, same_share)).clamp(min=torch.finfo(to_own.dtype).tiny)


def of_tagged_class(
    candidates: Tensor, tags: Tensor, positives: Callable[[int], Tensor], class_index: int
) -> Tensor:
    """Which negatives lie as near to the positives of a class that their photo is tagged with as to those of their own.

    They show an object of that class, and need no fellows. Arguments as in ``support_ratio``.

    Returns:
        (R,) boolean. Three positives of another class, or fewer, say of nothing that it is theirs.
    """
    found, own = torch.zeros(len(candidates), dtype=torch.bool, device=candidates.device), positives(class_index)
    if not len(own):
        return found
    to_own = torch.cdist(candidates, own)  # (R, P)
    for other in tags.any(dim=0).nonzero().flatten().tolist():
        like, tagged = positives(other), tags[:, other].nonzero().flatten()  # (Q, D), (T,)
        if len(like) > NEIGHBOURS:  # three or fewer tell nothing
            found[tagged] |= nearer(torch.cdist(candidates[tagged], like), to_own[tagged])
    return found


def few_apart(tags: Tensor, without: Tensor) -> Tensor:
    """Whether of photos (N, C), those with tags, less than a tenth have none in common with a photo of tags (R, C)."""
    without = without[without.any(dim=1)]  # photos without any may be what lacks its tag
    parts = without.split(4096)  # a table of all photos by all negatives would grow with the data
    apart = torch.stack([no_common_tag(part, tags).sum(dim=0) for part in parts]).sum(dim=0)  # (R,)
    return apart < FEWEST_APART * max(1, len(without))  # with none, few


def no_common_tag(first: Tensor, second: Tensor) -> Tensor:
    """Of tags (R, C) and (S, C), boolean: (R, S) boolean."""
    return first.float() @ second.float().T == 0


def nearer(first: Tensor, second: Tensor) -> Tensor:
    """Whether the first side (R, P) is as near as the second (R, Q), by the third nearest of the fewer."""
    p, q, count = first.shape[1], second.shape[1], min(NEIGHBOURS, first.shape[1], second.shape[1])
    to_first, to_second = first.kthvalue(max(count, count * p // q)), second.kthvalue(max(count, count * q // p))
    return to_first.values <= to_second.values  # (R,)


def nth_nearest(distances: Tensor, n: Tensor) -> Tensor:
    """The n-th smallest (R,) of each row of distances (R, M), n (R,) at least 1."""
    smallest = distances.topk(int(n.max()), dim=1, largest=False, sorted=True).values  # (R, largest n)
    return smallest.gather(1, n.unsqueeze(1) - 1).squeeze(1)


def likeness(regions: Tensor, positives: Tensor, prototypes: Tensor) -> Tensor:
    """Share of positives (P, D) at least as far from their nearest prototype (K, D) as a region (R, D) is: (R,)."""
    if not len(positives):
        return regions.new_zeros(len(regions))  # nothing to be like
    own, asked = (torch.cdist(rows, prototypes).amin(dim=1) for rows in (positives, regions))  # (P,), (R,)
    return (own >= asked.unsqueeze(1)).to(regions.dtype).mean(dim=1)
