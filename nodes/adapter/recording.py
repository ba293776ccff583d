"""Notes how much attention image tokens receive while the host evaluates its branches.

Wrappers of the host do it: a step begins where the guider predicts (PREDICT_NOISE), the branch that will be needed is
known where conditionings are batched (CALC_COND_BATCH), and the attention is seen inside the network (APPLY_MODEL).
"""

import math
from contextlib import nullcontext
from functools import partial
from typing import Any, Optional

import comfy
import comfy.patcher_extension
import torch
from torch import Tensor

from .layouts import Block, layout_for
from .steps import AttentionMap, Listener, Run, Step, Unreadable

NAME = "self_attention_guidance"
LISTENERS = f"{NAME}_listeners"  # tuple of Listener, one a node; a tuple, because the host joins lists when it merges
RUN = f"{NAME}_run"
STEP = f"{NAME}_step"
CALL = f"{NAME}_call"
OVERRIDE = "optimized_attention_override"
PREVIOUS_OVERRIDE = f"{NAME}_previous_override"
MAX_QUERIES = 4096  # of longer sequences so many evenly spread queries stand for all: time grows with length alone


class Call:
    """One call of the network, which may hold several conditioning entries one after the other in the batch."""

    def __init__(
        self, step: Step, layout, network, x: Tensor, keys: "list[tuple]", arguments: "dict[str, Any]"
    ) -> None:
        rows = x.shape[0] // len(keys)
        self.step = step
        self.layout = layout
        self.network = network
        self.arguments = arguments  # what the network is given beside the latent: reference images and the like
        self.seen = 0  # attention calls so far
        self.located = 0  # those of them that the layout knew as a block's self-attention
        self.batch = x.shape[0]
        self.latent_size = tuple(x.shape[2:])
        self.rows = [(key, slice(i * rows, (i + 1) * rows)) for i, key in enumerate(keys) if step.lacks(key)]
        self._seen: set[Block] = set()

    def observe(
        self, q: Tensor, k: Tensor, heads: int, transformer_options: "dict[str, Any]", mask=None, scale=None
    ) -> None:
        """Record this attention call if it is the first of a block that is listened to: the self-attention."""
        tokens = self.layout.locate(self, q, k, transformer_options)
        self.seen += 1
        self.located += tokens is not None
        if tokens is None or tokens.block not in self.step.blocks or tokens.block in self._seen:
            return
        self._seen.add(tokens.block)
        for key, rows in self.rows:
            for statistic in self.step.blocks[tokens.block]:
                if (key, tokens.block, statistic) not in self.step.maps:
                    seen = self._read(q, k, heads, tokens, rows, statistic, mask, scale)
                    self.step.maps[key, tokens.block, statistic] = seen

    def _read(
        self, q: Tensor, k: Tensor, heads: int, tokens, rows: slice, statistic, mask, scale
    ) -> "AttentionMap | Unreadable":
        queries, keys = q.shape[-2], k.shape[-2]
        image = math.prod(tokens.grid)
        if q.shape[0] != self.batch or k.shape[0] != self.batch:
            return Unreadable(
                f"another patch reshapes the attention of block {tokens.block} "
                f"(queries {tuple(q.shape)}, keys {tuple(k.shape)} for a batch of {self.batch})"
            )
        if any(len(range(count)[tokens.image_tokens]) != image for count in (queries, keys)):
            return Unreadable(
                f"block {tokens.block} has {queries} queries and {keys} keys, which do not fill its grid {tokens.grid}"
            )
        if mask is not None and mask.ndim > 2 and mask.shape[0] == self.batch:
            mask = mask[rows]
        try:
            received = statistic(
                q[rows], k[rows], heads,
                image_tokens=tokens.image_tokens, mask=mask, scale=scale, max_queries=MAX_QUERIES,
            )  # fmt: skip
        except ValueError as problem:  # the run goes on without guidance
            return Unreadable(f"the attention of block {tokens.block} cannot be read: {problem}")
        with _outside_memory_plan():
            return AttentionMap(received.clone(), tokens.grid, self.latent_size)


def listen(model_options: "dict[str, Any]", listener: Listener) -> None:
    """Have the attention recorded for a listener in every run with these model options (a patcher's own copy)."""
    transformer_options = model_options.setdefault("transformer_options", {})
    transformer_options[LISTENERS] = (*transformer_options.get(LISTENERS, ()), listener)
    kinds = comfy.patcher_extension.WrappersMP
    for kind, wrapper in (
        (kinds.OUTER_SAMPLE, _begin_run),
        (kinds.PREDICT_NOISE, _begin_step),
        (kinds.CALC_COND_BATCH, _expect_conditionings),
        (kinds.APPLY_MODEL, _observe_network),
    ):
        if not comfy.patcher_extension.get_wrappers_with_key(kind, NAME, transformer_options):
            comfy.patcher_extension.add_wrapper_with_key(kind, NAME, wrapper, transformer_options)


def current_step(model_options: "dict[str, Any]") -> Optional[Step]:
    return model_options.get("transformer_options", {}).get(STEP)


