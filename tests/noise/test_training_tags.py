"""The tags that training sees: with errors put in to measure them, and without what is suspected."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tag2mask.checkpoints import load_prototypes
from tag2mask.cli import main
from tag2mask.config import TagsConfig
from tag2mask.engine import set_up_torch
from tag2mask.errors import InputError
from tag2mask.maps.store import load_maps
from tag2mask.noise import out_of_fold_probabilities, suspicion
from tag2mask.progress import Reporter
from tag2mask.stages.network import set_up_seed
from tag2mask.stages.tags import pooled_features, read_training_tags, training_tags, with_errors
from tests.noise.stored import KINDS, data_of, pairs, read_tags, settings_of, weights

WAYS = ("keep", "missing", "both")


def some_tags(seed: int, images: int = 30, classes: int = 5) -> np.ndarray:
    return np.random.default_rng(seed).random((images, classes)) < 0.4


# Errors put in


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.floats(0, 0.99), st.floats(0, 0.99), st.integers(0, 99), st.integers(0, 9))
def test_just_so_many_tags_are_removed_and_added(seed: int, remove: float, add: float, first: int, second: int) -> None:
    tags = some_tags(seed)
    before = tags.copy()
    found = with_errors(tags, TagsConfig(remove=remove, add=add, seed=first), second)
    assert (tags == before).all(), "those of the data set stay"
    assert int((tags & ~found).sum()) == round(remove * tags.sum())
    assert int((~tags & found).sum()) == round(add * (~tags).sum())
    again = with_errors(tags, TagsConfig(remove=remove, add=add, seed=first), second)
    assert (again == found).all()


def test_each_pair_is_as_likely_as_any_other() -> None:
    """In 400 draws of a third, each tag is removed in about 133: within five standard deviations."""
    tags = some_tags(0, images=6)
    draws = np.array([with_errors(tags, TagsConfig(remove=1 / 3, add=1 / 3, seed=s), 0) for s in range(400)])
    for group in (tags, ~tags):
        share = round(group.sum() / 3) / group.sum()
        times = (draws != tags)[:, group].sum(axis=0)
        assert np.abs(times - 400 * share).max() < 5 * np.sqrt(400 * share * (1 - share))


def test_either_seed_changes_the_draw() -> None:
    tags = some_tags(1)
    draws = [with_errors(tags, TagsConfig(remove=0.3, seed=a), b).tobytes() for a in range(3) for b in range(3)]
    assert len(set(draws)) == 9


def test_what_is_removed_does_not_depend_on_what_is_added() -> None:
    tags = some_tags(2)
    alone, both = (with_errors(tags, TagsConfig(remove=0.3, add=add), 0) for add in (0.0, 0.5))
    assert ((tags & ~alone) == (tags & ~both)).all() and (alone != both).any()


@pytest.mark.parametrize("name", ["remove", "add"])
@pytest.mark.parametrize("value", [-0.1, 1.0, 7])
def test_shares_outside_of_0_to_1_are_named(name: str, value: float) -> None:
    with pytest.raises(InputError, match=f"tags.{name} is {value}; expected a share from 0 to below 1"):
        TagsConfig(**{name: value})


# In a run


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, photos: list[str]) -> dict[str, Path]:
    """A fifth of the tags removed, with each way to treat suspects; and, as it comes, the data set's tags."""
    root = tmp_path_factory.mktemp("tags")
    for name in (*WAYS, "untouched"):
        options = [] if name == "untouched" else ["--tags.remove", "0.2", "--tags.suspects", name]
        assert main(["train", "--out", str(root / name), *photos, *options, "--methods", "fpr"]) == 0
    return {name: root / name for name in (*WAYS, "untouched")}


def test_the_run_says_which_tags_were_removed(runs: dict[str, Path]) -> None:
    tags = data_of(runs["both"]).labels
    removed = pairs(runs["both"], ("removed",))
    assert removed.sum() == round(0.2 * tags.sum()) > 5 and not (removed & ~tags).any()
    for way in WAYS:
        assert (removed == pairs(runs[way], ("removed",))).all(), "whatever is done about suspects"
        assert set(read_tags(runs[way])) == {"of", *KINDS} and read_tags(runs[way])["added"] == []
    assert not pairs(runs["untouched"], KINDS).any(), "by default every tag is taken at its word"


