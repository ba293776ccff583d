"""The demo model's network in diffusers."""

from diffusers import UNet2DConditionModel

from .checkpoint import Architecture


def build(architecture: Architecture) -> UNet2DConditionModel:
    """An untrained network."""
    levels = len(architecture.channels)
    return UNet2DConditionModel(
        sample_size=architecture.size,
        in_channels=3,
        out_channels=3,
        layers_per_block=1,
        block_out_channels=architecture.channels,
        down_block_types=("DownBlock2D",) * (levels - 1) + ("CrossAttnDownBlock2D",),
        up_block_types=("CrossAttnUpBlock2D",) + ("UpBlock2D",) * (levels - 1),
        cross_attention_dim=architecture.token_width,
        attention_head_dim=architecture.heads,  # diffusers counts heads under this name
    )
