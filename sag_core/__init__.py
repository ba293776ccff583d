"""The mathematics of Self-Attention Guidance (Hong et al., ICCV 2023, arXiv 2210.00939) on torch tensors.

This package knows tensors, numbers and one callable, and nothing of any framework around them. Every function is
pure: no argument is written to, and results have the dtype and device of the input unless a docstring says otherwise.

Axes, as the comments at the end of a line name them: b batch, n tokens, q queries, k keys, d channels per head,
c latent channels, t frames, h w latent rows and columns, gh gw token rows and columns.
"""

from .attention import received_attention
from .blur import gaussian_blur, gaussian_taps
from .degradation import degradation_mask
from .guidance import DIFFERENCES, finite_samples, guidance_term, self_attention_guidance, steer
from .mask import attention_mask, average_maps, upsample_map
from .mask_modes import (
    MASK_MODES,
    MaskMode,
    everywhere,
    feathered,
    high_frequency_map,
    shuffled_tokens,
    soft_attention_mask,
)
from .presets import PRESETS
from .projection import perpendicular
from .rescale import RESCALE_MODES, rescaled
from .schedule import SCALE_CURVES, Window, progress, scale_curve, window
from .settings import AUTO, Declaration, Settings, declarations
from .token_rank import token_rank

__all__ = [
    "AUTO",
    "DIFFERENCES",
    "MASK_MODES",
    "PRESETS",
    "RESCALE_MODES",
    "SCALE_CURVES",
    "Declaration",
    "MaskMode",
    "Settings",
    "Window",
    "attention_mask",
    "average_maps",
    "declarations",
    "degradation_mask",
    "everywhere",
    "feathered",
    "finite_samples",
    "gaussian_blur",
    "gaussian_taps",
    "guidance_term",
    "high_frequency_map",
    "perpendicular",
    "progress",
    "received_attention",
    "rescaled",
    "scale_curve",
    "self_attention_guidance",
    "shuffled_tokens",
    "soft_attention_mask",
    "steer",
    "token_rank",
    "upsample_map",
    "window",
]
