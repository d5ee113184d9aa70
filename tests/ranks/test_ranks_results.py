"""The number of processes changes no result: one, two and, where it is slow, four, over gloo, on real pictures."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tag2mask.launch import run_members
from tag2mask.stages.verify import verify_run
from tests.ranks.member import QUIET, settings

MEMBER = Path(__file__).with_name("member.py")
HOSTS = ("cam", "seam", "mctformer")


COUNTS = (2, pytest.param(4, marks=pytest.mark.slow))


class Worlds(dict[int, Path]):
    """By a number of processes the folder of what they have made: ``steps`` and ``run``; made when it is asked for."""

    def __init__(self, root: Path) -> None:
        super().__init__()
        self.root = root

    def __missing__(self, count: int) -> Path:
        home = self[count] = self.root / str(count)
        shutil.copytree(self.root / "trained", home / "run")
        command = [sys.executable, str(MEMBER), str(home / "steps"), str(home / "run")]
        if count == 1:
            subprocess.run(command, check=True, timeout=300)
        else:
            assert run_members(command, count) == 0
        return home


@pytest.fixture(scope="module")
def worlds(tmp_path_factory: pytest.TempPathFactory) -> Worlds:
    root = tmp_path_factory.mktemp("worlds")
    from tag2mask.stages import pipeline

    pipeline.train(settings(), root / "trained", QUIET)
    return Worlds(root)


def metrics(folder: Path) -> dict[str, float]:
    (line,) = (folder / "metrics.jsonl").read_text().splitlines()
    return json.loads(line)


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("host", HOSTS)
def test_a_step_has_the_same_losses_and_ends_with_the_same_weights(worlds: Worlds, host: str, count: int) -> None:
    for method in ("cam", "fpr"):
        alone, together = (worlds[n] / "steps" / host / "seed0" / method for n in (1, count))
        expected, found = metrics(alone), metrics(together)
        assert found == pytest.approx(expected, rel=1e-6, abs=1e-6), method
        if method == "fpr":
            assert expected["pixel"] > 0 and expected["region"] > 0 and 0 < expected["suppressed_share"] < 1
        one, other = (load_file(folder / "weights.safetensors") for folder in (alone, together))
        for name, tensor in one.items():
            torch.testing.assert_close(other[name], tensor, atol=1e-6, rtol=1e-5, msg=f"{method} {name}")


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("host", HOSTS)
def test_prototypes_do_not_depend_on_who_has_seen_which_photo(worlds: Worlds, host: str, count: int) -> None:
    one, other = (load_file(worlds[n] / "steps" / host / "seed0/fpr/prototypes.safetensors") for n in (1, count))
    assert one["negative_valid"].any() and one["positive_valid"].any()
    for name in ("negative_source", "trimmed_source", "negative_valid", "trimmed_valid", "positive_valid"):
        assert torch.equal(one[name], other[name]), name
    for name in ("negative", "trimmed"):
        torch.testing.assert_close(other[name], one[name], atol=1e-6, rtol=1e-6, msg=name)
    # A photo halfway between two centroids may fall to either by the last bit; the mean of all positives stays.
    means = [torch.einsum("ck,ckd->cd", found["positive_weight"], found["positive"]) for found in (one, other)]
    torch.testing.assert_close(means[1], means[0], atol=1e-6, rtol=1e-6, msg="mean of the positives")
    for c in range(len(one["positive"])):
        own, theirs = (found["positive"][c, found["positive_valid"][c]] for found in (one, other))
        apart = torch.cdist(own, theirs).amin(dim=1)
        assert (apart < 1e-5).float().mean() >= 0.5, "centroids without such a photo stay as well"


@pytest.mark.parametrize("count", COUNTS)
def test_batch_norm_is_over_all_shares(worlds: Worlds, count: int) -> None:
    one, other = (load_file(worlds[n] / "steps" / "batch_norm.safetensors") for n in (1, count))
    assert set(one) == set(other) and "running.0.running_var" in one
    for name, tensor in one.items():
        torch.testing.assert_close(other[name], tensor, atol=1e-6, rtol=1e-5, msg=name)


def hashes(run: Path, pattern: str) -> dict[str, str]:
    return {str(p.relative_to(run)): hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(run.glob(pattern)) if p.is_file() and not p.name.startswith("manifest")}


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("pattern", ["seed0/fpr/maps/**/*", "seed0/fpr/masks/**/*", "seed0/fpr/crf/**/*", "seed0/fpr/advcam/maps/**/*", "seed0/tags.json", "seed0/suspects.json", "gallery.json", "details.json", "details.val.json"])
def test_maps_and_masks_are_the_same_files(worlds: Worlds, count: int, pattern: str) -> None:
    expected = hashes(worlds[1] / "run", pattern)
    assert expected and hashes(worlds[count] / "run", pattern) == expected


@pytest.mark.parametrize("count", COUNTS)
def test_figures_are_the_same(worlds: Worlds, count: int) -> None:
    one, other = (json.loads((worlds[n] / "run" / "summary.json").read_text()) for n in (1, count))
    assert {**one, "seconds": 0} == {**other, "seconds": 0}


@pytest.mark.parametrize("count", COUNTS)
def test_refiner_and_segmenter_learn_the_same(worlds: Worlds, count: int) -> None:
    for folder in ("irn", "segmenter/crf"):
        alone, together = (worlds[n] / "run/seed0/fpr" / folder for n in (1, count))
        lines = [[json.loads(line)["total"] for line in (home / "metrics.jsonl").read_text().splitlines()] for home in (alone, together)]
        assert lines[1] == pytest.approx(lines[0], rel=1e-5), folder
        one, other = (load_file(home / "weights.safetensors") for home in (alone, together))
        for name, tensor in one.items():
            torch.testing.assert_close(other[name], tensor, atol=2e-5, rtol=1e-4, msg=f"{folder} {name}")
    names = [sorted(p.name for p in (worlds[n] / "run/seed0/fpr/irn/masks/train").glob("*.png")) for n in (1, count)]
    assert len(names[0]) == 23 and names[0] == names[1]


@pytest.mark.parametrize("count", COUNTS)
def test_manifests_of_all_writers_describe_the_run(worlds: Worlds, count: int) -> None:
    faults, sound = verify_run(worlds[count] / "run", lambda done, total, note="": None)
    assert not faults and sound > 100
    assert len(list((worlds[count] / "run/seed0/fpr/maps/train").glob("manifest*.jsonl"))) == count
