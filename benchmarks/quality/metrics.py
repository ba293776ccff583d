"""Distances between two sets of pictures, from their features (n, d), by torchmetrics and prdc."""

import contextlib
import io

import torch
from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.kid import KernelInceptionDistance

NEIGHBOURS = 5  # of precision, recall, density and coverage


class Given(nn.Module):
    """A stand-in for the network of torchmetrics: what comes in are features already."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.num_features = width

    def forward(self, features: Tensor) -> Tensor:
        return features


def frechet_distance(real: Tensor, drawn: Tensor) -> float:
    """Frechet distance (Heusel et al., NeurIPS 2017); few pictures raise it, so compare equal numbers of them."""
    metric = FrechetInceptionDistance(feature=Given(real.shape[1])).set_dtype(torch.float64)
    metric.update(real.double(), real=True)
    metric.update(drawn.double(), real=False)
    return metric.compute().item()


def kernel_distance(real: Tensor, drawn: Tensor) -> float:
    """KID (Binkowski et al., ICLR 2018); not biased by few pictures, and may fall below 0.

    The features are centred and scaled as a whole, so that those of any network have the size the kernel expects.
    """
    mean, std = real.mean(0), real.var(0).mean().sqrt()
    size = min(100, len(real), len(drawn))
    metric = KernelInceptionDistance(feature=Given(real.shape[1]), subsets=100, subset_size=size)
    metric.update((real - mean) / std, real=True)
    metric.update((drawn - mean) / std, real=False)
    torch.manual_seed(0)  # of the subsets
    return metric.compute()[0].item()


def neighbourhoods(real: Tensor, drawn: Tensor) -> "dict[str, float]":
    """Precision, recall (Kynkaanniemi et al. 2019), density and coverage (Naeem et al. 2020), of equally many each."""
    from prdc import compute_prdc  # here, since the short figure in the tests does without

    count = min(len(real), len(drawn))
    with contextlib.redirect_stdout(io.StringIO()):  # the library prints the sizes
        values = compute_prdc(real[:count].numpy(), drawn[:count].numpy(), nearest_k=NEIGHBOURS)
    return {name: float(value) for name, value in values.items()}


def spectrum(images: Tensor) -> Tensor:
    """Mean power of the brightness over rings of equal frequency, in decibels.

    Args:
        images: (n, 3, h, w) uint8, as high as wide.

    Returns:
        (h // 2,) from 1 to h / 2 periods a picture.
    """
    side = images.shape[-1]
    bright = images.double().mean(1)
    power = torch.fft.fft2(bright - bright.mean((1, 2), keepdim=True)).abs().square().mean(0)
    rows = torch.fft.fftfreq(side, 1 / side)
    ring = torch.hypot(rows[:, None], rows[None]).round().long()
    return torch.stack([10 * power[ring == r].mean().log10() for r in range(1, side // 2 + 1)])


def spectrum_distance(real: Tensor, drawn: Tensor) -> float:
    """Root mean square difference of two sets' spectra in decibels."""
    return (spectrum(real) - spectrum(drawn)).square().mean().sqrt().item()
