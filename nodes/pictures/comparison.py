"""Labelled pictures side by side, with their differences."""

import math
from collections.abc import Sequence
from typing import NamedTuple, Optional

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from .arrays import fitted, picture_of
from .layout import Tile, sheet
from .metrics import psnr, ssim
from .text import INK, PAPER

LIMIT, CAPTION = 8192, 40  # pixels of a side of a sheet, and of the words above a picture in one that is full
MOST_LABEL = 200  # characters: one without end would take as long to lay out
INSET = 0.42  # the share of a picture that its inset takes, along each side


class Zoom(NamedTuple):
    """A part of each picture that is shown enlarged in the opposite corner: how much, and its middle in 0..1."""

    factor: float
    x: float = 0.5
    y: float = 0.5


def comparison(
    images: Sequence[Tensor],
    labels: Sequence[str] = (),
    *,
    columns: int = 0,
    cell: int = 512,
    difference: float = 0,
    zoom: Optional[Zoom] = None,
    metrics: bool = False,
) -> Tensor:
    """Lay images out under their labels.

    Args:
        images: the entries, each (b, h, w, c) of 0..1, of any sizes. The pictures of a batch stand below each other; a
            batch that is alone is compared picture by picture.
        labels: what stands above each entry; those that have none are numbered.
        columns: entries in a row; 0 is up to four in one row, and about as many rows as columns beyond.
        cell: pixels of the longer side of every picture; less where the sheet would grow beyond about 8192 pixels.
        difference: how often to enlarge the difference to the first entry, shown below each; 0 shows none.
        zoom: show a part enlarged.
        metrics: write PSNR and SSIM against the first entry above each.

    Returns:
        (1, h, w, 3) of 0..1.

    Raises:
        ValueError: no image.
    """
    if not images:
        raise ValueError("a comparison needs at least one image, got none")
    images = [entry.cpu() for entry in (images[0].split(1) if len(images) == 1 else images)]
    columns = columns or (len(images) if len(images) <= 4 else math.ceil(math.sqrt(len(images))))
    columns = min(columns, len(images))
    names = [
        _cut(label) or str(number + 1) for number, label in enumerate([*labels, *[""] * len(images)][: len(images)])
    ]
    kinds = 2 if difference else 1
    high = sum(max(len(entry) for entry in images[i : i + columns]) for i in range(0, len(images), columns))
    cell = max(16, min(cell, LIMIT // columns, LIMIT // (high * kinds) - CAPTION))
    tiles = []
    for start in range(0, len(images), columns):
        row = images[start : start + columns]
        holes = [Tile(None)] * (columns - len(row))
        for item in range(max(len(entry) for entry in row)):
            first = images[0][min(item, len(images[0]) - 1)]
            pictures = [entry[item] if item < len(entry) else None for entry in row]
            others = [
                picture if start + i > 0 and picture is not None and picture.shape == first.shape else None
                for i, picture in enumerate(pictures)
            ]
            for i, (picture, other) in enumerate(zip(pictures, others)):
                lines = [names[start + i]] if item == 0 else []
                if metrics and other is not None:
                    lines.append(_distance(first, other))
                tiles.append(_tile(picture, cell, zoom, "\n".join(lines)))
            tiles += holes
            if difference:
                for other in others:
                    apart = None if other is None else _difference(first, other, difference)
                    tiles.append(_tile(apart, cell, zoom, "" if other is None else f"difference x {difference:g}"))
                tiles += holes
    page = sheet(tiles, columns, size=max(12, cell // 26))
    return torch.from_numpy(page.copy())[None].float() / 255


def _tile(image: Optional[Tensor], cell: int, zoom: Optional[Zoom], caption: str) -> Tile:
    if image is None:
        return Tile(None, caption)
    picture = picture_of(image)
    shown = fitted(picture, cell)
    return Tile(shown if zoom is None or zoom.factor <= 1 else _with_inset(shown, picture, zoom), caption)


def _with_inset(shown: np.ndarray, picture: np.ndarray, zoom: Zoom) -> np.ndarray:
    """A picture as it is shown, with a part of the original enlarged in the corner that lies farthest from it."""
    page = Image.fromarray(shown)
    width, height = page.size
    part_width, part_height = INSET * width / zoom.factor, INSET * height / zoom.factor
    left = min(max(zoom.x * width - part_width / 2, 0), width - part_width)
    top = min(max(zoom.y * height - part_height / 2, 0), height - part_height)
    box = left, top, left + part_width, top + part_height
    scale = picture.shape[1] / width
    inset_size = max(1, round(INSET * width)), max(1, round(INSET * height))
    inset = Image.fromarray(picture).resize(inset_size, Image.Resampling.NEAREST, tuple(scale * side for side in box))
    corner = 0 if zoom.x >= 0.5 else width - inset_size[0], 0 if zoom.y >= 0.5 else height - inset_size[1]
    page.paste(inset, corner)
    draw = ImageDraw.Draw(page)
    for frame in (box, (*corner, corner[0] + inset_size[0] - 1, corner[1] + inset_size[1] - 1)):
        draw.rectangle(frame, outline=INK, width=3)
        draw.rectangle([side + inward for side, inward in zip(frame, (1, 1, -1, -1))], outline=PAPER, width=1)
    return np.asarray(page)


def _difference(first: Tensor, image: Tensor, factor: float) -> Tensor:
    """Middle grey where two images are equal, brighter and darker where the second is."""
    return (0.5 + 0.5 * factor * (image.float() - first.float())).clamp(0, 1)


def _distance(first: Tensor, image: Tensor) -> str:
    decibels = psnr(first, image)
    if math.isinf(decibels):
        return "identical"
    return f"PSNR {decibels:.1f} dB, SSIM {ssim(first, image):.3f}"


def _cut(label: str) -> str:
    return label if len(label) <= MOST_LABEL else label[: MOST_LABEL - 2] + ".."
