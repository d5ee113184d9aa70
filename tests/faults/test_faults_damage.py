"""Files that are cut off or changed: never trusted; told, or made again to the same bits, and nothing else is touched."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from tag2mask.cli import main
from tests.stages.photos import REFINE, changed, contents, times, train

FILES = (".safetensors", ".npz", ".png", "metrics.jsonl", "training.json", "segmenter.json", "train.json")
FPR = "seed0/fpr"
LOCALIZE = ["localize", "RUN", "--methods", "fpr"]
IRN = ["refine", "RUN", "--with", "irn", *REFINE]
CRF = ["refine", "RUN", "--with", "crf", *REFINE]
SEGMENT = ["segment", "RUN", "--from", "irn"]
TRAIN = ["train", "--out", "RUN", "--config", "RUN/settings.yaml", "--resume"]


def command(run: Path, parts: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """Exit code and standard error."""
    capsys.readouterr()
    code = main([part.replace("RUN", str(run)) for part in parts])
    return code, capsys.readouterr().err


def damage(path: Path, way: str) -> None:
    """Cut a file off, empty it, or change a byte in its middle."""
    content = path.read_bytes()
    half = len(content) // 2
    changed = content[:half] + bytes([content[half] ^ 1]) + content[half + 1 :]
    path.write_bytes({"cut": content[:half], "empty": b"", "changed": changed}[way])


@pytest.mark.parametrize("way", ["cut", "empty", "changed"])
@pytest.mark.parametrize(
    ("name", "needs", "makes"),
    [
        ("seed0/cam/weights.safetensors", None, TRAIN),
        (f"{FPR}/weights.safetensors", LOCALIZE, TRAIN),
        (f"{FPR}/irn/weights.safetensors", None, IRN),
        (f"{FPR}/segmenter/irn/weights.safetensors", ["predict", "RUN", "RUN/../photos/images", "--out", "RUN/out"], SEGMENT),
    ],
)
def test_damaged_weights(
    run: Path, capsys: pytest.CaptureFixture[str], name: str, needs: list[str] | None, makes: list[str], way: str
) -> None:
    """Whoever only reads them is told; whoever makes them makes them again from their last state."""
    expected = contents(run, *FILES)
    damage(run / name, way)
    if needs:
        before = contents(run)
        code, text = command(run, needs, capsys)
        assert code == 2 and f"{run / name} is damaged (it is not what was written" in text and text.count("\n") == 1
        assert contents(run) == before, "maps and masks that were made with them are kept"
    code, text = command(run, makes, capsys)
    assert code == 0 and f"{run / name} is damaged (not what was written): this training is done again from the last" in text
    assert contents(run, *FILES) == expected


@pytest.mark.parametrize("remember", [0, 3])
def test_damaged_prototypes_of_a_training_that_is_gone_on_with(
    tmp_path: Path, tiny: list[str], capsys: pytest.CaptureFixture[str], remember: int
) -> None:
    """It reads those of the first collection and, if it remembers, of the last; a finished one needs none."""
    run = train(tmp_path, [*tiny, "--fpr.remember", str(remember)])
    expected, path = contents(run, "weights.safetensors"), run / FPR / "prototypes/epoch001.safetensors"
    damage(path, "changed")
    assert command(run, TRAIN, capsys) == (0, "")
    (run / FPR / "weights.safetensors").unlink()
    code, text = command(run, TRAIN, capsys)
    assert code == 0, text
    assert contents(run, "weights.safetensors") == expected
    assert "epoch001.safetensors is damaged" in text and "done again from the start" in text


@pytest.mark.parametrize("home", [FPR, f"{FPR}/irn", f"{FPR}/segmenter/irn"])
def test_a_damaged_state_begins_its_own_training_anew(
    run: Path, capsys: pytest.CaptureFixture[str], home: str
) -> None:
    """As a training that was cut off has it."""
    expected, before = contents(run, *FILES), times(run)
    makes = {FPR: TRAIN, f"{FPR}/irn": IRN}.get(home, SEGMENT)
    (run / home / "weights.safetensors").unlink()
    damage(run / home / "state.safetensors", "cut")
    code, text = command(run, makes, capsys)
    assert code == 0 and "state.safetensors is damaged" in text and "done again from the start" in text
    assert contents(run, *FILES) == expected
    own = {name for name in changed(before, run) if "manifest" not in name}
    assert all(Path(name).parent in (Path(home), Path(home, "prototypes"), Path()) for name in own), "no other training"


@pytest.mark.parametrize(
    ("name", "makes"),
    [(f"{FPR}/maps/train/p1.npz", LOCALIZE), (f"{FPR}/crf/masks/train/p1.png", CRF), (f"{FPR}/crf/certain/train/p1.png", CRF),
     (f"{FPR}/irn/maps/train/p1.npz", IRN), (f"{FPR}/irn/masks/train/p1.png", IRN)],
)  # fmt: skip
@pytest.mark.parametrize("way", ["cut", "empty"])
def test_maps_and_masks_that_are_cut_off_are_made_again(
    run: Path, capsys: pytest.CaptureFixture[str], name: str, makes: list[str], way: str
) -> None:
    expected = (run / name).read_bytes()
    weights = contents(run, "weights.safetensors")
    damage(run / name, way)
    assert command(run, ["verify", "RUN"], capsys)[0] == 1
    assert command(run, makes, capsys)[0] == 0
    assert (run / name).read_bytes() == expected and contents(run, "weights.safetensors") == weights
    assert command(run, ["verify", "RUN"], capsys)[0] == 0


def test_frozen_features_that_are_cut_off(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path in run.glob("cache/*/level0.npy"):
        damage(path, "cut")
    expected = contents(run, *FILES)
    (run / FPR / "weights.safetensors").unlink()
    (run / FPR / "state.safetensors").unlink()
    code, text = command(run, [part for part in TRAIN if part != "--quiet"], capsys)
    assert code == 0 and "level0.npy is cut off, so frozen features are computed anew" in text
    assert contents(run, *FILES) == expected


def test_settings_that_are_cut_off(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file of half the settings would be sound YAML."""
    path = run / "settings.yaml"
    path.write_text(path.read_text()[: path.read_text().index("\nsegment:") + 12])
    before = contents(run)
    for parts in (LOCALIZE, IRN, SEGMENT, ["evaluate", "RUN"], ["report", "RUN"]):
        code, text = command(run, parts, capsys)
        assert code == 2 and f"{path} is cut off; restore it" in text and text.count("\n") == 1
    assert contents(run) == before


