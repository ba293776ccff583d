"""Curves over sigma, drawn by hand: Pillow is all that there is."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from .text import PAPER, SHADE, extent, write

SIZE, FONT = (640, 400), 14
LEFT, RIGHT, TOP, BOTTOM = 70, 80, 56, 56
BLUE, ORANGE = (0, 114, 178), (213, 94, 0)  # two of the colours that colour-blind eyes tell apart (Okabe and Ito, 2008)


class Curve(NamedTuple):
    """Points (x, y) under one name, the top of their axis, and how to print a value."""

    name: str
    points: Sequence[tuple[float, float]]
    top: float
    form: str


def plot(left: Curve, right: Curve, title: str) -> np.ndarray:
    """Two curves over a falling sigma, each with an axis of its own: (h, w, 3). Sigma is drawn in equal factors."""
    width, height = SIZE
    page = Image.new("RGB", SIZE, PAPER)
    draw = ImageDraw.Draw(page)
    frame = LEFT, TOP, width - RIGHT, height - BOTTOM
    draw.rectangle(frame, outline=SHADE)
    write(draw, (LEFT, 8), title, FONT)
    sigmas = [x for curve in (left, right) for x, _ in curve.points]
    least = min((sigma for sigma in sigmas if sigma > 0), default=1.0)
    first, last = math.log(max([*sigmas, least])), math.log(least)

    def across(sigma: float) -> float:
        share = 0.5 if first == last else (first - math.log(max(sigma, least))) / (first - last)
        return LEFT + 12 + share * (width - LEFT - RIGHT - 24)

    _sigma_axis(draw, across, sorted(set(sigmas), reverse=True), frame)
    for curve, colour, side in ((left, BLUE, 0), (right, ORANGE, 1)):
        _curve(draw, curve, colour, side, across, frame)
    return np.asarray(page)


def _sigma_axis(draw, across, sigmas: list[float], frame) -> None:
    """Name as many of the noise levels as there is room for."""
    free = 0.0
    for sigma in sigmas:
        name, x = f"{sigma:.3g}", across(sigma)
        half = extent(name, FONT)[0] / 2
        draw.line((x, frame[3], x, frame[3] + 4), SHADE)
        if x - half > free:
            write(draw, (x, frame[3] + 8), name, FONT, across=0.5)
            free = x + half + FONT
    write(draw, ((frame[0] + frame[2]) / 2, frame[3] + 30), "sigma (noise level)", FONT, across=0.5)


def _curve(draw, curve: Curve, colour, side: int, across, frame) -> None:
    left, top, right, bottom = frame
    edge = (left, right)[side]
    for share in (0, 0.25, 0.5, 0.75, 1):
        y = bottom - share * (bottom - top)
        if not side and 0 < share < 1:
            draw.line((left + 1, y, right - 1, y), (225, 225, 225))
        name = curve.form.format(share * curve.top)
        write(draw, (edge + (8 if side else -8), y), name, FONT, ink=colour, across=1 - side, down=0.6)
    points = [(across(x), bottom - min(y / curve.top, 1) * (bottom - top)) for x, y in curve.points]
    if len(points) > 1:
        draw.line(points, colour, 2)
    for x, y in points:  # round or square, for eyes that see no colour
        (draw.rectangle if side else draw.ellipse)((x - 4, y - 4, x + 4, y + 4), colour)
    mark = left + side * 180
    (draw.rectangle if side else draw.ellipse)((mark, 35, mark + 8, 43), colour)
    write(draw, (mark + 16, 39), curve.name, FONT, ink=colour, down=0.6)
