"""Notes what the model predicts and how much attention image tokens receive while the host evaluates its branches.

Wrappers of the host do it: an evaluation begins where the guider predicts (PREDICT_NOISE), what is needed of it is
known where conditionings are batched (CALC_COND_BATCH), and the attention is seen inside the network (APPLY_MODEL).
"""

import math
from collections.abc import Mapping
from contextlib import nullcontext
from contextvars import ContextVar
from functools import partial
from typing import Any, Callable, Optional, Union

import comfy
import comfy.patcher_extension
import torch
from torch import Tensor

from .evaluation import (
    AttentionMap,
    Branch,
    Entry,
    EntryKey,
    Evaluation,
    Listener,
    MapKey,
    Pass,
    Run,
    Unreadable,
    active,
)
from .layouts import Block, Layout, NetworkCall, Tokens, layout_for
from .streams import streams_in

NAME = "self_attention_guidance"
LISTENERS = f"{NAME}_listeners"  # tuple of Listener, one a node; a tuple, because the host joins lists when it merges
RUN = f"{NAME}_run"
EVALUATION = f"{NAME}_evaluation"
PASS = f"{NAME}_pass"  # with the entries of it that are recorded
RECORDING = f"{NAME}_recording"
REACHED = f"{NAME}_reached"
LAYOUT = f"{NAME}_layout"
OVERRIDE = "optimized_attention_override"
PREVIOUS_OVERRIDE = f"{NAME}_previous_override"
MAX_QUERIES = 4096  # of longer sequences so many evenly spread queries stand for all: time grows with length alone

_a_run_is_led: ContextVar[bool] = ContextVar("a_run_is_led", default=False)


class Recording:
    """What is recorded of one call of the network, which may hold several entries one after the other in the batch."""

    def __init__(
        self,
        here: Pass,
        wanted: set[EntryKey],
        statistics: Mapping[Block, list[Callable]],
        call: NetworkCall,
        batch: int,
        entries: list[EntryKey],
    ) -> None:
        rows = batch // len(entries)
        self._here = here
        self._statistics = statistics
        self._call = call
        self._batch = batch
        self._rows = [(key, slice(i * rows, (i + 1) * rows)) for i, key in enumerate(entries) if key in wanted]

    def lacks_anything(self) -> bool:
        return any(
            MapKey(entry, block, statistic) not in self._here.maps
            for entry, _ in self._rows
            for block, statistics in self._statistics.items()
            for statistic in statistics
        )

    def observe(
        self, q: Tensor, k: Tensor, heads: int, transformer_options: Mapping[str, Any], mask=None, scale=None
    ) -> None:
        """Record this attention call if it is the first of a block that is listened to: the self-attention."""
        tokens = self._call.next(q, k, transformer_options)
        if tokens is None:
            return
        for entry, rows in self._rows:
            for statistic in self._statistics.get(tokens.block, ()):
                key = MapKey(entry, tokens.block, statistic)
                if key not in self._here.maps:
                    self._here.maps[key] = self._read(q, k, heads, tokens, rows, statistic, mask, scale)

    def _read(
        self, q: Tensor, k: Tensor, heads: int, tokens: Tokens, rows: slice, statistic: Callable, mask, scale
    ) -> Union[AttentionMap, Unreadable]:
        queries, keys = q.shape[-2], k.shape[-2]
        image = math.prod(tokens.grid)
        tiles = q.shape[0] // self._batch
        if tiles > 1 and q.ndim == k.ndim == 3 and k.shape[0] == self._batch and tiles * queries == keys == image:
            return self._read_tiles(q, k, heads, tokens, rows, statistic, scale, tiles)
        if q.shape[0] != self._batch or k.shape[0] != self._batch:
            return Unreadable(
                f"another patch reshapes the attention of block {tokens.block} "
                f"(queries {tuple(q.shape)}, keys {tuple(k.shape)} for a batch of {self._batch})"
            )
        if any(len(range(count)[tokens.image_tokens]) != image for count in (queries, keys)):
            return Unreadable(
                f"block {tokens.block} has {queries} queries and {keys} keys, which do not fill its grid {tokens.grid}"
            )
        if mask is not None and mask.ndim > 2 and mask.shape[0] == self._batch:
            mask = mask[rows]
        try:
            received = statistic(
                q[rows], k[rows], heads,
                image_tokens=tokens.image_tokens, mask=mask, scale=scale, max_queries=MAX_QUERIES,
            )  # fmt: skip
        except ValueError as problem:  # the run goes on without guidance
            return Unreadable(f"the attention of block {tokens.block} cannot be read: {problem}")
        with _outside_memory_plan():
            return AttentionMap(received.clone(), tokens.grid, self._call.latent_size)

    def _read_tiles(
        self, q: Tensor, k: Tensor, heads: int, tokens: Tokens, rows: slice, statistic: Callable, scale, tiles: int
    ) -> AttentionMap:
        """Queries that another node cut into tiles, as HyperTile does: the host cuts the keys, which kept their order,
        into as many pieces, and each tile sees one of them.
        """
        rows = slice(rows.start * tiles, rows.stop * tiles)
        pieces = k.reshape(len(q), -1, k.shape[-1])
        received = statistic(q[rows], pieces[rows], heads, scale=scale, max_queries=MAX_QUERIES)
        with _outside_memory_plan():
            received = received.reshape(-1, k.shape[1]).clone()
        return AttentionMap(received, tokens.grid, self._call.latent_size)


