"""What a layout says of an attention call."""

from typing import NamedTuple

Block = tuple  # names a self-attention block within one network: hashable, and shaped as its layout likes


class Tokens(NamedTuple):
    """The image tokens of one self-attention call."""

    block: Block
    grid: "tuple[int, ...]"  # (gh, gw) or (t, gh, gw)
    image_tokens: slice = slice(None)
