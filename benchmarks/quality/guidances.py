"""The guidances that are compared: Self-Attention Guidance in both forms, its controls, and other methods.

A guidance takes a `demo.engine.Step` and returns the prediction to go on with.
"""

from contextlib import contextmanager
from dataclasses import replace
from typing import Callable, Optional

import torch
import torch.nn.functional as F
from torch import Tensor

import sag_core
from demo.engine import Step
from demo.guidance import SelfAttentionGuidance
from sag_core import gaussian_blur


class UnsharpMask:
    """No guidance, and no evaluation: an unsharp mask of the predicted picture, `x0 + scale * (x0 - G(x0))`."""

    def __init__(self, scale: float, blur_sigma: float) -> None:
        self._scale, self._blur_sigma = scale, blur_sigma

    def __call__(self, step: Step) -> Tensor:
        return step.denoised + self._scale * (step.x0 - gaussian_blur(step.x0, self._blur_sigma))


class WeakAttention:
    """Steer away from the model with a weakened self-attention.

    Args:
        attentions: which to weaken.
        processor: how they work in the meantime.
    """

    def __init__(self, attentions: "list", processor: Callable, scale: float) -> None:
        self._attentions, self._processor, self._scale = attentions, processor, scale

    def __call__(self, step: Step) -> Tensor:
        before = [attention.processor for attention in self._attentions]
        for attention in self._attentions:
            attention.set_processor(self._processor)
        try:
            weak = step.denoise(step.x)
        finally:
            for attention, processor in zip(self._attentions, before):
                attention.set_processor(processor)
        return step.denoised + self._scale * (step.x0 - weak)


class IdentityAttention:
    """Every token attends to itself alone: perturbed-attention guidance (Ahn et al., ECCV 2024)."""

    def __call__(self, attn, hidden_states: Tensor, *args, **kwargs) -> Tensor:
        return attn.to_out[0](attn.to_v(hidden_states))


class BlurredQueries:
    """Every query is their mean: smoothed-energy guidance (Hong, NeurIPS 2024) with a blur without end."""

    def __call__(self, attn, hidden_states: Tensor, *args, **kwargs) -> Tensor:
        q = attn.to_q(hidden_states).mean(1, keepdim=True).expand_as(hidden_states)
        k, v = attn.to_k(hidden_states), attn.to_v(hidden_states)
        q, k, v = (tensor.unflatten(2, (attn.heads, -1)).transpose(1, 2) for tensor in (q, k, v))
        out = F.scaled_dot_product_attention(q, k, v, scale=attn.scale)
        return attn.to_out[0](out.transpose(1, 2).flatten(2))


class LastPrediction:
    """No evaluation: steer away from the prediction of the step before (self-guidance, arXiv 2412.05827)."""

    def __init__(self, scale: float) -> None:
        self._scale, self._last = scale, None

    def __call__(self, step: Step) -> Tensor:
        last, self._last = self._last, step.x0
        return step.denoised if last is None else step.denoised + self._scale * (step.x0 - last)


class Bands:
    """Another guidance with scales of its own for what a blur of 1 pixel leaves of its term, and for the rest.

    Frequency-decoupled guidance (arXiv 2506.19713), in two bands.
    """

    def __init__(self, guidance: Callable, low: float, high: float) -> None:
        self._guidance, self._low, self._high = guidance, low, high

    def __call__(self, step: Step) -> Tensor:
        term = self._guidance(step) - step.denoised
        slow = gaussian_blur(term, 1.0)
        return step.denoised + self._low * slow + self._high * (term - slow)


class SameBatch(SelfAttentionGuidance):
    """The image difference with what the step before has blurred, which can be evaluated in one batch with the step.

    A step's own picture and mask are known only after its evaluation. The first guided step waits for them.
    """

    _removed: Optional[Tensor] = None

    @torch.no_grad()
    def __call__(self, step: Step) -> Tensor:
        self._steps += 1
        _, mask = sag_core.degradation_mask(self.settings, step.x0, lambda seed: self._map(step, seed), self._steps)
        before, self._removed = self._removed, mask * (step.x0 - gaussian_blur(step.x0, self.settings.blur_sigma))
        removed = self._removed if before is None else before
        return step.denoised + self.settings.scale * (step.x0 - step.denoise(step.x - step.alpha * removed))


