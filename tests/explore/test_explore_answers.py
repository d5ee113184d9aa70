"""What the explorer answers, over HTTP, against the files of the run."""

from __future__ import annotations

import base64
import io
import json
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks import explore as benchmark
from tag2mask.checkpoints import load_prototypes
from tag2mask.cli import main
from tag2mask.data import open_images
from tag2mask.data.classes import Classes
from tag2mask.data.masks import Masks
from tag2mask.engine import set_up_torch
from tag2mask.explore import embedding
from tag2mask.explore.answers import Explorer
from tag2mask.explore.embedding import thinned
from tag2mask.explore.opened import OpenedRun
from tag2mask.explore.statistics import Statistics, hundredths
from tag2mask.fpr import activated_pixels, region_features
from tag2mask.progress import Reporter
from tag2mask.stages.evidence import suppressed
from tag2mask.stages.exploration import Findings, names_under
from tag2mask.stages.network import set_up_seed
from tag2mask.stages.pipeline import read_settings
from tag2mask.stages.train import load_method
from tests.explore.conftest import HOSTILE_ID, NAMES, PHOTOS, Talk

FIRST = {"seed": 0, "method": "fpr", "moment": "first"}
Serve = Callable[[Path], Talk]


def grid(told: dict[str, object]) -> np.ndarray:
    return np.frombuffer(base64.b64decode(str(told["data"])), np.uint8).reshape(int(str(told["h"])), int(str(told["w"])))


def test_the_run_is_told(talk: Talk, run: Path) -> None:
    told = talk.ask("/api/run")
    assert told["classes"] == list(NAMES) and told["run"] == str(run) and told["blocked"] == []
    (seed,) = told["seeds"]
    assert seed["trained"] == ["cam", "continued", "training_free", "fpr"] and seed["photos"] == PHOTOS
    assert seed["methods"] == [
        {"name": "fpr", "moments": ["first", "last"], "epochs": 3},
        {"name": "training_free", "moments": ["last"], "epochs": 0},
    ]


def test_classes_are_confused_with_the_tags_of_the_photos_that_lend_negatives(talk: Talk, run: Path) -> None:
    images = open_images(read_settings(run).data)
    prototypes = load_prototypes(run / "seed0" / "fpr" / "prototypes" / "epoch001.safetensors")
    told = talk.ask("/api/classes", **FIRST)
    assert not told["counted"] and len(told["classes"]) == len(NAMES)
    for c, row in enumerate(told["classes"]):
        sources = prototypes.trimmed_source[c, prototypes.trimmed_valid[c]].tolist()
        tags = Counter(tag for i in sources for tag in images.label_names(i) or ("",))
        assert row["negatives"] == len(sources) > 0 and row["photos"] == int(images.labels[:, c].sum())
        assert {t["name"]: t["count"] for t in row["tags"]} == dict(tags)
        assert row["pixels"] is None


