"""Contexts of earlier collections: what is known to surround a class stays among its negatives for a while (ours).

As a map lets go of its contexts, what still fires on photos without the class is parts of other classes, or nothing.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Contexts(NamedTuple):
    """Negatives of a class with fellows nearer than its positives, by when they were first found, then by rank."""

    rows: Tensor
    """(M, D) region features, as last found."""
    sources: Tensor
    """(M,) int64 numbers of the images they came from, no two the same."""
    ages: Tensor
    """(M,) int64, collections since they were last found."""

    def where(self, kept: Tensor) -> Contexts:
        """Those that ``kept``, (M,) boolean, says."""
        return Contexts(*(values[kept] for values in self))

    def of_other_images(self, sources: Tensor) -> Contexts:
        """Those that come from other images than ``sources`` (S,)."""
        return self.where(~torch.isin(self.sources, sources))

    def and_found(self, found: Contexts) -> Contexts:
        """One collection later: what is ``found`` again takes its old place, what is new comes after all."""
        same = self.sources.unsqueeze(1) == found.sources  # (M, F)
        old, again = same.nonzero(as_tuple=True)  # of these, of found
        rows, ages = self.rows.clone(), self.ages + 1
        rows[old], ages[old] = found.rows[again], 0
        new = found.of_other_images(self.sources)
        return Contexts(*(torch.cat(both) for both in zip((rows, self.sources, ages), new, strict=True)))
