"""The pictures that the demo model and the quality benchmark's classifier learn from, drawn once and kept in a file."""

from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from .prompts import COLOURS, OBJECTS

CHUNK = 320  # pictures drawn at once; the seed of a chunk is its number, so a longer set begins with a shorter one


class Pictures(NamedTuple):
    """Pictures (n, 3, h, w) uint8, and the index of each one's colour and object, (n,)."""

    images: Tensor
    colours: Tensor
    objects: Tensor


def pictures(count: int, size: int, folder: Path, first_chunk: int = 0) -> Pictures:
    """Draw `count` pictures, or read what an earlier call left in `folder`.

    Args:
        count: how many; at most what follows in the folder from `first_chunk` on is drawn.
        size: rows and columns.
        folder: where every chunk of `CHUNK` pictures is kept as a file; it is made if need be.
        first_chunk: the number of the first chunk, so that sets can be kept apart.
    """
    folder.mkdir(parents=True, exist_ok=True)
    chunks = range(first_chunk, first_chunk + -(-count // CHUNK))
    missing = [(number, size, folder) for number in chunks if not _file(number, size, folder).exists()]
    if missing:
        with get_context("spawn").Pool() as pool:
            for done, _ in enumerate(pool.imap(_draw_chunk, missing), 1):
                print(f"\rdrawing pictures: {done}/{len(missing)} files", end="", flush=True)
        print()
    images = torch.cat([torch.from_numpy(np.load(_file(number, size, folder))) for number in chunks])[:count]
    labels = [_labels(number) for number in chunks]
    colours, objects = (torch.cat(part)[:count] for part in zip(*labels))
    return Pictures(images, colours, objects)


def _file(number: int, size: int, folder: Path) -> Path:
    return folder / f"pictures_{size}_{number:04d}.npy"


def _labels(number: int) -> "tuple[Tensor, Tensor]":
    generator = torch.Generator().manual_seed(number)
    combinations = torch.arange(CHUNK) % (len(COLOURS) * len(OBJECTS))  # every pair equally often
    combinations = combinations[torch.randperm(CHUNK, generator=generator)]
    return combinations % len(COLOURS), combinations // len(COLOURS)


def _draw_chunk(job: "tuple[int, int, Path]") -> None:
    from .scenes import render

    number, size, folder = job
    torch.set_num_threads(1)
    colours, objects = _labels(number)
    images = render(objects, colours, size, torch.Generator().manual_seed(1_000_003 + number))
    unfinished = _file(number, size, folder).with_suffix(".part.npy")
    np.save(unfinished, images.numpy())
    unfinished.replace(_file(number, size, folder))  # whole or not at all