def test_statistics_are_what_the_rule_says(talk: Talk, run: Path, tmp_path: Path) -> None:
    """Suppressed pixels and regions again, by the functions that training uses."""
    talk.count(**FIRST)
    config = read_settings(run)
    setup = set_up_seed(config, tmp_path, 0, set_up_torch(1, "cpu"), Reporter(quiet=True))
    load_method(setup, "cam", run)
    setup.host.eval()
    prototypes = load_prototypes(run / "seed0" / "fpr" / "prototypes" / "epoch001.safetensors")
    labels = torch.tensor(setup.images.labels, dtype=torch.float32)
    with torch.no_grad():
        output = setup.host.trained_part(setup.inputs.plain(np.arange(PHOTOS)), level_features=True)
        chosen = suppressed(output, labels, prototypes, config.fpr)
    regions = activated_pixels(output.maps, config.fpr.theta) & ~(
        activated_pixels(output.maps, config.fpr.tagged_theta) & (labels > 0)[:, :, None, None]
    ).any(1, keepdim=True)
    features, _ = region_features(output.features, regions)
    seen = 0
    for c in range(len(NAMES)):
        told = talk.ask("/api/negatives", **FIRST, **{"class": c})
        assert told["counted"]
        assert sum(row["pixels"] for row in told["prototypes"]) == int(chosen[:, c].sum())
        for row in told["prototypes"]:
            image, rank = row["image"], row["rank"]
            assert not row["tagged"] and row["id"] == setup.images.ids[image]
            assert row["score"] == pytest.approx(float(output.logits[image, c].sigmoid()), abs=1e-5)
            assert (grid(row["region"]) == regions[image, c].numpy()).all()
            assert torch.allclose(features[image, c], prototypes.trimmed[c, rank], atol=1e-4), "the region it was made of"
            uses = talk.ask("/api/uses", **FIRST, **{"class": c, "rank": rank})
            assert uses["all"] == row["photos"] and sum(u["pixels"] for u in uses["images"]) == row["pixels"]
            for use in uses["images"]:
                painted = grid(use["grid"])
                assert ((painted > 0) == chosen[use["image"], c].numpy()).all()
                assert (painted == 2).sum() == use["pixels"] > 0
                distance = torch.cdist(output.features[use["image"]].flatten(1).T, prototypes.trimmed[c][prototypes.trimmed_valid[c]])
                nearest = distance.argmin(1).view(painted.shape).numpy()
                assert ((painted == 2) == ((painted > 0) & (nearest == rank))).all()
                seen += 1
    assert seen > 0
    (row, *_) = talk.ask("/api/classes", **FIRST)["classes"]
    assert row["pixels"] == int(chosen[:, 0].sum()) and row["shown"], "the data has masks"


def test_statistics_are_computed_once_and_again_when_prototypes_change(talk: Talk, run: Path, serve: Serve) -> None:
    talk.count(**FIRST)
    (file,) = (run / "explore").glob("seed0-fpr-first-*.npz")
    before = file.stat().st_mtime_ns
    again = serve(run)
    again.count(**FIRST)
    assert again.ask("/api/classes", **FIRST)["counted"] and file.stat().st_mtime_ns == before
    assert not again.ask("/api/classes", **{**FIRST, "moment": "last"})["counted"]
    file.write_bytes(b"damaged")
    third = serve(run)
    assert not third.ask("/api/classes", **FIRST)["counted"], "a damaged file is made again"
    third.count(**FIRST)
    other = run / "seed0" / "fpr" / "prototypes"
    (other / "epoch001.safetensors").write_bytes((other / "epoch003.safetensors").read_bytes())
    assert not third.ask("/api/classes", **FIRST)["counted"]


def test_what_the_pass_cannot_do_is_told(talk: Talk, run: Path) -> None:
    (run / "seed0" / "tags.json").write_text(json.dumps({"of": "others"}))
    job = talk.post("/api/counting", **FIRST).values
    while job["state"] not in ("done", "failed"):
        job = talk.ask("/api/counting", **FIRST)
    assert job["state"] == "failed" and "was made of other tags" in job["message"]


@pytest.mark.parametrize("kind", ["pca", "tsne"])
def test_all_epochs_lie_in_one_plane(talk: Talk, run: Path, kind: str) -> None:
    told = talk.ask("/api/plane", seed=0, method="fpr", kind=kind)
    while told["state"] != "done":
        assert told["state"] in ("none", "waiting", "running"), told
        told = talk.ask("/api/plane", seed=0, method="fpr", kind=kind)
    expected = set()
    for epoch in (1, 2, 3):
        prototypes = load_prototypes(run / "seed0" / "fpr" / "prototypes" / f"epoch{epoch:03}.safetensors")
        for c, k in prototypes.positive_valid.nonzero().tolist():
            expected.add((0, c, k, epoch, -1))
        for c, k in prototypes.trimmed_valid.nonzero().tolist():
            expected.add((1, c, k, epoch, int(prototypes.trimmed_source[c, k])))
    assert {tuple(row) for row in told["about"]} == expected and told["all"] == len(expected)
    plane = np.array(told["plane"])
    assert plane.shape == (len(expected), 2) and np.abs(plane).max() == pytest.approx(1)
    assert len(list((run / "explore").glob(f"seed0-fpr-map-{kind}-*.npz"))) == 1


