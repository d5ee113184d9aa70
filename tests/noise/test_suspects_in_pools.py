"""``fpr.suspects``: what looks as if its tag were missing lends no negative, and is learnt as it is tagged."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from tag2mask.checkpoints import load_prototypes
from tag2mask.cli import main
from tag2mask.engine import set_up_torch
from tag2mask.noise import out_of_fold_probabilities, suspicion
from tag2mask.progress import Reporter
from tag2mask.runs import method_folder
from tag2mask.stages.network import set_up_seed
from tag2mask.stages.sweep import combinations
from tag2mask.stages.tags import pooled_features, tag_probabilities
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


@pytest.fixture
def copy(runs: dict[str, Path], tmp_path: Path) -> Path:
    """A copy of the run with the default, to tamper with."""
    return Path(shutil.copytree(runs["drop"], tmp_path / "copy"))


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


def test_tags_that_were_changed_by_hand_are_looked_at_again(copy: Path) -> None:
    again = ["train", "--out", str(copy), "--config", str(copy / "settings.yaml"), "--resume", "--quiet"]
    path, tags = copy / "seed0" / "suspects.json", copy / "seed0" / "tags.json"
    before = path.stat().st_mtime_ns
    assert main(again) == 0 and path.stat().st_mtime_ns == before
    tags.write_text(json.dumps({**json.loads(tags.read_text()), "removed": []}))
    assert main(again) == 0
    assert path.stat().st_mtime_ns > before and not (suspects(copy) & data_of(copy).labels).any()
    assert (copy / "set_aside" / "1" / "seed0" / "fpr").is_dir(), "trained anew"


def test_suspects_of_other_tags_are_an_error_that_says_what_to_do(
    copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = copy / "seed0" / "suspects.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "of": {"tags": "others"}}))
    assert main(["evaluate", str(copy), "--suppressed", "--quiet"]) == 2
    error = capsys.readouterr().err
    assert f"{path} was made of other tags than the run trains with; train again with --resume." in error


def test_suspects_that_are_lost_are_missed_and_those_that_are_damaged_found_again(
    copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = copy / "seed0" / "suspects.json"
    content = path.read_bytes()
    path.unlink()
    assert main(["evaluate", str(copy), "--suppressed", "--quiet"]) == 0
    warning = f"there is no {path}: negatives are collected as if no tag were suspected to be missing."
    assert warning in capsys.readouterr().err
    path.write_bytes(content[:50])
    assert main(["train", "--out", str(copy), "--config", str(copy / "settings.yaml"), "--resume"]) == 0
    assert f"{path} is damaged: photos that may lack a tag are looked for again." in capsys.readouterr().err
    assert path.read_bytes() == content and not (copy / "set_aside").exists()


def test_methods_without_prototypes_do_not_ask_for_suspects(photos: list[str], tmp_path: Path) -> None:
    """A tag is corrected, and only a control is trained on: suspects of the tags as they were are no hindrance."""
    run, root = tmp_path / "copy", tmp_path / "photos"
    shutil.copytree(photos[photos.index("--data.root") + 1], root)
    own = [*photos, "--data.root", str(root), "--out", str(run)]
    assert main(["train", *own, "--methods", "continued,fpr"]) == 0
    table = root / "labels.csv"
    lines = table.read_text().split("\n")
    row = next(number for number, line in enumerate(lines) if ";" in line)
    lines[row] = lines[row].rpartition(";")[0]
    table.write_text("\n".join(lines))
    assert main(["train", *own, "--methods", "continued", "--resume"]) == 0
    assert (run / "seed0" / "continued" / "weights.safetensors").is_file()


def test_a_run_that_is_older_than_the_setting(
    photos: list[str], runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its settings do not say how its negatives were chosen; where they are made to, it is gone on with as it was."""
    run = tmp_path / "copy"
    shutil.copytree(runs["keep"], run)
    path = run / "settings.yaml"
    settings = path.read_text()
    path.write_text(settings.replace("  suspects: keep\n  support", "  support"))
    again = ["train", "--out", str(run), *photos, "--tags.remove", "0.2", "--methods", ",".join(METHODS), "--resume"]
    assert main([*again, "--fpr.suspects", "keep"]) == 2
    error = capsys.readouterr().err
    assert f"error: {path} is older than fpr.suspects, so the default holds; write another there." in error
    path.write_text(settings)
    assert main([*again, "--fpr.suspects", "keep"]) == 0
    assert weights(run) == weights(runs["keep"]) and not (run / "set_aside").exists()


