"""Positive and negative prototypes (section 3.2.1) and their trimming by super-class (section 3.2.2)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from sklearn.cluster import KMeans, MiniBatchKMeans
from threadpoolctl import threadpool_limits
from torch import Tensor

from tag2mask.fpr.contexts import Contexts
from tag2mask.fpr.pools import NO_SOURCE, PrototypePools
from tag2mask.fpr.support import likeness, of_tagged_class, support_ratio, supported

REACH_PER_POWER = 1 / 12
"""Of the power by which fewer negatives lower a lift, the part by which they narrow it. With 2, the default, that is a
sixth, as the nearest of n samples of something of six dimensions lies at a distance that goes with n^(-1 / 6)."""


@dataclass(frozen=True)
class Prototypes:
    """Prototypes of all classes, padded to K (negatives: Kn) places; the ``_valid`` masks say which places are filled.

    Attributes:
        positive: P_pos, (C, K, D) centroids; positive_valid: (C, K); positive_weight: (C, K), share of the class's
            regions in each cluster.
        negative: P_neg, (C, Kn, D), most confident first; negative_valid: (C, Kn).
        trimmed: P_neg' of Eq. 8, (C, Kn, D), then what is remembered; trimmed_valid: (C, Kn).
        negative_source, trimmed_source: (C, Kn) number of the image a negative came from.
        spread: mean distance of positives to the mean of their class, averaged over classes (L2, feature units).
        trimmed_factor: (C, Kn) what distances to trimmed negatives are multiplied by in Eq. 8, 1 or more; None is 1.
        context: (M, D) rows of the ``Contexts`` that the next collection remembers, of all classes; context_class,
            context_source, context_age: (M,) int64, their classes, images and ages. None: it remembers nothing.
        stopped: (C,) boolean, classes of which it takes nothing new. None: none.
        lift_reach, lift_height: (C,), of each class's lift, from 0 to 1, less with fewer trimmed negatives: what the
            margin is multiplied by, and the share of the maximum up to which it goes. None is 1.
    """

    positive: Tensor
    positive_valid: Tensor
    positive_weight: Tensor
    negative: Tensor
    negative_valid: Tensor
    trimmed: Tensor
    trimmed_valid: Tensor
    negative_source: Tensor
    trimmed_source: Tensor
    spread: float
    trimmed_factor: Tensor | None = None
    context: Tensor | None = None
    context_class: Tensor | None = None
    context_source: Tensor | None = None
    context_age: Tensor | None = None
    stopped: Tensor | None = None
    lift_reach: Tensor | None = None
    lift_height: Tensor | None = None

    def to(self, device: torch.device | str) -> Prototypes:
        """The same on a device."""
        tensors = {name: value for name, value in vars(self).items() if isinstance(value, Tensor)}
        moved: dict[str, Any] = {name: value.to(device) for name, value in tensors.items()}
        return replace(self, **moved)

    def without_negatives(self) -> list[int]:
        """Classes that have positives but no negative after trimming: nothing of theirs is suppressed."""
        return (self.positive_valid.any(1) & ~self.trimmed_valid.any(1)).nonzero().flatten().tolist()

    def contexts(self, class_index: int) -> Contexts:
        """What is remembered of a class."""
        rows, of, sources, ages = self.context, self.context_class, self.context_source, self.context_age
        if rows is None or of is None or sources is None or ages is None:
            nothing = self.trimmed_source[class_index, :0]
            return Contexts(self.trimmed[class_index, :0], nothing, nothing)
        return Contexts(rows, sources, ages).where(of == class_index)


def build_prototypes(
    pools: PrototypePools,
    all_tags: Tensor,
    count: int = 10,
    superclasses: Sequence[int] | None = None,
    singleton_superclass: str = "keep",
    kmeans_restarts: int = 1,
    seed: int = 0,
    negatives: int | None = None,
    explained_trim: bool = False,
    likeness_trim: float = 0.0,
    support: str = "off",
    exact_kmeans: int = 512,
    previous: Prototypes | None = None,
    remember: int = 0,
    lift_fewer: float = 0.0,
) -> Prototypes:
    """Centroids of the positives, the most confident negatives, and the negatives that survive the trimming.

    Args:
        pools: filled pools; those of the negatives may hold more candidates than are kept, so that trimmed ones
            are replaced.
        all_tags: (N, C) boolean, of all images, those that are in no pool too; ``support`` and ``lift_fewer`` ask.
        count: K, the number of positives, and of negatives unless ``negatives`` says another.
        superclasses: a super-class number for each class; None for no trimming.
        singleton_superclass: ``keep`` or ``skip`` the negatives of a class that is alone in its super-class.
        kmeans_restarts: n_init of scikit-learn's k-means (10 iterations each, as in the release).
        seed: of k-means.
        explained_trim: drop negatives that ``explained_by_tags`` of their image.
        likeness_trim: drop those whose ``likeness`` to the positives is at least this; 0 drops none.
        support: ``drop`` those not ``supported``, or ``weigh``: multiply distances to them by their ``support_ratio``.
        exact_kmeans: k-means of a class with more positives goes by mini-batches.
        previous: prototypes of the collection before, in the same features of the same images.
        remember: as in ``remembered``; 0 remembers nothing, of ``previous`` neither. Above it, a class of which
            contexts are known and ``supported`` leaves none of those ranked takes no new negative in any more.
        lift_fewer: power of the share of its places that a class fills, which is its ``lift_height``; a twelfth of it
            is that of ``lift_reach``. There are no more places than photos without the class.

    Returns:
        Prototypes on the device of the pools. A class without regions has no prototypes.
    """
    class_count, _, channels = pools.positive.rows.shape
    device = pools.positive.rows.device
    negatives = negatives or count
    positive = torch.zeros(class_count, count, channels, device=device)
    negative, trimmed = (torch.zeros(class_count, negatives, channels, device=device) for _ in range(2))
    weight, factor = positive[..., 0].clone(), torch.ones(class_count, negatives, device=device)
    positive_valid = torch.zeros(class_count, count, dtype=torch.bool, device=device)
    negative_valid, trimmed_valid = (negative[..., 0] > 0 for _ in range(2))  # nothing yet
    sources = torch.full((2, class_count, negatives), NO_SOURCE, dtype=torch.int64, device=device)
    contexts = []  # of this collection
    stopped = torch.zeros(class_count, dtype=torch.bool, device=device)
    if remember > 0 and previous is not None and previous.stopped is not None:
        stopped |= previous.stopped
    spreads = []
    typical = torch.full((class_count,), torch.inf, device=device)
    of_class = pools.positive.kept  # class number -> (P, D)
    for c in range(class_count):
        regions = pools.positive.ranked(c)[0]  # (P, D)
        if len(regions):
            centroids, shares = cluster(regions, count, seed + c, kmeans_restarts, exact_kmeans)
            positive[c, : len(centroids)], weight[c, : len(centroids)] = centroids, shares
            positive_valid[c, : len(centroids)] = True
            spreads.append((regions - regions.mean(0)).norm(dim=1).mean().item())
            typical[c] = torch.cdist(regions, centroids).amin(dim=1).median()
    for c in range(class_count):
        candidates, scores, numbers, tags = pools.negative.ranked(c)  # (R, D), (R,), (R,), (R, C)
        survives = survives_trimming(c, tags, superclasses, singleton_superclass)
        if explained_trim:
            survives &= ~explained_by_tags(candidates, tags, positive, positive_valid, typical)
        if likeness_trim > 0:
            survives &= likeness(candidates, of_class(c), positive[c, positive_valid[c]]) < likeness_trim
        ratio = torch.zeros_like(scores)  # (R,)
        apart = torch.zeros_like(survives)  # (R,) seen with various things, or alone
        if support != "off":
            ratio = support_ratio(candidates, tags, of_class, c, all_tags)
            apart = (ratio <= 1) & (len(candidates) > 1) & (len(of_class(c)) > 0)  # else nothing was compared
            ratio = ratio.masked_fill(of_tagged_class(candidates, tags, of_class, c), 0)
        if support == "drop":
            passes = supported(ratio)
            survives &= passes
            known = 0 if previous is None or remember == 0 else len(previous.contexts(c).rows)
            stopped[c] |= known > 0 and len(passes) > 0 and not passes.any()
        survives &= ~stopped[c]
        # A pool of just the wanted size is the paper's trimming, which leaves gaps; a larger one refills them.
        chosen = survives.nonzero().flatten()[:negatives]
        kept = min(negatives, len(candidates))
        negative[c, :kept], sources[0, c, :kept] = candidates[:kept], numbers[:kept]
        negative_valid[c, :kept] = True
        trimmed[c, : len(chosen)], sources[1, c, : len(chosen)] = candidates[chosen], numbers[chosen]
        trimmed_valid[c, : len(chosen)] = True
        factor[c, : len(chosen)] = ratio[chosen].clamp(1, 1e6)  # finite where a negative equals a positive
        found = chosen[apart[chosen]]
        contexts.append(Contexts(candidates[found], numbers[found], torch.zeros_like(found)))
    result = Prototypes(
        positive, positive_valid, weight, negative, negative_valid, trimmed, trimmed_valid, sources[0], sources[1],
        float(np.mean(spreads)) if spreads else 0.0, factor if support == "weigh" else None,
    )  # fmt: skip
    if remember > 0:
        result = remembered(replace(result, stopped=stopped), contexts, previous, remember)
    places = (~all_tags).sum(0).clamp(max=negatives)  # (C,); a photo lends a class one
    filled = (result.trimmed_valid.sum(1) / places.clamp(min=1)).clamp(max=1)  # (C,); what is remembered may be more
    return replace(result, lift_reach=filled ** (lift_fewer * REACH_PER_POWER), lift_height=filled**lift_fewer)


def remembered(now: Prototypes, found: Sequence[Contexts], previous: Prototypes | None, remember: int) -> Prototypes:
    """A collection with the ``contexts`` of the one before where it leaves places empty, and with those of the next.

    Args:
        now: its places are filled in place, with what comes from images that lend none now.
        found: of each class, its contexts.
        remember: for how many collections after the last in which it was found a context stays, 1 or more.
    """
    contexts = []
    for c, new in enumerate(found):
        known = (previous or now).contexts(c)  # of now, nothing
        known = known.where(known.ages < remember)
        chosen = int(now.trimmed_valid[c].sum())
        lent = known.of_other_images(now.trimmed_source[c, :chosen])
        rows = lent.rows[: now.trimmed.shape[1] - chosen]
        places = slice(chosen, chosen + len(rows))
        now.trimmed[c, places], now.trimmed_source[c, places] = rows, lent.sources[: len(rows)]
        now.trimmed_valid[c, places] = True
        known = known.and_found(new)
        contexts.append(known.where(known.ages < remember))
    rows, sources, ages = (torch.cat(values) for values in zip(*contexts, strict=True))
    classes = torch.cat([torch.full_like(held.sources, c) for c, held in enumerate(contexts)])
    return replace(now, context=rows, context_class=classes, context_source=sources, context_age=ages)


def cluster(regions: Tensor, count: int, seed: int, restarts: int, exact: int) -> tuple[Tensor, Tensor]:
    """k-means centroids (k, D) and cluster shares (k,) of regions (R, D); k = min(count, distinct regions).

    Mini-batches (D. Sculley, "Web-scale k-means clustering", 2010) if R > ``exact``: the order of rows then matters.
    """
    points = regions.cpu().double().numpy()
    k = min(count, len(np.unique(points, axis=0)))
    with threadpool_limits(1):  # sums over threads come in no fixed order
        if len(points) <= exact:
            kmeans = KMeans(n_clusters=k, n_init=restarts, max_iter=10, random_state=seed).fit(points)
        else:
            kmeans = MiniBatchKMeans(n_clusters=k, n_init=restarts, random_state=seed).fit(points)
    shares = np.bincount(kmeans.labels_, minlength=k) / len(points)
    centroids = torch.from_numpy(kmeans.cluster_centers_).to(regions)
    return centroids, torch.from_numpy(shares).to(regions)


def explained_by_tags(regions: Tensor, tags: Tensor, positive: Tensor, valid: Tensor, typical: Tensor) -> Tensor:
    """Which negatives show an object that their image is tagged with, as the wheels of a bus among those of car.

    A region counts as explained by a class when it lies nearer to its positives than the median of its own regions.

    Args:
        regions: (R, D); tags: (R, C) boolean, of their images.
        positive: P_pos, (C, K, D); valid: (C, K); typical: (C,) that median, infinity for a class without regions.

    Returns:
        (R,) boolean.
    """
    classes, count, channels = positive.shape
    distance = torch.cdist(regions, positive.reshape(-1, channels)).view(-1, classes, count)  # (R, C, K)
    nearest = distance.masked_fill(~valid, torch.inf).amin(dim=2)  # (R, C)
    return (tags & (nearest < typical)).any(dim=1)


def survives_trimming(
    class_index: int, source_labels: Tensor, superclasses: Sequence[int] | None, singleton_superclass: str
) -> Tensor:
    """Which negatives of a class remain: their image shows no class of its super-class, whose parts it may share.

    Args:
        source_labels: (R, C) boolean tags of the images the negatives came from.
        superclasses: a number for each class, or None (all survive).
        singleton_superclass: ``skip`` drops all negatives of a class without a sibling.

    Returns:
        (R,) boolean.
    """
    if superclasses is None:
        return torch.ones(len(source_labels), dtype=torch.bool, device=source_labels.device)
    own = superclasses[class_index]
    siblings = [c for c, group in enumerate(superclasses) if group == own]
    if len(siblings) == 1 and singleton_superclass == "skip":
        return torch.zeros(len(source_labels), dtype=torch.bool, device=source_labels.device)
    return ~source_labels[:, siblings].any(dim=1)
