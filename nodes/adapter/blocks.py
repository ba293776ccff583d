"""Reads which attention blocks a user wants."""

import re
from collections.abc import Iterable
from reprlib import repr as shown

from ...sag_core import AUTO
from .layouts import Block

MOST_NAMES = 1000  # several times the blocks of any model


def parse_blocks(text: str, available: dict[str, Block]) -> tuple[Block, ...]:
    """The blocks that a list names, each once, in the order of the list.

    A block is named as the model has it, such as `middle.0.0` (section, number, transformer) in a UNet or `8` in a
    transformer. Without the last number it is the block's first transformer, the one that the paper and its ports
    read. The last number may be a range, both ends inside: `output.3-5`, `8-12`. Numbers match exactly: 1 is not 10.

    Args:
        text: names separated by commas.
        available: the model's blocks by name.

    Raises:
        ValueError: as `read_names`; a block that the model lacks.
    """
    return tuple(dict.fromkeys(_find(name, available) for name in read_names(text)))


def read_names(text: str) -> list[str]:
    """The names in a list, ranges written out; whether a model has them is not asked.

    Raises:
        ValueError: an empty list, a name that is not of the form that `parse_blocks` describes, too many names.
    """
    names = [name.strip().lower() for name in text.split(",")]
    if not all(names):
        raise ValueError(
            f"attention_blocks must be {AUTO!r} or a list such as 'middle.0, output.3-5', got {shown(text)}"
        )
    found: list[str] = []
    for name in names:
        found += _expanded(name)
        if len(found) > MOST_NAMES:
            raise ValueError(f"attention_blocks must name at most {MOST_NAMES} blocks, got more in {shown(text)}")
    return found


def _expanded(name: str) -> list[str]:
    form = re.fullmatch(r"((?:[a-z_]+\.)?(?:[0-9]+\.)*)([0-9]{1,4})(?:\s*-\s*([0-9]{1,4}))?", name)
    if form is None:
        raise ValueError(
            f"attention_blocks holds {shown(name)}; a block is named like 'middle.0', 'output.3.1' or '8', "
            "a range like 'output.3-5'"
        )
    prefix, first, last = form[1], int(form[2]), int(form[3] or form[2])
    if last < first:
        raise ValueError(f"attention_blocks holds the range {shown(name)}, whose end lies before its start")
    return [f"{prefix}{number}" for number in range(first, last + 1)]


def _find(name: str, available: dict[str, Block]) -> Block:
    for full in (name, f"{name}.0"):
        if full in available:
            return available[full]
    has = ", ".join(_shortened(available)) or "no self-attention blocks"
    raise ValueError(f"attention_blocks names {shown(name)}, which this model lacks; it has {has}")


def _shortened(names: Iterable[str]) -> list[str]:
    """Names with runs of their last number written as ranges."""
    ranges: list[list] = []
    for name in names:
        prefix, _, number = name.rpartition(".")
        if ranges and ranges[-1][0] == prefix and ranges[-1][2] + 1 == int(number):
            ranges[-1][2] += 1
        else:
            ranges.append([prefix, int(number), int(number)])
    return [
        f"{prefix}{'.' if prefix else ''}{first}{f'-{last}' if last > first else ''}" for prefix, first, last in ranges
    ]
