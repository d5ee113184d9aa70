"""`tag2mask refine`: from maps to pseudo masks."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tag2mask.cli import main
from tag2mask.data.classes import palette
from tag2mask.stages.pipeline import read_settings
from tests.stages.photos import (
    NESTED,
    REFINE,
    TRAIN,
    UNTAGGED,
    VAL,
    changed,
    contents,
    copied,
    photos,
    png,
    times,
    train,
)

HOMES = {"seed": "seed0/fpr", "crf": "seed0/fpr/crf", "irn": "seed0/fpr/irn", "psa": "seed0/fpr/psa"}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, tiny: list[str]) -> Path:
    """A run without any mask. Tests must not change it."""
    return train(tmp_path_factory.mktemp("refine"), tiny)


@pytest.fixture(scope="module")
def refined(trained: Path) -> Path:
    """The run with the masks of every refiner. Tests must not change it."""
    run = copied(trained, trained.parent / "refined")
    for refiner in HOMES:
        assert refine(run, refiner) == 0
    return run


@pytest.fixture
def run(refined: Path) -> Path:
    """A copy of it that a test may change; beside the photos."""
    number = len(list(refined.parent.glob("copy*")))
    return copied(refined, refined.parent / f"copy{number}")


def refine(run: Path, refiner: str, *options: str, quiet: bool = True) -> int:
    return main(["refine", str(run), "--with", refiner, *REFINE, *options, *(["--quiet"] if quiet else [])])


def masks(run: Path, refiner: str, split: str = "train") -> dict[str, np.ndarray]:
    folder = run / HOMES[refiner] / "masks" / split
    return {p.relative_to(folder).with_suffix("").as_posix(): png(p) for p in sorted(folder.rglob("*.png"))}


def same(first: dict[str, np.ndarray], second: dict[str, np.ndarray]) -> bool:
    return first.keys() == second.keys() and all(np.array_equal(first[name], second[name]) for name in first)


def error(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    capsys.readouterr()
    assert main([*map(str, arguments), "--quiet"]) == 2
    text = capsys.readouterr().err
    assert text.startswith("error: ") and text.count("\n") == 1
    return text


@pytest.mark.parametrize("refiner", HOMES)
def test_every_photo_gets_a_mask_of_its_size_with_classes_of_its_tags(refined: Path, refiner: str) -> None:
    found = masks(refined, refiner)
    expected = list(photos(refined, "train"))
    assert len(expected) == TRAIN and found.keys() == {name for name, _, _ in expected} >= {NESTED, UNTAGGED}
    for name, size, values in expected:
        assert found[name].shape == size
        assert set(np.unique(found[name])) <= {0, *values}, name
    assert not found[UNTAGGED].any()
    assert any(mask.any() for mask in found.values()), "some photo has some class"


def test_masks_are_in_the_colours_of_voc(refined: Path) -> None:
    from PIL import Image

    for refiner, home in HOMES.items():
        with Image.open(refined / home / "masks" / "train" / f"{NESTED}.png") as image:
            colours = np.array(image.getpalette(), np.uint8).reshape(-1, 3)
        assert np.array_equal(colours[:4], palette(3)), refiner


def test_refiners_differ_and_what_is_certain_is_so_in_the_masks(refined: Path) -> None:
    every = [masks(refined, refiner) for refiner in HOMES]
    for i, first in enumerate(every):
        assert not any(same(first, second) for second in every[:i])
    open_pixels = 0
    for name, mask in masks(refined, "crf").items():
        certain = png(refined / HOMES["crf"] / "certain" / "train" / f"{name}.png")
        assert certain.shape == mask.shape
        open_pixels += int((certain == 255).sum())
        if name == UNTAGGED:
            assert not certain.any()
    assert 0 < open_pixels < sum(mask.size for mask in masks(refined, "crf").values())


def test_a_second_call_writes_nothing_and_runs_no_crf(
    run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = times(run)
    capsys.readouterr()

    def forbidden(*_: object, **__: object) -> None:
        raise AssertionError("computed again")

    monkeypatch.setattr("tag2mask.stages.mask_work.DenseCRF", forbidden)
    monkeypatch.setattr("tag2mask.stages.affinity.refine_maps", forbidden)
    for refiner in HOMES:
        assert refine(run, refiner, quiet=False) == 0
    assert not changed(before, run)
    assert "made anew" not in capsys.readouterr().err


def test_another_crf_is_said_and_makes_anew_what_stands_on_it(
    run: Path, trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before, old = times(run), {refiner: masks(run, refiner) for refiner in ("crf", "irn")}
    capsys.readouterr()
    assert refine(run, "irn", "--refine.crf", "deeplab_v2", quiet=False) == 0
    text = capsys.readouterr().err
    for home in ("crf", "irn"):
        assert f"{home}: the settings have changed, so it is made anew" in text.replace("crf/masks/train", "crf")
    written = changed(before, run)
    assert {name.split("/")[2] for name in written if name.startswith("seed0")} == {"crf", "irn"}
    anew = {name for name in times(run) if name.startswith(("seed0/fpr/crf", "seed0/fpr/irn"))}
    assert written - {"settings.yaml"} == anew
    assert read_settings(run).refine.crf == "deeplab_v2"
    assert not any(same(masks(run, refiner), masks_before) for refiner, masks_before in old.items())
    fresh = copied(trained, run.parent / "fresh")
    assert refine(fresh, "irn", "--refine.crf", "deeplab_v2") == 0
    assert contents(fresh / "seed0/fpr/irn") == contents(run / "seed0/fpr/irn")


def test_without_the_last_crf_only_the_masks_are_made_anew(run: Path) -> None:
    for refiner in ("irn", "psa"):
        before, old = times(run), masks(run, refiner)
        assert refine(run, refiner, "--refine.final_crf", "false") == 0
        written = changed(before, run) - {"settings.yaml"}
        assert written and all(name.startswith(f"{HOMES[refiner]}/masks/train") for name in written)
        assert not same(masks(run, refiner), old)


def test_a_threshold_of_ones_own(run: Path) -> None:
    """Higher thresholds leave less foreground, in plain masks and after a CRF."""
    for refiner in ("seed", "crf"):
        areas = []
        for threshold in ("0.05", "0.9"):
            assert refine(run, refiner, "--refine.threshold", threshold) == 0
            areas.append(sum(int((mask > 0).sum()) for mask in masks(run, refiner).values()))
        assert areas[0] > areas[1], refiner


def test_crop_views_and_both_branches_of_irn(run: Path) -> None:
    options = ["--refine.views.kind", "crop", "--refine.irn.displacement_channels", "8"]
    for refiner in ("irn", "psa"):
        assert refine(run, refiner, *options) == 0
        assert masks(run, refiner).keys() == masks(run, "seed").keys()


def test_psa_with_its_own_labels(run: Path) -> None:
    before, old = times(run), (run / HOMES["psa"] / "weights.safetensors").read_bytes()
    assert refine(run, "psa", "--refine.psa.labels", "powers") == 0
    assert all(name.startswith((HOMES["psa"], "settings.yaml")) for name in changed(before, run))
    allowed = {name: values for name, _, values in photos(run, "train")}
    labels = {name: png(run / HOMES["psa"] / "labels" / f"{name}.png") for name in allowed}
    for name, label in labels.items():
        assert set(np.unique(label)) <= {0, 255, *allowed[name]}
    assert (run / HOMES["psa"] / "weights.safetensors").read_bytes() != old
    assert masks(run, "psa").keys() == allowed.keys()


def test_another_split_uses_what_was_learnt_on_train(run: Path, trained: Path) -> None:
    before = times(run)
    assert refine(run, "irn", "--split", "val") == 0
    assert all("/val" in name or name.startswith("cache/") for name in changed(before, run))
    expected = {name: (size, values) for name, size, values in photos(run, "val")}
    found = masks(run, "irn", "val")
    assert len(expected) == VAL and found.keys() == expected.keys()
    for name, mask in found.items():
        assert mask.shape == expected[name][0] and set(np.unique(mask)) <= {0, *expected[name][1]}
    fresh = copied(trained, run.parent / "val_first")
    assert refine(fresh, "irn", "--split", "val") == 0
    assert contents(fresh / HOMES["irn"], "weights.safetensors") == contents(run / HOMES["irn"], "weights.safetensors")
    assert same(masks(fresh, "irn", "val"), found)


def test_missing_maps_are_made_again_and_nothing_of_before_stays(run: Path, refined: Path) -> None:
    (run / "seed0/fpr/maps/train" / f"{NESTED}.npz").unlink()
    assert refine(run, "crf") == 0
    assert not (run / HOMES["irn"] / "masks" / "train").exists(), "it stood on the maps"
    assert same(masks(run, "crf"), masks(refined, "crf"))
    assert refine(run, "irn") == 0
    assert same(masks(run, "irn"), masks(refined, "irn"))


def test_options_may_stand_before_the_run(run: Path, trained: Path) -> None:
    """The settings of the run are the defaults, wherever its name stands among the options."""
    before = (run / "settings.yaml").read_text()
    assert main(["refine", "--with", "crf", "--methods", "fpr", str(run), "--quiet"]) == 0
    assert (run / "settings.yaml").read_text() == before
    assert main(["refine", "--with", "crf", "--refine.background", "0.25", "--quiet", str(run)]) == 0
    now = read_settings(run)
    assert now.refine.background == 0.25 and now.refine.irn.steps == 16 and now.data == read_settings(trained).data


def test_several_methods(run: Path) -> None:
    assert main(["refine", str(run), "--with", "crf", "--methods", "cam,fpr", "--quiet"]) == 0
    names = {f"{name}.png" for name, _, _ in photos(run, "train")}
    assert contents(run / "seed0/cam/crf/masks/train", ".png").keys() == names


def test_mistakes_are_one_clear_sentence(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = times(trained)
    cases = {
        ("--with", "crff"): "there is no refinement 'crff'; expected one of seed, crf, irn, psa",
        ("--methods", "halo"): "method 'halo' is not in this run; it has cam, fpr",
        ("--refine.threshold", "1"): "refine.threshold is 1.0; expected a share below 1",
        ("--refine.threshold", "much"): "--refine.threshold is 'much'; expected a number",
        ("--refine.foreground", "0.9"): "refine.foreground is 0.9; expected 1 or more",
        ("--refine.background", "0"): "refine.background is 0.0; expected above 0, at most 1",
        ("--refine.crf", "irnn"): "refine.crf is 'irnn'; expected one of irn, psa",
        ("--refine.crf_backend", "gpu"): "expected one of 'numpy', 'pydensecrf'",
        ("--refine.walk_threshold", "-0.1"): "refine.walk_threshold is -0.1; expected",
        ("--refine.scales", "[2,1]"): "refine.scales is (2.0, 1.0); expected two factors, the smaller first",
        ("--refine.processes", "-1"): "refine.processes is -1; expected 0 (all cores) or more",
        ("--refine.irn.radius", "1"): "error: refine.irn.radius is 1; expected 2 or more",
        ("--refine.psa.certain_background", "2"): "error: refine.psa.certain_background is 2.0; expected above",
        ("--refine.optimiser.epochs", "-1"): "error: refine.optimiser.epochs is -1; expected 0 or more",
        ("--refine.views.size", "8"): "error: refine.views.size is 8; expected at least 32",
        ("--refine.treshold", "0.2"): "Did you mean --refine.threshold?",
    }
    for options, message in cases.items():
        assert message in error(capsys, "refine", trained, *options), options
    assert "there is no settings.yaml in" in error(capsys, "refine", tmp_path / "gone")
    assert times(trained) == before, "told before any work"


def test_views_too_small_to_compare_pixels_in(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = error(capsys, "refine", run, "--with", "psa", "--refine.psa.radius", "5")
    assert "refine.views.size is 64; expected at least 72" in text


def test_a_damaged_description_is_told(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    facts = run / "seed0/fpr/crf/masks/train.json"
    assert set(json.loads(facts.read_text())) == {"settings", "from", "level"}
    facts.write_text("{")
    assert f"{facts} is damaged" in error(capsys, "refine", run, "--with", "crf")
