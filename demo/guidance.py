"""Self-Attention Guidance in diffusers: the adapter between its attention processors and sag_core."""

from typing import Any, Callable, Optional

import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import Attention, AttnProcessor2_0
from torch import Tensor

import sag_core

from .engine import Step


class RecordingProcessor(AttnProcessor2_0):
    """Attention as ever, and a statistic of it for every token in the last call, (b, n).

    Args:
        statistic: of queries, keys and the number of heads, such as `sag_core.received_attention`.
    """

    def __init__(self, statistic: Callable[..., Tensor] = sag_core.received_attention) -> None:
        super().__init__()
        self.received: Optional[Tensor] = None
        self._statistic = statistic

    def __call__(self, attn: Attention, hidden_states: Tensor, *args, **kwargs) -> Tensor:
        q, k = attn.to_q(hidden_states), attn.to_k(hidden_states)
        self.received = self._statistic(q, k, attn.heads, scale=attn.scale)
        return super().__call__(attn, hidden_states, *args, **kwargs)


class SelfAttentionGuidance:
    """Reads the first self-attention of the middle block and guides by it. To be closed after use.

    Args:
        unet: the network to listen to.
        scale, blur_sigma: as `sag_core.Settings`.
        attention: the self-attention to read instead.
        on_mask: called with every step's mask, (b, 1, h, w).
        settings: further ones of `sag_core.Settings`, which also checks them. Used are mask_threshold, mask_mode,
            mask_feather, difference, start_percent and end_percent.

    >>> with SelfAttentionGuidance(engine.unet, 0.5) as guidance:  # doctest: +SKIP
    ...     engine.sample(noise, texts, guidance=guidance)
    """

    def __init__(
        self,
        unet: UNet2DConditionModel,
        scale: float,
        blur_sigma: float = 1.0,
        attention: Optional[Attention] = None,
        on_mask: Optional[Callable[[Tensor], None]] = None,
        **settings: Any,
    ) -> None:
        self.settings = sag_core.Settings(scale=scale, blur_sigma=blur_sigma, **settings)
        self._statistic = sag_core.MASK_MODES[self.settings.mask_mode].statistic
        self._attention = attention or unet.mid_block.attentions[0].transformer_blocks[0].attn1
        self._on_mask = on_mask
        self._steps = 0

    def __enter__(self) -> "SelfAttentionGuidance":
        self._before = self._attention.processor
        if self._statistic is not None:
            self._recorder = RecordingProcessor(self._statistic)
            self._attention.set_processor(self._recorder)
        return self

    def __exit__(self, *error) -> None:
        self._attention.set_processor(self._before)

    @torch.no_grad()
    def __call__(self, step: Step) -> Tensor:
        if not self.settings.start_percent <= step.progress + 1e-6 < self.settings.end_percent:
            return step.denoised
        self._steps += 1
        _, mask = sag_core.degradation_mask(self.settings, step.x0, lambda seed: self._map(step, seed), self._steps)
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
            difference=self.settings.difference,
        )

    def _map(self, step: Step, shuffle_seed: Optional[int]) -> Tensor:
        """The attention that was recorded, on the picture, (b, 1, h, w)."""
        received = self._recorder.received[step.branch].float()
        if shuffle_seed is not None:
            received = sag_core.shuffled_tokens(received, shuffle_seed)
        rows, columns = step.x.shape[-2:]
        halvings = round((rows * columns / received.shape[1]) ** 0.5)  # of both sides, by the network's levels
        grid = -(-rows // halvings), -(-columns // halvings)
        return sag_core.upsample_map(received, grid, (rows, columns))
