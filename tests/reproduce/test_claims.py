"""What is said of the paper's claims: never more than the figures do, and the controls count."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tag2mask.reproduce import fig5, fig6, fig7, scalars, table1, table4
from tag2mask.reproduce.result import Claim, with_untold
from tag2mask.reproduce.scales import scale_of

SCALE = scale_of("laptop", None, (0, 1, 2))
SCENES = SCALE.sets[0]


class Runs:
    """Figures of three seeds that scatter by .1 around a mean, by method."""

    def __init__(self, **means: float) -> None:
        self.means = means

    def values(self, method: str, protocol: str, name: str) -> list[float]:
        return [self.means[method] + 0.1 * seed for seed in range(3)]

    def gain(self, protocol: str, method: str = "fpr") -> list[float]:
        best = max(self.means[m] for m in ("continued", "halo"))
        return [self.means[method] - best] * 3


def by_seed(**means: float) -> dict[str, list[float]]:
    return {name: [mean, mean + 0.1, mean + 0.2] for name, mean in means.items()}


def rows(**changes: dict[str, float]) -> dict[str, dict[str, list[float]]]:
    """Rows of Table 4 in which every claim of the paper holds, less what is changed."""
    usual = {
        "cam": (30, 29, 49, 20, 60), "continued": (31, 30, 50, 20, 61), "halo": (32, 31, 51, 18, 61),
        "wood": (40, 35, 53, 10, 58), "paper": (41, 36, 53, 12, 62), "fpr": (46, 43, 56, 8, 66),
    }  # fmt: skip
    names = ("train", "boat", "miou", "leak", "recall")
    found = {row: dict(zip(names, map(float, values), strict=True)) for row, values in usual.items()}
    found |= {f"advcam+{row}": dict(found[row]) for row in ("continued", "halo", "wood", "fpr")}
    for row, change in changes.items():
        found[row.replace("advcam_", "advcam+")].update(change)
    return {row: by_seed(**values) for row, values in found.items()}


BEATS, WITH_ADVCAM, APART, WHOLE = table4.SENTENCES
TRAIN, BOAT = map(table4.gains_most, table4.CLASSES)


@pytest.mark.parametrize(
    ("changes", "other"),
    [
        ({}, {}),
        ({"fpr": {"miou": 52.0}}, {BEATS: False}),
        ({"halo": {"miou": 60.0}, "fpr": {"train": 52.0, "boat": 51.0}}, {BEATS: False}),
        ({"advcam_halo": {"miou": 60.0}}, {WITH_ADVCAM: False}),
        ({"halo": {"boat": 44.0}}, {BOAT: False}),
        ({"fpr": {"train": float("nan")}}, {TRAIN: None}),
        ({"fpr": {"train": 33.0}}, {TRAIN: False}),
        ({"halo": {"leak": 9.0}}, {APART: False}),
        ({"wood": {"recall": 62.0}}, {WHOLE: False}), ({"halo": {"recall": 70.0}}, {WHOLE: False}),
        ({"fpr": {"recall": float("nan")}}, {WHOLE: None}),
    ],
)  # fmt: skip
def test_table_4_counts_gains_above_both_controls(changes: dict[str, dict[str, float]], other: dict[str, bool | None]) -> None:
    claims = table4.claims_of(rows(**changes), list(table4.CLASSES), SCENES)
    expected = dict.fromkeys((BEATS, WITH_ADVCAM, TRAIN, BOAT, APART, WHOLE), True) | other
    assert {claim.paper: claim.agrees for claim in claims} == expected
    assert all("halo" in claim.ours or "control" in claim.ours for claim in claims)


def test_table_4_without_advcam_says_so() -> None:
    without = {row: own for row, own in rows().items() if not row.startswith("advcam")}
    claims = with_untold(table4.claims_of(without, list(table4.CLASSES), SCENES), table4.SENTENCES, SCALE.names)
    (told,) = [claim for claim in claims if claim.paper == WITH_ADVCAM]
    assert told.agrees is None and "not computed" in told.ours


@pytest.mark.parametrize(
    ("fpr", "climbed", "halo", "kept", "both"),
    [(54.0, 59.0, 55.0, True, True), (54.0, 53.5, 48.0, True, False), (54.0, 56.0, 55.0, False, True), (54.0, 59.0, 60.0, False, False)],
)  # fmt: skip
def test_what_is_preserved_with_advcam_and_what_adds_to_it(
    fpr: float, climbed: float, halo: float, kept: bool, both: bool
) -> None:
    cam: Any = Runs(cam=48, continued=49, halo=50, fpr=fpr)
    advcam: Any = Runs(cam=48, continued=49, halo=halo, fpr=climbed)
    if halo < 50:
        advcam = Runs(cam=48, continued=49, halo=49, fpr=climbed)
    assert table1.preserved(SCENES, cam, advcam).agrees is kept
    assert table1.complementary(SCENES, cam, advcam).agrees is both


@pytest.mark.parametrize(
    ("climbed", "agrees"), [([7.9, 10.0, 5.7], True), ([7.9, 7.0, 5.7], None), ([4.0, 5.0, 3.0], False)]
)
def test_what_advcam_preserves_is_compared_seed_by_seed(climbed: list[float], agrees: bool | None) -> None:
    cam, advcam = (SimpleNamespace(gain=lambda protocol, own=own: own) for own in ([7.9, 9.9, 6.2], climbed))
    assert table1.preserved(SCENES, cam, advcam).agrees is agrees  # type: ignore[arg-type]


@pytest.mark.parametrize("order", [("train", "boat"), ("boat", "train")])
def test_figure_5_knows_nothing_of_a_class_that_lost_its_prototypes(order: tuple[str, str]) -> None:
    ends = {"train": (0.3, float("nan")), "boat": (0.1, 0.2)}
    seed = {name: ends[name] for name in order}
    assert fig5.moved("apart", {"paper": [seed, seed], "fpr": [seed, seed]}, SCALE, "silhouette").agrees is None


@pytest.mark.parametrize(
    ("values", "control", "agrees"),
    [
        ([50, 50.5, 51], 49.0, True), ([50, 50.5, 51], 50.0, None), ([50, 51.5, 51], 49.0, False), ([50, 50.5], 49.0, None),
        ([50, float("nan"), 51], 49.0, None),
    ],
)  # fmt: skip
def test_figure_7_is_stable_only_if_all_of_it_is_there_and_does_something(
    values: list[float], control: float, agrees: bool | None
) -> None:
    claim = fig7.within("stable", [[v, v] for v in values], 3, control, "scenes")
    assert claim.agrees is agrees and "nan" not in claim.ours
    assert fig7.within("stable", [[v] for v in values], 3, control, "scenes").agrees is (False if agrees is False else None), "one seed"


def test_figure_7_is_stable_in_each_seed_and_not_on_average_alone() -> None:
    assert fig7.within("stable", [[50.0, 52.0], [52.0, 50.0]], 2, 40.0, "scenes").agrees is False


@pytest.mark.parametrize(
    ("pixels", "agrees"),
    [([90, 80, 70, *[1] * 10], True), ([9] * 40, False), ([5, 4, 3, 2], None), ([0] * 12, None)],
)
def test_figure_6_needs_many_prototypes_to_call_three_few(pixels: list[int], agrees: bool | None) -> None:
    statistics: Any = SimpleNamespace(pixels=np.array([[1] * len(pixels), pixels]))
    assert fig6.few_are_enough([statistics, statistics], "boat", 1, "scenes").agrees is agrees
    assert fig6.few_are_enough([statistics], "boat", 1, "scenes").agrees in (None, False), "one seed says no yes"


@pytest.mark.parametrize(
    ("precision", "objects", "agrees"), [(95.0, 2.0, True), (80.0, 2.0, False), (95.0, 6.0, False), (95.0, 4.5, False)]
)
def test_figure_6_looks_at_the_objects_as_well(precision: float, objects: float, agrees: bool) -> None:
    seed = {
        "prototypes": {"suppressed: precision": precision, "suppressed: of the objects": objects},
        "activation": {"suppressed: precision": 90.0, "suppressed: of the objects": 4.0},
    }
    assert fig6.objects_stay_whole([seed, seed], "scenes").agrees is agrees
    assert fig6.objects_stay_whole([seed], "scenes").agrees is not True


def test_figure_6_calls_nothing_background_of_which_most_is_object() -> None:
    seed = {
        "prototypes": {"suppressed: precision": 40.0, "suppressed: of the objects": 1.0},
        "activation": {"suppressed: precision": 35.0, "suppressed: of the objects": 2.0},
    }
    assert fig6.objects_stay_whole([seed, seed], "scenes").agrees is False


@pytest.mark.parametrize(
    ("gained", "classes", "agrees"),
    [([8, 8, 8], 8, True), ([7, 7, 7], 8, False), ([8, 7, 8], 8, None), ([0, 0], 1, False), ([1, 1], 1, True), ([19, 19], 20, True),
     ([1, 1], 2, False)],
)  # fmt: skip
def test_nearly_all_classes_are_not_fewer_than_in_the_paper(gained: list[int], classes: int, agrees: bool | None) -> None:
    assert scalars.nearly_all_gain(np.array(gained), classes, gained[0], "scenes").agrees is agrees


def test_figure_5_wants_every_class_in_each_seed() -> None:
    grows, shrinks = {"boat": (0.1, 0.2), "car": (0.1, 0.3)}, {"boat": (0.1, 0.2), "car": (0.3, 0.1)}
    for seeds, agrees in (([grows, grows], True), ([grows, shrinks], False), ([grows], None), ([shrinks], False)):
        claim = fig5.moved("apart", {"paper": seeds, "fpr": seeds}, SCALE, "silhouette")
        assert claim.agrees is agrees and claim.about == "scenes"


def test_figure_5_is_not_fooled_by_features_that_grow() -> None:
    random = np.random.default_rng(0)
    positive, negative = random.normal(size=(10, 8)), random.normal(size=(10, 8))
    near = fig5.to_first_negatives(positive, negative)
    assert fig5.to_first_negatives(7 * positive, negative) == pytest.approx(near)
    assert fig5.to_first_negatives(negative + 0.01 * positive, negative) < near
    assert np.isnan(fig5.to_first_negatives(positive, negative[:0]))


@pytest.mark.parametrize(
    ("lost", "agrees"),
    [({"paper": 3.0, "continued": 1.0}, True), ({"paper": -1.0, "continued": -2.0}, False), ({"paper": 1.0, "continued": 2.0}, False)],
)
def test_missing_tags_hurt_only_if_something_is_lost(lost: dict[str, float], agrees: bool) -> None:
    whole = {"cam": 50.0, "continued": 50.0, "halo": 50.0, "paper": 54.0, "fpr": 60.0}
    less = {method: mean - lost.get(method, 0.5) for method, mean in whole.items()}
    runs, removed = Runs(**whole), Runs(**less)
    claim = scalars.limitation(runs, removed, SCALE, SCENES, "gtfree")  # type: ignore[arg-type]
    assert claim.agrees is agrees and "halo 0.5" in claim.ours


def test_every_sentence_is_told_of_even_without_runs() -> None:
    found = with_untold([Claim("a", "yes", True, "scenes")], ("a", "b"), ("scenes", "mine"))
    assert [(claim.paper, claim.about, claim.agrees) for claim in found] == [
        ("a", "scenes", True), ("b", "scenes", None), ("a", "mine", None), ("b", "mine", None),
    ]  # fmt: skip
    assert [claim.paper for claim in with_untold([], ("a", "b"), ())] == ["a", "b"]