def test_what_is_measured_of_the_first_step_leaves_them_out_as_well(runs: dict[str, Path], tmp_path: Path) -> None:
    """The pixels that ``--suppressed`` counts are chosen by the prototypes of the training's first collection."""
    found = []
    for name in ("drop", "keep"):
        run = tmp_path / name
        shutil.copytree(runs[name], run)
        assert main(["evaluate", str(run), "--suppressed", "--quiet"]) == 0
        assert main(["report", str(run), "--quiet"]) == 0
        with np.load(run / "seed0" / "fpr" / "evidence.npz") as evidence:
            lent = [(image, c) for c, image in evidence["source"].tolist()]
        assert lent and any(suspects(runs["drop"])[pair] for pair in lent) == (name == "keep")
        found.append(json.loads((run / "suppressed.json").read_text())["seeds"]["0"])
    assert found[0]["prototypes"] != found[1]["prototypes"] and found[0]["activation"] == found[1]["activation"]


def test_a_sweep_looks_for_them_where_a_cell_drops_them(runs: dict[str, Path], tmp_path: Path) -> None:
    """Both cells give what trainings of their own give, whichever the run that is swept has, and what it has is kept."""
    for base in ("keep", "drop"):
        out = tmp_path / base
        sweep = ["sweep", str(runs[base]), "--out", str(out), "--methods", "fpr", "--jobs", "1", "--quiet"]
        assert main([*sweep, "--vary", "fpr.suspects=keep,drop"]) == 0
        for name in ("drop", "keep"):
            assert weights(out / f"suspects={name}") == weights(runs[name])
    for base in ("keep", "drop"):
        seed = tmp_path / base / "suspects=drop" / "seed0"
        assert (seed / "suspects.json").read_bytes() == (runs["drop"] / "seed0" / "suspects.json").read_bytes()
        written = (seed / "manifest.jsonl").is_file()
        assert written == (base == "keep"), "what the swept run has is copied, and not looked for again"


def test_cells_of_both_settings_of_suspects_are_told_apart(runs: dict[str, Path], tmp_path: Path) -> None:
    config = settings_of(runs["drop"])
    cells = combinations(config, ["tags.suspects=keep,missing", "fpr.suspects=keep,drop", "fpr.refill=1,2"])
    assert cells[1][0] == "tags.suspects=keep,fpr.suspects=keep,refill=2" and len(cells) == 8


