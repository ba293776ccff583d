"""What a layout is: it says which of a network's attention calls is which block's self-attention, of which tokens."""

from collections.abc import Container, Iterable, Mapping
from typing import Any, Callable, NamedTuple, Optional, Protocol

from torch import Tensor, nn

Block = tuple  # names a self-attention block within one network: hashable, and shaped as its layout likes

Network = Any  # a diffusion network of the host's: an nn.Module with the attributes that its layout knows


class Tokens(NamedTuple):
    """The image tokens of one self-attention call."""

    block: Block
    grid: tuple[int, ...]  # (gh, gw) or (t, gh, gw)
    image_tokens: slice = slice(None)


class NetworkCall:
    """One forward pass of a network, and how far it has come.

    Attributes:
        network: the diffusion network.
        latent_size: (h, w) or (t, h, w) of the latent that it was given.
        arguments: what it is given beside the latent: reference images and the like.
        seen: attention calls so far.
        located: those of them that the layout knew as a block's self-attention.
        last: the number of the last of these among those seen.
    """

    def __init__(
        self, layout: "Layout", network: Network, latent_size: tuple[int, ...], arguments: Mapping[str, Any]
    ) -> None:
        self.network = network
        self.latent_size = latent_size
        self.arguments = arguments
        self.seen = 0
        self.located = 0
        self.last: Optional[int] = None
        self._layout = layout

    def next(self, q: Tensor, k: Tensor, transformer_options: Mapping[str, Any]) -> Optional[Tokens]:
        """Take note of the next attention call: its tokens, None if it is not the self-attention of a block."""
        tokens = self._layout.locate(self, q, k, transformer_options)
        if tokens is not None:
            self.located += 1
            self.last = self.seen
        self.seen += 1
        return tokens


class Layout(Protocol):
    """Where a family of networks keeps its image tokens."""

    def blocks(self, network: nn.Module) -> dict[str, Block]:
        """All self-attention blocks of a network by the name a user gives them, in the order they are run."""

    def automatic(self, network: nn.Module) -> tuple[tuple[Block, ...], Optional[str]]:
        """The blocks to read unless a user says otherwise, and what there is to say of them."""

    def passes_by(self, transformer_options: Mapping[str, Any], wanted: Container[Block]) -> bool:
        """Whether an attention call can be let pass unlooked-at: it is none of the wanted blocks, nor counted."""

    def locate(
        self, call: NetworkCall, q: Tensor, k: Tensor, transformer_options: Mapping[str, Any]
    ) -> Optional[Tokens]:
        """The tokens of the attention call that comes next in `call`, None if it is no block's self-attention."""

    def replacements(self, replaced: Mapping[Block, Callable], wanted: Iterable[Block]) -> dict[Block, Callable]:
        """Which of another node's attention replacements stands in for each wanted block, where one does."""
