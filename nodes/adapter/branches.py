"""The branch that is guided: its entries, its attention map, its re-run."""

import uuid
from collections.abc import Mapping
from typing import Any, Callable, NamedTuple, Optional

import comfy.samplers
import torch
from torch import Tensor

from ...sag_core import average_maps, shuffled_tokens, upsample_map
from .evaluation import AttentionMap, Branch, Entry, EntryKey, Evaluation, MapKey, Pass, Unreadable, active
from .layouts import Block
from .recording import without_recording
from .streams import streams_of

SIDES = (("uncond", "unconditional"), ("empty_cond", "unconditional"), ("cond", "conditional"))
WITHOUT_ATTENTION = "mask_mode global_blur of the Advanced node needs no attention"


class NotGuidable(Exception):
    """Why this step cannot be guided."""


class NotAnsweredByTheModel(NotGuidable):
    """A step cache or the like answered the re-run, with what it had kept of another latent."""


class View(NamedTuple):
    """Which attention a node looks at, and how it is laid out on the latent."""

    blocks: tuple[Block, ...]
    statistic: Callable
    upsampling: str = "nearest"
    shuffle_seed: Optional[int] = None  # tokens change places at random


def guided_branch(args: Mapping[str, Any], evaluation: Evaluation, wanted: str) -> tuple[Pass, Branch]:
    """The wanted branch; "auto" is the unconditional one if it was evaluated, else the conditional one (as SAG does).

    Where a guider skips the negative prompt but evaluates an empty one (Perp-Neg), that one is unconditional.

    Args:
        args: what the host gives a function after classifier-free guidance.

    Returns:
        What was evaluated at the latent that is guided, and the branch in it.

    Raises:
        NotGuidable: the wanted branch was not evaluated at this latent.
    """
    for side, name in SIDES:
        entries = active(args.get(side), args["sigma"])
        if entries and wanted in ("auto", name):
            break
    else:
        if wanted == "auto":
            raise NotGuidable("no conditioning was evaluated")
        hint = "; it never is at CFG 1: set branch to auto" if wanted == "unconditional" else ""
        raise NotGuidable(f"the {wanted} branch was not evaluated{hint}")
    here = evaluation.find(args["input"]) or evaluation.gather_windows(args["input"])
    branch = here.branch_of(entries)
    if branch is None:
        branch = _windowed_branch(here, args, side, entries)
    return here, branch


def _windowed_branch(here: Pass, args: Mapping[str, Any], side: str, entries: list[Entry]) -> Branch:
    """A branch that was evaluated in context windows alone, for a guider that tells nobody what became of them."""
    prediction, names = args.get(f"{side}_denoised"), {entry["uuid"] for entry in entries}
    for part in here.windows:
        for branch in part.branches:
            if prediction is not None and names & {entry["uuid"] for entry in branch.entries}:
                conds: list[Optional[list[Entry]]] = [None] * len(branch.conds)
                conds[branch.place] = entries
                return Branch(entries, branch.place, conds, branch.model, prediction)
    raise NotGuidable("the model was called with parts of the latent")


def branch_map(here: Pass, branch: Branch, view: View, sigma: Tensor) -> Tensor:
    """The attention map of a branch on the latent, (b, 1, h, w): the average of its entries' maps over their areas.

    Several blocks are averaged on the finest of their grids. Entries weigh as much as the host lets their predictions
    weigh (strength, mask, feathered edges of the area). What no entry covers is 0.

    Raises:
        NotGuidable: an entry whose attention was not seen, with the reason.
    """
    streams = streams_of(branch.entries)
    x = streams.first(here.x)
    if streams.shapes and any("area" in entry or "mask" in entry for entry in branch.entries):
        raise NotGuidable("areas and masks of prompts say nothing of one stream of a packed latent")
    total = x.new_zeros((x.shape[0], 1, *x.shape[2:]), dtype=torch.float32)
    weights = torch.zeros_like(total)
    # Default entries come last: they get what the others leave, and are not evaluated where nothing is left.
    entries = sorted(branch.entries, key=lambda entry: "default" in entry)
    rest = None
    for entry in entries:
        part = _placed(entry, x, sigma)
        if part is None:
            continue
        area = _area(part.area, x)
        weight = part.mult[:, :1].float()
        if "default" in entry:
            rest = (1 - weights).clamp_min(0) if rest is None else rest
            if not rest.any():
                continue
            weight = rest[area]
        key = EntryKey(entry["uuid"], branch.place)
        maps = [_readable(here, branch, MapKey(key, block, view.statistic), part.input_x) for block in view.blocks]
        received, grid = average_maps([m.received.to(x.device) for m in maps], [m.grid for m in maps], view.upsampling)
        if view.shuffle_seed is not None:
            received = shuffled_tokens(received, view.shuffle_seed)
        total[area] += weight * upsample_map(received, grid, maps[0].latent_size, view.upsampling)
        weights[area] += weight
    return torch.where(weights > 0, total / weights.clamp_min(torch.finfo(weights.dtype).tiny), 0.0)


