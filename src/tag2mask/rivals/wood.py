"""W-OoD: photos that show no class, but what goes with the classes, teach what is not the class.

J. Lee et al., "Weakly Supervised Semantic Segmentation using Out-of-Distribution Data", CVPR 2022.

L = L_BCE + w_d L_d + w_ood L_ood. Once before the training, from the class activation map's network: the mean feature
mu_c of every class, and K clusters k_j of the features of the out-of-distribution (OoD) photos. A photo's feature z is
the spatial mean of F.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
import torch
from sklearn.cluster import KMeans
from threadpoolctl import threadpool_limits
from torch import Tensor
from torch.nn import functional

RESTARTS = 10
"""Runs of k-means, of which the best is kept."""


def class_means(features: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """mu_c, the mean feature of the photos tagged with each class.

    Args:
        features: z, (N, D); labels: (N, C), 1, 0 or -1 (unknown: counts as not tagged).

    Returns:
        (C, D) means and (C,) boolean: the class has a photo. Without one its mean is zero.
    """
    tagged = (labels > 0).to(features.dtype)  # (N, C)
    counts = tagged.sum(0)  # (C,)
    return tagged.T @ features / counts.clamp(min=1)[:, None], counts > 0


def ood_clusters(features: Tensor, count: int, seed: int) -> Tensor:
    """k-means centroids (k, D) of the OoD photos' features (M, D); k = min(count, distinct photos).

    The same bits for the same features and seed, whatever the number of threads.
    """
    points = features.detach().cpu().double().numpy()
    distinct = len(np.unique(points, axis=0))
    with threadpool_limits(1), warnings.catch_warnings():  # sums over threads come in no fixed order
        warnings.simplefilter("ignore", UserWarning)
        kmeans = KMeans(n_clusters=min(count, distinct), n_init=RESTARTS, random_state=seed).fit(points)
    return torch.from_numpy(kmeans.cluster_centers_).to(features)


def distance_scale(features: Tensor, labels: Tensor, means: Tensor) -> float:
    """Mean distance of a photo's feature (N, D) to the means (C, D) of its classes; 1 where nothing is tagged or apart.

    The unit in which the distances of L_d may be measured, as their published weight is for one network's features.
    """
    tagged = labels > 0  # (N, C)
    scale = torch.cdist(features, means)[tagged].mean().item() if tagged.any() else 0.0
    return scale if scale > 0 else 1.0


def distance_loss(
    features: Tensor, labels: Tensor, means: Tensor, valid: Tensor, clusters: Tensor, quantile: float
) -> Tensor:
    """L_d: near to the means of one's own classes, far from the OoD clusters that lie nearest.

    L_d = C/K mean_{n,c} [y_nc |z_n - mu_c|] - mean_{n,j} [|z_n - k_j| where it is below q]

    with q the quantile of all N K distances to clusters; the others count as 0. The release takes C = 20, K = 50 and
    20 %. Unbounded below, which its small weight has to hold.

    Args:
        features: z, (N, D); labels: (N, C), 1, 0 or -1 (unknown: counts as not tagged).
        means: (C, D); valid: (C,) boolean, the class has a mean.
        clusters: (K, D).
        quantile: share of the distances that count, 0 to 1; where none lies below it, nothing is pushed away.

    Returns:
        A scalar with a gradient to the features.
    """
    own = (labels > 0) & valid  # (N, C)
    near = torch.cdist(features, means) * own  # (N, C)
    far = torch.cdist(features, clusters)  # (N, K)
    counted = far < torch.quantile(far.detach().flatten(), quantile)  # (N, K)
    return near.mean() * (means.shape[0] / clusters.shape[0]) - (far * counted).mean()


def ascended(images: Tensor, logits_of: Callable[[Tensor], Tensor], rate: float) -> Tensor:
    """OoD photos one step towards what the network takes for a class: x + rate g / max |g|.

    g is the gradient of the largest logit; each photo is divided by its own largest entry, so that what else is in the
    batch does not matter. A photo without any gradient stays as it is.

    Args:
        images: x, (M, 3, H, W), normalised; logits_of: images -> logits (M, C), parameters need no gradient.
        rate: in units of normalised pixels; the release takes 0.07.

    Returns:
        (M, 3, H, W), a constant.
    """
    with torch.enable_grad():
        moving = images.detach().requires_grad_()
        score = logits_of(moving).amax(dim=1).sum()  # of the batch: no photo's logits depend on another photo
        gradient = torch.autograd.grad(score, moving)[0]  # (M, 3, H, W)
    largest = gradient.abs().amax(dim=(1, 2, 3), keepdim=True)  # (M, 1, 1, 1)
    return images.detach() + rate * gradient / largest.clamp(min=torch.finfo(gradient.dtype).tiny)


def ood_loss(logits: Tensor, skipped_class: int | None = None) -> Tensor:
    """L_ood: the soft-margin loss of OoD photos against labels that are all zero, mean log(1 + exp(logit)).

    Args:
        logits: (M, C), of ascended photos.
        skipped_class: photos whose largest logit is this class's are left out. The release does so with bottle, which
            its photos do show.

    Returns:
        A scalar; 0 where every photo is left out.
    """
    if skipped_class is not None:
        logits = logits[logits.argmax(dim=1) != skipped_class]  # (M', C)
    return functional.softplus(logits).mean() if len(logits) else logits.sum()
