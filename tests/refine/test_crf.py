"""The dense CRF: what pydensecrf answers, what the definition answers, and what must hold for any photo."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tag2mask.errors import InputError
from tag2mask.refine import CRF_PRESETS, CRFConfig, DenseCRF, hard_energies, soft_energies

GOLDENS = sorted((Path(__file__).parents[1] / "goldens" / "crf").glob("*.npz"))
HALF_STEP = 0.5 / 65535
"""The stored probabilities are whole shares of 65535."""


def test_there_are_goldens_for_four_pictures_and_each_count_of_labels() -> None:
    names = [path.stem.split("_") for path in GOLDENS]
    assert len({name[0] for name in names}) == 4
    assert {(name[0], name[1]) for name in names} == {(name[0], count) for name in names for count in ("2", "3", "21")}


@pytest.mark.parametrize("path", GOLDENS, ids=lambda path: path.stem)
def test_probabilities_are_those_of_pydensecrf(path: Path) -> None:
    with np.load(path, allow_pickle=False) as golden:
        arrays = dict(golden)
    *numbers, iterations, confidence = arrays["settings"].tolist()
    config = CRFConfig(*numbers, int(iterations), confidence)
    if "labels" in arrays:
        energies = hard_energies(arrays["labels"], len(arrays["probabilities"]), config.confidence)
    else:
        energies = soft_energies(arrays["scores"].astype(np.float32) / 255)
    probabilities = DenseCRF(arrays["image"], config).infer(energies)
    expected = arrays["probabilities"].astype(np.float64) / 65535
    assert np.abs(probabilities - expected).max() <= 1e-4 + HALF_STEP
    assert (probabilities.argmax(axis=0) == arrays["winners"]).all()
    first = DenseCRF(arrays["image"], replace(config, iterations=0)).infer(energies)
    assert np.abs(first - expected).max() > 0.1, "a CRF that does nothing would pass"


def speckled(labels: np.ndarray, count: int, share: float) -> np.ndarray:
    generator = np.random.default_rng(1)
    return np.where(generator.random(labels.shape) < share, generator.integers(0, count, labels.shape), labels)


@pytest.mark.parametrize("preset", ["irn", "psa", "deeplab_v2", "toco_coco"])
@pytest.mark.parametrize("count", [2, 4])
def test_labels_are_nearly_those_of_the_definition(exact: Any, disc: Any, preset: str, count: int) -> None:
    image, inside = disc
    energies = hard_energies(speckled(inside, count, 0.25), count)
    true = exact.mean_field(image, energies, CRF_PRESETS[preset]).argmax(axis=0)
    ours = DenseCRF(image, CRF_PRESETS[preset]).infer(energies).argmax(axis=0)
    assert (ours == true).mean() >= 0.97


@pytest.mark.parametrize("weights", [(3, 0), (0, 10), (0, 0)])
def test_a_kernel_of_weight_zero_is_left_out(exact: Any, disc: Any, weights: tuple[int, int]) -> None:
    image, inside = disc
    config = CRFConfig(gaussian_weight=weights[0], bilateral_weight=weights[1])
    energies = hard_energies(speckled(inside, 2, 0.25), 2)
    ours = DenseCRF(image, config).infer(energies)
    assert (ours.argmax(axis=0) == exact.mean_field(image, energies, config).argmax(axis=0)).mean() >= 0.97
    if weights == (0, 0):
        np.testing.assert_allclose(ours, np.exp(-energies), atol=1e-6)


def test_a_coarse_label_follows_the_edge_of_colour(disc: Any) -> None:
    image, inside = disc
    box = np.zeros_like(inside)
    box[5:30, 10:35] = 1  # the square around the disc, and some more
    refined = DenseCRF(image, CRFConfig()).infer(hard_energies(box, 2)).argmax(axis=0)
    assert (box == inside).mean() < 0.9 < 0.99 < (refined == inside).mean()


def test_two_passes_on_one_lattice_are_two_passes(disc: Any) -> None:
    image, inside = disc
    generator = np.random.default_rng(0)
    sure_of_foreground = hard_energies(speckled(inside, 3, 0.3), 3)
    sure_of_background = hard_energies(np.ones_like(inside), 2)
    scores = soft_energies(generator.random((5, *inside.shape)).astype(np.float32))
    alone = hard_energies(np.zeros_like(inside), 1)
    unaries = [sure_of_foreground, sure_of_background, scores, alone]
    together = DenseCRF(image, CRFConfig()).infer_many(unaries)
    for unary, result in zip(unaries, together, strict=True):
        np.testing.assert_allclose(result, DenseCRF(image, CRFConfig()).infer(unary), atol=1e-6)


def test_the_same_crf_twice_and_its_input_untouched(disc: Any) -> None:
    image, inside = disc
    crf, energies = DenseCRF(image, CRFConfig()), hard_energies(speckled(inside, 3, 0.2), 3)
    before = energies.copy()
    np.testing.assert_array_equal(crf.infer(energies), crf.infer(energies))
    np.testing.assert_array_equal(energies, before)


pictures = st.builds(
    lambda height, width, seed, colours: (
        np.random.default_rng(seed).integers(0, 256, (colours, 3), dtype=np.uint8)[
            np.random.default_rng(seed + 1).integers(0, colours, (height, width))
        ]
    ),
    st.integers(1, 12), st.integers(1, 12), st.integers(0, 10**6), st.integers(1, 40),
)  # fmt: skip
configs = st.builds(
    CRFConfig,
    gaussian_sd=st.floats(0.5, 10), gaussian_weight=st.floats(0, 5), bilateral_sd=st.floats(1, 200),
    bilateral_colour_sd=st.floats(1, 50), bilateral_weight=st.floats(0, 12), iterations=st.integers(0, 4),
)  # fmt: skip


@given(pictures, configs, st.integers(1, 6), st.integers(0, 10**6))
@settings(deadline=None, max_examples=60)
def test_probabilities_sum_to_one_and_follow_their_labels(image: np.ndarray, config: CRFConfig, count: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    energies = generator.normal(0, 2, (count, *image.shape[:2])).astype(np.float32)
    crf = DenseCRF(image, config)
    probabilities = crf.infer(energies)
    assert probabilities.shape == energies.shape and probabilities.dtype == np.float32
    assert probabilities.min() >= 0
    np.testing.assert_allclose(probabilities.sum(axis=0), 1, atol=1e-5)
    order = generator.permutation(count)
    np.testing.assert_allclose(crf.infer(energies[order]), probabilities[order], atol=2e-3)
    np.testing.assert_allclose(crf.infer(energies + 7), probabilities, atol=2e-3)


@given(pictures, configs)
@settings(deadline=None, max_examples=30)
def test_a_single_label_is_certain(image: np.ndarray, config: CRFConfig) -> None:
    energies = hard_energies(np.zeros(image.shape[:2], np.intp), 1)
    np.testing.assert_array_equal(DenseCRF(image, config).infer(energies), np.ones((1, *image.shape[:2])))


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (40, 1), (2, 30)])
def test_photos_one_pixel_wide(exact: Any, shape: tuple[int, int]) -> None:
    labels = np.indices(shape).sum(axis=0) // 15
    image = np.array([(200, 80, 40), (60, 130, 70), (90, 90, 200)], np.uint8)[labels]  # (H, W) -> (H, W, 3)
    energies = hard_energies(speckled(labels, 3, 0.1), 3)
    ours, true = DenseCRF(image, CRFConfig()).infer(energies), exact.mean_field(image, energies, CRFConfig())
    assert (ours.argmax(axis=0) == true.argmax(axis=0)).mean() >= 0.97


@pytest.mark.parametrize("grey", [0, 128, 255])
def test_a_photo_of_one_colour_takes_the_label_of_most(grey: int) -> None:
    image = np.full((30, 40, 3), grey, np.uint8)
    labels = (np.random.default_rng(0).random((30, 40)) < 0.3).astype(np.intp)
    probabilities = DenseCRF(image, CRFConfig()).infer(hard_energies(labels, 2))
    assert (probabilities.argmax(axis=0) == 0).all() and probabilities[0].min() > 0.99
    half = np.full((30, 40), 0.5, np.float32)
    undecided = DenseCRF(image, CRFConfig()).infer(soft_energies(np.stack([half, half])))
    np.testing.assert_allclose(undecided, 0.5, atol=1e-5)


def test_hard_energies_are_the_published_ones() -> None:
    energies = hard_energies(np.array([[0, 2, 1]]), 4, 0.7)
    assert energies.shape == (4, 1, 3) and energies.dtype == np.float32
    for label in range(4):
        for column, chosen in enumerate((0, 2, 1)):
            expected = -math.log(0.7) if label == chosen else -math.log(0.3 / 3)
            assert energies[label, 0, column] == pytest.approx(expected, rel=1e-6)
    np.testing.assert_allclose(hard_energies(np.array([[0]]), 1), -math.log(0.7), rtol=1e-6)
    np.testing.assert_allclose(np.exp(-hard_energies(np.array([[1, 0]]), 2, 0.9)).sum(axis=0), 1, rtol=1e-6)


def test_soft_energies_are_clipped_and_not_made_to_sum_to_one() -> None:
    scores = np.array([0, 1e-9, 0.25, 1, 1.5], np.float32).reshape(5, 1, 1)
    expected = [-math.log(1e-5), -math.log(1e-5), -math.log(0.25), 0, 0]
    np.testing.assert_allclose(soft_energies(scores)[:, 0, 0], expected, rtol=1e-5, atol=1e-7)
    assert soft_energies(scores, 0.01)[0, 0, 0] == pytest.approx(-math.log(0.01), rel=1e-6)


@pytest.mark.parametrize("labels", [[[0, 2]], [[-1, 0]], np.zeros((0, 3), int)])
def test_labels_without_an_energy_are_refused(labels: Any) -> None:
    with pytest.raises(ValueError, match="labels"):
        hard_energies(np.asarray(labels), 2)


@pytest.mark.parametrize("image", [np.zeros((4, 5, 3)), np.zeros((4, 5), np.uint8), np.zeros((4, 5, 4), np.uint8), np.zeros((0, 5, 3), np.uint8)])
def test_what_is_no_photo_is_refused(image: np.ndarray) -> None:
    with pytest.raises(ValueError, match="expected uint8"):
        DenseCRF(image, CRFConfig())  # type: ignore[arg-type]


@pytest.mark.parametrize("shape", [(2, 5, 4), (2, 20), (0, 4, 5)])
def test_energies_of_another_size_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"expected \(labels, 4, 5\)"):
        DenseCRF(np.zeros((4, 5, 3), np.uint8), CRFConfig()).infer(np.zeros(shape, np.float32))


def test_kernels_too_narrow_for_the_photo_are_refused_in_one_sentence() -> None:
    image = np.random.default_rng(0).integers(0, 256, (30, 30, 3), dtype=np.uint8)
    with pytest.raises(InputError, match="standard deviations of the CRF are too small"):
        DenseCRF(image, CRFConfig(bilateral_sd=1e-4, bilateral_colour_sd=1e-4))