def test_suspects_are_those_of_the_rule(runs: dict[str, Path], tmp_path: Path) -> None:
    setup = set_up_seed(settings_of(runs["both"]), tmp_path, 0, set_up_torch(1, "cpu"), Reporter(quiet=True))
    tags = setup.images.labels & ~pairs(runs["both"], ("removed",))
    features = pooled_features(setup, lambda done, total, note="": None)
    flagged = suspicion(out_of_fold_probabilities(features, tags, seed=0), tags).flagged
    assert (flagged & tags).any() and (flagged & ~tags).any()
    nothing = np.zeros_like(tags)
    for way, missing, wrong in (
        ("keep", nothing, nothing), ("missing", flagged & ~tags, nothing), ("both", flagged & ~tags, flagged & tags)
    ):  # fmt: skip
        assert (pairs(runs[way], ("unknown, not tagged",)) == missing).all()
        assert (pairs(runs[way], ("unknown, tagged",)) == wrong).all()


def test_suspects_change_what_is_learnt_and_so_do_removed_tags(runs: dict[str, Path]) -> None:
    for method in ("cam", "fpr"):
        assert len({weights(run, method) for run in runs.values()}) == 4


def test_no_negative_comes_from_a_photo_whose_tag_is_unknown(runs: dict[str, Path]) -> None:
    """A negative prototype comes from a photo that training takes for one without the class."""
    for name, run in runs.items():
        prototypes = load_prototypes(run / "seed0" / "fpr" / "prototypes.safetensors")
        c, place = prototypes.negative_valid.nonzero(as_tuple=True)
        sources = prototypes.negative_source[c, place].numpy()
        assert len(c) > 5
        known_absent = (~data_of(run).labels | pairs(run, ("removed",))) & ~pairs(run, KINDS[:2])
        assert known_absent[sources, c.numpy()].all(), name


def test_maps_and_figures_keep_the_tags_of_the_data_set(runs: dict[str, Path], tmp_path: Path) -> None:
    run = tmp_path / "copy"
    shutil.copytree(runs["both"], run)
    assert pairs(run, ("removed",)).any()
    assert main(["localize", str(run), "--quiet", "--methods", "fpr"]) == 0
    images = data_of(run)
    for index, name in enumerate(images.ids):
        stored = load_maps(run / "seed0" / "fpr" / "maps" / "train" / f"{name}.npz")
        assert stored.classes.tolist() == np.flatnonzero(images.labels[index]).tolist()
    assert main(["evaluate", str(run), "--quiet"]) == 0
    figures = json.loads((run / "summary.json").read_text())
    (run / "seed0" / "tags.json").unlink()
    assert main(["evaluate", str(run), "--quiet"]) == 0
    again = json.loads((run / "summary.json").read_text())
    assert again["methods"] == figures["methods"] and again["tags"] == figures["tags"]


def test_tags_are_written_once_and_read_again(runs: dict[str, Path], photos: list[str], tmp_path: Path) -> None:
    """Whoever changes them by hand before going on is heard: the stored ones count, not another draw."""
    run = tmp_path / "copy"
    shutil.copytree(runs["both"], run)
    path = run / "seed0" / "tags.json"
    again = ["train", "--out", str(run), "--config", str(run / "settings.yaml"), "--resume", "--quiet"]
    before = path.stat().st_mtime_ns
    shutil.rmtree(run / "seed0" / "fpr")
    assert main(again) == 0
    assert path.stat().st_mtime_ns == before and weights(run) == weights(runs["both"])
    changed: dict[str, Any] = {**read_tags(run), "unknown, tagged": [], "unknown, not tagged": []}
    path.write_text(json.dumps(changed))
    for method in ("cam", "fpr"):
        shutil.rmtree(run / "seed0" / method)
    assert main(again) == 0
    assert read_tags(run) == changed
    alike = ["--tags.remove", "0.2", "--fpr.suspects", "keep", "--methods", "fpr"]
    assert main(["train", "--out", str(tmp_path / "keep"), *photos, *alike]) == 0
    assert weights(run) == weights(tmp_path / "keep"), "the same removed tags, and nothing is unknown"


