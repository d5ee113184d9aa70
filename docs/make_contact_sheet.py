"""Paint docs/pictures/cooccur.png: the first scenes of the built-in benchmark, with class masks and contexts.

Run ``python docs/make_contact_sheet.py [OUTPUT]``.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageColor, ImageDraw, ImageFont

from tag2mask.config import CooccurConfig
from tag2mask.data.cooccur import CLASSES, CONTEXTS, render_scene, scene_content

COLUMNS, ROWS, SIZE, MARGIN, CAPTION, LEGEND = 3, 8, 128, 10, 18, 30
NOTHING = "#26262a"
CLASS_COLOURS = ["#e63c3c", "#f0a028", "#b450d2", "#3282f0", "#f0eb5a", "#fafafa", "#a05f2d", "#46e182"]
CONTEXT_COLOURS = ["#7d7d82", "#966e4b", "#3c78b9", "#e1e4eb", "#7daf4b", "#236e3c"]


def caption(config: CooccurConfig, index: int) -> str:
    content = scene_content(config, index)
    contexts = [name for name, there in zip(CONTEXTS, content.contexts, strict=True) if there]
    return f"{', '.join(CLASSES[one] for one in content.classes)}  |  {', '.join(contexts) or 'no context'}"


def coloured(values: np.ndarray, colours: list[str]) -> np.ndarray:
    table = np.array([ImageColor.getrgb(colour) for colour in (NOTHING, *colours)], np.uint8)
    picture: np.ndarray = table[values]  # (S, S) -> (S, S, 3)
    return picture


def legend(draw: ImageDraw.ImageDraw, font: ImageFont.ImageFont | ImageFont.FreeTypeFont, top: int) -> None:
    x = MARGIN
    names, colours = (*CLASSES, *CONTEXTS), (*CLASS_COLOURS, *CONTEXT_COLOURS)
    for place, (name, colour) in enumerate(zip(names, colours, strict=True)):
        if place == len(CLASSES):
            x += 4 * MARGIN
        draw.rectangle((x, top + 3, x + 12, top + 15), fill=colour, outline=(90, 90, 90))
        draw.text((x + 18, top + 2), name, fill=(20, 20, 20), font=font)
        x += 18 + int(draw.textlength(name, font=font)) + 14


def main(output: Path) -> None:
    config = CooccurConfig(size=SIZE)
    width = COLUMNS * (3 * SIZE + 4 + 2 * MARGIN)
    tile = SIZE + CAPTION + MARGIN
    sheet = Image.new("RGB", (width, LEGEND + ROWS * tile), (250, 250, 250))
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(13)
    legend(draw, font, 6)
    for index in range(COLUMNS * ROWS):
        scene = render_scene(config, index)
        x = MARGIN + (index % COLUMNS) * (width // COLUMNS)
        y = LEGEND + (index // COLUMNS) * tile
        draw.text((x, y), caption(config, index), fill=(20, 20, 20), font=font)
        panels = scene.image, coloured(scene.mask, CLASS_COLOURS), coloured(scene.context, CONTEXT_COLOURS)
        for k, panel in enumerate(panels):
            sheet.paste(Image.fromarray(panel), (x + k * (SIZE + 2), y + CAPTION))
    output.parent.mkdir(parents=True, exist_ok=True)
    sheet.quantize(256).save(output, optimize=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "pictures" / "cooccur.png")
