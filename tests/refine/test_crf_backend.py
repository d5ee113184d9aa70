"""The compiled back-end: the same interface where it is installed, one sentence where it is not."""

from __future__ import annotations

import importlib.util
import sys
from typing import Any

import numpy as np
import pytest

from tag2mask.errors import InputError
from tag2mask.refine import CRFConfig, DenseCRF, hard_energies

needs_pydensecrf = pytest.mark.skipif(importlib.util.find_spec("pydensecrf") is None, reason="pydensecrf is not installed")


@needs_pydensecrf
@pytest.mark.parametrize("counts", [(2,), (3, 3), (21, 1)])
def test_both_back_ends_agree(disc: Any, counts: tuple[int, ...]) -> None:
    image, inside = disc
    unaries = [hard_energies(inside % count, count) for count in counts]
    ours, theirs = (DenseCRF(image, CRFConfig(), backend).infer_many(unaries) for backend in ("numpy", "pydensecrf"))
    for a, b in zip(ours, theirs, strict=True):
        assert a.shape == b.shape and a.dtype == b.dtype == np.float32
        assert np.abs(a - b).max() <= 1e-4


def test_a_missing_package_is_named_with_its_remedy(disc: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pydensecrf", None)
    monkeypatch.setitem(sys.modules, "pydensecrf.densecrf", None)
    with pytest.raises(InputError, match="pip install pydensecrf2"):
        DenseCRF(disc[0], CRFConfig(), "pydensecrf")


def test_an_unknown_back_end_is_refused(disc: Any) -> None:
    with pytest.raises(InputError, match="expected numpy or pydensecrf"):
        DenseCRF(disc[0], CRFConfig(), "cuda")  # type: ignore[arg-type]
