"""The settings of the CRF: the published numbers, and what is refused."""

from __future__ import annotations

import pytest

from tag2mask.config.crf import CRF_PRESETS, CRFConfig
from tag2mask.errors import InputError

PUBLISHED = {
    "irn": (3, 3, 50, 5, 10, 10),
    "psa": (3, 3, 80, 13, 10, 10),
    "deeplab_v2": (1, 3, 67, 3, 4, 10),
    "deeplab_v1": (3, 3, 32, 13, 10, 1),
    "clip_es": (1, 3, 67, 3, 4, 10),
    "excel_maps": (1, 3, 67, 3, 4, 10),
    "toco": (3, 3, 36, 3, 4, 10),
    "toco_coco": (1, 1, 121, 5, 4, 10),
    "weclip": (3, 3, 64, 5, 4, 10),
    "excel": (3, 3, 64, 5, 4, 10),
}
"""Standard deviation and weight of the Gaussian; place, colour and weight of the bilateral; iterations."""


def test_presets_are_the_published_numbers() -> None:
    assert {
        name: (c.gaussian_sd, c.gaussian_weight, c.bilateral_sd, c.bilateral_colour_sd, c.bilateral_weight, c.iterations)
        for name, c in CRF_PRESETS.items()
    } == PUBLISHED
    assert {c.confidence for c in CRF_PRESETS.values()} == {0.7}
    assert CRFConfig() == CRF_PRESETS["irn"]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("gaussian_sd", 0), ("gaussian_sd", float("nan")), ("bilateral_sd", -1), ("bilateral_colour_sd", 0),
        ("bilateral_sd", float("inf")), ("gaussian_weight", -0.1), ("bilateral_weight", float("nan")),
        ("iterations", -1), ("confidence", 0), ("confidence", 1),
    ],
)  # fmt: skip
def test_settings_out_of_range_are_refused_by_name(field: str, value: float) -> None:
    with pytest.raises(InputError, match=f"crf.{field} is {value!r}; expected"):
        CRFConfig(**{field: value})
