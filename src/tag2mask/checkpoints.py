"""Weights, optimiser states and prototypes on disk: safetensors, whole or not there, nothing executed on load.

Each is described by the manifest of its folder and is trusted only if it is what was written.

A module keeps what never learns under ``frozen_stages``; that half is given by the settings and is not stored.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import fields
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from tag2mask.atomic import read_back, replacing
from tag2mask.errors import InputError
from tag2mask.fpr.prototypes import Prototypes
from tag2mask.manifests import prove, record

FORMAT = 1
"""Of the files; to be raised when another version could misread them."""
METADATA = "tag2mask"
"""The only key in a file's own metadata, JSON: the library writes several in an order that changes."""


def trained_tensors(module: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers of the trained half, by name; the frozen half is given by the settings."""
    return {k: v for k, v in module.state_dict().items() if "frozen_stages" not in k.split(".")}


def save_weights(path: Path, module: nn.Module) -> None:
    """Write the trained half's weights, atomically."""
    write_tensors(path, trained_tensors(module), {})


def load_weights(path: Path, module: nn.Module) -> None:
    """Read weights that ``save_weights`` wrote; an ``InputError`` names what does not fit."""
    if not path.is_file():
        raise InputError(
            f"there are no weights at {path}; run `tag2mask train` first, or name another method."
        )
    tensors, _ = read_tensors(path)
    wanted = trained_tensors(module)
    wrong = [name for name in wanted if name not in tensors or tensors[name].shape != wanted[name].shape]
    if wrong:
        raise InputError(
            f"{path} does not fit the network of the settings: {wrong[0]!r} is missing or of another shape."
        )
    module.load_state_dict(tensors, strict=False)


def save_state(path: Path, module: nn.Module, optimiser: torch.optim.Optimizer, epoch: int) -> None:
    """Weights and optimiser moments after ``epoch`` epochs, atomically."""
    tensors = {f"host.{name}": tensor for name, tensor in trained_tensors(module).items()}
    for number, values in optimiser.state_dict()["state"].items():
        for name, value in values.items():
            if value is not None:
                tensors[f"optimiser.{number}.{name}"] = torch.as_tensor(value)
    write_tensors(path, tensors, {"epoch": str(epoch)})


def load_state(path: Path, module: nn.Module, optimiser: torch.optim.Optimizer) -> int:
    """Restore what ``save_state`` wrote; returns the number of finished epochs."""
    tensors, metadata = read_tensors(path)
    epoch = int(metadata["epoch"])
    try:
        module.load_state_dict({k[5:]: v for k, v in tensors.items() if k.startswith("host.")}, strict=False)
    except RuntimeError as error:
        raise InputError(f"{path} is of a network of another shape; delete its folder and train again.") from error
    state = optimiser.state_dict()
    state["state"] = {}
    parameters = [parameter for group in optimiser.param_groups for parameter in group["params"]]
    for name, tensor in tensors.items():
        if name.startswith("optimiser."):
            _, number, field = name.split(".")
            like = parameters[int(number)]
            if (
                tensor.shape == like.shape
            ):  # in its memory format, as without interruption: the same kernels, the same bits
                tensor = torch.empty_like(like).copy_(tensor)
            state["state"].setdefault(int(number), {})[field] = tensor
    optimiser.load_state_dict(state)
    return epoch


def save_prototypes(path: Path, prototypes: Prototypes) -> None:
    """Write prototypes and the numbers of their source images, atomically."""
    tensors = {name: value for name, value in vars(prototypes).items() if isinstance(value, Tensor)}
    write_tensors(path, tensors, {"spread": json.dumps(prototypes.spread)})


def load_prototypes(path: Path, device: torch.device | str = "cpu") -> Prototypes:
    """Read what ``save_prototypes`` wrote."""
    if not path.is_file():
        raise InputError(f"there are no prototypes at {path}; train a method that uses them.")
    tensors, metadata = read_tensors(path)
    strange = sorted(set(tensors) - {field.name for field in fields(Prototypes)})
    if strange:
        raise InputError(f"{path} is of another version (it holds {', '.join(strange)}); train again, or use that one.")
    on_device = {name: tensor.to(device) for name, tensor in tensors.items()}
    return Prototypes(**on_device, spread=float(json.loads(metadata["spread"])))


def write_tensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    """Write a safetensors file, atomically, and describe it in the manifest of its folder."""
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with replacing(path) as partial:
        try:
            save_file(plain, partial, {METADATA: json.dumps({"format": FORMAT, **metadata})})
        except SafetensorError as error:  # it hides what the system said
            code = re.search(r"os error (\d+)", str(error))
            if code is None:
                raise
            raise OSError(int(code[1]), os.strerror(int(code[1])), str(path)) from error
        with partial.open("rb+") as file:
            os.fsync(file.fileno())  # the renamed file must not be empty where the machine loses its power
        record(path, read_back(partial))


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a file that ``write_tensors`` wrote; nothing in it is executed.

    Raises:
        InputError: it is not what its manifest says, or it was written by another version. Without a manifest it is
            taken as it is, and without a number its format counts as 1.
    """
    prove(path)
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            metadata = json.loads(metadata[METADATA]) if METADATA in metadata else metadata
            written = metadata.get("format", 1)
            if written != FORMAT:
                raise InputError(
                    f"{path} was written by another version of tag2mask (format {written}, this one reads {FORMAT}); "
                    "use that version, or train again into another --out."
                )
            return {name: file.get_tensor(name) for name in file.keys()}, metadata  # noqa: SIM118
    except SafetensorError as error:
        raise InputError(f"{path} is damaged ({error}); delete it and train again.") from error
