"""Where a model family keeps its image tokens: a line per family.

A layout tells the recorder which of the model's attention calls is which block's self-attention, which of its tokens
are image tokens, and on which grid they lie. Everything else in the recorder is the same for every family.
"""

from collections.abc import Hashable
from typing import Any, NamedTuple, Optional

from torch import Tensor, nn

Block = Hashable


class Tokens(NamedTuple):
    """The image tokens of one self-attention call."""

    block: Block
    grid: "tuple[int, ...]"  # (gh, gw) or (t, gh, gw)
    image_tokens: slice = slice(None)


class UNetLayout:
    """UNets of the latent diffusion kind: a block is (section, number, transformer), as attention patches name it."""

    def blocks(self, network: nn.Module) -> "dict[str, Block]":
        """All self-attention blocks of a network by the name a user gives them, in the order they are run."""
        sections = [("input", i, module) for i, module in enumerate(network.input_blocks)]
        sections.append(("middle", 0, network.middle_block))
        sections += [("output", i, module) for i, module in enumerate(network.output_blocks)]
        return {
            f"{section}.{number}.{index}": (section, number, index)
            for section, number, module in sections
            for index in range(_transformers(module))
        }

    def automatic(self, network: nn.Module) -> "tuple[tuple[Block, ...], Optional[str]]":
        """The first transformer of the middle block or of the nearest block that has one, and what to say of it."""
        depth = len(network.input_blocks)
        position = {"input": 0, "middle": depth, "output": depth + 1}
        candidates = [block for block in self.blocks(network).values() if block[2] == 0]
        if not candidates:
            return (), "this model has no self-attention"
        # On a tie the output side wins, where the paper's own models are read.
        nearest = min(reversed(candidates), key=lambda block: abs(position[block[0]] + block[1] - depth))
        if nearest[0] == "middle":
            return (nearest,), None
        name = f"{nearest[0]}.{nearest[1]}"
        return (nearest,), f"this model has no attention in its middle block; the nearest, {name}, is used"

    def locate(self, q: Tensor, k: Tensor, transformer_options: "dict[str, Any]") -> Optional[Tokens]:
        """The tokens of this attention call, None if the call is not inside a transformer block."""
        block, shape = transformer_options.get("block"), transformer_options.get("activations_shape")
        if block is None or shape is None:
            return None
        return Tokens((*block, transformer_options.get("block_index", 0)), tuple(shape[-2:]))


def _transformers(module: Optional[nn.Module]) -> int:
    """Number of transformers in one of a UNet's blocks."""
    parts = [] if module is None else module.children()
    return sum(len(part.transformer_blocks) for part in parts if hasattr(part, "transformer_blocks"))


LAYOUTS = {
    "comfy.ldm.modules.diffusionmodules.openaimodel.UNetModel": UNetLayout(),
}


def layout_for(network: nn.Module) -> Optional[UNetLayout]:
    """The layout of a diffusion network's family, None for a family that is not in the table."""
    network = getattr(network, "_orig_mod", network)  # torch.compile wraps the network
    for base in type(network).__mro__:
        layout = LAYOUTS.get(f"{base.__module__}.{base.__qualname__}")
        if layout is not None:
            return layout
    return None