def test_a_map_of_too_many_points_keeps_the_first_and_the_last_epoch(talk: Talk, monkeypatch: pytest.MonkeyPatch) -> None:
    told = {}
    for kind in ("pca", "tsne"):
        monkeypatch.setitem(embedding.MOST_POINTS, "tsne", len(told["pca"]["about"]) - 5 if told else 0)
        told[kind] = talk.ask("/api/plane", seed=0, method="fpr", kind=kind)
        while told[kind]["state"] != "done":
            told[kind] = talk.ask("/api/plane", seed=0, method="fpr", kind=kind)
    every, some = ({tuple(row) for row in told[kind]["about"]} for kind in ("pca", "tsne"))
    assert len(every) == told["pca"]["all"] == told["tsne"]["all"] == len(some) + 5
    assert some < every and {row[3] for row in every - some} == {2}
    for image, photo in told["pca"]["photos"].items():
        assert photo["image"] == int(image) and "tags" in photo
    assert thinned(np.array([1, 1, 1, 2, 3, 3, 3]), 4).tolist() == [0, 2, 4, 6], "the ends alone are too many"


def test_pixels_without_a_label_are_part_of_a_region() -> None:
    mask = np.array([[1, 1, 0, 255], [255, 255, 2, 0]], np.uint8)
    masks = Masks(Classes(("kite", "pond")), ("a",), lambda index: mask)
    region = np.ones((2, 4), bool)
    region[0, 0] = False
    found = names_under(region, masks, 0)
    assert found == {"kite": 1, "pond": 1, "background": 2, "not labelled": 3}
    arrays = Findings(np.zeros((1, 2), np.float32), sources=[(0, 0, 2, 4)], regions=[region], causes=[found]).arrays(2, 1)
    shown = Statistics(arrays).shown(0, 0)
    nothing = Findings(np.zeros((1, 2), np.float32), sources=[(0, 0, 2, 4)], regions=[np.zeros((2, 4), bool)], causes=[Counter()])
    assert Statistics(nothing.arrays(2, 1)).region(0, 0) is None, "nothing is lit any more: the photo is not darkened"
    assert shown == [("not labelled", 0.43), ("background", 0.29), ("kite", 0.14), ("pond", 0.14)]
    for shares in ([1 / 3, 1 / 3, 1 / 3], [0.335, 0.665], [0.29, 0.71], [1.0], [0.005] * 200):
        assert hundredths(np.array(shares, np.float32)).sum() == 100


def test_runs_of_earlier_versions_have_their_last_prototypes(run: Path, serve: Serve) -> None:
    for path in (run / "seed0" / "fpr" / "prototypes").iterdir():
        path.unlink()
    talk = serve(run)
    assert talk.ask("/api/run")["seeds"][0]["methods"][0] == {"name": "fpr", "moments": ["last"], "epochs": 0}
    last = {"seed": 0, "method": "fpr", "moment": "last"}
    talk.count(**last)
    assert talk.ask("/api/classes", **last)["counted"]
    assert talk.get("/api/classes", **FIRST).status == 400
    told = talk.ask("/api/plane", seed=0, method="fpr", kind="pca")
    while told["state"] != "done":
        told = talk.ask("/api/plane", seed=0, method="fpr", kind="pca")
    assert {row[3] for row in told["about"]} == {1}


def test_maps_of_any_image_and_class(talk: Talk, run: Path, tmp_path: Path) -> None:
    assert main(["localize", str(run), "--quiet", "--methods", "fpr"]) == 0
    with np.load(run / "seed0" / "fpr" / "maps" / "train" / "p01.npz") as stored:
        classes, peaks = stored["classes"].tolist(), stored["peaks"]
    for c in range(len(NAMES)):
        told = talk.ask("/api/maps", seed=0, image=1, left="cam", right="fpr", **{"class": c})
        assert [m["method"] for m in told["methods"]] == ["cam", "fpr"] and told["id"] == "p01"
        assert told["tagged"] == (c in classes)
        for method in told["methods"]:
            values = grid(method["maps"][str(c)])
            assert values.max() in (0, 255) and len(method["probabilities"]) == len(NAMES)
        shown = told["methods"][1]["maps"][str(c)]["peak"]  # of the whole photo; stored: without tagged objects
        assert shown == pytest.approx(float(peaks[c]), abs=1e-3) or (c not in classes and not shown <= peaks[c])
    (only,) = talk.ask("/api/maps", seed=0, image=1, left="fpr", right="fpr", **{"class": 0})["methods"]
    assert only["method"] == "fpr"


