"""Photos with their tags. There is no mask in this module, nor in anything that it can reach."""

from __future__ import annotations

import io
import os
import stat
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from tag2mask.data.classes import Classes
from tag2mask.data.files import DataError, fault

REPLACE = "replace the file, or take its row out"
NO_FILE = ("there is no such file", "restore the file, or take its row out")
NO_PICTURE = ("this is a folder, not a picture", REPLACE)
EMPTY = ("the file is empty (0 bytes)", REPLACE)
"""What is wrong with a file, and what to do."""


@dataclass(frozen=True, eq=False)
class TaggedImages:
    """N images with their tags, all that training may see."""

    classes: Classes
    ids: tuple[str, ...]
    labels: np.ndarray
    """(N, C) bool, read-only: the class is tagged. A row may be empty (scenery only)."""
    reader: Callable[[int], Image.Image]
    """Index to picture; it can be pickled, for worker processes."""

    def __post_init__(self) -> None:
        if self.labels.shape != (len(self.ids), len(self.classes)) or self.labels.dtype != np.bool_:
            raise ValueError(
                f"labels are {self.labels.shape} {self.labels.dtype}; "
                f"expected ({len(self.ids)}, {len(self.classes)}) bool"
            )
        self.labels.setflags(write=False)

    def __len__(self) -> int:
        return len(self.ids)

    def image(self, index: int) -> Image.Image:
        """The picture, RGB and upright. Raises ``InputError`` when its file cannot be decoded."""
        return self.reader(index)

    def size_hw(self, index: int) -> tuple[int, int]:
        """(height, width) of the upright picture; of a file of its own or in another one by its header alone."""
        return _size_hw(self.reader, index)

    def alone(self, index: int) -> Callable[[int], Image.Image]:
        """The reader of one image, as number 0: for a worker process, which need not be sent the places of all."""
        return _alone(self.reader, index)

    def label_names(self, index: int) -> tuple[str, ...]:
        """Names of the tags of an image, in the order of the classes."""
        return tuple(
            name for name, present in zip(self.classes.names, self.labels[index], strict=True) if present
        )

    def subset(self, indices: Sequence[int]) -> TaggedImages:
        """The images at ``indices``, in that order."""
        chosen = tuple(range(len(self))[int(index)] for index in indices)  # resolves negative indices
        return replace(
            self,
            ids=tuple(self.ids[index] for index in chosen),
            labels=self.labels[list(chosen)].reshape(len(chosen), len(self.classes)),
            reader=partial(_read_chosen, self.reader, chosen),
        )


def _read_chosen(reader: Callable[[int], Image.Image], chosen: tuple[int, ...], index: int) -> Image.Image:
    return reader(chosen[index])


def read_path(paths: tuple[str, ...], index: int) -> Image.Image:
    """The picture at ``paths[index]``; with ``functools.partial`` the reader of images on disk.

    Texts, as a ``Path`` takes five times the memory, and there may be millions.
    """
    return decode_image(Path(paths[index]))


class Packed(Protocol):
    """Pictures inside other files, such as the members of archives, by number. It can be pickled."""

    @property
    def paths(self) -> tuple[Path, ...]:
        """The files that hold the pictures."""
        ...

    def name(self, record: int) -> Path:
        """The file that holds a picture and the picture's name in it, for messages."""
        ...

    def content(self, record: int) -> bytes:
        """The bytes of the picture's own file."""
        ...

    def alone(self, record: int) -> tuple[Packed, int]:
        """The same picture among no others, and its number there."""
        ...


def read_packed(packed: Packed, records: np.ndarray, index: int) -> Image.Image:
    """The picture with the number ``records[index]``; with ``functools.partial`` the reader of packed pictures."""
    record = int(records[index])
    return decode_image(packed.name(record), packed.content(record))


def _size_hw(reader: Callable[[int], Image.Image], index: int) -> tuple[int, int]:
    if isinstance(reader, partial) and reader.func is _read_chosen:
        return _size_hw(reader.args[0], reader.args[1][index])
    if isinstance(reader, partial) and reader.func is read_path:
        return _header_size(Path(reader.args[0][index]), None)
    if isinstance(reader, partial) and reader.func is read_packed:
        packed, record = reader.args[0], int(reader.args[1][index])
        return _header_size(packed.name(record), packed.content(record))
    width, height = reader(index).size
    return height, width


def _header_size(path: Path, content: bytes | None) -> tuple[int, int]:
    with opened(path, content) as image:
        width, height = image.size
        return (width, height) if _orientation(image) >= 5 else (height, width)  # 5 to 8 lie on their side


