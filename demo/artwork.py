"""Draws the pack's icon and banner for the Comfy registry with its own model: `python -m demo.artwork`."""

from pathlib import Path

import torch
from PIL import Image, ImageDraw, ImageFilter

from . import checkpoint
from .engine import Engine
from .guidance import SelfAttentionGuidance
from .presets import SHARPER
from .sheet import font, image, lit_by

FOLDER = Path(__file__).resolve().parents[1] / ".github"
SIDE = 384  # of an enlarged picture: every pixel is a square
ICON = 400, 400  # the largest that the registry takes
BANNER = 1260, 540  # 21:9


def main() -> None:
    torch.manual_seed(0)
    engine = Engine(checkpoint.load())
    noise, prompt, masks = engine.noise(2), ["a red mushroom"], []
    unguided = engine.sample(noise, prompt, cfg=2.0)
    with SelfAttentionGuidance(engine.unet, **SHARPER, on_mask=masks.append) as guidance:
        guided = engine.sample(noise, prompt, cfg=2.0, guidance=guidance)
    pictures = [enlarged(picture[0]) for picture in (unguided, lit_by(guided, masks), guided)]
    for name, drawn in (("icon", icon(pictures[-1])), ("banner", banner(pictures))):
        drawn.save(FOLDER / f"{name}.png", optimize=True)
        print(f"wrote {FOLDER / name}.png, {drawn.width} x {drawn.height}")


def enlarged(picture: torch.Tensor) -> Image.Image:
    """A picture (3, h, w) in -1..1 with its pixels as squares."""
    return image(picture).resize((SIDE, SIDE), Image.Resampling.NEAREST)


def icon(picture: Image.Image) -> Image.Image:
    """The picture, blurred on the left of a diagonal and sharp on the right of it."""
    side = Image.new("L", (SIDE, SIDE))
    ImageDraw.Draw(side).polygon([(SIDE * 0.62, 0), (SIDE, 0), (SIDE, SIDE), (SIDE * 0.38, SIDE)], fill=255)
    page = Image.new("RGB", ICON, "white")
    both = Image.composite(picture, picture.filter(ImageFilter.GaussianBlur(28)), side)
    page.paste(both, ((ICON[0] - SIDE) // 2, (ICON[1] - SIDE) // 2))
    return page


def banner(pictures: "list[Image.Image]") -> Image.Image:
    """Pictures in a row under the name."""
    page = Image.new("RGB", BANNER, "white")
    gap = (BANNER[0] - SIDE * len(pictures)) // (len(pictures) + 1)
    top = BANNER[1] - SIDE - gap
    text = "Self-Attention Guidance: without, what it blurs, with"
    ImageDraw.Draw(page).text((BANNER[0] / 2, top / 2), text, "black", font(44), anchor="mm")
    for place, picture in enumerate(pictures):
        page.paste(picture, (gap + place * (SIDE + gap), top))
    return page


if __name__ == "__main__":
    main()
