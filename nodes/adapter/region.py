"""The MASK a user draws, as weights on the latent."""

import torch
import torch.nn.functional as F
from torch import Tensor

MOST_PIXELS = 2048  # on a side: no latent is finer, and a copy of the largest MASK that the host makes holds a gibibyte


def check_mask(mask: Tensor) -> Tensor:
    """A MASK as (masks, h, w) float32 in 0..1, averaged down to `MOST_PIXELS` a side; NaN counts as 0.

    Raises:
        ValueError: not a tensor, no pixels, or axes other than (h, w), (masks, h, w) or (masks, 1, h, w).
    """
    shape = tuple(getattr(mask, "shape", ()))
    if not isinstance(mask, Tensor) or mask.ndim not in (2, 3, 4) or 0 in shape or (mask.ndim == 4 and shape[1] != 1):
        got = f"shape {shape}" if isinstance(mask, Tensor) else type(mask).__name__
        raise ValueError(f"mask must be a MASK of shape (h, w) or (masks, h, w), got {got}")
    masks = mask.float().reshape(-1, *shape[-2:])
    low, high = masks.aminmax()
    if not (low >= 0 and high <= 1):  # NaN is neither
        masks = torch.nan_to_num(masks, nan=0.0).clamp(0, 1)
    size = tuple(min(side, MOST_PIXELS) for side in shape[-2:])
    return masks if size == shape[-2:] else F.adaptive_avg_pool2d(masks[:, None], size)[:, 0]


def region_on(latent: Tensor, mask: Tensor) -> Tensor:
    """A checked mask at the size of a latent, (b, 1, h, w) or (b, 1, 1, h, w); masks repeat over the batch in turn.

    Shrinking averages and enlarging interpolates, so that a soft edge stays soft.
    """
    height, width = latent.shape[-2:]
    masks = mask.to(latent.device)[:, None]  # (masks, 1, h, w)
    shrinks = masks.shape[-2] >= height and masks.shape[-1] >= width
    resized = (
        F.adaptive_avg_pool2d(masks, (height, width))
        if shrinks
        else F.interpolate(masks, (height, width), mode="bilinear", align_corners=False)
    )
    rows = resized[torch.arange(latent.shape[0], device=latent.device) % resized.shape[0]]
    return rows.reshape(latent.shape[0], 1, *(1,) * (latent.ndim - 4), height, width)
