"""Known faults, put into real pictures in graded strength: what a measure of quality has to tell apart.

Every fault takes pictures (n, 3, h, w) uint8, the index of each one's object, a strength and a random generator, and
returns as many pictures.
"""

from typing import Callable, NamedTuple

import torch
from torch import Tensor

from sag_core import gaussian_blur


def levels(pictures: Tensor) -> Tensor:
    """To uint8, cut at black and white."""
    return pictures.round().clamp(0, 255).byte()


def grain(pictures: Tensor, objects: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Independent noise; strength is its standard deviation in levels of 255."""
    return levels(pictures + strength * torch.randn(pictures.shape, generator=generator))


def blur(pictures: Tensor, objects: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """A Gaussian blur; strength is its standard deviation in pixels."""
    return levels(gaussian_blur(pictures.float(), strength))


def unsharp(pictures: Tensor, objects: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """An unsharp mask over one pixel: `x + strength * (x - G(x))`."""
    pictures = pictures.float()
    return levels(pictures + strength * (pictures - gaussian_blur(pictures, 1.0)))


def tint(pictures: Tensor, objects: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """More red and less blue, or the other way, by that share."""
    sign = torch.where(torch.rand(len(pictures), 1, generator=generator) < 0.5, -1, 1)
    gain = 1 + strength * sign * torch.tensor([1.0, 0.0, -1.0])
    return levels(pictures * gain[:, :, None, None])


def joined(pictures: Tensor, objects: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """That share of the pictures gets the right half of another one, with another object."""
    partner = torch.randperm(len(pictures), generator=generator)
    chosen = torch.rand(len(pictures), generator=generator) < strength
    chosen &= objects[partner] != objects
    middle = pictures.shape[-1] // 2
    result = pictures.clone()
    result[chosen, ..., middle:] = pictures[partner][chosen, ..., middle:]
    return result


def missing(pictures: Tensor, objects: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """That share of the kinds of objects does not occur; others take their places."""
    kinds = objects.unique()
    kept = kinds[: len(kinds) - round(strength * len(kinds))]
    rows = torch.isin(objects, kept).nonzero()[:, 0]
    return pictures[rows[torch.arange(len(pictures)) % len(rows)]]


class Fault(NamedTuple):
    apply: Callable[[Tensor, Tensor, float, torch.Generator], Tensor]
    strengths: "tuple[float, ...]"  # rising


FAULTS = {
    "grain": Fault(grain, (3, 6, 12, 24)),
    "blur": Fault(blur, (0.4, 0.5, 0.7, 1.0)),
    "unsharp mask": Fault(unsharp, (0.25, 0.5, 1.0, 2.0)),
    "colour shift": Fault(tint, (0.04, 0.08, 0.16, 0.32)),
    "joined halves": Fault(joined, (0.1, 0.25, 0.5, 1.0)),
    "missing objects": Fault(missing, (0.1, 0.2, 0.4, 0.8)),
}


def like_a_model(pictures: Tensor, objects: Tensor, generator: torch.Generator) -> Tensor:
    """A quarter of the pictures joined, and grain in all: what guidance is to help against."""
    return grain(joined(pictures, objects, 0.25, generator), objects, 6, generator)
