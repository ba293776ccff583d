"""One guided step: blur what is attended, re-noise it, and steer away from what the model makes of it."""

from typing import Callable, Optional, Union

import torch
from torch import Tensor

from .blur import gaussian_blur
from .checks import check_choice, check_floating, check_number, check_same_shape
from .projection import perpendicular
from .rescale import rescaled

DIFFERENCES: tuple[str, ...] = ("noise", "image", "detail")


def self_attention_guidance(
    denoised: Tensor,
    x: Tensor,
    x0: Tensor,
    mask: Tensor,
    denoise: Callable[[Tensor], Tensor],
    *,
    scale: float = 0.75,
    blur_sigma: float = 1.0,
    alpha: Union[float, Tensor] = 1.0,
    kernel_size: Optional[int] = None,
    difference: str = "noise",
) -> Tensor:
    """Guide a prediction by Self-Attention Guidance, written for predicted images instead of predicted noise.

    The paper's rule `eps(x_bar) + (1 + s) * (eps(x) - eps(x_bar))` (SAG equation 16; with classifier-free guidance
    its last term joins the sum) reads, for any process `x = alpha * x0 + sigma * noise`,

        x0_degraded = x0 + M * (G(x0) - x0)
        x_bar       = x + alpha * M * (G(x0) - x0)        the same predicted noise over the degraded image
        guided      = denoised + s * (x0_degraded - D(x_bar))

    which holds alike for noise, velocity, image, EDM and flow prediction.

    Args:
        denoised: the prediction to guide, after any other guidance, (b, c, h, w) or (b, c, t, h, w).
        x: the noisy latent that was denoised.
        x0: what the model predicted for `x` on the guided branch.
        mask: 0..1, broadcastable to `x0`, such as (b, 1, h, w).
        denoise: the model on the guided branch at this noise level, `D(x) -> x0`; called once with `x_bar`, and not at
            all for the difference "detail".
        scale: s; 0 is neutral: `denoised` comes back and the model is not called. Negative values steer the other way.
        blur_sigma: standard deviation of G in latent pixels, at least 0; 0 is neutral as well: nothing is degraded.
        alpha: share of the image in `x` at this noise level; 1 where noise is added to the unscaled image, 1 - t in
            a flow. A number, or a tensor broadcastable to `x0`.
        kernel_size: taps of G, see `gaussian_taps`.
        difference: what is compared, see `guidance_term`; "noise" is the paper.

    Returns:
        The guided prediction, in the shape and dtype of `denoised`.

    Raises:
        ValueError: tensors of different shapes or not floating-point, a mask that does not broadcast, numbers that
            are not finite, a negative blur_sigma, an unknown difference.
    """
    check_floating("denoised", denoised, (4, 5))
    check_number("scale", scale)
    for name, tensor in (("x", x), ("x0", x0)):
        check_floating(name, tensor, (4, 5))
        check_same_shape(name, tensor, "denoised", denoised)
    check_number("blur_sigma", blur_sigma, low=0)
    if scale == 0 or blur_sigma == 0:
        return denoised
    term = guidance_term(
        x, x0, mask, denoise, blur_sigma=blur_sigma, alpha=alpha, kernel_size=kernel_size, difference=difference
    )
    return steer(denoised, term, scale)