class Witness:
    """Which blocks a call of the network has come to."""

    def __init__(self, call: NetworkCall) -> None:
        self.blocks: set[Block] = set()
        self._call = call

    def observe(self, q: Tensor, k: Tensor, heads: int, transformer_options: Mapping[str, Any], mask=None, scale=None):
        tokens = self._call.next(q, k, transformer_options)
        if tokens is not None:
            self.blocks.add(tokens.block)


def listen(model_options: dict[str, Any], listener: Listener) -> None:
    """Have recorded what a listener wants in every run with these model options (a patcher's own copy)."""
    transformer_options = model_options.setdefault("transformer_options", {})
    transformer_options[LISTENERS] = (*transformer_options.get(LISTENERS, ()), listener)
    kinds = comfy.patcher_extension.WrappersMP
    for kind, wrapper in (
        (kinds.PREPARE_SAMPLING, _notice_a_run_of_others),
        (kinds.OUTER_SAMPLE, _lead_run),
        (kinds.PREDICT_NOISE, _begin_evaluation),
        (kinds.CALC_COND_BATCH, _keep_branches),
        (kinds.APPLY_MODEL, _observe_network),
    ):
        if not comfy.patcher_extension.get_wrappers_with_key(kind, NAME, transformer_options):
            comfy.patcher_extension.add_wrapper_with_key(kind, NAME, wrapper, transformer_options)


def current_evaluation(model_options: Mapping[str, Any]) -> Optional[Evaluation]:
    return model_options.get("transformer_options", {}).get(EVALUATION)


def without_recording(model_options: dict[str, Any], reached: Callable[[set[Block]], None]) -> dict[str, Any]:
    """A copy of the model options under which nothing is recorded.

    Args:
        reached: given a set for every call of the network, which holds the blocks that the call has come to.
    """
    return _with(model_options, {EVALUATION: None, REACHED: reached})


def _with(model_options: dict[str, Any], more: dict[str, Any]) -> dict[str, Any]:
    return {**model_options, "transformer_options": {**model_options.get("transformer_options", {}), **more}}


def _listeners(transformer_options: Mapping[str, Any]) -> tuple[Listener, ...]:
    return transformer_options.get(LISTENERS, ())


def _notice_a_run_of_others(executor, model, *args, **kwargs):
    """A guider may load a guided model beside its own, whose options lead the run: what is asked of it is lost."""
    if not _a_run_is_led.get():
        for listener in _listeners(model.model_options.get("transformer_options", {})):
            listener.without_guider(math.inf)
    return executor(model, *args, **kwargs)


def _lead_run(executor, *args, **kwargs):
    transformer_options = executor.class_obj.model_options.setdefault("transformer_options", {})  # the run's own copy
    run = transformer_options[RUN] = Run(_listeners(transformer_options))
    leading = _a_run_is_led.set(True)
    try:
        sigmas = kwargs["sigmas"] if "sigmas" in kwargs else args[3]
        run.begin(sigmas.tolist())
        return executor(*args, **kwargs)
    finally:
        run.end()
        _a_run_is_led.reset(leading)


def _begin_evaluation(executor, x, timestep, model_options=None, seed=None):
    model_options, guider, sigma = dict(model_options or {}), executor.class_obj, timestep.max().item()
    transformer_options = model_options.get("transformer_options", {})
    run = transformer_options.get(RUN)
    schedule = transformer_options.get("sample_sigmas")
    schedule = [] if schedule is None else schedule.tolist()
    if run is None or run.is_over(sigma):  # nobody led it here: a guider that is asked from outside
        run = transformer_options[RUN] = Run(_listeners(transformer_options), led=False)
        run.begin(schedule)
    positives = guider.conds.get("positive") or []
    evaluation = run.evaluate(guider.inner_model.model_sampling, sigma, schedule, positives)
    if evaluation.asks:
        # First in the list: after the host has evaluated its branches, and before anybody changes them.
        functions = [partial(_settle_branches, evaluation), *model_options.get("sampler_pre_cfg_function", ())]
        model_options["sampler_pre_cfg_function"] = functions
    return executor(x, timestep, _with(model_options, {EVALUATION: evaluation}), seed)


def _settle_branches(evaluation: Evaluation, args: dict[str, Any]):
    if all(name in args for name in ("model", "conds", "input", "sigma", "model_options")):
        way = args["model_options"].get("sampler_calc_cond_batch_function")
        whole = evaluation.gather_windows(args["input"])
        whole.settle(_branches(args["model"], args["conds"], args["conds_out"], args["sigma"], way))
    return args["conds_out"]


