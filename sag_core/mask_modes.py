"""The ways to choose what is blurred: the paper's, those of its ablations, and those that followed."""

from typing import Callable, NamedTuple, Optional

import torch
from torch import Tensor

from .attention import received_attention
from .blur import gaussian_blur
from .checks import check_floating, check_number
from .mask import attention_mask
from .token_rank import token_rank

SOFTNESS = 4  # exponent of the graded mask: 0.06 at half the threshold, 0.5 at the threshold, 0.94 at twice


class MaskMode(NamedTuple):
    """Where a mask comes from: a statistic of the attention or the image, and how it becomes a mask."""

    statistic: Optional[Callable[..., Tensor]] = None  # of queries and keys: one value a token, with mean 1
    shuffled: bool = False  # the tokens' values change places
    image_map: Optional[Callable[[Tensor, float], Tensor]] = None  # without a statistic: of the image and blur_sigma
    mask: Callable[[Tensor, float], Tensor] = attention_mask


def soft_attention_mask(received: Tensor, threshold: float = 1.0) -> Tensor:
    """A graded mask: `M = a^4 / (a^4 + psi^4)`, which is the paper's hard mask as the exponent grows.

    Graded masks for SAG come from its ports (UltraCascade's soft modes); this one has 0.5 at the threshold.

    Args:
        received: any shape, at least 0, scaled so that 1 is the average.
        threshold: psi, in units of the average attention, at least 0; 0 marks all that receives any.

    Returns:
        0..1 in the shape and dtype of `received`. NaN is not marked.

    Raises:
        ValueError: a threshold that is not finite or is below 0.
    """
    check_floating("received", received, tuple(range(1, 6)))
    check_number("threshold", threshold, low=0)
    return torch.nan_to_num(1.0 / (1.0 + (threshold / received) ** SOFTNESS), nan=0.0)


def high_frequency_map(x0: Tensor, blur_sigma: float) -> Tensor:
    """How much fine detail lies where, with mean 1: the energy of what the blur removes, `G((x0 - G(x0))^2)`.

    A control for the paper's claim that attention finds more than detail does (SAG's ablation of masking strategies;
    its exact high-frequency mask is not known to us).

    Args:
        x0: the predicted image, (b, c, h, w) or (b, c, t, h, w).
        blur_sigma: standard deviation of G in latent pixels, at least 0.

    Returns:
        (b, 1, h, w) or (b, 1, t, h, w) float32, at least 0; 0 everywhere if the blur removes nothing.

    Raises:
        ValueError: as `gaussian_blur`.
    """
    detail = (x0 - gaussian_blur(x0, blur_sigma)).float().square().mean(1, keepdim=True)
    energy = gaussian_blur(detail, blur_sigma)
    mean = energy.mean(tuple(range(1, energy.ndim)), keepdim=True)
    return energy / mean.clamp_min(torch.finfo(energy.dtype).tiny)


def everywhere(x0: Tensor, blur_sigma: float) -> Tensor:
    """A map whose every mask is full: the paper's blur guidance (SAG section 3), which needs no attention.

    Returns:
        (b, 1, h, w) or (b, 1, t, h, w) float32, infinite: above every threshold.
    """
    return torch.full_like(x0[:, :1], float("inf"), dtype=torch.float32)


def shuffled_tokens(received: Tensor, seed: int) -> Tensor:
    """The same values at random tokens: as much is masked, but anywhere (SAG's ablation, as a control).

    Args:
        received: (b, n), one value a token.
        seed: the same seed gives the same places on every device.

    Returns:
        (b, n), each row in an order of its own.
    """
    check_floating("received", received, (2,))
    noise = torch.rand(received.shape, generator=torch.Generator().manual_seed(int(seed) % 2**63))
    return received.gather(1, noise.argsort(1).to(received.device))


def feathered(mask: Tensor, sigma: float) -> Tensor:
    """Soften a mask's edges by a Gaussian.

    Args:
        mask: 0..1, (b, 1, h, w) or (b, 1, t, h, w).
        sigma: standard deviation in latent pixels, at least 0; 0 returns `mask` itself.

    Returns:
        0..1 in the shape and dtype of `mask`.

    Raises:
        ValueError: as `gaussian_blur`.
    """
    return mask if sigma == 0 else gaussian_blur(mask, sigma).clamp_(0, 1)


MASK_MODES: dict[str, MaskMode] = {
    "self_attention": MaskMode(received_attention),
    "soft_self_attention": MaskMode(received_attention, mask=soft_attention_mask),
    "token_rank": MaskMode(token_rank),
    "global_blur": MaskMode(image_map=everywhere),
    "high_frequency": MaskMode(image_map=high_frequency_map),
    "random": MaskMode(received_attention, shuffled=True),
}
