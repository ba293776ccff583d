"""Sees, and can change, every attention call that a network of ComfyUI makes, without the host's own hooks."""

import sys
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple
from unittest import mock

import torch
from torch import Tensor

NAMES = ("optimized_attention", "optimized_attention_masked")


class Seen(NamedTuple):
    """One attention call, as the network made it."""

    q: Tensor
    k: Tensor
    heads: int
    mask: Any
    uuids: list


@contextmanager
def attention_calls(network, change=lambda number, q, k: (q, k)):
    """A list with one list of calls for each forward pass; `change` may replace a call's q and k."""
    passes: list[list[Seen]] = []

    def watching(original):
        def attention(q, k, v, heads, *args, **kwargs):
            q, k = change(len(passes[-1]), q, k)
            mask = args[0] if args else kwargs.get("mask")
            options = kwargs.get("transformer_options") or {}
            passes[-1].append(Seen(q.clone(), k.clone(), heads, mask, options.get("uuids", [])))
            return original(q, k, v, heads, *args, **kwargs)

        return attention

    modules = [module for name, module in sorted(sys.modules.items()) if name.startswith("comfy.ldm.")]
    hook = network.register_forward_pre_hook(lambda *_: passes.append([]))
    try:
        with ExitStack() as stack:
            for module in modules:
                for name in NAMES:
                    if hasattr(module, name):
                        stack.enter_context(mock.patch.object(module, name, watching(getattr(module, name))))
            yield passes
    finally:
        hook.remove()


def received_by_brute_force(call: Seen, first: int, image: int) -> Tensor:
    """(b, image): whole attention matrices, the image cut out of them, their rows scaled to sum 1 again."""
    q, k, heads = call.q.double(), call.k.double(), call.heads
    if q.ndim == 3:
        width = q.shape[-1] // heads
        q, k = (x.reshape(*x.shape[:2], -1, width).transpose(1, 2) for x in (q, k))
    k = k.repeat_interleave(heads // k.shape[1], dim=1)  # grouped queries
    scores = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5
    if call.mask is not None:
        mask = call.mask
        mask = mask[None] if mask.ndim == 2 else mask
        mask = mask[:, None] if mask.ndim == 3 else mask
        scores = scores.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else scores + mask
    attention = torch.softmax(scores, dim=-1)
    start = max(0, first - (k.shape[2] - q.shape[2]))  # keys may hold more than queries, before the image or behind
    attention = attention[:, :, start : start + image, first : first + image]
    attention = attention / attention.sum(-1, keepdim=True)
    return attention.mean(1).sum(1)