def test_values_that_are_read_are_those_that_were_given(runs: dict[str, Path], tmp_path: Path) -> None:
    run = runs["both"]
    config = settings_of(run)
    setup = set_up_seed(config, tmp_path, 0, set_up_torch(1, "cpu"), Reporter(quiet=True))
    assert (read_training_tags(tmp_path, setup) == setup.images.labels).all(), "a run without the file has the data's"
    seen = training_tags(config, setup, tmp_path, Reporter(quiet=True))
    expected = setup.images.labels.astype(int)
    expected[pairs(run, ("removed",))] = 0
    expected[pairs(run, KINDS[:2])] = -1
    assert (seen == expected).all() and set(np.unique(seen).tolist()) == {-1, 0, 1}
    assert (tmp_path / "seed0" / "tags.json").read_text() == (run / "seed0" / "tags.json").read_text()
    assert (read_training_tags(run, setup) == seen).all()


def test_the_seed_of_the_tags_is_another_draw(runs: dict[str, Path], photos: list[str], tmp_path: Path) -> None:
    options = ["--tags.remove", "0.2", "--tags.add", "0.1", "--tags.seed", "1"]
    assert main(["train", "--out", str(tmp_path / "run"), *photos, *options, "--methods", "[]"]) == 0
    tags = data_of(tmp_path / "run").labels
    removed, added = (pairs(tmp_path / "run", (kind,)) for kind in ("removed", "added"))
    assert removed.sum() == pairs(runs["keep"], ("removed",)).sum()
    assert (removed != pairs(runs["keep"], ("removed",))).any()
    assert added.sum() == round(0.1 * (~tags).sum()) > 0 and not (added & tags).any()


def test_without_a_suspect_every_way_gives_the_same_bits(
    write_folder: Callable[..., Path], tiny: list[str], tmp_path: Path
) -> None:
    """Three photos with a tag each, which no other photo can contradict."""
    root = write_folder(masks=False)
    rows = (root / "labels.csv").read_text().splitlines()
    single = {row.split(",")[2]: row for row in rows if ",train," in row and ";" not in row}
    (root / "labels.csv").write_text("\n".join([rows[0], *(single[name] for name in ("kite", "leaf", "pond"))]))
    options = [*tiny, "--data.kind", "folder", "--data.root", str(root), "--methods", "fpr"]
    options += ["--classify.batch_size", "3", "--rectify.batch_size", "3"]
    for way in WAYS:
        assert main(["train", "--out", str(tmp_path / way), *options, "--tags.suspects", way]) == 0
        assert not any(read_tags(tmp_path / way)[kind] for kind in KINDS)
    for method in ("cam", "fpr"):
        assert len({weights(tmp_path / way, method) for way in WAYS}) == 1


def test_tags_of_the_data_that_have_changed_since_are_named(
    write_folder: Callable[..., Path], tiny: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What the run has stored would fit other photos and tags: only --resume begins anew, and keeps what was there."""
    root, run = write_folder(masks=False), tmp_path / "run"
    options = [*tiny, "--data.kind", "folder", "--data.root", str(root), "--methods", "[]"]
    assert main(["train", "--out", str(run), *options]) == 0
    path = root / "labels.csv"
    path.write_text(path.read_text().replace("p05.png,train,", "p05.png,train,leaf"))
    capsys.readouterr()
    first = weights(run, "cam")
    assert main(["train", "--out", str(run), *options]) == 2
    assert f"{run / 'seed0' / 'tags.json'} was made of other tags" in capsys.readouterr().err
    loud = [option for option in options if option != "--quiet"]
    assert main(["train", "--out", str(run), *loud, "--resume"]) == 0
    text = capsys.readouterr().err
    assert f"{run / 'seed0' / 'tags.json'}: the tags or photos of the data set are others, so it is made anew" in text
    assert f"{run / 'seed0' / 'cam'}: the tags have changed, so it is trained anew" in text
    assert weights(run, "cam") != first == (run / "set_aside/1/seed0/cam/weights.safetensors").read_bytes()


def test_training_says_how_many_suspects_it_leaves_out(
    photos: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    loud = [
        *(a for a in photos if a != "--quiet"),
        "--methods",
        "[]",
        "--tags.suspects",
        "missing",
        "--tags.remove",
        ".2",
    ]
    assert main(["train", "--out", str(tmp_path / "run"), *loud]) == 0
    stored = read_tags(tmp_path / "run")
    assert len(stored["unknown, not tagged"]) > 1 and not stored["unknown, tagged"]
    text = capsys.readouterr().err
    assert f"seed 0: {len(stored['unknown, not tagged'])} pairs of photo and class look mistagged" in text
    assert str(tmp_path / "run" / "seed0" / "tags.json") in text
