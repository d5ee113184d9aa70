"""What a run stands on has changed: just what depends on it is made anew, and each is said."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image, ImageOps

from tag2mask.cli import main
from tag2mask.config import FPRConfig, TagsConfig
from tag2mask.presets import METHODS, method_config
from tag2mask.stages.origin import what_changed
from tag2mask.stages.pipeline import read_settings
from tag2mask.stages.train import facts_of_negatives, of_earlier_tests
from tests.stages.photos import REFINE, changed, copied, times

TRAIN = ["train", "--out", "RUN", "--config", "RUN/settings.yaml", "--resume"]
LOCALIZE = ["localize", "RUN", "--methods", "fpr"]
IRN = ["refine", "RUN", "--with", "irn", *REFINE]
SEGMENT = ["segment", "RUN", "--from", "irn"]


@pytest.fixture
def own(finished: Path, tmp_path: Path) -> Path:
    """A run with photos of its own, which a test may replace."""
    shutil.copytree(finished.parent / "photos", tmp_path / "photos")
    run = copied(finished, tmp_path / "run")
    text = (run / "settings.yaml").read_text()
    (run / "settings.yaml").write_text(text.replace(str(finished.parent / "photos"), str(tmp_path / "photos")))
    return run


def said(run: Path, capsys: pytest.CaptureFixture[str], command: list[str]) -> list[str]:
    """The lines about what is made anew, without the folder of the run; what was in `cache` is one name."""
    capsys.readouterr()
    assert main([part.replace("RUN", str(run)) for part in command]) == 0
    lines = capsys.readouterr().err.replace(f"{run}/", "").splitlines()
    return ["cache" + line[22:] if line.startswith("cache/") else line for line in lines if "anew" in line]


def weights(run: Path) -> dict[str, bytes]:
    """All of a run but for what is set aside."""
    return {str(p.relative_to(run)): p.read_bytes() for p in sorted(run.glob("seed0/**/weights.safetensors"))}


def test_a_photo_is_replaced(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Maps are made anew with the weights that there are; training begins anew once it is asked for, and so on."""
    assert not said(own, capsys, LOCALIZE)
    first, path = weights(own), own.parent / "photos/images/p1.png"
    with Image.open(path) as photo:
        mirrored = ImageOps.mirror(photo)
    mirrored.save(path)
    assert said(own, capsys, LOCALIZE) == [
        "cache: photos have changed, so frozen features are computed anew.",
        "seed0/fpr/maps/train: the photos have changed, so it is made anew.",
        "seed0/fpr: maps of train are made anew, so what was made of them is removed.",
    ]
    assert weights(own) == first and not said(own, capsys, LOCALIZE)
    assert said(own, capsys, TRAIN) == [
        "seed0/cam: the photos have changed, so it is trained anew; before: set_aside/1/seed0/cam.",
        "seed0/fpr: the photos and the weights of the CAM have changed, so it is trained anew; before: set_aside/1/seed0/fpr.",
    ]
    assert {f"set_aside/1/{name}" for name in first} == {
        str(p.relative_to(own)) for p in own.glob("set_aside/1/**/weights.safetensors")
    }
    assert weights(own)["seed0/cam/weights.safetensors"] != first["seed0/cam/weights.safetensors"]
    assert not said(own, capsys, TRAIN) and not said(own, capsys, IRN) and not said(own, capsys, SEGMENT)
    assert main(["verify", str(own), "--quiet"]) == 0


def test_several_changes_are_told_as_a_list() -> None:
    before = dict.fromkeys(("photos", "tags", "weights of the CAM", "suspected tags", "backbone"), "1")
    for count, told in (
        (1, "the photos have"),
        (2, "the photos and the tags have"),
        (4, "the photos, the tags, the weights of the CAM and the suspected tags have"),
    ):
        now = {name: "2" if place < count else "1" for place, name in enumerate(before)}
        assert what_changed({"from": before}, None, now) == f"{told} changed"


