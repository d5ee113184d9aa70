"""Whole commands with a tiny random MCTformer on small scenes: train, localize, evaluate."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tag2mask.cli import main
from tag2mask.maps.store import load_maps

VIT = ["--host.backbone", "test_vit", "--host.freeze", "none", "--host.mctformer.grid", "4"]
FROZEN_BLOCKS = ["--host.backbone", "test_vit", "--host.freeze", "blocks.2"]
LEVELS = [
    "--host.backbone", "test_efficientnet", "--host.freeze", "all", "--host.levels", '["blocks.2", "blocks.4"]',
    "--host.mctformer.width", "16", "--host.mctformer.heads", "2", "--host.mctformer.depth", "1",
]  # fmt: skip
SHORT = [
    "--host.kind", "mctformer", "--host.weights", "none", "--host.side", "0", "--views.size", "64", "--threads", "1", "--quiet",
    "--data.cooccur.images", "14", "--data.cooccur.size", "64", "--methods", "continued,halo,fpr", "--fpr.prototypes", "2",
    "--classify.epochs", "2", "--classify.batch_size", "7", "--rectify.epochs", "2", "--rectify.batch_size", "7",
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "network"),
    [
        ("vit", VIT),
        ("vit plus", [*VIT, "--host.mctformer.version", "plus", "--host.rectified_maps", "refined", "--fpr.feature_space", "trained", "--fpr.region_weight", "0.1"]),
        ("frozen blocks", FROZEN_BLOCKS),
        ("levels", LEVELS),
        ("levels plus", [*LEVELS, "--host.mctformer.version", "plus", "--maps.scales", "[1.0, 0.75]"]),
    ],
)  # fmt: skip
def test_train_localize_evaluate(name: str, network: list[str], tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert main(["train", "--out", str(run), *SHORT, *network]) == 0
    line = json.loads((run / "seed0/cam/metrics.jsonl").read_text().splitlines()[-1])
    assert line["others"] > 0 and line["total"] == pytest.approx(line["others"] + line["classification"], abs=1e-4)
    assert (run / "cache").exists() == (not name.startswith("vit"))
    assert main(["localize", str(run), "--quiet"]) == 0
    folder = run / "seed0/fpr/maps/train"
    stored = sorted(folder.glob("*.npz"))
    assert len(stored) == 14
    maps = load_maps(stored[0])
    assert maps.maps.dtype == np.uint8 and maps.maps.shape[1:] == (64, 64)
    assert main(["evaluate", str(run), "--quiet"]) == 0
    summary = json.loads((run / "summary.json").read_text())
    assert {"cam", "continued", "halo", "fpr"} <= set(json.dumps(summary).replace('"', " ").split())
    assert main(["evaluate", str(run), "--quiet", "--suppressed"]) == 0
    assert main(["localize", str(run), "--quiet", "--methods", "fpr", "--method", "advcam", "--maps.advcam.iterations", "2"]) == 0
    assert len(list((run / "seed0/fpr/advcam/maps/train").glob("*.npz"))) == 14


def test_a_preset_on_another_transformer(tmp_path: Path) -> None:
    """The published recipe with a small network and few epochs, and a resume that finds all of it done."""
    run = tmp_path / "run"
    options = [*SHORT, *VIT, "--methods", "fpr"]
    assert main(["train", "--preset", "mctformer", "--out", str(run), *options]) == 0
    before = (run / "seed0/fpr/weights.safetensors").read_bytes()
    assert main(["train", "--preset", "mctformer", "--out", str(run), *options, "--resume"]) == 0
    assert (run / "seed0/fpr/weights.safetensors").read_bytes() == before
