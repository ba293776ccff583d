"""One guided step: blur what is attended, re-noise it, and steer away from what the model makes of it."""

from typing import Callable, Optional, Union

import torch
from torch import Tensor

from .blur import gaussian_blur
from .checks import check_floating, check_number, check_same_shape


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
        denoise: the model on the guided branch at this noise level, `D(x) -> x0`; called once with `x_bar`.
        scale: s; 0 is neutral: `denoised` comes back and the model is not called. Negative values steer the other way.
        blur_sigma: standard deviation of G in latent pixels, at least 0.
        alpha: share of the image in `x` at this noise level; 1 where noise is added to the unscaled image, 1 - t in
            a flow. A number, or a tensor broadcastable to `x0`.
        kernel_size: taps of G, see `gaussian_taps`.

    Returns:
        The guided prediction, in the shape and dtype of `denoised`.

    Raises:
        ValueError: tensors of different shapes or not floating-point, a mask that does not broadcast, numbers that
            are not finite, a negative blur_sigma.
    """
    check_floating("denoised", denoised, (4, 5))
    check_number("scale", scale)
    check_number("blur_sigma", blur_sigma, low=0)
    for name, tensor in (("x", x), ("x0", x0)):
        check_floating(name, tensor, (4, 5))
        check_same_shape(name, tensor, "denoised", denoised)
    check_floating("mask", mask, (x0.ndim,))
    _check_broadcast("mask", mask, x0)
    if isinstance(alpha, Tensor):
        _check_broadcast("alpha", alpha, x0)
    else:
        check_number("alpha", alpha)
    if scale == 0:
        return denoised

    removed = mask * (gaussian_blur(x0, blur_sigma, kernel_size) - x0)
    x_bar = (x + alpha * removed).to(x.dtype)
    prediction = denoise(x_bar)
    check_same_shape("the result of denoise", prediction, "x0", x0)
    return (denoised + scale * (x0 + removed - prediction)).to(denoised.dtype)


def _check_broadcast(name: str, tensor: Tensor, target: Tensor) -> None:
    try:
        fits = torch.broadcast_shapes(tensor.shape, target.shape) == target.shape
    except RuntimeError:
        fits = False
    if not fits:
        raise ValueError(f"{name} must broadcast to {tuple(target.shape)}, got {tuple(tensor.shape)}")
