"""Diffusion transformers: blocks in a row that all read the same sequence of tokens.

A block is known by the number that the host names. Many hosts and families name none: there its self-attention is known
by counting the calls that read as many tokens. What differs between families is data, a line each in the table.
"""

import math
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, Callable, Optional, Union

from torch import Tensor, nn

from .layout import Block, NetworkCall, Tokens

AUTOMATIC_BLOCKS = 4  # one block's map costs up to its whole attention again, so "auto" takes a few, far apart


@dataclass(frozen=True)
class TransformerLayout:
    """A transformer whose image tokens lie in row-major order at one end of its sequence.

    Attributes:
        depth: the network's lists of blocks, in the order they run, or a function that counts its blocks.
        patch: sides (h, w) or (t, h, w) of a patch, or the network's attribute(s) that hold its side or sides.
        image: "first" or "last": the end of the sequence that the image lies at, or a function of the network.
        before: arguments of the network that hold latents, such as references, whose tokens lie before the image's.
        behind: the same for latents whose tokens lie behind the image's.
        needs: attributes or arguments of the network, without all of which it does not read those latents.
        multiple: the network's attribute that holds the multiple which the image is filled up to behind it.
        prelude: the network's lists of blocks whose attention is called, once each, before the first block's.
        prelude_with: the same for lists that run only with an argument, as (argument, list).
        unknown_with: arguments of the network that change its sequence in ways which are not described here.
        calls: how many calls after one block's self-attention the next one's comes at the earliest, or a function of
            the forward pass; no more than it takes, as other nodes may add calls.
    """

    depth: Union[tuple[str, ...], Callable[[nn.Module], int]] = ("blocks",)
    patch: Union[str, tuple] = "patch_size"
    image: Union[str, Callable[[nn.Module], str]] = "last"
    before: tuple[str, ...] = ()
    behind: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    multiple: Optional[str] = None
    prelude: tuple[str, ...] = ()
    prelude_with: tuple[tuple[str, str], ...] = ()
    unknown_with: tuple[str, ...] = ()
    calls: Union[int, Callable[[NetworkCall], int]] = 1

    def blocks(self, network: nn.Module) -> dict[str, Block]:
        """All self-attention blocks of a network by the name a user gives them, in the order they are run."""
        depth = self.depth(network) if callable(self.depth) else _length(network, self.depth)
        return {str(number): ("block", number) for number in range(depth)}

    def automatic(self, network: nn.Module) -> tuple[tuple[Block, ...], Optional[str]]:
        """Up to four blocks, evenly spread over the middle third of the depth, and what to say of them."""
        blocks = tuple(self.blocks(network).values())
        if not blocks:
            return (), "this model has no self-attention"
        middle = blocks[len(blocks) // 3 : len(blocks) - len(blocks) // 3]
        count = min(AUTOMATIC_BLOCKS, len(middle))
        return tuple(middle[(2 * i + 1) * len(middle) // (2 * count)] for i in range(count)), None

    def passes_by(self, transformer_options: Mapping[str, Any], wanted: Container[Block]) -> bool:
        return False  # every call counts

    def replacements(self, replaced: Mapping[Block, Callable], wanted: Iterable[Block]) -> dict[Block, Callable]:
        return {}  # the host asks for replacements of attention in UNets alone

    def locate(
        self, call: NetworkCall, q: Tensor, k: Tensor, transformer_options: Mapping[str, Any]
    ) -> Optional[Tokens]:
        """The tokens of this attention call, None if it is not the self-attention of a block."""
        if any(_present(call.arguments.get(name)) for name in self.unknown_with):
            return None
        grid = self._grid(call.network, call.latent_size)
        image, before = math.prod(grid), self._tokens_of(call, self.before)
        behind = self._tokens_of(call, self.behind) + self._filling(call.network, image)
        if not self._reads_all(q.shape[-2], k.shape[-2], before + image + behind):
            return None
        number = self._named(call.network, transformer_options)
        if number is None:
            number = self._counted(call)
        if number is None:
            return None
        end = self.image(call.network) if callable(self.image) else self.image
        if end == "first":
            return Tokens(("block", number), grid, slice(before, before + image))
        # Counted from the end: there queries and keys agree, also where the keys hold more.
        return Tokens(("block", number), grid, slice(-behind - image, -behind or None))

    def _reads_all(self, queries: int, keys: int, known: int) -> bool:
        """Whether a call may be a block's self-attention; `known` tokens of its sequence belong to images."""
        raise NotImplementedError

    def _named(self, network: nn.Module, transformer_options: Mapping[str, Any]) -> Optional[int]:
        """The number of the block that the host says it is in."""
        index = transformer_options.get("block_index")
        if index is not None and transformer_options.get("block_type") == "single" and not callable(self.depth):
            return index + _length(network, self.depth[:-1])
        return index

    def _counted(self, call: NetworkCall) -> Optional[int]:
        """The number of the block, where the host names none; None before the first and soon after the last one."""
        if call.last is None:
            return 0 if call.seen >= self._before_blocks(call) else None
        calls = self.calls(call) if callable(self.calls) else self.calls
        return call.located if call.seen - call.last >= calls else None

    def _grid(self, network: nn.Module, size: tuple[int, ...]) -> tuple[int, ...]:
        """The token grid of a latent, whose last patches are padded where they are not full."""
        names = (self.patch,) if isinstance(self.patch, str) else self.patch
        sides = [(getattr(network, side) or 1) if isinstance(side, str) else side for side in names]
        if isinstance(self.patch, str):
            sides = list(sides[0]) if isinstance(sides[0], (tuple, list)) else sides * 2
        patch = ([1] * len(size) + sides)[-len(size) :]
        return tuple(-(-length // side) for length, side in zip(size, patch))

    def _tokens_of(self, call: NetworkCall, names: tuple[str, ...]) -> int:
        """How many tokens the latents in these arguments make."""
        need = [getattr(call.network, name, call.arguments.get(name)) for name in self.needs]
        if need and not any(one is not None for one in need):
            return 0
        count = 0
        for name in names:
            latents = call.arguments.get(name)
            for latent in (latents,) if isinstance(latents, Tensor) else latents or ():
                tokens = latent.ndim == 3  # (b, n, d) already
                count += latent.shape[1] if tokens else math.prod(self._grid(call.network, tuple(latent.shape[2:])))
        return count

    def _filling(self, network: nn.Module, image: int) -> int:
        """How many tokens fill the image up to a multiple."""
        multiple = getattr(network, self.multiple, None) if self.multiple else None
        return -image % multiple if multiple else 0

    def _before_blocks(self, call: NetworkCall) -> int:
        """How many attention calls come before the first block's."""
        with_arguments = tuple(name for argument, name in self.prelude_with if _present(call.arguments.get(argument)))
        return _length(call.network, self.prelude + with_arguments)


class JointLayout(TransformerLayout):
    """Text and image in one sequence: a block's self-attention is its one call that reads both."""

    def _reads_all(self, queries: int, keys: int, known: int) -> bool:
        return queries == keys > known


@dataclass(frozen=True)
class CrossLayout(TransformerLayout):
    """Text is read by cross-attention: a block's self-attention is its first call, and reads the image alone.

    Attributes:
        others: whether tokens that are not described here may lie in the sequence, on the image's other side.
    """

    image: Union[str, Callable[[nn.Module], str]] = "first"
    calls: Union[int, Callable[[NetworkCall], int]] = 2
    others: bool = False

    def _reads_all(self, queries: int, keys: int, known: int) -> bool:
        return queries == keys and (keys == known or (self.others and keys > known))


@dataclass(frozen=True)
class KeysLayout(TransformerLayout):
    """The image alone asks, the keys hold more tokens beside the image's."""

    def _reads_all(self, queries: int, keys: int, known: int) -> bool:
        return keys > queries >= known


def _present(argument) -> bool:
    return argument is not None and (isinstance(argument, Tensor) or bool(argument))


def _length(network: nn.Module, lists: tuple[str, ...]) -> int:
    return sum(len(attrgetter(name)(network)) for name in lists)
