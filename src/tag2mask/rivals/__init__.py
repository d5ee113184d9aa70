"""Rivals with supervision beside tags, one a file: tensors and nothing else, as in ``tag2mask.fpr``.

``wood``: photos without any class. ``eps``: saliency maps. ``clims``: a language model that has seen pictures.
``tag2mask.stages.rivals`` brings them what they need and adds their losses to the training.
"""

from tag2mask.rivals.clims import ClimsTerms, clims_loss
from tag2mask.rivals.eps import BackgroundMap, eps_loss
from tag2mask.rivals.wood import ascended, class_means, distance_loss, distance_scale, ood_clusters, ood_loss

__all__ = [
    "BackgroundMap",
    "ClimsTerms",
    "ascended",
    "class_means",
    "clims_loss",
    "distance_loss",
    "distance_scale",
    "eps_loss",
    "ood_clusters",
    "ood_loss",
]
