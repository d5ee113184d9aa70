"""A segmentation network as an ONNX file that needs no PyTorch, and the proof that it says the same."""

from __future__ import annotations

import copy
import importlib.util
import json
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from timm.layers import Conv2dSame
from torch import Tensor, nn

from tag2mask.atomic import write_bytes
from tag2mask.errors import InputError
from tag2mask.segment.network import SegmentationNetwork

if TYPE_CHECKING:
    from onnx import ModelProto

PACKAGES = ("onnx", "onnxscript", "onnxruntime")
BLOCKS = (4, 6)
"""Size of the images that the core is traced with, in multiples of what it is padded to; it does not stay."""
LARGEST_SIDE = 4096
"""Bound of the traced sizes, in the same multiples."""
OPSET = 20
"""Version of the ONNX operators."""
BEFORE = """<ir_version: 10, opset_import: ["": {opset}]>
before (float[N, 3, H, W] images) => (float[N, 3, P, Q] padded, int64[2] size)
<float[1, 3, 1, 1] mean = {{{mean}}}, float[1, 3, 1, 1] std = {{{std}}}, int64[2] multiple = {{{multiple}, {multiple}}},
 int64[2] axes = {{2, 3}}, int64[2] none = {{0, 0}}> {{
    centred = Sub(images, mean)
    normalised = Div(centred, std)
    size = Shape<start = 2, end = 4>(images)
    negative = Neg(size)
    margin = Mod<fmod = 0>(negative, multiple)
    margins = Concat<axis = 0>(none, margin)
    padded = Pad(normalised, margins, , axes)
}}"""
"""Normalises, and pads with zeros as ``network.padded`` does."""
AFTER = """<ir_version: 10, opset_import: ["": {opset}]>
after (float[N, K, h, w] blocks, int64[2] size) => (float[N, K, H, W] logits)
<float[4] scales = {{1.0, 1.0, {stride}.0, {stride}.0}}, int64[2] axes = {{2, 3}}, int64[2] none = {{0, 0}}> {{
    whole = Resize<mode = "linear", coordinate_transformation_mode = "half_pixel">(blocks, , scales)
    logits = Slice(whole, none, size, axes)
}}"""
"""Brings the logits to the images' size as ``network.upsampled`` does."""


