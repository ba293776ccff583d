"""Separable Gaussian blur over the last two axes."""

import math
from typing import Optional

import torch
import torch.nn.functional as F
from torch import Tensor

from .checks import check_floating, check_number


def gaussian_taps(sigma: float, kernel_size: Optional[int] = None) -> Tensor:
    """Sampled Gaussian `exp(-i^2 / (2 sigma^2))`, scaled to sum 1.

    Args:
        sigma: standard deviation in pixels, above 0.
        kernel_size: odd number of taps; default the least odd number that is at least `8 sigma + 1` and at least 9,
            so that a larger sigma always blurs more. 9 reproduces implementations with a fixed kernel.

    Returns:
        (taps,) float32.

    Raises:
        ValueError: sigma not finite or not above 0, an even kernel size or one below 1.

    >>> gaussian_taps(1.0).shape
    torch.Size([9])
    """
    check_number("sigma", sigma, low=0)
    if sigma == 0:
        raise ValueError("sigma must be above 0, got 0")
    if kernel_size is None:
        kernel_size = max(9, 2 * math.ceil(4 * sigma) + 1)
    check_number("kernel_size", kernel_size, low=1)
    if kernel_size % 2 != 1:
        raise ValueError(f"kernel_size must be odd, got {kernel_size!r}")
    offsets = torch.arange(int(kernel_size), dtype=torch.float32) - int(kernel_size) // 2
    # A sigma so small that the outer taps underflow is a blur of one tap, never a division of 0 by 0.
    taps = torch.exp(-0.5 * (offsets / max(sigma, 1e-3)) ** 2)
    return taps / taps.sum()


def gaussian_blur(x: Tensor, sigma: float, kernel_size: Optional[int] = None) -> Tensor:
    """Blur rows and columns of `x` by a Gaussian, the border reflected (SAG section 4, `G_sigma`).

    The border is reflected as often as the kernel asks for, so a kernel may be larger than the image.

    Args:
        x: (b, c, h, w) or (b, c, t, h, w); frames are blurred one by one.
        sigma: standard deviation in pixels of `x`, at least 0; 0 returns `x` itself.
        kernel_size: see `gaussian_taps`.

    Returns:
        The shape and dtype of `x`; half precision is blurred in float32 and rounded once.

    Raises:
        ValueError: as `gaussian_taps`; a tensor that is not floating-point or has other axes.

    >>> import torch
    >>> gaussian_blur(torch.rand(1, 4, 5, 7), 2.0).shape
    torch.Size([1, 4, 5, 7])
    """
    check_floating("x", x, (4, 5))
    check_number("sigma", sigma, low=0)
    if sigma == 0:
        return x
    taps = gaussian_taps(sigma, kernel_size)
    precise = x if x.dtype == torch.float64 else x.float()
    taps = taps.to(precise)
    for axis in (-1, -2):
        precise = _convolve(precise.movedim(axis, -1), taps).movedim(-1, axis)
    return precise.to(x.dtype)


def _convolve(x: Tensor, taps: Tensor) -> Tensor:
    """Convolve the last axis of `x`, reflected at both ends without repeating the edge pixel."""
    width, reach = x.shape[-1], len(taps) // 2
    period = max(1, 2 * (width - 1))
    index = torch.arange(-reach, width + reach, device=x.device).remainder(period)
    index = torch.minimum(index, period - index) if width > 1 else torch.zeros_like(index)
    lines = x[..., index].reshape(-1, 1, width + 2 * reach)
    return F.conv1d(lines, taps[None, None]).reshape(x.shape)
