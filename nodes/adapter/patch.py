"""Puts guidance on a ModelPatcher, and guides a step after classifier-free guidance."""

import uuid
from functools import cache
from typing import Any, Optional

from torch import Tensor

from ...sag_core import MASK_MODES, Settings, feathered, guidance_term, steer
from .blocks import AUTO, parse_blocks
from .branches import Branch, NotGuidable, View, branch_map, choose_branch, evaluate
from .layouts import layout_for
from .recording import current_step, listen
from .region import check_mask, region_on
from .steps import Listener, logger
from .timing import moment_of


def guide_model(model, settings: Settings, *, attention_blocks: str = AUTO, mask: Optional[Tensor] = None):
    """A clone of a ComfyUI MODEL that is guided in every run; the model itself stays as it is.

    A scale of 0, or a blur of 0, patches nothing: such a run is the run without the node, bit for bit.

    Args:
        settings: how strongly and when to guide, and what to degrade.
        attention_blocks: "auto", or which blocks to read, see `parse_blocks`.
        mask: a MASK, where to guide; default everywhere.

    Raises:
        ValueError: blocks that the model lacks, a mask of another form.
    """
    guided = model.clone()
    listener = _listener(model.get_model_object("diffusion_model"), settings, attention_blocks)
    region = None if mask is None else check_mask(mask)
    if settings.scale == 0 or settings.blur_sigma == 0:
        return guided
    listen(guided.model_options, listener)
    if listener.blocks or listener.statistic is None:
        guided.set_model_sampler_post_cfg_function(_guidance(settings, listener, region))
    return guided


def _listener(network, settings: Settings, attention_blocks: str) -> Listener:
    node = uuid.uuid4()
    statistic, moment = MASK_MODES[settings.mask_mode].statistic, moment_of(settings, node)
    blocks, note = (), None
    if statistic is not None:
        blocks, note = _blocks(network, attention_blocks)
    if settings.start_percent >= settings.end_percent:
        note = (
            f"start_percent {settings.start_percent:g} is not below end_percent {settings.end_percent:g}; "
            "no step is guided"
        )
    return Listener(node, blocks, note, statistic, settings.branch, moment)


def _blocks(network, attention_blocks: str) -> "tuple[tuple, Optional[str]]":
    """The blocks to read, and what there is to say about them."""
    layout = layout_for(network)
    if layout is None:
        return (), f"models of the kind {type(network).__name__} are not supported; the image is not guided"
    if attention_blocks.strip().lower() == AUTO:
        return layout.automatic(network)
    return parse_blocks(attention_blocks, layout.blocks(network)), None


def _guidance(settings: Settings, listener: Listener, region: Optional[Tensor]):
    def post_cfg(args: "dict[str, Any]") -> Tensor:
        step = current_step(args["model_options"])
        if step is None:
            _warn_of_unknown_caller()
            return args["denoised"]
        moment = step.moments.get(listener.node)
        if moment is None:
            return args["denoised"]
        try:
            term = _term(settings, listener, args, step, moment.fresh)
        except NotGuidable as reason:
            step.run.warn(f"{reason}; steps like this one are not guided")
            return args["denoised"]
        return steer(
            args["denoised"],
            term,
            moment.scale,
            projection=settings.projection,
            rescale=settings.rescale,
            rescale_mode=settings.rescale_mode,
            reference=args["cond_denoised"],
            region=None if region is None else region_on(term, region),
        )

    return post_cfg


def _term(settings: Settings, listener: Listener, args: "dict[str, Any]", step, fresh: bool) -> Tensor:
    """What the guided branch loses by the blur, from the model or, between the steps that ask it, from the last one."""
    x, sigma = args["input"], args["sigma"]
    if x.ndim not in (4, 5):
        raise NotGuidable(f"latents of shape {tuple(x.shape)} hold no rows and columns")
    if not fresh:
        return _last_term(step, listener, x)
    branch = choose_branch(args, settings.branch)
    term = guidance_term(
        x,
        branch.denoised,
        _mask(settings, listener, branch, step, x, sigma).to(x.dtype),
        lambda x_bar: evaluate(branch, step, x_bar, args, listener.node),
        blur_sigma=settings.blur_sigma,
        alpha=_image_share(args["model"].model_sampling, sigma, x),
        kernel_size=settings.blur_kernel or None,
    )
    if settings.reuse:
        step.run.terms[listener.node] = term
    return term


def _last_term(step, listener: Listener, x: Tensor) -> Tensor:
    term = step.run.terms[listener.node]
    if term.shape != x.shape:
        raise NotGuidable("the latent changed its size, and reuse has no guidance for the new one")
    return term


def _mask(settings: Settings, listener: Listener, branch: Branch, step, x: Tensor, sigma: Tensor) -> Tensor:
    """What to blur, 0..1, (b, 1, h, w)."""
    mode = MASK_MODES[settings.mask_mode]
    if mode.statistic is None:
        values = mode.image_map(branch.denoised, settings.blur_sigma)
    else:
        shuffle_seed = step.number if mode.shuffled else None
        view = View(listener.blocks, mode.statistic, settings.mask_upsampling, shuffle_seed)
        values = branch_map(branch, step, view, x, sigma)
    return feathered(mode.mask(values, settings.mask_threshold), settings.mask_feather)


def _image_share(model_sampling, sigma: Tensor, x: Tensor) -> Tensor:
    """alpha(sigma): the share of the image in a latent at this noise level, as the model's own noising has it."""
    shape = (sigma.shape[0],) + (1,) * (x.ndim - 1)
    none, all_of_it = x.new_zeros(shape), x.new_ones(shape)
    return model_sampling.noise_scaling(sigma.reshape(shape).to(x.dtype), none, all_of_it)


@cache
def _warn_of_unknown_caller() -> None:
    logger.warning("Self-Attention Guidance: this sampler calls the model without a guider; the image is not guided.")
