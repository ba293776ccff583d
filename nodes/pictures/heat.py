"""Maps as colours."""

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from .text import INK, PAPER, extent, write

# Viridis of matplotlib (van der Walt and Smith, 2015) at nine even steps: it grows lighter all along, also for
# colour-blind eyes and in grey.
VIRIDIS = np.array(
    [
        (68, 1, 84), (71, 44, 122), (59, 81, 139), (44, 113, 142), (33, 144, 141), (39, 173, 129), (92, 200, 99),
        (170, 220, 50), (253, 231, 37),
    ],
    dtype=np.float64,
)  # fmt: skip


def heat(values: np.ndarray, top: float) -> np.ndarray:
    """Colours (h, w, 3) of a map (h, w): dark at 0, bright at `top` and above. NaN counts as 0."""
    share = np.nan_to_num(np.asarray(values, dtype=np.float64) / top).clip(0, 1)
    places = np.linspace(0, 1, len(VIRIDIS))
    return np.stack([np.interp(share, places, channel) for channel in VIRIDIS.T], -1).round().astype(np.uint8)


def enlarged(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A map (h, w, ...) at height and width `size`, every value a block."""
    height, width = size
    rows = np.arange(height) * values.shape[0] // height
    columns = np.arange(width) * values.shape[1] // width
    return values[rows][:, columns]


def blended(picture: np.ndarray, over: np.ndarray, share: float) -> np.ndarray:
    """`share` of `over` on a picture, both (h, w, 3)."""
    return (picture * (1 - share) + over * share).round().astype(np.uint8)


def outlined(picture: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """A picture (h, w, 3) with a line along the edge of a mask (h, w) of booleans: white, with black on both sides."""
    height, width = mask.shape
    line = max(1, min(height, width) // 200)
    edge = np.zeros(mask.shape, dtype=bool)
    edge[:, 1:] |= mask[:, 1:] != mask[:, :-1]
    edge[1:] |= mask[1:] != mask[:-1]
    lined = picture.copy()
    lined[_grown(edge, 2 * line)] = INK
    lined[_grown(edge, line)] = PAPER
    return lined


def legend(height: int, top: float, size: int) -> np.ndarray:
    """The colours' scale from 0 to `top`, standing upright, (height, w, 3)."""
    bar, pad = size, size // 2
    names = {0.0: "0", top: f"{top:.3g}+"}
    if 1.2 * size < (height - 2 * size) / top < height - 3.2 * size:  # there is room between the two
        names[1.0] = "1"
    width = bar + 3 * pad + max(extent(name, size)[0] for name in names.values())
    page = Image.new("RGB", (width, height), PAPER)
    colours = heat(np.linspace(top, 0, max(height - 2 * size, 2))[:, None], top)
    page.paste(Image.fromarray(colours).resize((bar, height - 2 * size)), (pad, size))
    draw = ImageDraw.Draw(page)
    for value, name in names.items():
        y = size + (1 - value / top) * (height - 2 * size)
        draw.line((pad + bar, y, pad + bar + pad // 2, y), INK)
        write(draw, (bar + 2 * pad, y), name, size, down=0.6)
    return np.asarray(page)


def _grown(area: np.ndarray, by: int) -> np.ndarray:
    """An area of booleans (h, w), wider by so many pixels on every side."""
    return np.asarray(Image.fromarray(area.astype(np.uint8)).filter(ImageFilter.MaxFilter(2 * by + 1))) > 0
