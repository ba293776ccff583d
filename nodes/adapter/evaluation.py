"""The state of guidance: a sampling run, the guider's evaluations in it, and what the model made of their latents.

All of it lives in the run's own model options and nowhere else, so nothing can be stale or left behind.
"""

import logging
import math
from collections.abc import Hashable, Iterable, Sequence
from typing import Any, Callable, NamedTuple, Optional, Union
from uuid import UUID

import torch
from torch import Tensor

from .layouts import Block
from .watching import Watch

logger = logging.getLogger("self-attention-guidance")

Entry = dict[str, Any]  # one conditioning of the host's


class Plan(NamedTuple):
    """What a guidance node does in one evaluation of the guider."""

    scale: float
    fresh: bool  # False: apply the last guidance term again


class Listener(NamedTuple):
    """What a guidance node wants recorded, of which branch and when, and what it has to say when a run begins."""

    node: UUID
    blocks: tuple[Block, ...]
    note: Optional[str]
    statistic: Optional[Callable]  # of queries and keys: one value a token; None if no attention is wanted
    branch: str  # one of sag_core's BRANCHES
    plan: "Callable[[Run, Any, float, list], Optional[Plan]]"  # None while the node does nothing
    without_guider: Callable[[float], None]  # told the noise level where the model runs outside a guider's run
    watches: tuple[Watch, ...]


class EntryKey(NamedTuple):
    """A conditioning entry, known by its uuid and by the place of its list among those evaluated together.

    The uuid alone does not do: the host gives a positive entry a negative one's uuid when it copies an area from there.
    """

    uuid: Hashable
    place: int


class MapKey(NamedTuple):
    entry: EntryKey
    block: Block
    statistic: Callable


class AttentionMap(NamedTuple):
    received: Tensor  # (b, n) float32, mean 1
    grid: tuple[int, ...]
    latent_size: tuple[int, ...]  # the latent, or part of it, that the model was called with


class Unreadable(NamedTuple):
    reason: str


class Branch(NamedTuple):
    """A list of conditioning entries, as the host evaluated it.

    Attributes:
        entries: those that were active at the noise level.
        place: of the list among those evaluated together.
        conds: all of these lists.
        model: what evaluated them.
        prediction: what it made of the latent under this list, before anybody changed it, (b, c, ...).
        way: another node's function that evaluates branches in the host's stead, if one did.
    """

    entries: list[Entry]
    place: int
    conds: list[Optional[list[Entry]]]
    model: Any
    prediction: Tensor
    way: Optional[Callable] = None


class Pass:
    """What was evaluated at one latent, or at the part of it that is a context window.

    Attributes:
        x: the noisy latent.
        window: the host's mark of a context window; None where `x` is the whole latent.
        branches: the lists of conditionings that were evaluated; those of a windowed latent are seen as a whole here.
        maps: the first recording of everything that was wanted.
        skipped: the entries that another node, such as a step cache, answered for in the network's stead.
        windows: the passes of its context windows.
        has_others: whether anything but positive entries was evaluated.
    """

    def __init__(self, x: Tensor, window: Any = None) -> None:
        self.x = x
        self.window = window
        self.branches: list[Branch] = []
        self.maps: dict[MapKey, Union[AttentionMap, Unreadable]] = {}
        self.skipped: set[EntryKey] = set()
        self.windows: list[Pass] = []
        self.has_others = False
        self._settled = False

    def keep(self, branches: Iterable[Branch]) -> None:
        """Keep what the model predicted, the first time that it did under these conditionings."""
        for branch in branches:
            if self.branch_of(branch.entries) is None:
                self.branches.append(branch._replace(prediction=branch.prediction.clone()))

    def settle(self, branches: Iterable[Branch]) -> None:
        """Keep what the host takes for its branches in the end, once: windows fused, other nodes' ways taken."""
        if not self._settled:
            self._settled = True
            self.branches = [branch._replace(prediction=branch.prediction.clone()) for branch in branches]

    def branch_of(self, entries: list[Entry]) -> Optional[Branch]:
        """The branch whose list holds these very entries."""
        wanted = {id(entry) for entry in entries}
        return next((b for b in self.branches if not wanted.isdisjoint(map(id, b.entries))), None)

    def skips(self, branch: Branch) -> bool:
        """Whether another node answered for the network in any part of this branch."""
        keys = {EntryKey(entry["uuid"], branch.place) for entry in branch.entries}
        return any(not keys.isdisjoint(part.skipped) for part in (self, *self.windows))


