"""Latents that pack several streams, such as a video and its sound: the first is guided, the others stay."""

from collections.abc import Iterable
from typing import Any, NamedTuple, Optional

import comfy.utils
from torch import Size, Tensor


class Streams(NamedTuple):
    """What a latent holds.

    Attributes:
        shapes: of the streams that are packed in it, one after the other; None where it is not packed.
    """

    shapes: Optional[tuple[Size, ...]] = None

    def first(self, latent: Tensor) -> Tensor:
        """The stream that is guided."""
        return latent if self.shapes is None else comfy.utils.unpack_latents(latent, self.shapes)[0]

    def put(self, latent: Tensor, first: Tensor) -> Tensor:
        """The latent with another first stream."""
        if self.shapes is None:
            return first
        _, *others = comfy.utils.unpack_latents(latent, self.shapes)
        return comfy.utils.pack_latents([first, *others])[0]


def streams_in(shapes: Optional[Iterable[Size]]) -> Streams:
    """What a latent of these shapes holds; one stream alone is not packed."""
    shapes = tuple(shapes or ())
    return Streams(shapes if len(shapes) > 1 else None)


def streams_of(entries: Iterable[dict[str, Any]]) -> Streams:
    """What the latents hold that these conditioning entries are evaluated at, as the host notes it in them."""
    for entry in entries:
        noted = entry.get("model_conds", {}).get("latent_shapes")
        return streams_in(getattr(noted, "cond", None))
    return Streams()