class Every:
    """Evaluates another guidance at every k-th step, and adds its last term in between."""

    def __init__(self, guidance: Callable, every: int) -> None:
        self._guidance, self._every, self._steps = guidance, every, 0
        self._term: Optional[Tensor] = None

    def __call__(self, step: Step) -> Tensor:
        if self._steps % self._every == 0:
            self._term = self._guidance(step) - step.denoised
        self._steps += 1
        return step.denoised + self._term


class Within:
    """Another guidance in a part of the schedule, half-open."""

    def __init__(self, guidance: Callable, start: float, end: float) -> None:
        self._guidance, self._start, self._end = guidance, start, end

    def __call__(self, step: Step) -> Tensor:
        inside = self._start - 1e-6 <= step.progress < self._end - 1e-6
        return self._guidance(step) if inside else step.denoised


class Sharpened:
    """Another guidance, and an unsharp mask of 1 pixel on top."""

    def __init__(self, guidance: Callable, detail: float) -> None:
        self._guidance, self._unsharp = guidance, UnsharpMask(detail, 1.0)

    def __call__(self, step: Step) -> Tensor:
        return self._unsharp(replace(step, denoised=self._guidance(step)))


class Strength:
    """Another guidance, and how far it goes: the norm of its change over that of the prediction, mean over steps."""

    def __init__(self, guidance: Callable) -> None:
        self._guidance, self._shares = guidance, []

    def __call__(self, step: Step) -> Tensor:
        guided = self._guidance(step)
        change, whole = (tensor.flatten(1).norm(dim=1) for tensor in (guided - step.denoised, step.denoised))
        self._shares.append((change / whole).mean().item())
        return guided

    @property
    def mean(self) -> float:
        return sum(self._shares) / len(self._shares)


SAG = {
    "SAG, noise": {},
    "SAG, image": {"difference": "image"},
    "SAG, image, random mask": {"difference": "image", "mask_mode": "random"},
    "SAG, image, everything blurred": {"difference": "image", "mask_mode": "global_blur"},
    "SAG, image, up block": {"difference": "image", "attention": "up"},
    "SAG, image, threshold 1.3": {"difference": "image", "mask_threshold": 1.3},
    "SAG, image, feathered": {"difference": "image", "mask_feather": 2.0},
}
BANDS = {"SAG, image, low band": (1.0, 0.0), "SAG, image, high band": (0.0, 1.0)}  # scales of both
SAME_BATCH = "SAG, image, same batch"
FREE = ("unsharp mask", "last prediction")  # of evaluations
WEAK = {"PAG": IdentityAttention, "SEG": BlurredQueries}
BLURRING = ("SAG", "unsharp mask")  # how the names begin of those that take a blur
NAMES = (*SAG, *BANDS, SAME_BATCH, *FREE, *WEAK)


@contextmanager
def guidance(unet, name: str, scale: float, blur_sigma: float):
    """The guidance of that name, ready for a run; blur_sigma is of those that blur, in pixels."""
    middle, up = (block.attentions[0].transformer_blocks[0].attn1 for block in (unet.mid_block, unet.up_blocks[0]))
    if name in SAG:
        options = {**SAG[name]}
        if options.get("attention") == "up":
            options["attention"] = up
        with SelfAttentionGuidance(unet, scale, blur_sigma, **options) as sag:
            yield sag
    elif name in BANDS:
        with SelfAttentionGuidance(unet, scale, blur_sigma, difference="image") as sag:
            yield Bands(sag, *BANDS[name])
    elif name == SAME_BATCH:
        with SameBatch(unet, scale, blur_sigma, difference="image") as sag:
            yield sag
    elif name in WEAK:
        with torch.no_grad():
            yield WeakAttention([middle], WEAK[name](), scale)
    elif name == "last prediction":
        yield LastPrediction(scale)
    else:
        yield UnsharpMask(scale, blur_sigma)