def _keep_branches(executor, model, conds, x_in, timestep, model_options):
    evaluation = current_evaluation(model_options)
    if evaluation is None or not evaluation.asks:
        return executor(model, conds, x_in, timestep, model_options)
    window = model_options["transformer_options"].get("context_window")
    here = evaluation.pass_at(x_in) if window is None else evaluation.window_at(x_in, window)
    wanted = evaluation.wanted(here, conds, timestep)
    out = executor(model, conds, x_in, timestep, _with(model_options, {PASS: (here, wanted)}))
    here.keep(_branches(model, conds, out, timestep))
    return out


def _branches(
    model, conds: list[Optional[list[Entry]]], out: list[Tensor], sigma: Tensor, way: Optional[Callable] = None
) -> list[Branch]:
    branches = []
    for place, entries in enumerate(conds):
        evaluated = active(entries, sigma)
        if evaluated:
            branches.append(Branch(evaluated, place, list(conds), model, out[place], way))
    return branches


def _observe_network(executor, x, t, c_concat=None, c_crossattn=None, control=None, transformer_options=None, **kwargs):
    options = dict(transformer_options or {})
    network = executor.class_obj.diffusion_model
    layout = layout_for(network)
    entries = [EntryKey(*key) for key in zip(options.get("uuids", ()), options.get("cond_or_uncond", ()))]
    evaluation = options.get(EVALUATION)
    here, wanted = options.get(PASS) or (None, set())
    options[RECORDING] = None
    if evaluation is not None and here is not None:
        _note_whether_it_runs(options, here, entries)
    if layout is not None:
        latent = streams_in(kwargs.get("latent_shapes")).first(x)
        call = NetworkCall(layout, network, tuple(latent.shape[2:]), kwargs)
        if evaluation is not None and here is not None and entries and x.shape[0] % len(entries) == 0:
            recording = Recording(here, wanted, evaluation.statistics, call, x.shape[0], entries)
            if recording.lacks_anything():
                options[RECORDING] = recording
        elif options.get(REACHED) is not None:
            options[RECORDING] = Witness(call)
            options[REACHED](options[RECORDING].blocks)
        # The hook is there also when there is nothing to see: a compiled network keeps the options it was traced with.
        options[LAYOUT] = layout
        options[PREVIOUS_OVERRIDE] = options.get(OVERRIDE)
        options[OVERRIDE] = _observing_attention
        _observe_replacements(options, layout)
    return executor(x, t, c_concat, c_crossattn, control, options, **kwargs)


def _note_whether_it_runs(options: dict[str, Any], here: Pass, entries: list[EntryKey]) -> None:
    """Where others wrap the network, as step caches do, wrap it closest: then we are called only where it is."""
    kind = comfy.patcher_extension.WrappersMP.DIFFUSION_MODEL
    wrappers = options.get("wrappers", {})
    if wrappers.get(kind):
        here.skipped.update(entries)
        innermost = {**wrappers[kind], NAME: [partial(_note_that_it_runs, here, entries)]}
        options["wrappers"] = {**wrappers, kind: innermost}


@torch.compiler.disable
def _note_that_it_runs(here: Pass, entries: list[EntryKey], executor, *args, **kwargs):
    here.skipped.difference_update(entries)
    return executor(*args, **kwargs)


def _observing_attention(attention, q, k, v, heads, *args, **kwargs):
    """The host's attention hook: look, then do what would have been done without us."""
    options = kwargs.get("transformer_options") or {}
    if not options[LAYOUT].passes_by(options, _listened_to(options)):
        _look(options, q, k, heads, args[0] if args else kwargs.get("mask"), kwargs.get("scale"))
    previous = options.get(PREVIOUS_OVERRIDE)
    if previous is None:
        return attention(q, k, v, heads, *args, **kwargs)
    return previous(attention, q, k, v, heads, *args, **kwargs)


def _listened_to(options: Mapping[str, Any]) -> set[Block]:
    return {block for listener in _listeners(options) for block in listener.blocks}


@torch.compiler.disable  # what is recorded belongs to this call, and must not become part of a compiled graph
def _look(options: Mapping[str, Any], q: Tensor, k: Tensor, heads: int, mask=None, scale=None) -> None:
    recording = options.get(RECORDING)
    if recording is not None:
        recording.observe(q, k, heads, options, mask, scale)


def _observe_replacements(options: dict[str, Any], layout: Layout) -> None:
    """Look into the blocks whose self-attention another node replaces: the hook may not be called there."""
    patches = options.get("patches_replace", {})
    replaced = patches.get("attn1")
    if not replaced:
        return
    observed = {
        block: partial(_observing_replacement, replacement)
        for block, replacement in layout.replacements(replaced, _listened_to(options)).items()
    }
    options["patches_replace"] = {**patches, "attn1": {**replaced, **observed}}


def _observing_replacement(replacement, q, k, v, extra_options, **kwargs):
    _look(extra_options, q, k, extra_options["n_heads"])
    return replacement(q, k, v, extra_options, **kwargs)


def _outside_memory_plan():
    """Hosts with planned device memory may only hand out tensors that outlive a forward pass outside their plan."""
    prefetch = getattr(comfy, "model_prefetch", None)
    return getattr(prefetch, "pause_malloc_graph", nullcontext)()