class Core(nn.Module):
    """The network between padding and upsampling: normalised (N, 3, H', W') -> logits (N, C + 1, h, w)."""

    def __init__(self, network: SegmentationNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        levels: dict[str, Tensor] = {}
        x = images
        for stages in (self.network.frozen_stages, self.network.trained_stages):
            for name, stage in stages.items():
                x = stage(x)
                levels[name] = x
        return self.network.head([levels[name] for name in self.network.level_names])


def export_onnx(network: SegmentationNetwork, path: Path, class_names: Sequence[str]) -> None:
    """Write the network as ``path``, for images of any number and size.

    Input ``images``: (N, 3, H, W) float32, RGB in [0, 1]; the normalisation is in the graph. Output ``logits``:
    (N, C + 1, H, W) float32, 0 is the background. The file's metadata hold ``classes`` (a JSON list that begins with
    "background"), ``mean`` and ``std`` (JSON lists), ``stride``, ``initial_weights``, ``producer``, and how the
    network was trained and predicts: ``view``, ``size``, ``test_scales`` (a JSON list), ``flip`` (true or false). With
    ``view`` square it has seen photos resized to ``size`` x ``size`` pixels whatever their shape: resize to that times
    a test scale, and the logits back to the photo. With crop photos keep their shape.

    Raises:
        InputError: onnx, onnxscript or onnxruntime are not installed; not as many names as classes.
    """
    need_packages()
    import onnx

    if len(class_names) != network.class_count:
        raise InputError(
            f"The network has {network.class_count} classes, but {len(class_names)} names are given; give one for each."
        )
    model = core_model(network)
    numbers = {
        "opset": OPSET, "multiple": network.multiple, "stride": network.stride,
        "mean": ", ".join(map(str, network.mean)), "std": ", ".join(map(str, network.std)),
    }  # fmt: skip
    before, after = (onnx.parser.parse_model(text.format(**numbers)) for text in (BEFORE, AFTER))
    before.ir_version = after.ir_version = model.ir_version
    before, model, after = (
        onnx.compose.add_prefix(part, f"{name}/", rename_inputs=name != "before", rename_outputs=name != "after")
        for name, part in (("before", before), ("core", model), ("after", after))
    )
    padded, size = (value.name for value in before.graph.output)
    core_images, core_logits = model.graph.input[0].name, model.graph.output[0].name
    blocks, wanted = (value.name for value in after.graph.input)
    model = onnx.compose.merge_models(before, model, [(padded, core_images)], outputs=[core_logits, size])
    model = onnx.compose.merge_models(model, after, [(core_logits, blocks), (size, wanted)])
    onnx.helper.set_model_props(model, metadata(network, class_names))
    onnx.checker.check_model(model)
    write_bytes(path, model.SerializeToString())


def core_model(network: SegmentationNetwork) -> ModelProto:
    """``Core`` as an ONNX model, sides any multiples of ``network.multiple``.

    Padding and upsampling are written by hand around it: tracing sizes that are rounded up takes minutes.
    """
    import onnx

    device, training = next(network.parameters()).device, network.training
    rows, columns = (torch.export.Dim(name, min=2, max=LARGEST_SIDE) for name in ("rows", "columns"))
    sides = {0: torch.export.Dim("N"), 2: network.multiple * rows, 3: network.multiple * columns}
    example = torch.rand(2, 3, *(network.multiple * count for count in BLOCKS), device=device)
    try:
        with warnings.catch_warnings(), tempfile.TemporaryDirectory() as folder:
            warnings.simplefilter("ignore")  # the exporter's own
            raw = Path(folder) / "core.onnx"
            torch.onnx.export(
                Core(with_fixed_padding(network)).eval(), (example,), raw,
                input_names=["core_images"], output_names=["core_logits"],
                dynamic_shapes=(sides,), dynamo=True, opset_version=OPSET, external_data=False, verbose=False,
            )  # fmt: skip
            return onnx.load(raw)
    finally:
        network.train(training)


def with_fixed_padding(network: SegmentationNetwork) -> SegmentationNetwork:
    """A copy whose convolutions with TensorFlow's padding pad by a number: traced as a formula, it takes minutes.

    A side that the stride s divides is padded by max((k - 1) d + 1 - s, 0), the larger half behind; with sides that are
    multiples of ``network.multiple`` every convolution sees such.
    """
    copied = copy.deepcopy(network)
    for module in list(copied.modules()):
        for name, child in module.named_children():
            if isinstance(child, Conv2dSame):
                margins: list[int] = []
                for axis in (1, 0):  # across, then down
                    reach = (child.kernel_size[axis] - 1) * child.dilation[axis] + 1
                    total = max(reach - child.stride[axis], 0)
                    margins += [total // 2, total - total // 2]
                plain = nn.Conv2d(
                    child.in_channels, child.out_channels, child.kernel_size, child.stride, 0, child.dilation,  # type: ignore[arg-type]
                    child.groups, child.bias is not None,
                )  # fmt: skip
                plain.load_state_dict(child.state_dict())
                setattr(module, name, nn.Sequential(nn.ZeroPad2d(margins), plain))  # type: ignore[arg-type]
    return copied


def metadata(network: SegmentationNetwork, class_names: Sequence[str]) -> dict[str, str]:
    """What the file says about itself: names, numbers, and at which size a photo should come in."""
    config = network.config
    return {
        "classes": json.dumps(["background", *class_names]),
        "mean": json.dumps(list(network.mean)),
        "std": json.dumps(list(network.std)),
        "stride": str(network.stride),
        "view": config.view,
        "size": str(config.size),
        "test_scales": json.dumps(list(config.test_scales)),
        "flip": json.dumps(config.flip),
        "initial_weights": network.initial_weights,
        "producer": "tag2mask",
    }


def largest_difference(network: SegmentationNetwork, path: Path, images: Sequence[npt.NDArray[np.uint8]]) -> float:
    """The largest difference between the probabilities of an ONNX file, by onnxruntime, and those of the network.

    Args:
        images: one or more of (H, W, 3) uint8, RGB, of any sizes.
    """
    need_packages()
    import onnxruntime

    if not images:
        raise ValueError("no image to compare on")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3  # errors alone
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    device, training = next(network.parameters()).device, network.training
    mean, std = (torch.tensor(value).view(1, 3, 1, 1) for value in (network.mean, network.std))
    network.eval()
    largest = 0.0
    for image in images:
        pixels = np.ascontiguousarray(image.transpose(2, 0, 1)[None].astype(np.float32) / 255)  # (1, 3, H, W)
        with torch.no_grad():
            expected = network(((torch.from_numpy(pixels) - mean) / std).to(device)).cpu()  # (1, C + 1, H, W)
        (logits,) = session.run(None, {"images": pixels})
        largest = max(largest, (torch.from_numpy(logits).softmax(1) - expected.softmax(1)).abs().max().item())
    network.train(training)
    return largest


def need_packages() -> None:
    """Raise an ``InputError`` that says how to get what is missing."""
    missing = [package for package in PACKAGES if importlib.util.find_spec(package) is None]
    if missing:
        raise InputError(
            f"ONNX files need {', '.join(missing)}, which {'is' if len(missing) == 1 else 'are'} not installed; run "
            "`pip install 'tag2mask[onnx]'`."
        )