def test_other_photos_under_the_same_tags_are_looked_at_again(
    photos: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "photos"
    shutil.copytree(photos[photos.index("--data.root") + 1], root)
    own = [*photos, "--data.root", str(root), "--tags.remove", "0.2", "--methods", "fpr", "--out", str(tmp_path / "run")]
    assert main(["train", *own]) == 0
    before = suspects(tmp_path / "run")
    pictures = sorted((root / "images").iterdir())
    kept = [path.read_bytes() for path in pictures]
    for path, content in zip(pictures, kept[30:] + kept[:30], strict=True):
        path.write_bytes(content)
    assert main(["train", *own, "--resume"]) == 0
    assert (suspects(tmp_path / "run") != before).any()


def test_where_suspects_are_not_learnt_from_nothing_is_looked_for_twice(photos: list[str], tmp_path: Path) -> None:
    options = ["--tags.remove", "0.2", "--tags.suspects", "missing", "--methods", "fpr"]
    assert main(["train", "--out", str(tmp_path / "run"), *photos, *options]) == 0
    assert not (tmp_path / "run" / "seed0" / "suspects.json").exists()
    unknown = pairs(tmp_path / "run", ("unknown, not tagged",))
    assert unknown.sum() > 1 and not (lenders(tmp_path / "run", "fpr") & unknown).any()


def test_a_blocked_pair_is_judged_by_its_tag(photos: list[str], tmp_path: Path, runs: dict[str, Path]) -> None:
    """Blocking tagged photos does not teach the classifiers that the class is absent there."""
    images = data_of(runs["keep"])
    rows = np.argwhere(images.labels & ~pairs(runs["keep"], ("removed",)))[::3]
    blocked = tmp_path / "blocked.csv"
    lines = [f"{images.ids[image]},{images.classes.names[c]}" for image, c in rows]
    blocked.write_text("\n".join(["image,class", *lines]))
    options = ["--tags.remove", "0.2", "--tags.blocked", str(blocked), "--methods", "fpr"]
    assert main(["train", "--out", str(tmp_path / "run"), *photos, *options]) == 0
    assert (suspects(tmp_path / "run") == suspects(runs["drop"])).all()


def test_training_says_how_many_there_are(
    photos: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    loud = [option for option in photos if option != "--quiet"]
    run = tmp_path / "run"
    assert main(["train", "--out", str(run), *loud, "--methods", "fpr", "--tags.remove", "0.2"]) == 0
    count = int(suspects(run).sum())
    text = f"seed 0: {count} pairs of photo and class look as if their tags were missing: they lend no negatives"
    assert count > 1 and text in capsys.readouterr().err


@pytest.mark.parametrize("views", ["square", "crop"])
def test_of_many_photos_a_sample_is_learnt_from_and_all_are_judged(
    views: Literal["square", "crop"], runs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 60 photos 40: what is thought of them and of the others agrees with the tags, and progress goes on to all."""
    config = settings_of(runs["drop"])
    config = replace(config, views=replace(config.views, kind=views))
    setup = set_up_seed(config, tmp_path, 0, set_up_torch(1, "cpu"), Reporter(quiet=True))
    tags = setup.images.labels
    whole = tag_probabilities(setup, tags, lambda done, total, note="": None)
    monkeypatch.setattr("tag2mask.stages.tags.LEARNT_FROM", 40)
    seen: list[tuple[int, int]] = []
    found = tag_probabilities(setup, tags, lambda done, total, note="": seen.append((done, total)))
    assert [done for done, _ in seen] == sorted({done for done, _ in seen}) and seen[-1] == (60, 60)
    sample = np.sort(np.random.default_rng(0).permutation(60)[:40])
    features = pooled_features(setup, lambda done, total, note="": None)
    alone = out_of_fold_probabilities(features[sample], tags[sample], seed=0)
    np.testing.assert_allclose(found[sample], alone, atol=1e-6)
    others = np.setdiff1d(np.arange(60), sample)
    for c in range(tags.shape[1]):
        assert roc_auc_score(tags[others, c], found[others, c]) > 0.8
        assert np.corrcoef(found[others, c], whole[others, c])[0, 1] > 0.7


def test_a_class_with_a_single_tag_in_the_sample_has_no_suspect(
    runs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    setup = set_up_seed(settings_of(runs["drop"]), tmp_path, 0, set_up_torch(1, "cpu"), Reporter(quiet=True))
    monkeypatch.setattr("tag2mask.stages.tags.LEARNT_FROM", 40)
    sample = np.random.default_rng(0).permutation(60)[:40]
    for place in (sample[0], *np.setdiff1d(np.arange(60), sample)[:1]):
        tags = setup.images.labels.copy()
        tags[:, 0] = np.arange(60) == place
        found = suspicion(tag_probabilities(setup, tags, lambda done, total, note="": None), tags)
        assert not found.learnt[0] and not found.flagged[:, 0].any() and found.learnt[1:].any()
