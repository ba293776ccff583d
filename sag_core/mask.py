"""From received attention to the mask of what is blurred."""

import math
from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor

from .checks import check_choice, check_floating, check_number


def upsample_map(received: Tensor, grid: Sequence[int], size: Sequence[int], mode: str = "nearest") -> Tensor:
    """Lay the tokens out on their grid and enlarge it to the latent (SAG section 4).

    Args:
        received: (b, n), one value a token, in row-major order of the grid.
        grid: the token grid, (gh, gw) or (t, gh, gw); its product is n.
        size: the latent's (h, w) or (t, h, w); it need not be a multiple of the grid.
        mode: "nearest", as in the paper, or "bilinear".

    Returns:
        (b, 1, h, w) or (b, 1, t, h, w).

    Raises:
        ValueError: a grid that does not hold n tokens, grid and size with different numbers of axes, an unknown mode.

    >>> import torch
    >>> upsample_map(torch.arange(6.0)[None], (2, 3), (4, 6)).shape
    torch.Size([1, 1, 4, 6])
    """
    check_floating("received", received, (2,))
    grid, size = tuple(grid), tuple(size)
    if math.prod(grid) != received.shape[1]:
        raise ValueError(f"grid must hold {received.shape[1]} tokens, got {grid}")
    if len(grid) != len(size) or len(grid) not in (2, 3) or min(size) < 1:
        raise ValueError(f"grid and size must both be (rows, columns) or (frames, rows, columns), got {grid}, {size}")
    check_choice("mask_upsampling", mode, ("nearest", "bilinear"))
    tokens = received.reshape(received.shape[0], 1, *grid)
    if mode == "nearest":
        return F.interpolate(tokens, size=size, mode="nearest")
    return F.interpolate(tokens, size=size, mode="bilinear" if len(size) == 2 else "trilinear", align_corners=False)


def average_maps(
    received: Sequence[Tensor], grids: Sequence[Sequence[int]], mode: str = "nearest"
) -> tuple[Tensor, tuple[int, ...]]:
    """Average the maps of several blocks on the finest of their grids.

    Args:
        received: a (b, n) for each block, one value a token.
        grids: the token grid of each.
        mode: how coarser maps are enlarged, see `upsample_map`.

    Returns:
        (b, n) and the grid it lies on; a single map comes back as it is.

    Raises:
        ValueError: no map, or as `upsample_map`.
    """
    if not received:
        raise ValueError("there must be at least one map to average")
    finest = tuple(max(grids, key=math.prod))
    if len(received) == 1:
        return received[0], finest
    maps = [upsample_map(tokens, grid, finest, mode) for tokens, grid in zip(received, grids)]
    return (sum(maps[1:], maps[0]) / len(maps)).flatten(1), finest


def attention_mask(received: Tensor, threshold: float = 1.0) -> Tensor:
    """Mark what receives more attention than `threshold`: `M = 1[received > threshold]` (SAG section 4, `psi`).

    Args:
        received: any shape, scaled so that 1 is the average.
        threshold: in units of the average attention, at least 0; 1 is the paper's value.

    Returns:
        1 where marked and 0 elsewhere, in the shape and dtype of `received`. NaN is not marked.

    Raises:
        ValueError: a threshold that is not finite or is below 0.
    """
    check_floating("received", received, tuple(range(1, 6)))
    check_number("threshold", threshold, low=0)
    return (received > threshold).to(received.dtype)
