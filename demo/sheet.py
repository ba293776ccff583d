"""Picture sheets: rows of small pictures, enlarged, under a line of titles."""

import math
from collections.abc import Sequence
from typing import Union

from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

CELL = 160  # side of an enlarged picture in pixels
GAP = 6
TITLE = 40


def sheet(columns: "dict[str, Union[Tensor, Sequence[Image.Image]]]", title: str) -> Image.Image:
    """Lay pictures out.

    Args:
        columns: title of each column and its pictures, a row each: of Pillow, or (rows, 3, h, w) in -1..1, where
            brighter and darker is cut.
        title: a line above all.

    Returns:
        The sheet, every pixel of a picture shown as a square or a little more.
    """
    rows = len(next(iter(columns.values())))
    step = CELL + GAP
    width = max(GAP + step * len(columns), 2 * GAP + math.ceil(font(17).getlength(title)))
    page = Image.new("RGB", (width, 2 * TITLE + step * rows), "white")
    draw = ImageDraw.Draw(page)
    draw.text((GAP, TITLE // 2), title, "black", font(17), anchor="lm")
    for column, (name, pictures) in enumerate(columns.items()):
        left = GAP + step * column
        lines = name.strip().split("\n")
        for line, text in enumerate(lines):
            y = 1.5 * TITLE + (line - (len(lines) - 1) / 2) * 16
            draw.text((left + CELL / 2, y), text, "black", font(14), anchor="mm")
        for row, picture in enumerate(pictures):
            enlarged = image(picture) if isinstance(picture, Tensor) else picture
            page.paste(enlarged.resize((CELL, CELL), Image.Resampling.NEAREST), (left, 2 * TITLE + step * row))
    return page


def image(picture: Tensor) -> Image.Image:
    """A picture (3, h, w) in -1..1 as Pillow has it."""
    levels = ((picture.clamp(-1, 1) + 1) * 127.5).round().byte()
    return Image.fromarray(levels.permute(1, 2, 0).cpu().numpy())


def lit_by(picture: Tensor, masks: "Sequence[Tensor]") -> Tensor:
    """Pictures (b, 3, h, w) in -1..1, dark where no step's mask (b, 1, h, w) lay and full where every step's did."""
    share = sum(masks) / len(masks)
    return (picture.clamp(-1, 1) + 1) * (0.12 + 0.88 * share) - 1


def change(before: Tensor, after: Tensor, times: float) -> Tensor:
    """What became brighter and darker between two pictures, enlarged; 0 (grey) is no change."""
    return times * (after - before)


def font(size: int) -> ImageFont.ImageFont:
    """Pillow's own font, so that a sheet looks alike everywhere."""
    return ImageFont.load_default(size)
