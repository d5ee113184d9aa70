"""Photos as the page shows them: small ones kept in the run folder, large ones and uploads made when asked for."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import threading
import warnings
from pathlib import Path

from PIL import Image

from tag2mask.data import TaggedImages
from tag2mask.data.images import image_paths, opened, upright_rgb
from tag2mask.errors import InputError

THUMBNAIL, LARGE = 240, 900
"""Longest sides in pixels."""
QUALITY = 82
MOST_BYTES = 24 * 1024 * 1024
MOST_PIXELS = 64_000_000
"""Bounds of an upload."""
NEW_LONGEST = 1024
"""What a new photo is reduced to before the network sees it: bounds time and memory."""
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")
"""Formats of uploads; others have decoders that start programs or are seldom looked at."""


class Thumbnails:
    """Small photos of one set, each made once. A photo that has changed since is made again.

    ``source``: where the set comes from; scenes have the same ids whatever their seed.
    """

    def __init__(self, run: Path, images: TaggedImages, source: str) -> None:
        names = hashlib.sha256("\0".join([source, *images.ids]).encode()).hexdigest()[:16]
        self.images, self.paths = images, image_paths(images)
        self._folder = run / "explore" / "thumbnails" / names

    def jpeg(self, index: int) -> bytes:
        """The small photo as JPEG. Raises ``InputError`` where its file cannot be read."""
        path = self._folder / str(index // 1000) / f"{index}.jpg"
        with contextlib.suppress(OSError):
            if self.paths is None or path.stat().st_mtime_ns >= self.paths[index].stat().st_mtime_ns:
                return path.read_bytes()
        content = jpeg(self.photo(index, THUMBNAIL), THUMBNAIL)
        with contextlib.suppress(OSError):  # a run folder that cannot be written to is looked at all the same
            path.parent.mkdir(parents=True, exist_ok=True)
            partial = path.with_name(f"{path.name}.{threading.get_ident()}.partial")
            partial.write_bytes(content)
            os.replace(partial, path)
        return content

    def photo(self, index: int, longest: int) -> Image.Image:
        """A photo, upright RGB, at least ``longest`` pixels on its longest side if it has so many."""
        if self.paths is None:
            return self.images.image(index)
        with opened(self.paths[index]) as image:
            image.draft("RGB", (longest, longest))  # JPEG decodes at an eighth of its size for an eighth of the time
            image.load()
            return upright_rgb(image, self.paths[index])


def jpeg(photo: Image.Image, longest: int) -> bytes:
    """A photo as JPEG, at most ``longest`` pixels on its longest side."""
    small = photo.copy()
    small.thumbnail((longest, longest), Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=QUALITY)
    return buffer.getvalue()


def uploaded(content: bytes) -> Image.Image:
    """A photo that came over the wire, upright RGB, reduced. ``InputError`` for what is no photo, or too large."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the bound below is ours
            with Image.open(io.BytesIO(content), formats=FORMATS) as image:
                width, height = image.size
                if width * height > MOST_PIXELS:
                    raise InputError(
                        f"the photo has {width} x {height} pixels; expected at most {MOST_PIXELS // 1_000_000} million."
                    )
                image.draft("RGB", (NEW_LONGEST, NEW_LONGEST))
                image.load()
                photo = upright_rgb(image, "the photo")
    except InputError:
        raise
    except Image.DecompressionBombError:
        raise InputError(f"the photo has over {MOST_PIXELS // 1_000_000} million pixels; make it smaller.") from None
    except MemoryError:
        raise
    except Exception:  # damaged bytes make decoders raise nearly anything
        raise InputError("this is not a photo that can be read; expected JPEG, PNG, WebP, TIFF, BMP or GIF.") from None
    photo.thumbnail((NEW_LONGEST, NEW_LONGEST), Image.Resampling.LANCZOS)
    return photo
