"""What is compared: every method at every scale, and how its pictures are drawn."""

from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor

from demo.engine import Engine, Step
from demo.guidance import SelfAttentionGuidance
from demo.prompts import COLOURS, OBJECTS

SCALES = (0.1, 0.3, 0.6, 1.0)
FEW_SCALES = (0.3, 1.0)
NARROW_SCALES = (0.01, 0.6)
CFG_SCALES = (1.5, 2.0, 3.0)
CFG = 2.0  # under the other guidances
WIDE, NARROW = 3.0, 1.0  # blur_sigma, in pixels
MASKS = {"SAG": "self_attention", "blur guidance": "global_blur", "random mask": "random"}


@dataclass(frozen=True)
class Point:
    """One way of drawing.

    Attributes:
        prompted: with a prompt for every picture, or with none.
        steps: of DDIM.
        cfg: scale of classifier-free guidance, 1 without.
        guidance: "", "PAG", or one of `MASKS`: SAG, the same with everything blurred, and with as much, but anywhere.
        scale: of that guidance.
        blur_sigma: of SAG and what is like it, in pixels.
    """

    prompted: bool
    steps: int
    cfg: float = 1.0
    guidance: str = ""
    scale: float = 0.0
    blur_sigma: float = WIDE

    @property
    def evaluations(self) -> int:
        """Passes through the network for a picture."""
        return self.steps * (1 + (self.cfg != 1) + (self.guidance != ""))

    @property
    def method(self) -> str:
        parts = ["CFG"] * (self.cfg != 1) + [self.guidance] * (self.guidance != "")
        narrow = f", blur {self.blur_sigma:g}" if self.guidance == "SAG" and self.blur_sigma != WIDE else ""
        return (" + ".join(parts) or "unguided") + narrow

    @property
    def name(self) -> str:
        """Names the file that keeps its pictures."""
        ground = "prompt" if self.prompted else "free"
        guidance = f"{self.guidance.replace(' ', '_') or 'none'}_{self.scale:g}_{self.blur_sigma:g}"
        return f"{ground}_{self.steps}_cfg_{self.cfg:g}_{guidance}"


def points(steps: int) -> "list[Point]":
    """All of them: at equal steps, and the cheaper methods with as many steps as cost as much."""
    free = [Point(False, steps), Point(False, 2 * steps)]
    free += [Point(False, steps, 1.0, "SAG", scale) for scale in SCALES]
    free += [Point(False, steps, 1.0, "SAG", scale, NARROW) for scale in NARROW_SCALES]
    free += [Point(False, steps, 1.0, "blur guidance", scale) for scale in SCALES[1:]]
    free += [Point(False, steps, 1.0, "random mask", 0.6)]
    free += [Point(False, steps, 1.0, "PAG", scale) for scale in FEW_SCALES]
    prompted = [Point(True, steps), Point(True, 2 * steps)]
    prompted += [Point(True, steps, cfg) for cfg in CFG_SCALES]
    for guidance in ("SAG", "blur guidance", "PAG"):
        prompted += [Point(True, steps, CFG, guidance, scale) for scale in FEW_SCALES]
    thirds = 2 * steps // 3  # three evaluations a step cost what two do at `steps`
    prompted += [Point(True, thirds, CFG, guidance, 0.6) for guidance in ("SAG", "blur guidance")]
    return free + prompted


def prompts_for(point: Point, count: int) -> "list[str]":
    """The prompts of `count` pictures: every colour with every object in turn."""
    pairs = [f"{colour} {thing}" for thing in OBJECTS for colour in COLOURS]
    return [pairs[i * 37 % len(pairs)] if point.prompted else "" for i in range(count)]


def draw(engine: Engine, point: Point, first_seed: int, count: int, batch: int = 32) -> Tensor:
    """`count` pictures (n, 3, h, w) uint8 of the seeds from `first_seed` on."""
    texts, drawn = prompts_for(point, count), []
    for start in range(0, count, batch):
        part = texts[start : start + batch]
        with guidance_of(engine, point) as guidance:
            noise = engine.noise(first_seed + start, len(part))
            images = engine.sample(noise, part, steps=point.steps, cfg=point.cfg, guidance=guidance)
        drawn.append(((images.clamp(-1, 1) + 1) * 127.5).round().byte().cpu())
    return torch.cat(drawn)


def guidance_of(engine: Engine, point: Point):
    """A context that gives the guidance of `point` to `Engine.sample`."""
    if point.guidance in MASKS:
        mode = MASKS[point.guidance]
        return SelfAttentionGuidance(engine.unet, point.scale, point.blur_sigma, mask_mode=mode)
    if point.guidance == "PAG":
        return nullcontext(PerturbedAttentionGuidance(engine.unet, point.scale))
    return nullcontext()


class IdentityAttention:
    """Every token attends to itself alone."""

    def __call__(self, attn, hidden_states: Tensor, *args, **kwargs) -> Tensor:
        return attn.to_out[0](attn.to_v(hidden_states))


class PerturbedAttentionGuidance:
    """PAG (Ahn et al., ECCV 2024) on the block that SAG reads: steer away from the model without self-attention."""

    def __init__(self, unet, scale: float) -> None:
        self.attention = unet.mid_block.attentions[0].transformer_blocks[0].attn1
        self.scale = scale

    def __call__(self, step: Step) -> Tensor:
        before = self.attention.processor
        self.attention.set_processor(IdentityAttention())
        try:
            perturbed = step.denoise(step.x)
        finally:
            self.attention.set_processor(before)
        return step.denoised + self.scale * (step.x0 - perturbed)
