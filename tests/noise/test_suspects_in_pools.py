"""``fpr.suspects``: what looks as if its tag were missing lends no negative, and is learnt as it is tagged."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from tag2mask.checkpoints import load_prototypes
from tag2mask.cli import main
from tag2mask.engine import set_up_torch
from tag2mask.noise import out_of_fold_probabilities, suspicion
from tag2mask.progress import Reporter
from tag2mask.runs import method_folder
from tag2mask.stages.network import set_up_seed
from tag2mask.stages.tags import judged, pooled_features
from tests.noise.stored import data_of, pairs, settings_of, weights

METHODS = ("fpr", "paper", "training_free")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, photos: list[str]) -> dict[str, Path]:
    """A fifth of the tags removed, with the default and with every negative kept."""
    root = tmp_path_factory.mktemp("suspects")
    shared = [*photos, "--tags.remove", "0.2", "--methods", ",".join(METHODS)]
    for name, options in (("drop", []), ("keep", ["--fpr.suspects", "keep"])):
        assert main(["train", "--out", str(root / name), *shared, *options]) == 0
    return {name: root / name for name in ("drop", "keep")}


def suspects(run: Path) -> np.ndarray:
    """(N, C): where suspects.json lists a pair."""
    images, stored = data_of(run), json.loads((run / "seed0" / "suspects.json").read_text())
    found = np.zeros(images.labels.shape, bool)
    for image, name in stored["no negatives"]:
        found[images.ids.index(image), images.classes.names.index(name)] = True
    return found


def lenders(run: Path, method: str) -> np.ndarray:
    """(N, C): photos from which a class has a negative prototype."""
    prototypes = load_prototypes(method_folder(run, 0, method) / "prototypes.safetensors")
    found = np.zeros(data_of(run).labels.shape, bool)
    c, place = prototypes.negative_valid.nonzero(as_tuple=True)
    found[prototypes.negative_source[c, place].numpy(), c.numpy()] = True
    return found


def test_they_are_those_of_the_audit_and_many_are_missing_tags(runs: dict[str, Path], tmp_path: Path) -> None:
    setup = set_up_seed(settings_of(runs["drop"]), tmp_path, 0, set_up_torch(1, "cpu"), Reporter(quiet=True))
    removed = pairs(runs["drop"], ("removed",))
    tags = setup.images.labels & ~removed
    features = pooled_features(setup, lambda done, total, note="": None)
    flagged = suspicion(out_of_fold_probabilities(features, tags, seed=0), tags).flagged & ~tags
    assert (suspects(runs["drop"]) == flagged).all() and (flagged & removed).sum() >= 2
    assert not (runs["keep"] / "seed0" / "suspects.json").exists(), "where nothing asks, nothing is looked for"


def test_they_lend_no_negative_in_the_default_and_lend_them_in_the_form_of_the_paper(runs: dict[str, Path]) -> None:
    doubtful = suspects(runs["drop"])
    for method in ("fpr", "training_free"):
        assert not (lenders(runs["drop"], method) & doubtful).any() and lenders(runs["drop"], method).any()
        assert (lenders(runs["keep"], method) & doubtful).any()
    assert (lenders(runs["drop"], "paper") & doubtful).any()


def test_nothing_else_depends_on_them(runs: dict[str, Path]) -> None:
    """What the classification learns is the same, and so are methods that keep them."""
    for method in ("cam", "paper"):
        assert weights(runs["drop"], method) == weights(runs["keep"], method)
    assert weights(runs["drop"], "fpr") != weights(runs["keep"], "fpr")


def test_tags_that_were_changed_by_hand_are_looked_at_again(runs: dict[str, Path], tmp_path: Path) -> None:
    run = tmp_path / "copy"
    shutil.copytree(runs["drop"], run)
    again = ["train", "--out", str(run), "--config", str(run / "settings.yaml"), "--resume", "--quiet"]
    path = run / "seed0" / "suspects.json"
    before = path.stat().st_mtime_ns
    assert main(again) == 0 and path.stat().st_mtime_ns == before
    stored = json.loads((run / "seed0" / "tags.json").read_text())
    (run / "seed0" / "tags.json").write_text(json.dumps({**stored, "removed": []}))
    assert main(again) == 0
    assert path.stat().st_mtime_ns > before and not (suspects(run) & data_of(run).labels).any()
    assert (run / "set_aside" / "1" / "seed0" / "fpr").is_dir(), "trained anew"


def test_suspects_of_other_tags_are_an_error_that_says_what_to_do(
    runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "copy"
    shutil.copytree(runs["drop"], run)
    path = run / "seed0" / "suspects.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "of": "another"}))
    assert main(["evaluate", str(run), "--suppressed", "--quiet"]) == 2
    error = capsys.readouterr().err
    assert f"{path} was made of other tags than the run trains with; train again with --resume." in error


def test_what_is_measured_of_the_first_step_leaves_them_out_as_well(runs: dict[str, Path], tmp_path: Path) -> None:
    """The pixels that ``--suppressed`` counts are chosen by the prototypes of the training's first collection."""
    run = tmp_path / "copy"
    shutil.copytree(runs["drop"], run)
    assert main(["evaluate", str(run), "--suppressed", "--quiet"]) == 0
    with_them_out = json.loads((run / "suppressed.json").read_text())
    (run / "seed0" / "suspects.json").unlink()
    assert main(["evaluate", str(run), "--suppressed", "--quiet"]) == 0
    assert json.loads((run / "suppressed.json").read_text())["seeds"] != with_them_out["seeds"]


def test_training_says_how_many_there_are(
    photos: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    loud = [option for option in photos if option != "--quiet"]
    run = tmp_path / "run"
    assert main(["train", "--out", str(run), *loud, "--methods", "fpr", "--tags.remove", "0.2"]) == 0
    count = int(suspects(run).sum())
    text = f"seed 0: {count} pairs of photo and class look as if their tags were missing: the photos lend no negative"
    assert count > 1 and text in capsys.readouterr().err


def test_many_photos_are_judged_in_groups_that_hold_every_photo_once(
    runs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three groups of 60 photos: what classifiers think of a photo still agrees with the tags, and progress goes on."""
    setup = set_up_seed(settings_of(runs["drop"]), tmp_path, 0, set_up_torch(1, "cpu"), Reporter(quiet=True))
    tags = setup.images.labels
    one = judged(setup, tags, lambda done, total, note="": None)
    monkeypatch.setattr("tag2mask.stages.tags.JUDGED_AT_ONCE", 25)
    seen: list[tuple[int, int]] = []
    three = judged(setup, tags, lambda done, total, note="": seen.append((done, total)))
    assert [done for done, _ in seen] == sorted({done for done, _ in seen}) and seen[-1] == (60, 60)
    assert (one != three).any() and np.corrcoef(one.ravel(), three.ravel())[0, 1] > 0.6
    assert three[tags].mean() > three[~tags].mean() + 0.2
