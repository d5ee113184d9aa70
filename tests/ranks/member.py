"""What one of several processes does in the tests beside this file: ``member.py OUT RUN``; alone, it is the reference."""

from __future__ import annotations

import os
import sys
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from tag2mask import ranks
from tag2mask.config import CooccurConfig, DataConfig, OptimiserConfig, RunConfig
from tag2mask.launch import is_member
from tag2mask.presets import PRESETS
from tag2mask.progress import Reporter
from tag2mask.stages import pipeline
from tag2mask.stages.network import set_up_seed
from tag2mask.stages.train import prepare_tags, train_classifier, train_method

STEP = OptimiserConfig(kind="sgd", epochs=1, batch_size=17, learning_rate=0.01)
"""One step, over a batch that two and four processes cannot share evenly."""
QUIET = Reporter(quiet=True)


def settings(kind: str = "cam") -> RunConfig:
    base = PRESETS["paper"]
    host = replace(
        base.host, kind=kind, backbone="test_efficientnet", weights="none", freeze="blocks.3", side=8,
        side_levels=("blocks.2", "blocks.4"), neck=8 if kind == "cam" else 0,
    )  # fmt: skip
    if kind == "mctformer":
        host = replace(host, freeze="all", mctformer=replace(host.mctformer, depth=1, width=16, heads=2, grid=4))
    data = DataConfig(kind="cooccur", cooccur=CooccurConfig(images=23, size=64))
    fpr = replace(PRESETS["laptop"].fpr, pixel_weight_unit="literal", region_weight=0.1, feature_space="trained")
    return replace(
        base, data=data, host=host, views=replace(base.views, kind="square", size=64), fpr=fpr, methods=("fpr",), threads=1,
        seeds=(0,), device="cpu", classify=replace(STEP, batch_norm_until=1.0), rectify=STEP,
    )  # fmt: skip


def steps_of_every_host(out: Path) -> None:
    """One step of the classifier and one with rectification, each from weights that all worlds share."""
    for kind in ("cam", "seam", "mctformer"):
        config, run = settings(kind), out / kind
        setup = set_up_seed(config, run, 0, torch.device("cpu"), QUIET)
        tags = prepare_tags(config, setup, run, QUIET, resume=False)
        train_classifier(config, setup, tags, run, QUIET, resume=False)
        train_method(config, setup, tags, "fpr", run, QUIET, resume=False)


def batch_norm(out: Path) -> None:
    """A batch norm over shares, as a training has it, with its gradients and running statistics."""
    torch.manual_seed(0)
    images = torch.randn(7, 3, 4, 5)
    module = torch.nn.Sequential(torch.nn.BatchNorm2d(3), torch.nn.Conv2d(3, 2, 1))
    learning = ranks.Learning(module)
    share = np.arange(7)[ranks.rank() :: ranks.world()]
    weights = torch.linspace(0.5, 2.0, 7)

    def loss(batch: np.ndarray) -> tuple[torch.Tensor]:
        rows = torch.from_numpy(batch)
        values = module(images[rows]).square().mean(dim=(1, 2, 3)) * weights[rows]
        return (values.sum() * ranks.world() / 7,)

    learning.losses(loss, share)[0].backward()
    found = {name: parameter.grad for name, parameter in module.named_parameters() if parameter.grad is not None}
    found |= {f"running.{name}": buffer.float() for name, buffer in module.named_buffers()}
    if ranks.rank() == 0:
        save_file({name: tensor.contiguous() for name, tensor in found.items()}, out / "batch_norm.safetensors")


def later_stages(run: Path) -> None:
    """Every later stage, from weights that one process has trained."""
    pipeline.localize_run(run, ("fpr",), "", QUIET)
    pipeline.evaluate_run(run, (), "", QUIET)
    pipeline.evaluate_run(run, (), "val", QUIET)
    maps = replace(pipeline.read_settings(run).maps, method="advcam")
    pipeline.localize_run(run, ("fpr",), "", QUIET, replace(maps, advcam=replace(maps.advcam, iterations=1)))
    config = pipeline.read_settings(run)
    once = replace(STEP, learning_rate=0.001)
    refine = replace(config.refine, optimiser=once, views=replace(config.refine.views, size=128), processes=1)
    pipeline.refine_run(run, "irn", ("fpr",), "", QUIET, replace(config, refine=refine))
    config = pipeline.read_settings(run)
    segment = replace(config.segment, encoder="test_efficientnet", weights="none", size=64, optimiser=once, steps=0)
    pipeline.segment_run(run, "crf", ("fpr",), QUIET, replace(config, segment=segment))
    pipeline.evaluate_stages(run, (), "", QUIET)
    pipeline.prepare_report(run, QUIET)


def main() -> None:
    out, run = Path(sys.argv[1]), Path(sys.argv[2])
    torch.set_num_threads(1)
    for module in (torch.nn.Dropout, torch.nn.Dropout2d):
        module.forward = lambda self, x: x  # type: ignore[method-assign]  # it draws anew in every process
    with ranks.joined() if is_member(os.environ) else nullcontext():
        ranks.once(lambda: out.mkdir(parents=True))
        steps_of_every_host(out)
        batch_norm(out)
        later_stages(run)


if __name__ == "__main__":
    main()
