"""The state of guidance: a sampling run, and one evaluation of the guider in it.

Both live in the run's own model options and nowhere else, so nothing can be stale or left behind.
"""

import logging
import math
from collections.abc import Hashable
from typing import Any, Callable, NamedTuple, Optional, Union

from torch import Tensor

from .layouts import Block

logger = logging.getLogger("self-attention-guidance")


class Listener(NamedTuple):
    """What a guidance node wants recorded, of which branch and when, and what it has to say when a run begins."""

    node: Hashable
    blocks: "tuple[Block, ...]"
    note: Optional[str]
    statistic: Optional[Callable]  # of queries and keys: one value a token; None if no attention is wanted
    branch: str  # one of sag_core's BRANCHES
    moment: "Callable[[Run, Any, float, list], Optional[Moment]]"  # None while the node does nothing


class Moment(NamedTuple):
    """What a guidance node does in one evaluation of the guider."""

    scale: float
    fresh: bool  # False: apply the last guidance term again


class AttentionMap(NamedTuple):
    received: Tensor  # (b, n) float32, mean 1
    grid: "tuple[int, ...]"
    latent_size: "tuple[int, ...]"  # the latent, or part of it, that the model was called with


class Unreadable(NamedTuple):
    reason: str


class Run:
    """One sampling run: what has been said in it, and the last guidance term of each node that reuses it."""

    def __init__(self) -> None:
        self.terms: dict[Hashable, Tensor] = {}
        self.steps = 0
        self._said: set[str] = set()

    def warn(self, message: str) -> None:
        """Log a message once per run."""
        if message not in self._said:
            self._said.add(message)
            logger.warning("Self-Attention Guidance: %s.", message)


class Step:
    """One evaluation of the guider: who guides in it, and the attention of the conditioning entries that they need.

    An entry is known by its uuid and by the place of its list among the conditionings that the host evaluates
    together: the host gives a positive entry the uuid of a negative one when it copies an area from there.
    """

    def __init__(
        self,
        run: Run,
        moments: "dict[Hashable, Moment]",
        listeners: "list[Listener]",
        positives: "list[dict[str, Any]]",
    ) -> None:
        self.run = run
        self.moments = moments  # node -> what it does now, for those that do something
        self.number = run.steps
        self.maps: dict[tuple, Union[AttentionMap, Unreadable]] = {}  # (key, block, statistic) -> the first recording
        self.models: dict = {}  # key -> the model that evaluated the entry
        self.blocks: dict[Block, list] = {}  # block -> the statistics that are wanted of it
        for listener in listeners:
            for block in listener.blocks:
                statistics = self.blocks.setdefault(block, [])
                if listener.statistic not in statistics:
                    statistics.append(listener.statistic)
        self._keys: dict[int, tuple] = {}  # id of an entry -> (entry, key); holding it keeps the id its own
        self._positives = {id(entry) for entry in positives}
        self._branches = {listener.branch for listener in listeners if listener.blocks}
        self._wanted: set = set()
        self._wants_positives = True

    def expect(self, model, conds, sigma: Tensor) -> None:
        """Choose what to record of a batch of conditionings: "auto" takes positive ones where there is nothing else."""
        positives, others = set(), set()
        for place, entries in enumerate(conds):
            for entry in entries or ():
                if is_active(entry, sigma):
                    key = (entry["uuid"], place)
                    self._keys.setdefault(id(entry), (entry, key))
                    self.models.setdefault(key, model)
                    (positives if id(entry) in self._positives else others).add(key)
        if others:
            self._wants_positives = False
        if self._branches - {"conditional"}:
            self._wanted |= others
        if "conditional" in self._branches or ("auto" in self._branches and self._wants_positives):
            self._wanted |= positives

    def key(self, entry: "dict[str, Any]") -> Optional[tuple]:
        """The key under which an entry was evaluated at this step."""
        _, key = self._keys.get(id(entry), (None, None))
        if key is None:  # evaluated as a copy, which the host makes for every context window
            key = next((key for _, key in self._keys.values() if key[0] == entry["uuid"]), None)
        return key

    def lacks(self, key: tuple) -> bool:
        return key in self._wanted and any(
            (key, block, statistic) not in self.maps for block, wanted in self.blocks.items() for statistic in wanted
        )


def is_active(entry: "dict[str, Any]", sigma: Tensor) -> bool:
    """Whether the host evaluates a conditioning entry at this noise level."""
    now = sigma[0]
    return not (now > entry.get("timestep_start", math.inf) or now < entry.get("timestep_end", -math.inf))
