"""The mathematics of Self-Attention Guidance (Hong et al., ICCV 2023, arXiv 2210.00939) on torch tensors.

This package knows tensors, numbers and one callable, and nothing of any framework around them. Every function is
pure: no argument is written to, and results have the dtype and device of the input unless a docstring says otherwise.

Axes, as the comments at the end of a line name them: b batch, n tokens, q queries, k keys, d channels per head,
c latent channels, t frames, h w latent rows and columns, gh gw token rows and columns.
"""

from .attention import received_attention
from .blur import gaussian_blur, gaussian_taps
from .guidance import self_attention_guidance
from .mask import attention_mask, upsample_map
from .settings import Settings

__all__ = [
    "Settings",
    "attention_mask",
    "gaussian_blur",
    "gaussian_taps",
    "received_attention",
    "self_attention_guidance",
    "upsample_map",
]
