"""Captioned tiles on one sheet."""

from collections.abc import Sequence
from typing import NamedTuple, Optional

import numpy as np
from PIL import Image, ImageDraw

from .text import LINE, PAPER, extent, wrapped, write


class Tile(NamedTuple):
    """A picture (h, w, 3), or None for a hole, under its caption."""

    picture: Optional[np.ndarray]
    caption: str = ""


def sheet(tiles: Sequence[Tile], columns: int, *, size: int = 14, title: str = "") -> np.ndarray:
    """Lay tiles out row by row.

    Args:
        tiles: of any sizes; those that are smaller than their column or row stand in its middle.
        columns: tiles in a row, at least 1.
        size: of the font, in pixels.
        title: a line above all.

    Returns:
        The sheet, (h, w, 3).
    """
    gap = size // 2
    rows = [tiles[start : start + columns] for start in range(0, len(tiles), columns)]
    widths = [max((_size(row[i])[0] for row in rows if i < len(row)), default=0) for i in range(len(rows[0]))]
    captions = [[wrapped(tile.caption, size, width) for tile, width in zip(row, widths)] for row in rows]
    lines = [max(len(caption) if any(caption) else 0 for caption in row) for row in captions]
    heights = [max(_size(tile)[1] for tile in row) for row in rows]
    head = [line for line in title.split("\n") if line]
    head_height = round(len(head) * LINE * size) + (gap if head else 0)
    width = max([sum(widths) + gap * (len(widths) + 1), *(extent(line, size)[0] + 2 * gap for line in head)])
    height = head_height + sum(heights) + sum(round(LINE * size * n) + (gap // 2) * (n > 0) for n in lines)
    page = Image.new("RGB", (width, height + gap * (len(rows) + 1)), PAPER)
    draw = ImageDraw.Draw(page)
    for number, line in enumerate(head):
        write(draw, (gap, gap + number * LINE * size), line, size)
    y = gap + head_height
    for row, row_captions, n, row_height in zip(rows, captions, lines, heights):
        below = y + round(LINE * size * n) + (gap // 2) * (n > 0)
        x = gap
        for tile, caption, column_width in zip(row, row_captions, widths):
            for number, line in enumerate(caption):
                write(draw, (x + column_width / 2, y + number * LINE * size), line, size, across=0.5)
            if tile.picture is not None:
                tile_width, tile_height = _size(tile)
                place = x + (column_width - tile_width) // 2, below + (row_height - tile_height) // 2
                page.paste(Image.fromarray(tile.picture), place)
            x += column_width + gap
        y = below + row_height + gap
    return np.asarray(page)


def _size(tile: Tile) -> tuple[int, int]:
    return (0, 0) if tile.picture is None else (tile.picture.shape[1], tile.picture.shape[0])