def evaluate(
    branch: Branch,
    x: Tensor,
    sigma: Tensor,
    model_options: dict[str, Any],
    node: uuid.UUID,
    blocks: tuple[Block, ...],
    whole_batch: bool = False,
) -> Tensor:
    """Evaluate the branch at another latent, as the host did, with recording off and under names of its own.

    The names (uuids) keep step caches, which know entries by name, from mistaking this pass for the main one.

    Args:
        blocks: those that a call of the network must come to.
        whole_batch: evaluate the other branches beside it too, for nodes that let the rows of a batch mix.

    Raises:
        NotAnsweredByTheModel: no call of the network came to all of these blocks.
    """
    conds = [
        [{**entry, "uuid": uuid.uuid5(node, str(entry["uuid"]))} for entry in entries]
        if entries is not None and (place == branch.place or whole_batch)
        else None
        for place, entries in enumerate(branch.conds)
    ]
    reached: list[set[Block]] = []
    model_options = without_recording(model_options, reached.append)
    if branch.way is None:
        out = comfy.samplers.calc_cond_batch(branch.model, conds, x, sigma, model_options)
    else:
        call = {"conds": conds, "input": x, "sigma": sigma, "model": branch.model, "model_options": model_options}
        out = branch.way(call)
    if blocks and not any(one.issuperset(blocks) for one in reached):
        raise NotAnsweredByTheModel("another node, such as a step cache, answers in the model's stead")
    return out[branch.place]


def reproduces(branch: Branch, x: Tensor, answer: Tensor) -> bool:
    """Whether a re-run at `x` itself answered as the model did, as far as its number format can tell.

    Compared is the predicted noise, up to a factor: a predicted image hides its errors at high noise.
    """
    error = (answer.float() - branch.prediction.float()).norm()
    size = (x.float() - branch.prediction.float()).norm()
    return bool(error <= torch.finfo(branch.model.get_dtype()).eps ** 0.5 / 4 * size)


def others_may_mix_branches(branch: Branch, model_options: Mapping[str, Any]) -> bool:
    """Whether other nodes patch the network in a way that lets one branch's rows of a batch see another's."""
    options = model_options.get("transformer_options", {})
    if sum(bool(entries) for entries in branch.conds) < 2:
        return False
    objects = getattr(getattr(branch.model, "current_patcher", None), "object_patches", {})
    return (
        any(options.get("patches", {}).values())
        or bool(options.get("patches_replace", {}).get("dit"))
        or any(name.startswith("diffusion_model.") for name in objects)
    )


def _placed(entry: Entry, x: Tensor, sigma: Tensor):
    """The host's own reading of where an entry lies and how much it weighs there."""
    geometry = {key: value for key, value in entry.items() if key not in ("gligen", "control", "hooks")}
    return comfy.samplers.get_area_and_mult({**geometry, "model_conds": {}}, x, sigma)


def _area(area: Optional[list[int]], x: Tensor) -> tuple[slice, ...]:
    """Index of an area, given by the host as sizes followed by offsets, over all of batch and channels."""
    if area is None:
        return (slice(None),) * x.ndim
    sizes, offsets = area[: len(area) // 2], area[len(area) // 2 :]
    return (slice(None), slice(None), *(slice(start, start + size) for size, start in zip(sizes, offsets)))


def _readable(here: Pass, branch: Branch, key: MapKey, part: Tensor) -> AttentionMap:
    """The recording of an entry's block, made for this part of the latent."""
    recorded = here.maps.get(key)
    if recorded is None:
        kind = type(getattr(branch.model, "diffusion_model", None)).__name__
        raise NotGuidable(
            f"the self-attention of this model ({kind}) was not seen: another node computes it, or something in the "
            f"prompt changes the model's tokens ({WITHOUT_ATTENTION})"
        )
    if isinstance(recorded, Unreadable):
        raise NotGuidable(recorded.reason)
    if recorded.latent_size != tuple(part.shape[2:]) or recorded.received.shape[0] != part.shape[0]:
        raise NotGuidable("the model was called with parts of the latent")
    return recorded
