"""`tag2mask predict`: new photos, without any tag."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tag2mask.cli import main
from tag2mask.commands.masks import first
from tag2mask.data.images import decode_image
from tag2mask.stages.predict import Segmenter
from tests.conftest import draw_photo
from tests.stages.photos import NAMES, SEGMENT, copied, png, times, train


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, tiny: list[str]) -> Path:
    """A run with a segmenter that has seen crops and says all classes. Tests must not change it."""
    run = train(tmp_path_factory.mktemp("predict"), tiny)
    options = ["--segment.view", "crop", "--segment.optimiser.epochs", "12", "--segment.freeze", "none"]
    fast = ["--segment.optimiser.learning_rate", "0.01", "--segment.optimiser.backbone_rate", "0.01"]
    tiles = ["--segment.tile", "64", "--segment.overlap", "32"]
    assert main(["segment", str(run), "--from", "seed", *SEGMENT, *options, *fast, *tiles, "--quiet"]) == 0
    return run


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Six good pictures, of which two have one stem, a damaged one, and a text file that calls itself a picture."""
    folder = tmp_path / "new"
    for number, name in enumerate(("a.png", "a.jpg", "deep/b.png", "deep/er/c.PNG", "d.bmp", "ä ö.webp")):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        draw_photo((61 + number, 47), [number % 3], number)[0].save(folder / name)
    good = (folder / "a.png").read_bytes()
    (folder / "cut.png").write_bytes(good[: len(good) // 2])
    (folder / "text.jpg").write_text("not a picture")
    (folder / "notes.txt").write_text("is not even looked at")
    return folder


GOOD = {"a.png": "a.png", "a.jpg": "a.jpg", "deep/b.png": "deep/b", "deep/er/c.PNG": "deep/er/c", "d.bmp": "d", "ä ö.webp": "ä ö"}
"""File and name of its outputs."""


def predict(run: Path, source: Path, out: Path, *options: str) -> int:
    return main(["predict", str(run), str(source), "--out", str(out), "--quiet", *options])


def files(folder: Path) -> set[str]:
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}


def error(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    capsys.readouterr()
    assert main(["predict", *map(str, arguments), "--quiet"]) == 2
    text = capsys.readouterr().err
    assert text.startswith("error: ") and text.count("\n") == 1
    return text


def test_a_folder_with_damaged_files(run: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    capsys.readouterr()
    assert predict(run, photos, out) == 1
    shown = capsys.readouterr()
    for name in ("cut.png", "text.jpg"):
        assert shown.err.count(name) == 1
    assert "6 pictures: " in shown.out and "in the masks: 0 background, 1 kite, 2 leaf, 3 pond (" in shown.out
    listed = f"2 could not be read and are listed in {out}/areas.json: {photos / 'cut.png'}, {photos / 'text.jpg'}\n"
    assert shown.out.endswith(listed)
    assert files(out) == {"areas.json", *(f"masks/{n}.png" for n in GOOD.values()), *(f"overlays/{n}.jpg" for n in GOOD.values())}
    content = json.loads((out / "areas.json").read_text())
    assert content["classes"] == list(NAMES) and content["initial_weights"] == "random"
    assert [(entry["value"], entry["name"]) for entry in content["legend"]] == list(enumerate(("background", *NAMES)))
    with Image.open(out / "masks/d.png") as mask:
        colours = np.reshape(mask.getpalette(), (-1, 3))[: len(content["legend"])].tolist()
    assert [list(bytes.fromhex(entry["colour"].removeprefix("#"))) for entry in content["legend"]] == colours
    assert {entry["file"] for entry in content["failed"]} == {str(photos / "cut.png"), str(photos / "text.jpg")}
    assert all(entry["why"] for entry in content["failed"])
    assert set(content["images"]) == {str(photos / name) for name in GOOD}


def test_areas_add_up_to_the_masks(run: Path, photos: Path, tmp_path: Path) -> None:
    predict(run, photos, tmp_path / "out")
    content = json.loads((tmp_path / "out" / "areas.json").read_text())["images"]
    seen = set()
    for file, name in GOOD.items():
        entry = content[str(photos / file)]
        mask = png(tmp_path / "out" / entry["mask"])
        assert entry["mask"] == f"masks/{name}.png"
        assert (entry["height"], entry["width"]) == mask.shape == decode_image(photos / file).size[::-1]
        pixels = {NAMES[value - 1]: int((mask == value).sum()) for value in np.unique(mask) if value}
        assert {name: area["pixels"] for name, area in entry["areas"].items()} == pixels
        assert list(pixels) == [] or max(pixels, key=pixels.__getitem__) == next(iter(entry["areas"]))
        for area in entry["areas"].values():
            assert area["share"] == pytest.approx(area["pixels"] / mask.size, abs=1e-6)
        seen |= set(pixels)
    assert seen, "the segmenter finds something"


def test_overlays_show_the_photo_where_there_is_background(run: Path, photos: Path, tmp_path: Path) -> None:
    predict(run, photos, tmp_path / "out")
    shown = {True: [], False: []}
    for file, name in GOOD.items():
        photo = np.asarray(decode_image(photos / file)).astype(int)
        mask, overlay = png(tmp_path / "out/masks" / f"{name}.png"), Image.open(tmp_path / "out/overlays" / f"{name}.jpg")
        assert overlay.size == mask.shape[::-1]
        change = np.abs(np.asarray(overlay).astype(int) - photo).mean(axis=2)
        for inside in (True, False):
            shown[inside] += change[(mask > 0) == inside].tolist()
    assert np.mean(shown[True]) > 2 * np.mean(shown[False])


def test_a_single_picture_and_python_say_the_same(run: Path, photos: Path, tmp_path: Path) -> None:
    assert predict(run, photos / "deep" / "b.png", tmp_path / "out") == 0
    mask = png(tmp_path / "out" / "masks" / "b.png")
    assert files(tmp_path / "out") == {"areas.json", "masks/b.png", "overlays/b.jpg"}
    segmenter = Segmenter.load(run, device="cpu")
    photo = decode_image(photos / "deep" / "b.png")
    for given in (photo, np.asarray(photo), photo.convert("RGBA")):
        found = segmenter.predict(given)
        assert found.dtype == np.uint8 and np.array_equal(found, mask)
    assert segmenter.classes == NAMES and segmenter.initial_weights == "random"


def test_predicting_twice_gives_the_same_files(run: Path, photos: Path, tmp_path: Path) -> None:
    for out in ("first", "second"):
        assert predict(run, photos, tmp_path / out) == 1
    for name in files(tmp_path / "first"):
        assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes()


def test_results_do_not_lie_among_photos(
    run: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """They would be segmented next time, and `masks` in a data set counts as truth."""
    monkeypatch.chdir(photos)
    before = files(tmp_path)
    cases = ((photos, photos, "is"), (".", "predictions", "lies in"), (photos, tmp_path, "holds"), ("d.bmp", photos, "is"),
             ("deep/b.png", photos, "holds"))  # fmt: skip
    for source, out, how in cases:
        text = error(capsys, run, source, "--out", out)
        assert f"--out {out} {how} the folder of the photos" in text and "choose another --out" in text
    assert files(tmp_path) == before
    assert predict(run, Path("d.bmp"), Path("predictions")) == 0, "one picture alone feeds on nothing"


def test_results_of_other_photos_are_not_mixed_with_these(
    run: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, data = tmp_path / "out", tmp_path / "data"
    shutil.copytree(photos, data)
    assert predict(run, photos / "deep", out) == 0
    before = times(out)
    text = error(capsys, run, data / "deep", "--out", out)
    assert f"--out {out} holds the mask of {photos / 'deep'}/" in text and "would replace; choose another." in text
    for folder in (data, tmp_path / "files"):
        folder.mkdir(exist_ok=True)
        (folder / "labels.csv").write_text("image,labels\n")
        assert f"--out {folder} holds other files, such as {folder}/" in error(capsys, run, photos / "d.bmp", "--out", folder)
    assert times(out) == before and not (data / "masks").exists()
    shutil.rmtree(photos / "deep")
    assert predict(run, data / "deep", out) == 0, "what is gone from where it was may be the same"


def test_photos_join_those_that_are_there(run: Path, photos: Path, tmp_path: Path) -> None:
    """One after the other, as with the default --out; what desktops leave there is no photo's."""
    out = tmp_path / "out"
    out.mkdir()
    (out / "Thumbs.db").touch()
    assert predict(run, photos / "d.bmp", out) == 0 and predict(run, photos / "deep", out) == 0
    listed = json.loads((out / "areas.json").read_text())["images"]
    assert set(listed) >= {str(photos / "d.bmp"), str(photos / "deep" / "b.png")}
    assert {entry["mask"] for entry in listed.values()} == {name for name in files(out) if name.startswith("masks/")}
    (out / "areas.json").write_text("[]")
    assert predict(run, photos / "d.bmp", out) == 0
    assert set(json.loads((out / "areas.json").read_text())["images"]) == {str(photos / "d.bmp")}


def test_masks_of_other_classes_are_not_joined(
    run: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert predict(run, photos / "d.bmp", out) == 0
    content = json.loads((out / "areas.json").read_text())
    (out / "areas.json").write_text(json.dumps({**content, "classes": ["cat"]}))
    assert "holds masks of other classes (cat); choose another --out." in error(capsys, run, photos / "deep", "--out", out)


def test_a_prediction_of_photos_that_are_given_again_is_made_anew(run: Path, photos: Path, tmp_path: Path) -> None:
    """Also where photos came to them, one can no longer be read, or the last one was cut off."""
    out = tmp_path / "out"
    assert predict(run, photos / "deep", out) == 0
    (photos / "deep" / "b.png").write_text("damaged since")
    shutil.copy(photos / "d.bmp", photos / "deep" / "d.bmp")
    assert predict(run, photos / "deep", out) == 1
    assert files(out) == {"areas.json", "masks/d.png", "overlays/d.jpg", "masks/er/c.png", "overlays/er/c.jpg"}
    assert len(json.loads((out / "areas.json").read_text())["images"]) == 2
    (out / "areas.json").unlink()
    (out / "masks" / "d.png").unlink()
    assert predict(run, photos / "deep", out) == 1 and (out / "masks/d.png").is_file()


def test_what_is_printed_of_many_and_of_one(
    run: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    folder = tmp_path / "five"
    folder.mkdir()
    for number in range(5):
        (folder / f"x{number}.jpg").write_text("not a picture")
    shutil.copy(photos / "d.bmp", folder)
    assert predict(run, folder, tmp_path / "out") == 1
    shown = capsys.readouterr().out
    assert "1 picture: " in shown and shown.endswith(f"areas.json: {folder}/x0.jpg, {folder}/x1.jpg, {folder}/x2.jpg and 2 more\n")
    for number in range(1, 5):
        (folder / f"x{number}.jpg").unlink()
    assert predict(run, folder, tmp_path / "out") == 1
    assert "1 could not be read and is listed in" in capsys.readouterr().out
    assert first([str(number) for number in range(25)], 20).endswith("18, 19 and 5 more")


def test_a_large_photo_is_cut_into_tiles(run: Path, tmp_path: Path) -> None:
    """Each tile is at most 64 wide; the photo is 333x250."""
    draw_photo((333, 250), [0, 1, 2], 4)[0].save(tmp_path / "large.png")
    assert predict(run, tmp_path / "large.png", tmp_path / "out") == 0
    mask = png(tmp_path / "out" / "masks" / "large.png")
    assert mask.shape == (250, 333)
    whole = Segmenter.load(run, device="cpu")
    object.__setattr__(whole.network.config, "tile", 1024)
    assert (whole.predict(Image.open(tmp_path / "large.png")) == mask).mean() > 0.8


def test_a_photo_on_its_side_gets_an_upright_mask(run: Path, tmp_path: Path) -> None:
    photo = draw_photo((70, 40), [1], 2)[0]
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by a quarter
    photo.save(tmp_path / "side.png", exif=exif)
    assert predict(run, tmp_path / "side.png", tmp_path / "out") == 0
    assert png(tmp_path / "out" / "masks" / "side.png").shape == (70, 40)


def test_mistakes_are_told_before_any_work(run: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").mkdir()
    out = ["--out", tmp_path / "out"]
    assert "there is no file or folder" in error(capsys, run, tmp_path / "gone.jpg", *out)
    assert "there is no picture in" in error(capsys, run, tmp_path / "empty", *out)
    assert "there is no settings.yaml in" in error(capsys, tmp_path / "none", photos, *out)
    cases = {
        ("--from", "irn"): f"from the masks of irn; run `tag2mask segment {run} --from irn --methods fpr`, or choose",
        ("--from", "irnn"): "there is no refinement 'irnn'",
        ("--method", "cam"): f"has no segmenter of cam, seed 0; run `tag2mask segment {run} --methods cam`, or choose",
        ("--method", "paper"): "method 'paper' is not in this run; it has cam, fpr.",
        ("--seed", "7"): "has no seed 7; choose one that is there: 0.",
        ("--device", "gpu9"): "device 'gpu9' is not to be had here",
    }
    for options, message in cases.items():
        assert message in error(capsys, run, photos, *out, *options), options
    assert not (tmp_path / "out").exists()


def test_a_damaged_segmenter_is_told(run: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    copy = copied(run, tmp_path / "run")
    home = copy / "seed0/fpr/segmenter/seed"
    good = (home / "weights.safetensors").read_bytes()
    (home / "weights.safetensors").write_bytes(good[:-100])
    before = times(copy)
    assert str(home / "weights.safetensors") in error(capsys, copy, photos, "--out", tmp_path / "out")
    (home / "weights.safetensors").write_bytes(good)
    (home / "segmenter.json").write_text("{}")
    error(capsys, copy, photos, "--out", tmp_path / "out")
    shutil.rmtree(home)
    assert "has no segmenter" in error(capsys, copy, photos, "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists() and before.keys() > times(copy).keys()
