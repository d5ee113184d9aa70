"""Pictures for a page: photos as JPEG, maps and regions as palette PNGs that lie over them."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping

import numpy as np
from PIL import Image

from tag2mask.data import TaggedImages

PHOTO_QUALITY = 80
HEAT_LONGEST = 96
"""Longest side of a heat map, in pixels; the network's own grid is coarser still, and the browser enlarges smoothly."""
REGION_LONGEST = 240
"""Longest side of regions, in pixels: their outlines stay sharp."""
OUTLINE = 100
"""Palette entry of the outline of region k is k + OUTLINE."""
BLANK = "data:image/gif;base64,R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7"
"""One transparent pixel: the overlay of a photo that has none."""

Colour = tuple[int, int, int]


def heat_colours() -> np.ndarray:
    """(256, 3) uint8, from dark violet over red and orange to pale yellow.

    The lightness rises evenly in OKLab (B. Ottosson, "A perceptual color space for image processing", 2020), so that
    the order can be read without seeing the hue.
    """
    level = np.linspace(0, 1, 256)
    lightness = 0.20 + 0.76 * level
    chroma = 0.04 + 0.15 * np.sin(np.pi * level**0.9)
    hue = np.radians(290 + 170 * level)
    a, b = chroma * np.cos(hue), chroma * np.sin(hue)
    cone = np.stack(
        [
            lightness + 0.3963377774 * a + 0.2158037573 * b,
            lightness - 0.1055613458 * a - 0.0638541728 * b,
            lightness - 0.0894841775 * a - 1.2914855480 * b,
        ]
    )  # (3, 256)
    to_linear = np.array(
        [
            [4.0767416621, -3.3077115913, 0.2309699292],
            [-1.2684380046, 2.6097574011, -0.3413193965],
            [-0.0041960863, -0.7034186147, 1.7076147010],
        ]
    )
    linear = np.clip(to_linear @ cone**3, 0, 1).T  # (256, 3)
    curved = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    table: np.ndarray = np.rint(255 * curved).astype(np.uint8)
    return table


HEAT = heat_colours()
HEAT_ALPHA = np.rint(255 * np.linspace(0.45, 0.80, 256)).astype(np.uint8)
"""Cold pixels veil the photo, hot ones cover more of it."""


def heat_gradient() -> str:
    """The heat colours as stops of a CSS gradient, for the legend."""
    return ", ".join("#{:02x}{:02x}{:02x}".format(*HEAT[level]) for level in range(0, 256, 15))


def data_uri(image: Image.Image, kind: str, **options: object) -> str:
    """A picture as a data URI; base64 holds no character that HTML or CSS would have to escape."""
    buffer = io.BytesIO()
    image.save(buffer, format=kind, optimize=True, **options)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


def photo_uri(photo: Image.Image, longest: int) -> str:
    """A photo as JPEG, at most ``longest`` pixels wide and high."""
    small = photo.copy()
    small.thumbnail((longest, longest), Image.Resampling.LANCZOS)
    return data_uri(small, "JPEG", quality=PHOTO_QUALITY)


def palette_uri(values: np.ndarray, colours: np.ndarray) -> str:
    """PNG of (H, W) uint8 ``values``, each drawn as its row of ``colours`` (n, 4) uint8 RGBA."""
    image = Image.fromarray(values)
    image.putpalette(colours[:, :3].tobytes())
    return data_uri(image, "PNG", transparency=colours[:, 3].tobytes())


def heat_uri(values: np.ndarray) -> str:
    """A localization map (H, W) uint8 as a heat map to lie over its photo."""
    small = Image.fromarray(values)
    small.thumbnail((HEAT_LONGEST, HEAT_LONGEST), Image.Resampling.BILINEAR)
    return palette_uri(np.asarray(small), np.column_stack([HEAT, HEAT_ALPHA]))


def enlarged(values: np.ndarray, size: tuple[int, int], smooth: bool) -> np.ndarray:
    """(h, w) uint8 as (H', W') in the shape of a photo of (width, height) ``size``, REGION_LONGEST at the longest."""
    factor = REGION_LONGEST / max(size)
    target = (max(1, round(size[0] * factor)), max(1, round(size[1] * factor)))
    method = Image.Resampling.BILINEAR if smooth else Image.Resampling.NEAREST
    return np.asarray(Image.fromarray(values).resize(target, method))


def regions_uri(regions: np.ndarray, colours: Mapping[int, Colour], fill: float = 0.5, veil: float = 0.0) -> str:
    """Regions with an outline, to lie over a photo.

    Args:
        regions: (H, W) uint8; 0 is nothing.
        colours: of the regions, fewer than 100; their numbers are 1 to 255.
        fill, veil: opacity inside the regions and, in black, outside all of them.
    """
    values = np.zeros(regions.shape, np.uint8)
    table = np.zeros((256, 4), np.uint8)
    table[0, 3] = round(255 * veil)
    inside_edge = _inside_edge(regions)
    for entry, (number, colour) in enumerate(colours.items(), start=1):
        here = regions == number
        values[here] = entry
        values[here & inside_edge] = entry + OUTLINE
        table[entry] = (*colour, round(255 * fill))
        table[entry + OUTLINE] = (*(round(0.7 * channel + 0.3 * 255) for channel in colour), 255)
    return palette_uri(values, table)


def _inside_edge(regions: np.ndarray) -> np.ndarray:
    """(H, W) bool: pixels within two of another region or of nothing, but not of the border of the picture."""
    edge = np.zeros(regions.shape, bool)
    for distance in (1, 2):
        for axis in (0, 1):
            shifted = np.moveaxis(regions, axis, 0)
            differs = shifted[distance:] != shifted[:-distance]
            view = np.moveaxis(edge, axis, 0)
            view[distance:] |= differs
            view[:-distance] |= differs
    return edge


def bright(colour: np.ndarray) -> Colour:
    """A palette colour, lifted so that it stands out on a photo: VOC's begin with dark red and dark green."""
    red, green, blue = (int(channel) for channel in colour)
    lift = min(255 / max(red, green, blue, 1), 2.8) * 0.84
    return round(40 + red * lift), round(40 + green * lift), round(40 + blue * lift)


def css(colour: Colour) -> str:
    """A colour in CSS."""
    return "#{:02x}{:02x}{:02x}".format(*colour)


class Photos:
    """The photos of a page. Each is encoded once; pictures name it by its CSS class and lay an overlay on it."""

    def __init__(self, images: TaggedImages) -> None:
        self.images = images
        self.uris: dict[str, str] = {}
        self._sizes: dict[int, tuple[int, int]] = {}

    def show(self, index: int, longest: int) -> str:
        """CSS class of a photo at a size."""
        name = f"photo{index}x{longest}"
        if name not in self.uris:
            photo = self.images.image(index)
            self._sizes[index] = photo.size
            self.uris[name] = photo_uri(photo, longest)
        return name

    def size(self, index: int) -> tuple[int, int]:
        """(width, height) of a photo that was shown."""
        return self._sizes[index]