def guidance_term(
    x: Tensor,
    x0: Tensor,
    mask: Tensor,
    denoise: Callable[[Tensor], Tensor],
    *,
    blur_sigma: float = 1.0,
    alpha: Union[float, Tensor] = 1.0,
    kernel_size: Optional[int] = None,
    difference: str = "noise",
) -> Tensor:
    """What the model makes of the picture, less what it makes of the blurred one; see `self_attention_guidance`.

        "noise":  x0_degraded - D(x_bar)    the predicted noises, each under its own picture (the paper)
        "image":  x0 - D(x_bar)             the predicted pictures, = "noise" + M * (x0 - G(x0))
        "detail": x0 - x0_degraded          what the blur removes, an unsharp mask: the model is not called

    For a linear denoiser that returns the share w of a frequency, and h = M * (x0 - G(x0)) that the blur removes,
    they are -(1 - w) * h, which softens, and w * h, which sharpens most where the model is sure of its detail
    (docs/difference.md derives and measures it).

    Args and Raises: as `self_attention_guidance`.

    Returns:
        The shape of `x0`; not yet scaled.
    """
    check_choice("difference", difference, DIFFERENCES)
    check_floating("x0", x0, (4, 5))
    check_floating("x", x, (4, 5))
    check_same_shape("x", x, "x0", x0)
    check_floating("mask", mask, (x0.ndim,))
    _check_broadcast("mask", mask, x0)
    check_number("blur_sigma", blur_sigma, low=0)
    if isinstance(alpha, Tensor):
        _check_broadcast("alpha", alpha, x0)
    else:
        check_number("alpha", alpha)
    removed = mask * (gaussian_blur(x0, blur_sigma, kernel_size) - x0)
    if difference == "detail":
        return -removed
    x_bar = (x + alpha * removed).to(x.dtype)
    prediction = denoise(x_bar)
    check_same_shape("the result of denoise", prediction, "x0", x0)
    return x0 - prediction if difference == "image" else x0 + removed - prediction


def steer(
    denoised: Tensor,
    term: Tensor,
    scale: float,
    *,
    projection: bool = False,
    rescale: float = 0.0,
    rescale_mode: str = "full",
    reference: Optional[Tensor] = None,
    region: Optional[Tensor] = None,
) -> Tensor:
    """Add `scale * term` to a prediction, tamed on request. With the defaults it is the paper's plain sum.

    Args:
        denoised: the prediction to guide, (b, c, h, w) or (b, c, t, h, w).
        term: what `guidance_term` returned, in the same shape.
        scale: s.
        projection: keep only what is perpendicular to `denoised`, see `perpendicular`.
        rescale, rescale_mode: see `rescaled`.
        reference: the conditional prediction for `rescaled`; default `denoised`.
        region: 0..1, broadcastable to `denoised`: where to guide; 0 leaves `denoised` as it is. Default everywhere.

    Returns:
        The guided prediction, in the shape and dtype of `denoised`.

    Raises:
        ValueError: tensors of different shapes or not floating-point, numbers out of range, an unknown mode.
    """
    check_number("scale", scale)
    check_same_shape("term", term, "denoised", denoised)
    guidance = scale * term
    if projection:
        guidance = perpendicular(guidance, denoised)
    guided = rescaled(denoised, guidance, denoised if reference is None else reference, rescale, rescale_mode)
    if region is not None:
        _check_broadcast("region", region, denoised)
        guided = torch.lerp(denoised, guided.to(denoised.dtype), region.to(denoised.dtype).expand_as(denoised))
    return guided.to(denoised.dtype)


def finite_samples(term: Tensor) -> tuple[Tensor, Tensor]:
    """Leave out the samples of a guidance term that a number format could not hold.

    Args:
        term: (b, c, h, w) or (b, c, t, h, w).

    Returns:
        `term` with 0 all over the samples that hold NaN or an infinity, and which samples are sound, (b,) bool.

    Raises:
        ValueError: a tensor that is not floating-point or has other axes.
    """
    check_floating("term", term, (4, 5))
    finite = term.isfinite().flatten(1).all(1)  # (b,)
    return term.where(finite.reshape(-1, *(1,) * (term.ndim - 1)), term.new_zeros(())), finite


def _check_broadcast(name: str, tensor: Tensor, target: Tensor) -> None:
    try:
        fits = torch.broadcast_shapes(tensor.shape, target.shape) == target.shape
    except RuntimeError:
        fits = False
    if not fits:
        raise ValueError(f"{name} must broadcast to {tuple(target.shape)}, got {tuple(tensor.shape)}")