def test_files_of_another_version(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Neither read nor trained over."""
    for name, parts in ((f"{FPR}/weights.safetensors", LOCALIZE), ("seed0/cam/state.safetensors", TRAIN)):
        path = run / name
        save_file(load_file(path), path, {"tag2mask": json.dumps({"format": 2})})
        (path.parent / "manifest.jsonl").unlink()
        if "state" in name:
            path.with_name("weights.safetensors").unlink()
        (run / FPR / "maps/train.json").unlink(missing_ok=True)
        code, text = command(run, [*parts, "--quiet"], capsys)
        assert code == 2 and text.count("\n") == 1
        assert f"{path} was written by another version of tag2mask (format 2, this one reads 1)" in text


def test_weights_of_an_earlier_version_are_taken_as_they_are(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without a manifest, a description or a number of their format."""
    for path in (run / "seed0").rglob("manifest.jsonl"):
        path.unlink()
    for home in ("cam", "fpr"):
        path = run / f"seed0/{home}/weights.safetensors"
        save_file(load_file(path), path)
        (path.parent / "training.json").unlink()
    before = contents(run, "weights.safetensors")
    assert command(run, TRAIN, capsys)[0] == 0
    code, text = command(run, LOCALIZE, capsys)
    assert code == 0 and "maps/train: the weights have changed, so it is made anew" in text
    assert contents(run, "weights.safetensors") == before


def test_verify_names_what_is_wrong_and_what_to_do(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(run)]) == 0
    assert "0 damaged, 0 missing, 0 not described" in capsys.readouterr().out
    before = contents(run)
    paths = {
        "damaged": [run / FPR / "weights.safetensors", run / FPR / "maps/train/p1.npz", run / FPR / "crf/masks/train.json"],
        "missing": [run / FPR / "irn/masks/train/p2.png"],
        "not described": [run / FPR / "masks/train/new.png"],
    }
    damage(paths["damaged"][0], "changed")
    damage(paths["damaged"][1], "changed")
    paths["damaged"][2].write_text("{")
    paths["missing"][0].unlink()
    paths["not described"][0].write_bytes(b"new")
    state = contents(run)
    assert main(["verify", str(run), "--quiet"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert sorted(line.partition(";")[0] for line in lines[:-1]) == sorted(f"{k}: {p}" for k, all in paths.items() for p in all)
    assert all(len(line.partition("; ")[2]) > 20 for line in lines[:-1]), "each says what to do"
    assert lines[-1].endswith("3 damaged, 1 missing, 1 not described")
    assert contents(run) == state != before
    assert main(["verify", str(run / "gone")]) == 2
    assert "there is no settings.yaml" in capsys.readouterr().err
