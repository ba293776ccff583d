"""Words in pictures, in Pillow's own font, so that they look alike everywhere."""

from functools import cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont

INK, PAPER, SHADE = (20, 20, 20), (255, 255, 255), (110, 110, 110)
LINE = 1.35  # height of a line in units of the font's size


@cache
def font(size: int):
    """Pillow's own font; its small fixed one where this Pillow has no other (before 10.1, or without FreeType)."""
    try:
        return ImageFont.load_default(size)
    except (TypeError, ImportError):
        return ImageFont.load_default()


def extent(text: str, size: int) -> tuple[int, int]:
    """Width and height of a line in pixels."""
    left, top, right, bottom = font(size).getbbox(_printable(text, size))
    return int(right - min(left, 0)), int(bottom - min(top, 0))


def write(draw: ImageDraw.ImageDraw, xy, text: str, size: int, *, ink=INK, across: float = 0, down: float = 0) -> None:
    """Write a line with `xy` at the share `across` and `down` of its box: 0 is left or top, 1 right or bottom."""
    # Not Pillow's anchors: its small font has none.
    width, height = extent(text, size)
    place = xy[0] - across * width, xy[1] - down * height
    draw.text(place, _printable(text, size), ink, font(size))


def wrapped(text: str, size: int, width: int) -> list[str]:
    """The lines of a text that is not to be wider than `width`; a word that is too long is cut."""
    lines = []
    for paragraph in text.split("\n"):
        line = ""
        for word in paragraph.split():
            while len(word) > 1 and extent(word, size)[0] > width:
                word = word[:-3] + ".." if len(word) > 3 else word[:-1]
            longer = f"{line} {word}".strip()
            if line and extent(longer, size)[0] > width:
                lines.append(line)
                longer = word
            line = longer
        lines.append(line)
    return lines


def message(text: str, size: int = 20, width: int = 512):
    """A small picture (h, w, 3) that says something in words."""
    lines = wrapped(text, size, width - 4 * size)
    page = Image.new("RGB", (width, round((len(lines) * LINE + 4) * size)), (238, 238, 238))
    draw = ImageDraw.Draw(page)
    for number, line in enumerate(lines):
        write(draw, (2 * size, (number * LINE + 2) * size), line, size)
    return np.asarray(page)


def _printable(text: str, size: int) -> str:
    """What the font can draw: the small fixed one knows Latin-1 alone."""
    if isinstance(font(size), ImageFont.FreeTypeFont):
        return text
    return text.encode("latin-1", "replace").decode("latin-1")
