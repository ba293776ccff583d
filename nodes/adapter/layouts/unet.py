"""UNets of the latent diffusion kind, for images and for video."""

from typing import Any, Optional

from torch import Tensor, nn

from .tokens import Block, Tokens


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

    def locate(
        self, call, q: Tensor, k: Tensor, transformer_options: "dict[str, Any]"
    ) -> Optional[Tokens]:
        """The tokens of this attention call, None if the call is not inside a transformer block."""
        block, shape = transformer_options.get("block"), transformer_options.get("activations_shape")
        if block is None or shape is None:
            return None
        return Tokens((*block, transformer_options.get("block_index", 0)), tuple(shape[-2:]))


def _transformers(module: Optional[nn.Module]) -> int:
    """Number of transformers in one of a UNet's blocks."""
    parts = [] if module is None else module.children()
    return sum(len(part.transformer_blocks) for part in parts if hasattr(part, "transformer_blocks"))