def test_another_tag(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Maps are of the tagged classes, so they follow at once; training is asked for."""
    path = own.parent / "photos/labels.csv"
    path.write_text(path.read_text().replace("p5.png,train,", "p5.png,train,leaf"))
    first = weights(own)
    assert said(own, capsys, LOCALIZE)[0] == "seed0/fpr/maps/train: the tags have changed, so it is made anew."
    assert weights(own) == first
    lines = said(own, capsys, TRAIN)
    assert [line.partition(":")[0] for line in lines] == ["seed0/tags.json", "seed0/cam", "seed0/fpr"]
    assert "the tags have changed" in lines[1] and (own / "set_aside/1/seed0/cam/weights.safetensors").is_file()


def test_other_weights_void_their_maps_and_what_follows(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As when a method was trained again by hand; IRN and segmenter have learnt from other masks then."""
    for name in ("weights.safetensors", "manifest.jsonl"):
        shutil.copy(own / "seed0/cam" / name, own / "seed0/fpr" / name)
    assert said(own, capsys, SEGMENT) == [
        "seed0/fpr/maps/train: the weights have changed, so it is made anew.",
        "seed0/fpr: maps of train are made anew, so what was made of them is removed.",
        "seed0/fpr/irn: the masks of the CRF have changed, so it is made anew.",
        "seed0/fpr/segmenter/irn: the masks have changed, so it is trained anew; before: set_aside/1/seed0/fpr/segmenter/irn.",
    ]


@pytest.mark.parametrize(
    ("option", "anew", "weights_too"),
    [
        (["--refine.irn.beta", "3"], ["irn/maps/train", "irn/masks/train"], False),
        (["--refine.optimiser.learning_rate", "0.01"], ["irn"], True),
        (["--refine.background", "0.3"], ["crf/masks/train", "irn"], True),
        (["--refine.final_crf", "false"], ["irn/masks/train"], False),
    ],
)
def test_one_setting_of_the_refinement(
    own: Path, capsys: pytest.CaptureFixture[str], option: list[str], anew: list[str], weights_too: bool
) -> None:
    first, before = weights(own), times(own)
    lines = said(own, capsys, [*IRN, *option])
    assert lines == [f"seed0/fpr/{name}: the settings have changed, so it is made anew." for name in anew[: len(lines)]]
    assert lines and {name for name, content in weights(own).items() if content != first[name]} == (
        {"seed0/fpr/irn/weights.safetensors"} if weights_too else set()
    )
    homes = {"/".join(Path(name).parts[2:4]) for name in changed(before, own) if name.startswith("seed0")}
    assert all(home.startswith(("irn", "crf") if "crf" in anew[0] else "irn") for home in homes)


def test_photos_that_only_lie_elsewhere_are_the_same(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A data set that was moved, with the times of its files, voids nothing."""
    before = {name: time for name, time in times(own).items() if name.startswith("seed0")}
    for command in (TRAIN, LOCALIZE, IRN, SEGMENT):
        assert not [line for line in said(own, capsys, command) if line.startswith("seed0")]
    assert {name: time for name, time in times(own).items() if name.startswith("seed0")} == before


def test_a_training_of_a_version_with_another_test_of_negatives(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its settings are the same, so nothing but this would keep two kinds of training apart."""
    path = own / "seed0/fpr/training.json"
    known = json.loads(path.read_text())
    del known["from"]["tests of negatives"]
    path.write_text(json.dumps(known))
    assert of_earlier_tests(own, read_settings(own))
    assert said(own, capsys, TRAIN) == [
        "seed0/fpr: the tests of negatives have changed, so it is trained anew; before: set_aside/1/seed0/fpr."
    ]
    assert not of_earlier_tests(own, read_settings(own)) and not said(own, capsys, TRAIN)


def test_only_what_tests_negatives_says_how() -> None:
    def facts(method: str, fpr: FPRConfig, tags: TagsConfig | None = None) -> dict[str, str]:
        return facts_of_negatives(tags or TagsConfig(), method, fpr)

    told = {method for method in METHODS if method != "cam" and facts(method, method_config(method, FPRConfig()))}
    assert told == {"fpr", "training_free"}
    off = FPRConfig(support="off", suspects="keep")
    assert not any(facts(method, method_config(method, off)) for method in told)
    for part in ({"support": "off"}, {"suspects": "keep"}, {}):
        said_of = {str(facts(method, FPRConfig(**part))) for method in told}
        assert len(said_of) == 1 and "tests of negatives" in said_of.pop(), "either of them is a test"
    differing = [FPRConfig(), FPRConfig(support="off"), FPRConfig(suspects="keep")]
    assert len({str(facts("fpr", fpr)) for fpr in differing}) == 3
    by_activation = method_config("training_free", FPRConfig(pixel_select="halo"))
    assert facts("training_free", by_activation), "it collects whatever the pixel term does"
    unlearnt, kept = TagsConfig(suspects="missing"), FPRConfig(suspects="keep")
    assert facts("fpr", FPRConfig(), unlearnt) == facts("fpr", kept, unlearnt), "in no pool either way"