def test_a_new_photo_has_the_maps_it_would_have_in_the_set_and_is_not_kept(talk: Talk, run: Path, trained: Path) -> None:
    content = (trained.parent / "photos" / "images" / "p01.png").read_bytes()
    known = talk.ask("/api/maps", seed=0, image=1, left="cam", right="fpr", **{"class": 2})
    before = {path for path in run.rglob("*") if path.is_file()}
    told = talk.post("/api/new", content, seed=0, left="cam", right="fpr").values
    assert told["size"] == [50, 70] and told["photo"].startswith("data:image/jpeg;base64,")
    for new, old in zip(told["methods"], known["methods"], strict=True):
        assert set(new["maps"]) == {"0", "1", "2"}
        assert new["probabilities"] == pytest.approx(old["probabilities"], abs=0.02), "the cache holds half floats"
        assert np.abs(grid(new["maps"]["2"]).astype(int) - grid(old["maps"]["2"])).max() < 12
    assert {path for path in run.rglob("*") if path.is_file()} == before


def test_pages_of_photos(talk: Talk, run: Path) -> None:
    images = open_images(read_settings(run).data)
    every = talk.ask("/api/images", seed=0)
    assert every["all"] == PHOTOS == len(every["images"])
    assert [row["id"] for row in every["images"]] == list(images.ids) and every["images"][7]["id"] == HOSTILE_ID
    of_class = talk.ask("/api/images", seed=0, **{"class": 1})
    assert [row["image"] for row in of_class["images"]] == np.flatnonzero(images.labels[:, 1]).tolist()
    without = talk.ask("/api/images", seed=0, **{"class": "none"})
    assert without["all"] == int((~images.labels.any(1)).sum()) > 0
    assert talk.ask("/api/images", seed=0, page=9)["images"] == []


def test_thumbnails_are_kept_and_made_again_when_the_photo_changes(run: Path, serve: Serve, tmp_path: Path) -> None:
    root = tmp_path / "photos"
    (root / "images").mkdir(parents=True)
    for name in ("a", "b"):
        Image.new("RGB", (640, 320), "red").save(root / "images" / f"{name}.jpg")
    (root / "labels.csv").write_text("image,labels\na.jpg,kite\nb.jpg,pond\n")
    text = (run / "settings.yaml").read_text().replace(read_settings(run).data.root, str(root))
    (run / "settings.yaml").write_text(text)
    talk = serve(run)

    def colour() -> tuple[int, ...]:
        answer = talk.get("/thumbnail", seed=0, image=1)
        assert answer.headers["content-type"] == "image/jpeg"
        with Image.open(io.BytesIO(answer.content)) as image:
            assert image.size == (240, 120)
            return image.getpixel((9, 9))  # type: ignore[return-value]

    assert colour()[0] > 200
    (kept,) = (run / "explore" / "thumbnails").rglob("1.jpg")
    before = kept.stat().st_mtime_ns
    assert colour()[0] > 200 and kept.stat().st_mtime_ns == before
    Image.new("RGB", (640, 320), "blue").save(root / "images" / "b.jpg")
    assert colour()[2] > 200
    (root / "images" / "b.jpg").write_bytes(b"no photo")
    answer = talk.get("/thumbnail", seed=0, image=1)
    assert answer.status == 409 and "not a picture" in answer.values["error"]
    assert talk.get("/thumbnail", seed=0, image=0).status == 200, "the others are there"


def test_an_untrained_run_can_be_looked_through(run: Path, serve: Serve) -> None:
    for path in run.rglob("*.safetensors"):
        path.unlink()
    talk = serve(run)
    assert talk.ask("/api/run")["seeds"][0] == {"seed": 0, "photos": PHOTOS, "trained": [], "methods": []}
    assert talk.get("/api/classes", **FIRST).status == 400
    answer = talk.get("/api/maps", seed=0, image=0, left="cam", right="fpr", **{"class": 0})
    assert answer.status == 409 and "nothing is trained" in answer.values["error"]
    assert talk.ask("/api/images", seed=0)["all"] == PHOTOS


