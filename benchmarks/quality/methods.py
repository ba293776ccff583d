"""What is compared: every method at every scale, and how its pictures are drawn."""

from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor

from demo.engine import Engine, Step
from demo.guidance import SelfAttentionGuidance
from demo.prompts import COLOURS, OBJECTS

SAG_SCALES = (0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.75)
PAG_SCALES = (0.25, 0.5, 1.0, 2.0)
CFG_SCALES = (1.5, 2.0, 3.0, 4.5)
CFG = 2.0  # under SAG and PAG


@dataclass(frozen=True)
class Point:
    """One way of drawing.

    Attributes:
        prompted: with a prompt for every picture, or with none.
        steps: of DDIM.
        cfg: scale of classifier-free guidance, 1 without.
        guidance: "", "SAG" or "PAG".
        scale: of that guidance.
        blur_sigma: of SAG, in pixels.
    """

    prompted: bool
    steps: int
    cfg: float = 1.0
    guidance: str = ""
    scale: float = 0.0
    blur_sigma: float = 1.0

    @property
    def evaluations(self) -> int:
        """Passes through the network for a picture."""
        return self.steps * (1 + (self.cfg != 1) + (self.guidance != ""))

    @property
    def method(self) -> str:
        parts = ["CFG"] * (self.cfg != 1) + [self.guidance] * (self.guidance != "")
        return " + ".join(parts) or "unguided"

    @property
    def name(self) -> str:
        """Names the file that keeps its pictures."""
        ground = "prompt" if self.prompted else "free"
        return f"{ground}_{self.steps}_cfg{self.cfg:g}_{self.guidance or 'none'}{self.scale:g}_blur{self.blur_sigma:g}"


def points(steps: int) -> "list[Point]":
    """All of them: at equal steps, and the cheaper methods with as many steps as cost as much."""
    free = [Point(False, steps), Point(False, 2 * steps)]
    free += [Point(False, steps, guidance="SAG", scale=scale) for scale in SAG_SCALES]
    free += [Point(False, steps, guidance="PAG", scale=scale) for scale in PAG_SCALES]
    prompted = [Point(True, steps), Point(True, 2 * steps)]
    prompted += [Point(True, steps, cfg) for cfg in CFG_SCALES]
    prompted += [Point(True, steps, CFG, "SAG", scale) for scale in SAG_SCALES[1:]]
    prompted += [Point(True, steps, CFG, "PAG", scale) for scale in PAG_SCALES[:-1]]
    thirds = 2 * steps // 3  # three evaluations a step cost what two do at `steps`
    prompted += [Point(True, thirds, CFG, "SAG", scale) for scale in (0.1, 0.35)]
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
    if point.guidance == "SAG":
        return SelfAttentionGuidance(engine.unet, point.scale, point.blur_sigma)
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
