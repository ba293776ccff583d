"""UNets of the latent diffusion kind, for images and for video."""

from collections.abc import Container, Iterable, Mapping
from typing import Any, Callable, Optional

from torch import Tensor

from .layout import Block, Network, NetworkCall, Tokens


class UNetLayout:
    """UNets of the latent diffusion kind: a block is (section, number, transformer), as attention patches name it."""

    def blocks(self, network: Network) -> dict[str, Block]:
        sections = [("input", i, module) for i, module in enumerate(network.input_blocks)]
        sections.append(("middle", 0, network.middle_block))
        sections += [("output", i, module) for i, module in enumerate(network.output_blocks)]
        return {
            f"{section}.{number}.{index}": (section, number, index)
            for section, number, module in sections
            for index in range(_transformers(module))
        }

    def automatic(self, network: Network) -> tuple[tuple[Block, ...], Optional[str]]:
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

    def passes_by(self, transformer_options: Mapping[str, Any], wanted: Container[Block]) -> bool:
        return _block(transformer_options) not in wanted

    def locate(
        self, call: NetworkCall, q: Tensor, k: Tensor, transformer_options: Mapping[str, Any]
    ) -> Optional[Tokens]:
        block, shape = _block(transformer_options), transformer_options.get("activations_shape")
        return None if block is None or shape is None else Tokens(block, tuple(shape[-2:]))

    def replacements(self, replaced: Mapping[Block, Callable], wanted: Iterable[Block]) -> dict[Block, Callable]:
        found = {block: replaced.get(block, replaced.get(block[:2])) for block in wanted}  # the host's own preference
        return {block: replacement for block, replacement in found.items() if replacement is not None}


def _block(transformer_options: Mapping[str, Any]) -> Optional[Block]:
    """The block that the host says it is in."""
    block = transformer_options.get("block")
    return None if block is None else (*block, transformer_options.get("block_index", 0))


def _transformers(module: Network) -> int:
    """Number of transformers in one of a UNet's blocks."""
    parts = [] if module is None else module.children()
    return sum(len(part.transformer_blocks) for part in parts if hasattr(part, "transformer_blocks"))
