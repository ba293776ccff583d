"""Puts guidance on a ModelPatcher, and guides a step after classifier-free guidance."""

import uuid
from functools import cache
from typing import Any

from torch import Tensor

from ...sag_core import Settings, attention_mask, self_attention_guidance
from .branches import NotGuidable, branch_map, choose_branch, evaluate
from .layouts import layout_for
from .recording import Listener, current_step, listen, logger


def guide_model(model, settings: Settings):
    """A clone of a ComfyUI MODEL that is guided in every run; the model itself stays as it is.

    A scale of 0 patches nothing: such a run is the run without the node, bit for bit.
    """
    guided = model.clone()
    if settings.scale == 0:
        return guided
    listener = _listener(model.get_model_object("diffusion_model"))
    listen(guided.model_options, listener)
    if listener.blocks:
        guided.set_model_sampler_post_cfg_function(_guidance(settings))
    return guided


def _listener(network) -> Listener:
    layout = layout_for(network)
    if layout is None:
        return Listener((), f"models of the kind {type(network).__name__} are not supported; the image is not guided")
    return Listener(*layout.automatic(network))


def _guidance(settings: Settings):
    node = uuid.uuid4()

    def post_cfg(args: "dict[str, Any]") -> Tensor:
        step = current_step(args["model_options"])
        if step is None:
            _warn_of_unknown_caller()
            return args["denoised"]
        try:
            return _guide(settings, args, step, node)
        except NotGuidable as reason:
            step.run.warn(f"{reason}; steps like this one are not guided")
            return args["denoised"]

    return post_cfg


def _guide(settings: Settings, args: "dict[str, Any]", step, node: uuid.UUID) -> Tensor:
    x, sigma = args["input"], args["sigma"]
    branch = choose_branch(args)
    mask = attention_mask(branch_map(branch, step, x, sigma), settings.mask_threshold)
    return self_attention_guidance(
        args["denoised"],
        x,
        branch.denoised,
        mask.to(x.dtype),
        lambda x_bar: evaluate(branch, step, x_bar, args, node),
        scale=settings.scale,
        blur_sigma=settings.blur_sigma,
        alpha=_image_share(args["model"].model_sampling, sigma, x),
    )


def _image_share(model_sampling, sigma: Tensor, x: Tensor) -> Tensor:
    """alpha(sigma): the share of the image in a latent at this noise level, as the model's own noising has it."""
    shape = (sigma.shape[0],) + (1,) * (x.ndim - 1)
    none, all_of_it = x.new_zeros(shape), x.new_ones(shape)
    return model_sampling.noise_scaling(sigma.reshape(shape).to(x.dtype), none, all_of_it)


@cache
def _warn_of_unknown_caller() -> None:
    logger.warning("Self-Attention Guidance: this sampler calls the model without a guider; the image is not guided.")