def with_step(model_options: "dict[str, Any]", step: Optional[Step]) -> "dict[str, Any]":
    """A copy of the model options in which `step` is being recorded; None switches recording off."""
    return {**model_options, "transformer_options": {**model_options.get("transformer_options", {}), STEP: step}}


def _begin_run(executor, *args, **kwargs):
    guider, run = executor.class_obj, Run()
    transformer_options = guider.model_options.setdefault("transformer_options", {})  # the run's own copy
    transformer_options[RUN] = run
    for listener in transformer_options.get(LISTENERS, ()):
        if listener.note is not None:
            run.warn(listener.note)
    return executor(*args, **kwargs)


def _begin_step(executor, x, timestep, model_options=None, seed=None):
    model_options = model_options or {}
    transformer_options = model_options.get("transformer_options", {})
    run = transformer_options.get(RUN) or Run()
    run.steps += 1
    schedule = transformer_options.get("sample_sigmas")
    schedule = [] if schedule is None else schedule.tolist()
    sampling, sigma = executor.class_obj.inner_model.model_sampling, timestep.max().item()
    moments, fresh = {}, []
    for listener in transformer_options.get(LISTENERS, ()):
        moment = listener.moment(run, sampling, sigma, schedule)
        if moment is not None:
            moments[listener.node] = moment
            if moment.fresh:
                fresh.append(listener)
    step = Step(run, moments, fresh, executor.class_obj.conds.get("positive") or [])
    return executor(x, timestep, with_step(model_options, step), seed)


def _expect_conditionings(executor, model, conds, x_in, timestep, model_options):
    step = current_step(model_options)
    if step is not None:
        step.expect(model, conds, timestep)
    return executor(model, conds, x_in, timestep, model_options)


def _observe_network(executor, x, t, c_concat=None, c_crossattn=None, control=None, transformer_options=None, **kwargs):
    options = dict(transformer_options or {})
    network = executor.class_obj.diffusion_model
    layout = layout_for(network)
    if layout is None:
        return executor(x, t, c_concat, c_crossattn, control, options, **kwargs)
    step, call = options.get(STEP), None
    keys = list(zip(options.get("uuids", ()), options.get("cond_or_uncond", ())))
    if step is not None and step.blocks and keys and x.shape[0] % len(keys) == 0:
        call = Call(step, layout, network, x, keys, kwargs)
    options[CALL] = call if call is not None and call.rows else None
    # The hook is there also when there is nothing to see: a compiled network keeps the options it was traced with.
    options[PREVIOUS_OVERRIDE] = options.get(OVERRIDE)
    options[OVERRIDE] = _observing_attention
    _observe_replacements(options)
    return executor(x, t, c_concat, c_crossattn, control, options, **kwargs)


def _observing_attention(attention, q, k, v, heads, *args, **kwargs):
    """The host's attention hook: look, then do what would have been done without us."""
    options = kwargs.get("transformer_options") or {}
    if _may_be_listened_to(options):
        _look(options, q, k, heads, args[0] if args else kwargs.get("mask"), kwargs.get("scale"))
    previous = options.get(PREVIOUS_OVERRIDE)
    if previous is None:
        return attention(q, k, v, heads, *args, **kwargs)
    return previous(attention, q, k, v, heads, *args, **kwargs)


def _may_be_listened_to(options: "dict[str, Any]") -> bool:
    """Whether the hook has to look: where the host names the block, most calls are ruled out before any work."""
    block = options.get("block")
    if block is None:
        return True
    name = (*block, options.get("block_index", 0))
    return any(name in listener.blocks for listener in options.get(LISTENERS, ()))


@torch.compiler.disable  # what is recorded belongs to this call, and must not become part of a compiled graph
def _look(options: "dict[str, Any]", q: Tensor, k: Tensor, heads: int, mask=None, scale=None) -> None:
    call = options.get(CALL)
    if call is not None:
        call.observe(q, k, heads, options, mask, scale)


def _observe_replacements(options: "dict[str, Any]") -> None:
    """Look into the blocks whose self-attention another node replaces: the hook may not be called there."""
    patches = options.get("patches_replace", {})
    replaced = patches.get("attn1")
    if not replaced:
        return
    blocks = {block for listener in options.get(LISTENERS, ()) for block in listener.blocks}
    observed = {}
    for block in blocks:
        replacement = replaced.get(block, replaced.get(block[:2]))  # the host's own order of preference
        if replacement is not None:
            observed[block] = partial(_observing_replacement, replacement)
    options["patches_replace"] = {**patches, "attn1": {**replaced, **observed}}


def _observing_replacement(replacement, q, k, v, extra_options, **kwargs):
    _look(extra_options, q, k, extra_options["n_heads"])
    return replacement(q, k, v, extra_options, **kwargs)


def _outside_memory_plan():
    """Hosts with planned device memory may only hand out tensors that outlive a forward pass outside their plan."""
    prefetch = getattr(comfy, "model_prefetch", None)
    return getattr(prefetch, "pause_malloc_graph", nullcontext)()
