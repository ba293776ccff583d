"""Self-Attention Guidance in diffusers: the adapter between its attention processors and sag_core."""

from typing import Callable, Optional

import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import Attention, AttnProcessor2_0
from torch import Tensor

import sag_core

from .engine import Step


class RecordingProcessor(AttnProcessor2_0):
    """Attention as ever, and how much of it every token received in the last call, (b, n)."""

    received: Optional[Tensor] = None

    def __call__(self, attn: Attention, hidden_states: Tensor, *args, **kwargs) -> Tensor:
        q, k = attn.to_q(hidden_states), attn.to_k(hidden_states)
        self.received = sag_core.received_attention(q, k, attn.heads, scale=attn.scale)
        return super().__call__(attn, hidden_states, *args, **kwargs)


class SelfAttentionGuidance:
    """Reads the first self-attention of the middle block and guides by it. To be closed after use.

    Args:
        unet: the network to listen to.
        scale, blur_sigma, threshold: as `sag_core.Settings`.
        on_mask: called with every step's mask, (b, 1, h, w).

    >>> with SelfAttentionGuidance(engine.unet, 0.5) as guidance:  # doctest: +SKIP
    ...     engine.sample(noise, texts, guidance=guidance)
    """

    def __init__(
        self,
        unet: UNet2DConditionModel,
        scale: float,
        blur_sigma: float = 1.0,
        threshold: float = 1.0,
        on_mask: Optional[Callable[[Tensor], None]] = None,
    ) -> None:
        self.settings = sag_core.Settings(scale=scale, blur_sigma=blur_sigma, mask_threshold=threshold)
        self._attention = unet.mid_block.attentions[0].transformer_blocks[0].attn1
        self._on_mask = on_mask

    def __enter__(self) -> "SelfAttentionGuidance":
        self._before = self._attention.processor
        self._recorder = RecordingProcessor()
        self._attention.set_processor(self._recorder)
        return self

    def __exit__(self, *error) -> None:
        self._attention.set_processor(self._before)

    @torch.no_grad()
    def __call__(self, step: Step) -> Tensor:
        received = self._recorder.received[step.branch]
        rows, columns = step.x.shape[-2:]
        halvings = round((rows * columns / received.shape[1]) ** 0.5)  # of both sides, by the network's levels
        tokens = sag_core.attention_mask(received, self.settings.mask_threshold)
        mask = sag_core.upsample_map(tokens, (rows // halvings, columns // halvings), (rows, columns))
        if self._on_mask is not None:
            self._on_mask(mask)
        return sag_core.self_attention_guidance(
            step.denoised,
            step.x,
            step.x0,
            mask,
            step.denoise,
            scale=self.settings.scale,
            blur_sigma=self.settings.blur_sigma,
            alpha=step.alpha,
        )
