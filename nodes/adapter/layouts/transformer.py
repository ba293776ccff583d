"""Diffusion transformers: blocks in a row that all read the same sequence of tokens.

Older hosts tell the attention hook nothing but the tensors, so a block is known by counting: which attention call of
the network's forward pass it is. What differs between families is data, a line each in the table.
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
        references: arguments of the network that hold latents whose tokens lie between the image and that end.
        references_need: the network's attribute without which it does not read them.
        multiple: the network's attribute that holds the multiple which the image is filled up to at that end.
        prelude: the network's lists of blocks whose attention is called, once each, before the first block's.
        prelude_with: the same for lists that run only with an argument, as (argument, list).
        unknown_with: arguments of the network that change its sequence in ways which are not described here.
    """

    depth: Union[tuple[str, ...], Callable[[nn.Module], int]] = ("blocks",)
    patch: Union[str, tuple] = "patch_size"
    image: Union[str, Callable[[nn.Module], str]] = "last"
    references: tuple[str, ...] = ()
    references_need: Optional[str] = None
    multiple: Optional[str] = None
    prelude: tuple[str, ...] = ()
    prelude_with: tuple[tuple[str, str], ...] = ()
    unknown_with: tuple[str, ...] = ()

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
        return False  # every call is counted

    def replacements(self, replaced: Mapping[Block, Callable], wanted: Iterable[Block]) -> dict[Block, Callable]:
        return {}  # the host asks for replacements of attention in UNets alone

    def locate(
        self, call: NetworkCall, q: Tensor, k: Tensor, transformer_options: Mapping[str, Any]
    ) -> Optional[Tokens]:
        """The tokens of this attention call, None if it is not the self-attention of a block."""
        if any(_present(call.arguments.get(name)) for name in self.unknown_with):
            return None
        grid = self._grid(call.network, call.latent_size)
        image, outside = math.prod(grid), self._outside(call, math.prod(grid))
        number = self._number(call, q.shape[-2], k.shape[-2], image + outside)
        if number is None:
            return None
        end = self.image(call.network) if callable(self.image) else self.image
        first = outside if end == "first" else k.shape[-2] - outside - image
        return Tokens(("block", number), grid, slice(first, first + image))

    def _number(self, call: NetworkCall, queries: int, keys: int, known: int) -> Optional[int]:
        """The block whose self-attention a call is; `known` tokens of its sequence belong to images."""
        raise NotImplementedError

    def _grid(self, network: nn.Module, size: tuple[int, ...]) -> tuple[int, ...]:
        """The token grid of a latent, whose last patches are padded where they are not full."""
        names = (self.patch,) if isinstance(self.patch, str) else self.patch
        sides = [getattr(network, side) if isinstance(side, str) else side for side in names]
        if isinstance(self.patch, str):
            sides = list(sides[0]) if isinstance(sides[0], (tuple, list)) else sides * 2
        patch = ([1] * len(size) + sides)[-len(size) :]
        return tuple(-(-length // side) for length, side in zip(size, patch))

    def _outside(self, call: NetworkCall, image: int) -> int:
        """How many tokens lie between the image and its end of the sequence."""
        outside = 0
        if self.references_need is None or getattr(call.network, self.references_need, None) is not None:
            for name in self.references:
                latents = call.arguments.get(name)
                for latent in (latents,) if isinstance(latents, Tensor) else latents or ():
                    outside += math.prod(self._grid(call.network, tuple(latent.shape[2:])))
        multiple = getattr(call.network, self.multiple, None) if self.multiple else None
        return outside + (-image % multiple if multiple else 0)

    def _before_blocks(self, call: NetworkCall) -> int:
        """How many attention calls come before the first block's."""
        with_arguments = tuple(name for argument, name in self.prelude_with if _present(call.arguments.get(argument)))
        return _length(call.network, self.prelude + with_arguments)


class JointLayout(TransformerLayout):
    """Text and image in one sequence: a block's self-attention is its one call that reads both."""

    def _number(self, call: NetworkCall, queries: int, keys: int, known: int) -> Optional[int]:
        joint = queries == keys > known and call.seen >= self._before_blocks(call)
        return call.located if joint else None


@dataclass(frozen=True)
class CrossLayout(TransformerLayout):
    """Text is read by cross-attention: every block makes the same number of calls, its self-attention first.

    Attributes:
        calls: attention calls that a block makes, or a function of the network.
        text_keys: whether the self-attention's keys hold text tokens beside the image's.
    """

    image: Union[str, Callable[[nn.Module], str]] = "first"
    calls: Union[int, Callable[[nn.Module], int]] = 2
    text_keys: bool = False

    def _number(self, call: NetworkCall, queries: int, keys: int, known: int) -> Optional[int]:
        calls = self.calls(call.network) if callable(self.calls) else self.calls
        number, place = divmod(call.seen - self._before_blocks(call), calls)
        fits = queries >= known and (keys > queries if self.text_keys else keys == queries)
        return number if number >= 0 and place == 0 and fits else None


def _present(argument) -> bool:
    return argument is not None and (isinstance(argument, Tensor) or bool(argument))


def _length(network: nn.Module, lists: tuple[str, ...]) -> int:
    return sum(len(attrgetter(name)(network)) for name in lists)
