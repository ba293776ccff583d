"""The branch that is guided: its entries, its attention map, its re-run."""

import uuid
from typing import Any, Callable, NamedTuple, Optional

import comfy.samplers
import torch
from torch import Tensor

from ...sag_core import average_maps, shuffled_tokens, upsample_map
from .layouts import Block
from .recording import with_step
from .steps import AttentionMap, Step, Unreadable, is_active


class NotGuidable(Exception):
    """Why this step cannot be guided."""


class Branch(NamedTuple):
    """One side of classifier-free guidance: its conditioning entries and what the model predicted under them."""

    entries: "list[dict[str, Any]]"
    denoised: Tensor
    negative: bool


def choose_branch(args: "dict[str, Any]", wanted: str = "auto") -> Branch:
    """The wanted branch; "auto" is the unconditional one if it was evaluated, else the conditional one (as SAG does).

    Where a guider skips the negative prompt but evaluates an empty one (Perp-Neg), that one is unconditional.

    Raises:
        NotGuidable: the wanted branch was not evaluated at this step.
    """
    for side, name in (("uncond", "unconditional"), ("empty_cond", "unconditional"), ("cond", "conditional")):
        entries = [entry for entry in args.get(side) or () if is_active(entry, args["sigma"])]
        if entries and wanted in ("auto", name):
            return Branch(entries, args[f"{side}_denoised"], name == "unconditional")
    if wanted == "auto":
        raise NotGuidable("no conditioning was evaluated")
    hint = "; it never is at CFG 1: set branch to auto" if wanted == "unconditional" else ""
    raise NotGuidable(f"the {wanted} branch was not evaluated{hint}")


class View(NamedTuple):
    """Which attention a node looks at, and how it is laid out on the latent."""

    blocks: "tuple[Block, ...]"
    statistic: Callable
    upsampling: str = "nearest"
    shuffle_seed: Optional[int] = None  # tokens change places at random


def branch_map(branch: Branch, step: Step, view: View, x: Tensor, sigma: Tensor) -> Tensor:
    """The attention map of a branch on the latent, (b, 1, h, w): the average of its entries' maps over their areas.

    Several blocks are averaged on the finest of their grids. Entries weigh as much as the host lets their predictions
    weigh (strength, mask, feathered edges of the area). What no entry covers is 0.

    Raises:
        NotGuidable: an entry whose attention was not seen, with the reason.
    """
    total = x.new_zeros((x.shape[0], 1, *x.shape[2:]), dtype=torch.float32)
    weights = torch.zeros_like(total)
    # Default entries come last: they get what the others leave, and are not evaluated where nothing is left.
    entries = sorted(branch.entries, key=lambda entry: "default" in entry)
    rest = None
    for entry in entries:
        part = _placed(entry, x, sigma)
        if part is None:
            continue
        region = _region(part.area, x)
        weight = part.mult[:, :1].float()
        if "default" in entry:
            rest = (1 - weights).clamp_min(0) if rest is None else rest
            if not rest.any():
                continue
            weight = rest[region]
        keys = [(step.key(entry), block, view.statistic) for block in view.blocks]
        seen = [_readable(step, key, part.input_x) for key in keys]
        received, grid = average_maps([m.received.to(x.device) for m in seen], [m.grid for m in seen], view.upsampling)
        if view.shuffle_seed is not None:
            received = shuffled_tokens(received, view.shuffle_seed)
        total[region] += weight * upsample_map(received, grid, seen[0].latent_size, view.upsampling)
        weights[region] += weight
    return torch.where(weights > 0, total / weights.clamp_min(torch.finfo(weights.dtype).tiny), 0.0)


def evaluate(branch: Branch, step: Step, x: Tensor, args: "dict[str, Any]", node: uuid.UUID) -> Tensor:
    """Evaluate the branch at another latent, as the host did, with recording off and under names of its own.

    The names (uuids) keep step caches, which know entries by name, from mistaking this pass for the main one.
    """
    entries = [{**entry, "uuid": uuid.uuid5(node, str(entry["uuid"]))} for entry in branch.entries]
    conds = [None, entries] if branch.negative else [entries, None]
    model = step.models.get(step.key(branch.entries[0]), args["model"])
    model_options = with_step(args["model_options"], None)
    replaced = model_options.get("sampler_calc_cond_batch_function")  # another node's way to evaluate the branches
    if replaced is None:
        out = comfy.samplers.calc_cond_batch(model, conds, x, args["sigma"], model_options)
    else:
        call = {"conds": conds, "input": x, "sigma": args["sigma"], "model": model, "model_options": model_options}
        out = replaced(call)
    return out[int(branch.negative)]


def _placed(entry: "dict[str, Any]", x: Tensor, sigma: Tensor):
    """The host's own reading of where an entry lies and how much it weighs there."""
    geometry = {key: value for key, value in entry.items() if key not in ("gligen", "control", "hooks")}
    return comfy.samplers.get_area_and_mult({**geometry, "model_conds": {}}, x, sigma)


def _region(area: "Optional[list[int]]", x: Tensor) -> "tuple[slice, ...]":
    """Index of an area, given by the host as sizes followed by offsets, over all of batch and channels."""
    if area is None:
        return (slice(None),) * x.ndim
    sizes, offsets = area[: len(area) // 2], area[len(area) // 2 :]
    return (slice(None), slice(None), *(slice(start, start + size) for size, start in zip(sizes, offsets)))


def _readable(step: Step, key: tuple, part: Tensor) -> AttentionMap:
    """The recording of an entry's block, made for this part of the latent."""
    seen = step.maps.get(key)
    if seen is None:
        kind = type(getattr(step.models.get(key[0]), "diffusion_model", None)).__name__
        raise NotGuidable(f"the self-attention of this model ({kind}) was not seen at this step")
    if isinstance(seen, Unreadable):
        raise NotGuidable(seen.reason)
    if seen.latent_size != tuple(part.shape[2:]) or seen.received.shape[0] != part.shape[0]:
        raise NotGuidable(f"the model was called with parts of the latent, {seen.latent_size}")
    return seen
