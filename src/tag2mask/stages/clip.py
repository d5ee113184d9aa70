"""A CLIP that lies on the user's disk, read by OpenCLIP. Nothing is downloaded and nothing in its files is executed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tag2mask.errors import InputError

CONFIG = "open_clip_config.json"
SEVERAL = 64
"""Texts in a pass."""


class LocalClip:
    """Both towers of a CLIP, frozen.

    Attributes:
        size: side of the square pictures that it reads.
        mean, std: what they are normalised by.
    """

    def __init__(self, model: Any, tokenizer: Any, device: torch.device) -> None:
        self.model = model.to(device).eval().requires_grad_(False)
        self.tokenizer, self.device = tokenizer, device
        size = model.visual.image_size
        self.size = int(size if isinstance(size, int) else max(size))
        facts = model.visual.preprocess_cfg
        self.mean, self.std = (tuple(float(value) for value in facts[name]) for name in ("mean", "std"))

    def images(self, pictures: Tensor) -> Tensor:
        """Normalised pictures (N, 3, size, size) -> embeddings (N, E) of length 1, with a gradient to the pictures."""
        embeddings: Tensor = self.model.encode_image(pictures, normalize=True)
        return embeddings

    @torch.no_grad()
    def texts(self, words: Sequence[str]) -> Tensor:
        """T texts -> embeddings (T, E) of length 1."""
        parts = [self.model.text_projection.new_zeros(0, self.model.text_projection.shape[-1])]
        for start in range(0, len(words), SEVERAL):
            tokens = self.tokenizer(list(words[start : start + SEVERAL])).to(self.device)  # (T, L)
            parts.append(self.model.encode_text(tokens, normalize=True))
        return torch.cat(parts)


def load_clip(folder: str, device: torch.device) -> LocalClip:
    """The CLIP in a folder of OpenCLIP's form, as its models on the Hugging Face hub have it.

    Raises:
        InputError: no folder, no open_clip_config.json or weights in it, weights that do not fit, a text tower that
            needs more than OpenCLIP's own vocabulary, or OpenCLIP is not installed.
    """
    root = Path(folder)
    if not folder:
        raise InputError(
            "the method clims needs a CLIP on your disk; name its folder (open_clip_config.json and weights) by "
            "--rivals.clims.clip."
        )
    if not (root / CONFIG).is_file():
        raise InputError(f"rivals.clims.clip: there is no {CONFIG} in {folder}; give the folder of an OpenCLIP model.")
    if not [path for suffix in ("safetensors", "bin", "pth") for path in root.glob(f"*.{suffix}")]:
        raise InputError(f"rivals.clims.clip: no weights lie in {folder}; expected open_clip_model.safetensors.")
    try:
        settings = json.loads((root / CONFIG).read_text(encoding="utf-8"))["model_cfg"]
        plain = "hf_model_name" not in settings["text_cfg"] and not settings["text_cfg"].get("hf_tokenizer_name")
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{root / CONFIG} is damaged ({error!r}); take it from where the model came.") from error
    if not plain or settings.get("custom_text"):
        raise InputError(
            f"rivals.clims.clip: the text tower of {folder} needs a tokenizer of its own; give a CLIP with OpenCLIP's "
            "vocabulary, such as a ViT-B-32."
        )
    try:
        import open_clip
    except ImportError as error:
        raise InputError("the method clims needs OpenCLIP: pip install 'tag2mask[clip]'.") from error
    try:
        name = f"local-dir:{root}"
        model = open_clip.create_model(name, require_pretrained=True, weights_only=True)
        return LocalClip(model, open_clip.get_tokenizer(name), device)
    except Exception as error:  # whatever is wrong in files that another program has written
        raise InputError(f"rivals.clims.clip: {folder} cannot be read ({first_line(error)}).") from error


def first_line(error: Exception) -> str:
    """What an error says first."""
    lines = str(error).splitlines()
    return lines[0].rstrip(":. ") if lines else type(error).__name__
