"""Peak memory of localizing and evaluating 10,000 photos against 1,000: a process each, measured by the system.

Photos of 32 pixels with masks, twenty classes, a tiny network with weights as they fall: the real commands, whose
memory is that of the interpreter, of torch, and of whatever they keep for each image.

``python -m benchmarks.localize_memory 1000 10000`` prints the figures of each size.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

BAR = 1.05
DESCRIPTION = "peak memory of `tag2mask localize` and `evaluate`, 10,000 images / 1,000 images, the larger ratio"
SIZES = (1_000, 10_000)
SIDE = 32
CLASSES = 20
TRAINED_ON = 24
"""Photos of the split ``train``; the network learns next to nothing, which changes no memory."""
METHODS = ("continued", "fpr")
PEAK = """
import resource, sys
from tag2mask.cli import main
code = main(sys.argv[1:])
print("peak", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
raise SystemExit(code)
"""
SETTINGS = (
    "--host.backbone", "test_efficientnet", "--host.weights", "none", "--host.freeze", "blocks.3", "--host.side", "0",
    "--threads", "1", "--views.size", str(SIDE), "--maps.scales", "[1.0]", "--maps.flip", "false",
    "--classify.epochs", "1", "--classify.batch_size", "8", "--rectify.epochs", "1", "--rectify.batch_size", "8",
)  # fmt: skip


def measure() -> float:
    """The larger of the two commands' ratios."""
    peaks = {size: peak_bytes(size) for size in SIZES}
    return max(peaks[SIZES[1]][command] / peaks[SIZES[0]][command] for command in ("localize", "evaluate"))


def peak_bytes(size: int) -> dict[str, int]:
    """Peak resident memory of each command on a set of ``size`` photos, in bytes."""
    with tempfile.TemporaryDirectory(prefix="tag2mask-benchmark-") as folder:
        photos, run = Path(folder) / "photos", Path(folder) / "run"
        write_photos(photos, size)
        command("train", "--out", run, "--data.kind", "folder", "--data.root", photos, "--methods", ",".join(METHODS),
                *SETTINGS)  # fmt: skip
        return {
            "localize": command("localize", run, "--split", "many", "--methods", "cam"),
            "evaluate": command("evaluate", run, "--split", "many"),
        }


def command(*arguments: object) -> int:
    """Run ``tag2mask`` in a process of its own; returns its peak memory."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    full = [sys.executable, "-c", PEAK, *map(str, arguments), "--quiet"]
    done = subprocess.run(full, check=False, capture_output=True, text=True, env=environment)
    if done.returncode:
        raise RuntimeError(f"{' '.join(map(str, arguments))}: {done.stderr}")
    return int(done.stdout.rpartition("peak ")[2]) * 1024


def write_photos(root: Path, size: int) -> None:
    """``size`` photos of split ``many`` with masks, and a few to train on: noise with a square of each tag's colour."""
    import numpy as np
    from PIL import Image

    generator = np.random.default_rng(0)
    names = [f"class{c:02}" for c in range(CLASSES)]
    rows = ["image,split,labels"]
    (root / "images").mkdir(parents=True)
    (root / "masks").mkdir()
    for number in range(size + TRAINED_ON):
        tags = generator.choice(CLASSES, generator.integers(0, 4), replace=False).tolist()
        pixels = generator.integers(90, 160, (SIDE, SIDE, 3), dtype=np.uint8)
        mask = np.zeros((SIDE, SIDE), np.uint8)
        for tag in tags:
            y, x = generator.integers(0, SIDE - 12, 2)
            pixels[y : y + 12, x : x + 12] = (tag * 12, 255 - tag * 12, tag * 37 % 256)
            mask[y : y + 12, x : x + 12] = tag + 1
        Image.fromarray(pixels).save(root / "images" / f"{number:07}.jpg")
        Image.fromarray(mask).save(root / "masks" / f"{number:07}.png")
        split = "train" if number < TRAINED_ON else "many"
        rows.append(f"{number:07}.jpg,{split},{';'.join(names[tag] for tag in tags)}")
    (root / "labels.csv").write_text("\n".join(rows) + "\n")
    (root / "classes.txt").write_text("\n".join(names) + "\n")


def main(sizes: list[int]) -> None:
    """Print a line for each size."""
    print(f"{'images':>8} {'localize MB':>12} {'evaluate MB':>12}")
    for size in sizes:
        peaks = peak_bytes(size)
        print(f"{size:>8} {peaks['localize'] / 1e6:>12.1f} {peaks['evaluate'] / 1e6:>12.1f}", flush=True)


if __name__ == "__main__":
    main([int(size) for size in sys.argv[1:]] or list(SIZES))