class Run:
    """One sampling run: what has been said in it, and what its nodes keep from one evaluation to the next.

    Attributes:
        terms: the last guidance term of each node that reuses it.
        guided: evaluations in which a node asked the model, so far.
        whole_batch: whether re-runs evaluate all branches together, because another node lets them mix.
        around: whether re-runs go around another node's wrapper of the model, because it answers from a cache.
        answered_by_others: whether there is no way around it.
    """

    def __init__(self, listeners: Sequence[Listener], led: bool = True) -> None:
        """
        Args:
            led: whether the run's end will be told.
        """
        self.terms: dict[Hashable, Tensor] = {}
        self.guided = 0
        self.whole_batch = False
        self.around = False
        self.answered_by_others = False
        self._listeners = tuple(listeners)
        self._watches = tuple(watch for listener in listeners for watch in listener.watches)
        self._led = led
        self._evaluations = 0
        self._sigma = math.inf
        self._broken: Optional[Tensor] = None
        self._said: set[str] = set()

    def begin(self, schedule: Sequence[float]) -> None:
        """Tell those who watch that the run begins, at the first of these noise levels, and say what is to be said."""
        for watch in self._watches:
            watch.begin(schedule)
        for listener in self._listeners:
            if listener.note is not None:
                self.warn(listener.note)

    def end(self) -> None:
        """Say what could not be said earlier, and tell those who watch."""
        self._say_what_broke()  # the run's only wait for the device on this account
        for watch in self._watches:
            watch.end()

    def is_over(self, sigma: float) -> bool:
        """Whether this noise level belongs to the next run, where nobody tells."""
        return not self._led and sigma > self._sigma

    def warn(self, message: str) -> None:
        """Say something once per run."""
        if message not in self._said:
            self._said.add(message)
            logger.warning("Self-Attention Guidance: %s.", message)
            for watch in self._watches:
                watch.said(message)

    def note_broken(self, broken: Tensor) -> None:
        """Remember whether guidance of a sample was left out, a boolean tensor: to look at it would wait for a GPU."""
        self._broken = broken if self._broken is None else self._broken | broken
        if not self._led:
            self._say_what_broke()

    def _say_what_broke(self) -> None:
        if self._broken is not None and self._broken.item():
            self.warn("the model's answer to the blurred version was not finite; such steps of a sample are not guided")

    def evaluate(self, sampling: Any, sigma: float, schedule: list[float], positives: list[Entry]) -> "Evaluation":
        """Begin an evaluation of the guider: ask every node what it does in it."""
        self._evaluations += 1
        self._sigma = sigma
        plans: dict[Hashable, Plan] = {}
        asking = []
        for listener in self._listeners:
            plan = listener.plan(self, sampling, sigma, schedule)
            if plan is not None:
                plans[listener.node] = plan
                if plan.fresh:
                    asking.append(listener)
        self.guided += bool(asking)
        return Evaluation(self, self._evaluations, sigma, plans, asking, positives)


class Evaluation:
    """One evaluation of the guider: who guides in it, and what the model made of the latents in it.

    Attributes:
        number: in the run, from 1.
        sigma: its noise level.
        plans: by node, of those that do something.
        statistics: by block, what is wanted of its attention.
        asks: whether any node asks the model.
    """

    def __init__(
        self,
        run: Run,
        number: int,
        sigma: float,
        plans: dict[Hashable, Plan],
        asking: list[Listener],
        positives: list[Entry],
    ) -> None:
        self.run = run
        self.number = number
        self.sigma = sigma
        self.plans = plans
        self.asks = bool(asking)
        self.statistics: dict[Block, list[Callable]] = {}
        for listener in asking:
            for block in listener.blocks:
                statistics = self.statistics.setdefault(block, [])
                if listener.statistic is not None and listener.statistic not in statistics:
                    statistics.append(listener.statistic)
        self._branches = {listener.branch for listener in asking if listener.blocks}
        self._positives = {entry["uuid"] for entry in positives}
        self._positive_ids = {id(entry) for entry in positives}
        self._passes: dict[int, Pass] = {}  # by the id of its latent, which the pass keeps alive
        self._windows: list[Pass] = []  # of a latent that is not known yet

    def pass_at(self, x: Tensor) -> Pass:
        """The pass that an evaluation of conditionings at this very latent belongs to."""
        return self._passes.setdefault(id(x), Pass(x))  # in one step: hosts with several devices have several threads

    def window_at(self, x: Tensor, window: Any) -> Pass:
        """The pass of a context window with this latent."""
        known = [*self._windows, *(part for whole in self._passes.values() for part in whole.windows)]
        for part in known:
            if part.window.index_list == window.index_list and _same(part.x, x):
                return part
        if any(part.window.index_list == window.index_list for part in self._windows):
            self._windows = []  # those of another latent begin
        self._windows.append(Pass(x, window))
        return self._windows[-1]

    def find(self, x: Tensor) -> Optional[Pass]:
        """What was evaluated at this latent."""
        found = self._passes.get(id(x))
        return found or next((one for one in self._passes.values() if _same(one.x, x)), None)

    def gather_windows(self, x: Tensor) -> Pass:
        """The pass at a latent; the context windows that were evaluated since the last one are its own."""
        whole = self.pass_at(x)
        if self._windows and not whole.windows:
            whole.windows, self._windows = self._windows, []
        return whole

    def wanted(self, here: Pass, conds: Iterable[Optional[list[Entry]]], sigma: Tensor) -> set[EntryKey]:
        """Which entries of a batch to record: "auto" takes positive ones where there is nothing else at this latent."""
        positives: set[EntryKey] = set()
        others: set[EntryKey] = set()
        for place, entries in enumerate(conds):
            for entry in active(entries, sigma):
                positive = id(entry) in self._positive_ids
                if here.window is not None:  # evaluates copies: uuid and place are left to tell
                    positive = entry["uuid"] in self._positives and place == 0
                (positives if positive else others).add(EntryKey(entry["uuid"], place))
        here.has_others |= bool(others)
        wanted: set[EntryKey] = set()
        if self._branches - {"conditional"}:
            wanted |= others
        if "conditional" in self._branches or ("auto" in self._branches and not here.has_others):
            wanted |= positives
        return wanted


def active(entries: Optional[Iterable[Entry]], sigma: Tensor) -> list[Entry]:
    """The conditioning entries that the host evaluates at this noise level."""
    now = sigma[0]
    return [
        entry
        for entry in entries or ()
        if not (now > entry.get("timestep_start", math.inf) or now < entry.get("timestep_end", -math.inf))
    ]


def _same(one: Tensor, other: Tensor) -> bool:
    """Whether two latents hold the same; tensors that are not one and the same have to be compared."""
    return one is other or (one.shape == other.shape and torch.equal(one, other))
