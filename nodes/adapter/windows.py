"""Context windows: one attention map per window, laid together as the host lays the windows together."""

from typing import Any, Callable

import torch
from torch import Tensor

from .branches import NotGuidable
from .evaluation import Branch, Pass
from .streams import streams_of


def lay_together(
    whole: Pass, branch: Branch, map_of: Callable[[Pass, Branch], Tensor], handler: Any, sigma: Tensor
) -> Tensor:
    """A branch's map on a latent that the host evaluates in windows, (b, 1, h, w) or (b, 1, t, h, w).

    The host's own handler does it, with its weights, as it does with the predictions.

    Args:
        map_of: the map of one window, on the window's latent.
        handler: the host's handler of context windows.

    Raises:
        NotGuidable: windows that are not lists of places along an axis, or as `map_of`.
    """
    combine = getattr(handler, "combine_context_window_results", None)
    if combine is None:
        raise NotGuidable("another node's own context windows are at work")
    x, axis = streams_of(branch.entries).first(whole.x), handler.dim
    total = x.new_zeros((x.shape[0], 1, *x.shape[2:]), dtype=torch.float32)
    weights = torch.zeros_like(total)
    along = [1] * x.ndim
    along[axis] = x.shape[axis]
    # What the host divides by in the end; the way "relative" of joining windows has it in the weights already.
    counts = [total.new_zeros(along) for _ in range(2)]
    biases = [[0.0] * x.shape[axis] for _ in range(2)]
    for number, part in enumerate(whole.windows):
        evaluated = next((one for one in part.branches if one.place == branch.place), None)
        if evaluated is None:
            continue
        values = _own_places(map_of(part, evaluated), part.window, axis)
        combine(
            total, [values, torch.ones_like(values)], [], part.window, number, len(whole.windows), sigma,
            [total, weights], counts, biases,
        )  # fmt: skip
    return torch.where(weights > 0, total / weights.clamp_min(torch.finfo(weights.dtype).tiny), 0.0)


def _own_places(values: Tensor, window: Any, axis: int) -> Tensor:
    """The places that a window contributes: without a frame put before it, and without guide frames after it."""
    anchor = getattr(window, "causal_anchor_index", None)
    first = 1 if anchor is not None and anchor >= 0 else 0
    return values.narrow(axis, first, len(window.index_list)) if values.shape[axis] > 1 else values
