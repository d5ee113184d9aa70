"""What a network reads from a data set: photos, or the frozen half's output from a cache in the run folder."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch

from tag2mask import ranks
from tag2mask.config import DataConfig, ViewsConfig
from tag2mask.data import TaggedImages
from tag2mask.hosts.inputs import (
    CachedInputs,
    FrozenHalf,
    PhotoInputs,
    build_cache,
    cache_bytes,
    cache_fault,
    cache_key,
    frozen_fingerprint,
)
from tag2mask.progress import Reporter
from tag2mask.runs import locked_in_turn


def open_inputs(
    host: FrozenHalf, frozen: dict[str, Any], views: ViewsConfig, gigabytes: float, data: DataConfig, run: Path,
    images: TaggedImages, device: torch.device, report: Reporter,
) -> PhotoInputs:  # fmt: skip
    """Cached features where stages are frozen, views are squares and the disk bound allows it; else photos.

    Args:
        frozen: the settings that decide what the frozen half computes.
        gigabytes: the disk bound; 0 for no cache.
        data: where ``images`` come from, the seed's scenes and split.
    """
    if views.kind != "square" or not len(host.frozen_stages) or gigabytes == 0:
        return PhotoInputs(host, images, views, device)
    size = cache_bytes(host.eval(), images, views)
    if size > gigabytes * 1e9:
        report.say(
            f"frozen features would take {size / 1e9:.1f} GB, more than cache_gigabytes = {gigabytes:g}: "
            "they are computed anew in every epoch."
        )
        return PhotoInputs(host, images, views, device)
    # Scenes have the same ids whatever their seed, and photos of two folders may have the same names.
    source = str(data) if data.kind == "cooccur" else str(Path(data.root).resolve())
    key = cache_key(frozen, views, images, source + frozen_fingerprint(host))
    folder = run / "cache" / key
    fault = ranks.once(lambda: cache_fault(folder, images))
    if fault:
        if ranks.once(folder.exists):
            report.say(f"{folder}: {fault}, so frozen features are computed anew.")
        free = ranks.once(lambda: room_for(run))
        if size > free:
            report.warn(
                f"frozen features would take {size / 1e9:.1f} GB and the disk of {run} has {free / 1e9:.1f} GB left: "
                "they are computed anew in every epoch."
            )
            return PhotoInputs(host, images, views, device)
        with locked_in_turn(folder.parent, report), report.task(f"frozen features of {len(images)} images") as step:
            if ranks.once(lambda: cache_fault(folder, images)):  # else whoever held the folder has computed them
                build_cache(
                    host, images, views, device, folder, lambda done, total: step(done, total),
                    # By one machine's processes: over a network another one writes whole pages, others' rows included.
                    part=(ranks.rank(), ranks.local_world()), wait=ranks.wait,
                )  # fmt: skip
    return CachedInputs(host, images, views, device, folder)


def room_for(run: Path) -> int:
    """Bytes that are free where a run lies; its folder is made if need be."""
    run.mkdir(parents=True, exist_ok=True)
    return shutil.disk_usage(run).free
