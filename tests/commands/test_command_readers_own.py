"""Photos of one's own in every layout but CSV and VOC: checked, trained on and scored by the command line."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import datasets
import pyarrow
import pyarrow.parquet
import pytest
from PIL import Image

from tag2mask.cli import main
from tag2mask.config import DataConfig
from tag2mask.data.check import inspect
from tests.data.layouts import COLOURS, own_photos, save_mask
from tests.data.test_shards import samples, write_tar

NAMES = sorted(COLOURS)


def write_classes(root: Path) -> None:
    for number, (name, tags, photo, mask) in enumerate(own_photos()):
        split = "val" if number >= 8 else "train"
        for tag in tags or ("background",):
            (root / split / tag).mkdir(parents=True, exist_ok=True)
            photo.save(root / split / tag / f"{name}.png")
        save_mask(root / "masks" / min(tags, default="background") / f"{name}.png", mask)


def write_parquet(root: Path) -> None:
    root.mkdir()
    rows = own_photos()
    for name, _, photo, mask in rows:
        photo.save(root / f"{name}.png")
        save_mask(root / "masks" / f"{name}.png", mask)
    columns = {
        "image": [f"{name}.png" for name, *_ in rows], "split": ["train"] * 8 + ["val"] * 4,
        "labels": pyarrow.array([list(tags) for _, tags, _, _ in rows], pyarrow.list_(pyarrow.string())),
    }  # fmt: skip
    pyarrow.parquet.write_table(pyarrow.table(columns), root / "labels.parquet")


def write_huggingface(root: Path) -> None:
    def encoded(picture: Image.Image) -> dict[str, object]:
        buffer = io.BytesIO()
        picture.save(buffer, format="PNG")
        return {"bytes": buffer.getvalue(), "path": None}

    rows = own_photos()
    columns = {
        "image": [encoded(photo) for _, _, photo, _ in rows], "id": [name for name, *_ in rows],
        "labels": [list(tags) for _, tags, _, _ in rows], "mask": [encoded(Image.fromarray(mask)) for *_, mask in rows],
    }  # fmt: skip
    kinds = {"image": datasets.Image(), "id": datasets.Value("string"), "mask": datasets.Image()}
    features = datasets.Features(kinds | {"labels": datasets.List(datasets.Value("string"))})
    whole = datasets.Dataset.from_dict(columns, features)
    datasets.disable_progress_bars()
    datasets.DatasetDict(train=whole.select(range(8)), val=whole.select(range(8, 12))).save_to_disk(str(root))


def write_shards(root: Path) -> None:
    write_tar(root / "train-0.tar", samples(0, 8))
    write_tar(root / "val-0.tar", samples(8, 12))


def write_json(root: Path) -> None:
    """A folder of photos and a file of annotations for each split."""
    (root / "photos").mkdir(parents=True)
    for split, part in (("train", own_photos()[:8]), ("val", own_photos()[8:])):
        images, annotations = [], []
        for number, (name, tags, photo, mask) in enumerate(part):
            photo.save(root / "photos" / f"{name}.png")
            images.append({"id": number, "file_name": f"photos/{name}.png", "height": photo.height, "width": photo.width})
            for tag in tags:
                flat = (mask == NAMES.index(tag) + 1).T.flatten()
                counts, last = [], False
                for pixel in flat.tolist():
                    if not counts or pixel != last:
                        counts += [0, 1] if not counts and pixel else [1]
                        last = pixel
                    else:
                        counts[-1] += 1
                size = [photo.height, photo.width]
                annotations.append({"image_id": number, "category_id": NAMES.index(tag), "segmentation": {"counts": counts, "size": size}})
        content = {"images": images, "annotations": annotations, "categories": [{"id": c, "name": n} for c, n in enumerate(NAMES)]}
        (root / f"{split}.json").write_text(json.dumps(content))


LAYOUTS: dict[str, tuple[Callable[[Path], None], list[str]]] = {
    "classes": (write_classes, []),
    "folder": (write_parquet, []),
    "huggingface": (write_huggingface, []),
    "shards": (write_shards, []),
    "coco": (write_json, ["--data.labels", "{split}.json"]),
}


@pytest.mark.parametrize("kind", LAYOUTS)
def test_every_layout_is_checked_trained_on_and_scored(
    tmp_path: Path, tiny: list[str], kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    root, run = tmp_path / "data", tmp_path / "run"
    write, options = LAYOUTS[kind]
    write(root)
    if kind in ("classes", "folder", "huggingface", "shards"):
        (root / "classes.txt").write_text("".join(f"{name}\n" for name in NAMES))
    data = ["--data.kind", kind, "--data.root", str(root), *options]
    capsys.readouterr()
    assert main(["check", *data, *tiny]) == 0
    shown = capsys.readouterr().out
    assert "8 images, 3 classes, 9 tags, 1.125 an image" in shown and "0 errors, 0 warnings" in shown
    quick = ["--classify.epochs", "1", "--rectify.epochs", "1", "--methods", "fpr"]
    assert main(["train", "--out", str(run), *data, *tiny, *quick]) == 0
    assert main(["evaluate", str(run), "--split", "val", "--quiet"]) == 0
    assert '"gtfree"' in (run / "summary.val.json").read_text()
    assert main(["localize", str(run), "--methods", "fpr", "--quiet"]) == 0
    assert len(list((run / "seed0" / "fpr" / "masks" / "train").rglob("*.png"))) == 8


@pytest.mark.parametrize("kind", ["classes", "huggingface", "shards", "folder"])
def test_check_guesses_the_layout(tmp_path: Path, tiny: list[str], kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    LAYOUTS[kind][0](tmp_path / "data")
    (tmp_path / "data" / "classes.txt").write_text("".join(f"{name}\n" for name in NAMES))
    capsys.readouterr()
    assert main(["check", str(tmp_path / "data"), *tiny]) == 0
    count = 12 if kind in ("shards", "folder") else 8
    assert f"{count} images, 3 classes" in capsys.readouterr().out


def test_other_kinds_of_tags_are_not_written_anew(tmp_path: Path, tiny: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    write_shards(tmp_path / "data")
    run, data = tmp_path / "run", ["--data.kind", "shards", "--data.root", str(tmp_path / "data"), "--data.masks", "none"]
    quick = ["--classify.epochs", "1", "--rectify.epochs", "1", "--methods", "fpr"]
    assert main(["train", "--out", str(run), *data, *tiny, *quick]) == 0
    (tmp_path / "decisions.csv").write_text("image,class,kind,decision\np00,train,missing,accept\n")
    capsys.readouterr()
    assert main(["audit", str(run), "--apply", str(tmp_path / "decisions.csv"), "--labels-out", str(tmp_path / "new.csv")]) == 2
    assert "data.kind is 'shards', whose tags are in no table" in capsys.readouterr().err


def test_the_same_photos_in_two_layouts_have_the_same_checksums(tmp_path: Path) -> None:
    found = []
    for kind, write in (("folder", write_parquet), ("huggingface", write_huggingface)):
        write(tmp_path / kind)
        (tmp_path / kind / "classes.txt").write_text("".join(f"{name}\n" for name in NAMES))
        found.append(inspect(DataConfig(kind=kind, root=str(tmp_path / kind))))  # type: ignore[arg-type]
    assert found[0].labels_sha256 == found[1].labels_sha256 != ""
    assert found[0].masks_sha256 == found[1].masks_sha256 != ""
