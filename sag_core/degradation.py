"""What is degraded: the mask that settings ask for."""

from typing import Callable, Optional

from torch import Tensor

from .mask_modes import MASK_MODES, feathered
from .settings import Settings


def degradation_mask(
    settings: Settings, x0: Tensor, attention: Callable[[Optional[int]], Tensor], seed: int
) -> tuple[Tensor, Tensor]:
    """What the mask is made of, and the mask of what is blurred, as the settings ask for.

    Args:
        settings: mask_mode, mask_threshold, mask_feather and blur_sigma.
        x0: the predicted image of the guided branch, (b, c, h, w) or (b, c, t, h, w).
        attention: gives the statistic of the attention on the latent, (b, 1, h, w) or (b, 1, t, h, w), with its tokens
            shuffled by a seed unless that is None. Called for the modes that read attention.
        seed: of the shuffle.

    Returns:
        The map, 1 being its average unless everything is marked, and the mask, 0..1, both (b, 1, ...).

    Raises:
        ValueError: as `gaussian_blur`.
    """
    mode = MASK_MODES[settings.mask_mode]
    if mode.image_map is not None:
        values = mode.image_map(x0, settings.blur_sigma)
    else:
        values = attention(seed if mode.shuffled else None)
    return values, feathered(mode.mask(values, settings.mask_threshold), settings.mask_feather)