def test_data_that_does_not_fit_is_told(run: Path, serve: Serve, tmp_path: Path) -> None:
    root = Path(read_settings(run).data.root)
    fewer = tmp_path / "fewer"
    fewer.mkdir()
    (fewer / "images").symlink_to(root / "images")
    lines = (root / "labels.csv").read_text().splitlines()
    (fewer / "labels.csv").write_text("\n".join(lines[:4]).replace(str(NAMES[1]), NAMES[0]))
    (fewer / "classes.txt").write_text((root / "classes.txt").read_text())
    for name in ("p00", "p01", "p02"):
        assert name in (fewer / "labels.csv").read_text()
    (fewer / "images").unlink()
    (fewer / "images").mkdir()
    for name in ("p00", "p01", "p02"):
        (fewer / "images" / f"{name}.png").write_bytes((root / "images" / f"{name}.png").read_bytes())
    (run / "settings.yaml").write_text((run / "settings.yaml").read_text().replace(str(root), str(fewer)))
    answer = serve(run).get("/api/classes", **FIRST)
    assert answer.status == 409 and "are of other data" in answer.values["error"]


def test_the_command_serves_and_stops(trained: Path, environment: dict[str, str]) -> None:
    command = [sys.executable, "-m", "tag2mask.cli", "explore", str(trained), "--no-browser"]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("explorer: http://127.0.0.1:")
        import urllib.request

        with urllib.request.urlopen(line.split()[1], timeout=20) as page:
            assert b"tag2mask explorer" in page.read()
        import signal

        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
    finally:
        process.kill()


def test_the_command_says_what_is_no_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explore", str(tmp_path), "--no-browser"]) == 2
    assert "there is no settings.yaml" in capsys.readouterr().err
    assert main(["explore", str(tmp_path), "--port", "70000"]) == 2
    assert "--port is 70000" in capsys.readouterr().err


def test_no_torch_before_it_is_needed(trained: Path, environment: dict[str, str]) -> None:
    """The first page, the photos and the prototypes."""
    script = f"""
import sys
from pathlib import Path
from tag2mask.explore.answers import Explorer
from tag2mask.explore.server import Server
server = Server(Explorer(Path({str(trained)!r})), 0)
explorer = server.explorer
explorer.overview(); explorer.confused(0, "fpr", "last"); explorer.negatives(0, "fpr", "last", 0); explorer.page_of_images(0, None, False, 0)
server.server_close()
print([name for name in ("torch", "sklearn", "scipy", "timm") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_many_may_ask_at_once(talk: Talk) -> None:
    """The pass over all images goes on while maps are asked for."""
    talk.post("/api/counting", **FIRST)
    answers: list[int] = []

    def look(image: int) -> None:
        answers.append(talk.get("/api/maps", seed=0, image=image, left="cam", right="fpr", **{"class": 0}).status)

    threads = [threading.Thread(target=look, args=(image,)) for image in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [200] * 8
    talk.count(**FIRST)


def test_built_in_scenes_differ_with_the_seed(tiny: list[str], scenes: list[str], tmp_path: Path, serve: Serve) -> None:
    assert main(["train", "--out", str(tmp_path / "run"), *tiny, *scenes, "--seeds", "0,1", "--methods", "fpr"]) == 0
    opened = OpenedRun(tmp_path / "run")
    for seed in (0, 1):
        setup = set_up_seed(opened.config, tmp_path, seed, set_up_torch(1, "cpu"), Reporter(quiet=True))
        assert (opened.images(seed).labels == setup.images.labels).all()
    assert (opened.images(0).labels != opened.images(1).labels).any()
    talk = serve(tmp_path / "run")
    assert not talk.ask("/api/run")["blockable"]
    answer = talk.post("/api/blocked", json.dumps({"image": 0, "class": 0, "blocked": True}))
    assert answer.status == 409 and "a run of one seed alone" in answer.values["error"]
    one, two = (talk.get("/thumbnail", seed=seed, image=0).content for seed in (0, 1))
    assert one != two


def test_the_benchmark_measures_a_run_that_can_be_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmark, "PHOTOS", 60)
    explorer = Explorer(benchmark.write_run(tmp_path))
    assert len(explorer.confused(0, "fpr", "last")["classes"]) == benchmark.CLASSES
    assert explorer.page_of_images(0, None, False, 0)["all"] == 60