def _alone(reader: Callable[[int], Image.Image], index: int) -> Callable[[int], Image.Image]:
    if isinstance(reader, partial) and reader.func is _read_chosen:
        return _alone(reader.args[0], reader.args[1][index])
    if isinstance(reader, partial) and reader.func is read_path:
        return partial(read_path, (reader.args[0][index],))
    if isinstance(reader, partial) and reader.func is read_packed:
        packed, record = reader.args[0].alone(int(reader.args[1][index]))
        return partial(read_packed, packed, np.array([record]))
    return partial(_read_chosen, reader, (index,))


def image_paths(images: TaggedImages) -> tuple[Path, ...] | None:
    """The files of images on disk, one for each; None for images that are drawn, or inside other files."""
    reader = images.reader
    if isinstance(reader, partial) and reader.func is read_path:
        return tuple(Path(path) for path in reader.args[0])
    return None


def require_file(path: Path) -> None:
    """Raise ``InputError`` unless there is a file that is not empty. It is not opened: a million are looked at soon."""
    try:
        facts = path.stat()
    except FileNotFoundError:
        raise fault(path, *NO_FILE) from None
    except OSError as error:
        raise fault(path, f"the file cannot be read ({error.strerror})", "check its permissions") from None
    if stat.S_ISDIR(facts.st_mode):
        raise fault(path, *NO_PICTURE)
    if facts.st_size == 0:
        raise fault(path, *EMPTY)


def decode_image(path: Path, content: bytes | None = None) -> Image.Image:
    """A picture file as ``upright_rgb``. Raises ``InputError`` that names it when it is missing, empty, damaged or cut
    off. ``content``: as in ``opened``."""
    with opened(path, content) as image:
        image.load()
        return upright_rgb(image, path)


def upright_rgb(image: Image.Image, where: str | Path) -> Image.Image:
    """A picture as upright RGB, 8 bit.

    The EXIF rotation is applied. 16 bit grey is scaled by its value range (65535 becomes 255). Whatever is transparent
    lies over white. Raises ``InputError`` that names ``where`` when its pixels have more than 16 bits, or fractions.
    """
    return _to_rgb(_upright(image), where)


def verify_header(path: Path) -> None:
    """Raise ``InputError`` unless the file is there, not empty, and begins and ends like a picture.

    It decodes pixels only where the end looks wrong: well under a millisecond for a file in order.
    """
    with opened(path) as image:
        decode_if_cut_off(image, path)


def decode_if_cut_off(image: Image.Image, path: Path) -> None:
    """Decode an opened JPEG or PNG whose last bytes are missing or covered by others, so that a fault comes out now."""
    end = {"JPEG": b"\xff\xd9", "PNG": b"IEND\xaeB`\x82"}.get(image.format or "", b"")
    with path.open("rb") as file:
        file.seek(-len(end), os.SEEK_END)
        if file.read() != end:
            image.load()


@contextmanager
def opened(path: Path, content: bytes | None = None) -> Iterator[Image.Image]:
    """A picture file opened by Pillow; whatever fails, also while it is open, becomes a ``DataError``.

    ``content``: the bytes of a picture that has no file of its own; ``path`` is then its name in messages.
    """
    try:
        if (path.stat().st_size if content is None else len(content)) == 0:
            raise fault(path, *EMPTY)
        with Image.open(path if content is None else io.BytesIO(content)) as image:
            yield image
    except DataError:
        raise
    except FileNotFoundError:
        raise fault(path, *NO_FILE) from None
    except IsADirectoryError:
        raise fault(path, *NO_PICTURE) from None
    except UnidentifiedImageError:
        raise fault(path, "this is not a picture in a known format", REPLACE) from None
    except Image.DecompressionBombError as error:
        raise fault(path, f"the picture is too large ({error})", "make it smaller") from None
    except MemoryError:
        raise
    except Exception as error:  # damaged bytes make decoders raise nearly anything: OSError, SyntaxError, ...
        raise fault(path, f"the picture is damaged or cut off ({error})", REPLACE) from error


def _upright(image: Image.Image) -> Image.Image:
    return image if _orientation(image) == 1 else ImageOps.exif_transpose(image)


def _orientation(image: Image.Image) -> int:
    """1 to 8, where 1 is upright."""
    try:
        orientation = image.getexif().get(0x0112, 1)  # the EXIF tag Orientation
    except (SyntaxError, ValueError, TypeError, LookupError, OSError, struct.error):
        # damaged EXIF beside sound pixels: viewers show such a picture unrotated
        return 1
    return orientation if isinstance(orientation, int) and 1 <= orientation <= 8 else 1


def _to_rgb(image: Image.Image, where: str | Path) -> Image.Image:
    if image.mode.startswith("I"):
        values = np.asarray(image).astype(np.int64)
        if values.min() < 0 or values.max() > 65535:
            raise fault(where, "the picture has more than 16 bits a pixel", "save it with 8 or 16 bits")
        return Image.fromarray(np.rint(values / 257).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise fault(
            where, "the picture has floating-point pixels of unknown range", "save it with 8 or 16 bits"
        )
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")
