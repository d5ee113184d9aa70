"""What the rivals bring beside tags, small and made up: photos without a class, saliency maps, a CLIP of random weights."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

WriteClip = Callable[..., Path]


@pytest.fixture(autouse=True)
def denormal_numbers_are_zero(numbers_as_usual: None) -> None:
    torch.set_flush_denormal(True)


@pytest.fixture
def nothing_there(tmp_path: Path) -> Path:
    """A folder of five photos of noise."""
    folder = tmp_path / "nothing"
    (folder / "more").mkdir(parents=True)
    random = np.random.default_rng(0)
    for number in range(5):
        noise = random.integers(60, 200, (40 + number, 60, 3), dtype=np.uint8)
        path = folder / ("more" if number % 2 else "") / f"n{number}.{'png' if number else 'jpg'}"
        Image.fromarray(noise).save(path)
    (folder / "notes.txt").write_text("not a photo")
    return folder


@pytest.fixture
def write_saliency(tmp_path: Path) -> Callable[[Path], Path]:
    """Writes a saliency map for every photo of a folder data set: where it is far from grey."""

    def write(root: Path) -> Path:
        folder = tmp_path / "saliency"
        for path in sorted((root / "images").rglob("*.*")):
            pixels = np.asarray(Image.open(path).convert("RGB")).astype(int)
            target = folder / path.relative_to(root / "images").with_suffix(".png")
            target.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.uint8(255 * (np.ptp(pixels, axis=2) > 90))).save(target)
        return folder

    return write


TINY: dict[str, Any] = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 8},
    "text_cfg": {"context_length": 12, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}


@pytest.fixture
def write_clip(tmp_path: Path) -> WriteClip:
    """Writes a CLIP of random weights as OpenCLIP's models on the hub are; ``changes`` go into its settings."""
    open_clip = pytest.importorskip("open_clip", reason="the extra `clip` is not installed")
    from safetensors.torch import save_file

    def write(name: str = "clip", **changes: Any) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        torch.manual_seed(7)
        facts = {"mean": [0.5, 0.4, 0.3], "std": [0.3, 0.3, 0.2]}
        settings = {"model_cfg": {**TINY, **changes}, "preprocess_cfg": facts}
        (folder / "open_clip_config.json").write_text(json.dumps(settings))
        weights = open_clip.model.CLIP(**TINY).state_dict()
        save_file({k: v.contiguous() for k, v in weights.items()}, folder / "open_clip_model.safetensors")
        return folder

    return write
