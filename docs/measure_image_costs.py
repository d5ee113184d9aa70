"""What one image costs in each step, on one core: the figures of the cost model in scale.md.

``python docs/measure_image_costs.py [PHOTO ...]``; without photos, noise of 640x480 is drawn and saved as a JPEG.
"""

from __future__ import annotations

import io
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode

from tag2mask.data.images import decode_image
from tag2mask.data.views import random_crop, rescaled, to_tensor
from tag2mask.hosts.table import build_host
from tag2mask.maps.store import quantised, save_maps
from tag2mask.presets import PRESETS

SIZE = (640, 480)
"""Width and height, most of COCO's photos have them."""
REPEATS = 20


def milliseconds(work: Callable[[int], object], repeats: int = REPEATS) -> float:
    """Processor time of one call."""
    work(0)
    start = time.process_time()
    for number in range(repeats):
        work(number)
    return (time.process_time() - start) * 1000 / repeats


def photos(paths: list[str]) -> list[bytes]:
    """The bytes of JPEG files of ``SIZE``."""
    found = []
    for path in paths or [""]:
        if path:
            picture = decode_image(Path(path)).resize(SIZE)
        else:
            small = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
            picture = Image.fromarray(small).resize(SIZE, Image.Resampling.BICUBIC)
        file = io.BytesIO()
        picture.save(file, "JPEG", quality=92)
        found.append(file.getvalue())
    return found


def main(paths: list[str]) -> None:
    """Print a line for each step."""
    torch.set_num_threads(1)
    config = PRESETS["paper"]
    files = photos(paths)
    names = [Path(f"{number}.jpg") for number in range(len(files))]
    decoded = [decode_image(name, content) for name, content in zip(names, files, strict=True)]
    mean, std = (0.5, 0.5, 0.5), (0.2, 0.2, 0.2)
    count = len(files)
    print(f"photo, bytes: {np.mean([len(file) for file in files]):.0f}")
    print(f"decoding, ms: {milliseconds(lambda n: decode_image(names[n % count], files[n % count])):.1f}")
    crop = milliseconds(
        lambda n: random_crop(decoded[n % count], 512, (320, 640), mean, std, 0, 0, n, config.views.colour_jitter)
    )
    print(f"augmented crop of 512, ms: {crop:.1f}")
    scales = milliseconds(lambda n: [to_tensor(rescaled(decoded[n % count], s), mean, std) for s in config.maps.scales])
    print(f"the scales of localization {config.maps.scales}, ms: {scales:.1f}")
    grid = np.random.default_rng(0).normal(size=(3, 30, 40)).clip(0).astype(np.float32)
    planes = [np.asarray(Image.fromarray(g).resize(SIZE, Image.Resampling.BILINEAR)) for g in grid]
    maps = quantised(np.stack(planes) / np.max(planes))  # (3, H, W)
    out = Path("/tmp/measure_image_costs.npz")
    saving = milliseconds(lambda n: save_maps(out, np.arange(3), maps, np.zeros(80)))
    print(f"storing maps of three classes, ms: {saving:.1f}, bytes: {out.stat().st_size}")
    out.unlink()
    host = build_host(replace(config.host, weights="none"), 80).eval()
    parameters = sum(p.numel() for p in host.parameters() if p.requires_grad)
    print(f"trained parameters: {parameters / 1e6:.1f} million")
    with torch.no_grad():
        small = torch.zeros(1, 3, 512, 512)
        counter = FlopCounterMode(display=False)
        with counter:
            frozen = host.frozen_part(small)
        first = counter.get_total_flops()
        counter = FlopCounterMode(display=False)
        with counter:
            host.trained_part(frozen)
        second = counter.get_total_flops()
    print(f"forward pass at 512 x 512, GFLOP: frozen half {first / 1e9:.1f}, trained half {second / 1e9:.1f}")
    forward = milliseconds(lambda n: host.trained_part(host.frozen_part(small)), 2)
    print(f"forward pass at 512 x 512, ms on one core: {forward:.0f}")


if __name__ == "__main__":
    main(sys.argv[1:])
