from __future__ import annotations

import sys

import pytest
import torch

from tag2mask.errors import InputError
from tag2mask.maps.attribution import EXTRACTORS, library_maps
from tag2mask.maps.gradcam import gradcam
from tests.maps import attribution_hosts as hosts


def test_without_the_library_one_sentence_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchcam.methods", None)
    host = hosts.small_host("bare")
    with pytest.raises(InputError) as told:
        library_maps(host, host.frozen_part(hosts.picture(64, 64)), torch.tensor([1]), "layercam")
    assert str(told.value) == (
        "maps.method 'layercam' needs torchcam, which is not installed; run `pip install 'tag2mask[attribution]'`."
    )


@pytest.mark.parametrize("kind", ["bare, frozen", "side"])
@pytest.mark.parametrize("method", EXTRACTORS)
def test_every_method_on_many_images_and_classes(method: str, kind: str) -> None:
    pytest.importorskip("torchcam")
    host, classes = hosts.small_host(kind), torch.tensor([3, 0])
    images = torch.cat([hosts.picture(32, 48), hosts.picture(32, 48, 1)])
    with torch.no_grad():
        frozen = host.frozen_part(images)
        found = library_maps(host, frozen, classes, method)
        alone = library_maps(host, [level[1:] for level in frozen], classes[1:], method)
    assert found.shape[:2] == (2, 2) and not found.requires_grad
    assert found.min() >= 0 and found.isfinite().all() and found.flatten(2).amax(2).min() > 0
    torch.testing.assert_close(found[1, 1], alone[0, 0])
    assert all(parameter.grad is None for parameter in host.parameters())


@pytest.mark.parametrize("kind", ["neck", "side"])
def test_gradcam_of_the_library_is_the_ordinary_rule(kind: str) -> None:
    pytest.importorskip("torchcam")
    host, image = hosts.small_host(kind), hosts.picture(32, 48)
    frozen = host.frozen_part(image)
    features, maps = host.attribution_part(frozen)
    own = gradcam(features, maps, torch.tensor([2]), 1, "mean")[
        0, 0
    ]  # (h, w), of the sum; the library's is of the mean
    theirs = library_maps(host, frozen, torch.tensor([2]), "gradcam")[0, 0]
    torch.testing.assert_close(own / own.numel(), theirs)
