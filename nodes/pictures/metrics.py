"""How far two pictures are apart."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

WINDOW, SPREAD = 11, 1.5  # taps and standard deviation of SSIM's window
C1, C2 = 0.01**2, 0.03**2


def psnr(a: Tensor, b: Tensor) -> float:
    """Peak signal-to-noise ratio `-10 log10(mean (a - b)^2)` of pictures in 0..1, in decibels.

    Args:
        a, b: (h, w, c).

    Returns:
        Decibels; infinity for equal pictures.

    Raises:
        ValueError: pictures of different shapes.
    """
    _check(a, b)
    error = (a.double() - b.double()).square().mean().item()
    return math.inf if error == 0 else -10 * math.log10(error)


def ssim(a: Tensor, b: Tensor) -> float:
    """Structural similarity of pictures in 0..1 (Wang et al. 2004), the mean over channels and over every whole window.

    Args:
        a, b: (h, w, c). Pictures smaller than the window of 11 pixels are seen through a smaller one.

    Returns:
        At most 1, which equal pictures have.

    Raises:
        ValueError: pictures of different shapes.
    """
    _check(a, b)
    taps = min(WINDOW, *((side - 1) // 2 * 2 + 1 for side in a.shape[:2]))
    offsets = torch.arange(taps, dtype=torch.float64) - taps // 2
    window = torch.softmax(-0.5 * (offsets / SPREAD) ** 2, 0)
    a, b = (picture.double().cpu().movedim(-1, 0).unsqueeze(1) for picture in (a, b))  # (c, 1, h, w)

    def mean(values: Tensor) -> Tensor:
        return F.conv2d(F.conv2d(values, window.reshape(1, 1, -1, 1)), window.reshape(1, 1, 1, -1))

    mean_a, mean_b = mean(a), mean(b)
    variance_a, variance_b = mean(a * a) - mean_a**2, mean(b * b) - mean_b**2
    covariance = mean(a * b) - mean_a * mean_b
    brightness = (2 * mean_a * mean_b + C1) / (mean_a**2 + mean_b**2 + C1)
    structure = (2 * covariance + C2) / (variance_a + variance_b + C2)
    return (brightness * structure).mean().item()


def _check(a: Tensor, b: Tensor) -> None:
    if a.shape != b.shape or a.ndim != 3:
        raise ValueError(f"pictures must be two of the same shape (h, w, c), got {tuple(a.shape)} and {tuple(b.shape)}")
