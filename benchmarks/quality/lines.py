"""One line of a table: how its pictures are drawn, and where they are kept."""

import hashlib
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from diffusers.models.resnet import ResnetBlock2D
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from demo import checkpoint
from demo.engine import Engine
from demo.prompts import COLOURS, OBJECTS

from .guidances import BLURRING, FREE, Every, Sharpened, Strength, Within, guidance

BATCH = 32
STEPS = 10
# All pairs, as the pictures' labels have them.
COLOURS_OF = torch.arange(len(COLOURS)).repeat(len(OBJECTS))
OBJECTS_OF = torch.arange(len(OBJECTS)).repeat_interleave(len(COLOURS))


@dataclass(frozen=True)
class Line:
    """One way of drawing.

    Attributes:
        guidance: one of `guidances.NAMES`, or "" for none.
        scale, blur_sigma: of that guidance; the blur in pixels.
        start, end: the part of the schedule in which it guides.
        detail: scale of an unsharp mask of 1 pixel beside it, at all steps.
        every: it is evaluated at every k-th step, and applied again in between.
        cfg: scale of classifier-free guidance, 1 without.
        prompted: with a prompt for every picture, every colour with every object in turn; or with none.
        steps: of DDIM.
    """

    guidance: str = ""
    scale: float = 0.0
    blur_sigma: float = 1.0
    start: float = 0.0
    end: float = 1.0
    detail: float = 0.0
    every: int = 1
    cfg: float = 1.0
    prompted: bool = False
    steps: int = STEPS

    def __post_init__(self) -> None:
        for name in ("scale", "blur_sigma", "start", "end", "detail", "cfg"):  # 1 and 1.0 are one line
            object.__setattr__(self, name, float(getattr(self, name)))

    @property
    def evaluations(self) -> int:
        """Passes through the network for a picture."""
        inside = sum(self.start - 1e-6 <= step / self.steps < self.end - 1e-6 for step in range(self.steps))
        extra = 0 if self.guidance in ("", *FREE) else -(-inside // self.every)
        return self.steps * (1 + (self.cfg != 1)) + extra

    @property
    def title(self) -> str:
        parts = [f"CFG {self.cfg:g}"] * (self.cfg != 1)
        if self.guidance:
            blur = f", blur {self.blur_sigma:g}" if self.guidance.startswith(BLURRING) else ""
            window = f", from {self.start:g} to {self.end:g}" if (self.start, self.end) != (0, 1) else ""
            every = f", every {self.every} steps" if self.every > 1 else ""
            parts.append(f"{self.guidance} {self.scale:g}{blur}{window}{every}")
        parts += [f"detail {self.detail:g}"] * (self.detail != 0)
        title = " + ".join(parts) or "unguided"
        return title if self.steps == STEPS else f"{title}, {self.steps} steps"

    def prompts(self, count: int) -> "list[str]":
        """The prompts of `count` pictures."""
        pairs = [i * 37 % len(COLOURS_OF) for i in range(count)]  # all of them in turn
        return [f"{COLOURS[COLOURS_OF[i]]} {OBJECTS[OBJECTS_OF[i]]}" if self.prompted else "" for i in pairs]


IMAGE = Line("SAG, image", 1, 3, start=0.2, end=0.8)  # the controls are as wide and in as many steps

# The published tables: IMAGE, which is the preset "sharper", and its controls at that scale at which they change the
# prediction by as much, 8.2%; the best line of the image difference in scan.json, its controls as strong as that, and
# what else was better there at another scale; IMAGE with more steps; and beside CFG at its best scale.
# The others of a table are compared with its first.
TABLES = {
    "Without a prompt, equally strong": [
        Line(),
        Line(steps=16),  # as many evaluations as IMAGE
        IMAGE,
        replace(IMAGE, blur_sigma=5, scale=0.68),
        Line("SAG, noise", 0.33, 3),
        replace(IMAGE, guidance="SAG, image, random mask", scale=1.13),
        replace(IMAGE, guidance="SAG, image, everything blurred", scale=0.43),
        Line("unsharp mask", 0.2, 2),
        Line("unsharp mask", 0.2, 2, steps=16),
        Line("PAG", 0.71),
        Line("SEG", 1.22),
    ],
    "Without a prompt, at the best scale": [
        Line(),
        replace(IMAGE, blur_sigma=5),
        replace(IMAGE, blur_sigma=5, guidance="SAG, image, random mask", scale=1.13),
        replace(IMAGE, blur_sigma=5, guidance="SAG, image, everything blurred", scale=0.43),
        Line("unsharp mask", 0.28, 2),
        Line("PAG", 1),
        Line("SEG", 2),
    ],
    "Without a prompt, 20 steps": [
        Line(steps=20),
        replace(IMAGE, steps=20),
        Line("unsharp mask", 0.1, 2, steps=20),
    ],
    "With a prompt": [
        Line(prompted=True),
        Line(cfg=1.5, prompted=True),
        Line(cfg=1.5, prompted=True, steps=13),  # as many evaluations as with IMAGE
        replace(IMAGE, scale=0.5, cfg=1.5, prompted=True),
        Line("unsharp mask", 0.1, 2, cfg=1.5, prompted=True),
    ],
}
LINES = list(dict.fromkeys(line for lines in TABLES.values() for line in lines))


class Studio:
    """Draws lines with the demo model, once: what was drawn is kept in a folder and read from there.

    Args:
        weights: the model's file.
        cache: the folder.
        dtype: what the network computes in.
        compiled: 1.4 times as fast on a CPU after half a minute; needs a C++ compiler.
    """

    def __init__(self, weights: Path, cache: Path, dtype: torch.dtype, compiled: bool = False) -> None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
        self.engine = Engine(checkpoint.load(weights), device, dtype)
        if compiled:
            _compile(self.engine.unet)
        self.digest = hashlib.sha256(weights.read_bytes()).hexdigest()
        self._folder = cache / "quality" / f"{self.digest[:12]}_{str(dtype)[6:]}{'_compiled' * compiled}"
        self._folder.mkdir(parents=True, exist_ok=True)

    def draw(self, line: Line, seed: int, count: int) -> "tuple[Tensor, float]":
        """`count` pictures (n, 3, h, w) uint8 of a repetition, from the same noise in every line, and the strength.

        The strength is the norm of the guidance's change over that of the prediction, the mean over all steps.
        """
        name = hashlib.sha256(repr(sorted(asdict(line).items())).encode()).hexdigest()[:16]
        file = self._folder / f"{name}_{seed}_{count}.safetensors"
        if not file.exists():
            drawn = [self._batch(line, 1_000_000 * (seed + 1), start, count) for start in range(0, count, BATCH)]
            strength = torch.tensor([sum(one for _, one in drawn) / len(drawn)])
            images = torch.cat([images for images, _ in drawn])
            save_file({"images": images, "strength": strength}, file.with_suffix(".part"))
            file.with_suffix(".part").replace(file)  # whole or not at all
        kept = load_file(file)
        return kept["images"], kept["strength"].item()

    def _batch(self, line: Line, first: int, start: int, count: int) -> "tuple[Tensor, float]":
        texts = line.prompts(count)[start : start + BATCH]
        with ExitStack() as stack:
            strength = None
            if line.guidance:
                one = stack.enter_context(guidance(self.engine.unet, line.guidance, line.scale, line.blur_sigma))
                windowed = Within(Every(one, line.every), line.start, line.end)
                strength = Strength(Sharpened(windowed, line.detail) if line.detail else windowed)
            noise = self.engine.noise(first + start, len(texts))
            images = self.engine.sample(noise, texts, steps=line.steps, cfg=line.cfg, guidance=strength)
        images = ((images.clamp(-1, 1) + 1) * 127.5).round().byte().cpu()
        return images, strength.mean if strength else 0.0


def _compile(unet: nn.Module) -> None:
    """Compile the residual blocks, which most of the time goes into; guidances exchange what is in the others."""
    torch._dynamo.config.recompile_limit = 100  # all blocks share one function
    unet.to(memory_format=torch.channels_last)
    for module in unet.modules():
        if isinstance(module, ResnetBlock2D):
            module.compile()
