"""A run as pictures."""

import math
import re
from collections.abc import Sequence
from reprlib import repr as shown
from typing import Callable, Optional

import numpy as np
import torch
from torch import Tensor

from .arrays import fitted, images_of, picture_of
from .heat import blended, enlarged, heat, legend, outlined
from .layout import Tile, sheet
from .plot import Curve, plot
from .steps import GuidedRun, RecordedStep
from .text import message

SMALLEST, LARGEST = 448, 1024  # pixels of the longer side of a map or an image in a preview
MOST = 50  # pictures of a preview
TILES, TILE = 24, 224  # steps in a contact sheet, and pixels of the longer side of each


class NoSuchStep(ValueError):
    """The chosen step is not among those that have a mask."""


def preview(run: GuidedRun, style: str, chosen: str, image: Optional[Tensor] = None) -> tuple[Tensor, Tensor]:
    """Pictures of a run, and the masks of the chosen steps.

    Args:
        run: with at least one guided step.
        style: one of STYLES. An outline or overlay without an image lies on the map itself.
        chosen: the steps, see `choose`.
        image: (n, H, W, 3) of 0..1, the run's result: one for each item of the batch, or its frames.

    Returns:
        Pictures (n, h, w, 3) of 0..1, step by step, then item by item, then frame by frame; of a contact sheet one for
        each item, of a plot one. Masks (n, H, W) of 0..1, step by step likewise, at the image's size or the latent's.
        Of steps that would make more than 50 pictures, as many as fit are taken, evenly spread.

    Raises:
        NoSuchStep: as `choose`.
        ValueError: an unknown style.
    """
    if style not in STYLES:
        raise ValueError(f"style must be one of {', '.join(STYLES)}, got {style!r}")
    steps = choose(run, chosen)
    items, frames = steps[0].mask.shape[:2]
    steps = _evenly(steps, max(1, MOST // (items * frames)))
    size = None if image is None else (image.shape[1], image.shape[2])
    masks = torch.cat([_masks(step, size) for step in steps])
    return images_of(STYLES[style](run, steps, image)), masks


def nothing_to_see(words: str, image: Optional[Tensor] = None) -> tuple[Tensor, Tensor]:
    """In place of `preview`: a picture (1, h, w, 3) with words, and an empty mask (1, H, W) of the image's size."""
    height, width = (64, 64) if image is None else image.shape[1:3]
    return images_of([message(words)]), torch.zeros(1, height, width)


def choose(run: GuidedRun, chosen: str) -> list[RecordedStep]:
    """Those of a run's steps that are meant.

    Args:
        chosen: "first", "middle", "last" or "all" of the steps with a mask, or the number of a step, from 1.

    Raises:
        NoSuchStep: a step without a mask of its own, or none at all; the message says which there are.
        ValueError: something else.
    """
    check_chosen(chosen)
    steps = [step for step in run.guided if step.mask is not None]
    if not steps:
        raise NoSuchStep("No step of this run was guided.")
    places = {"first": 0, "middle": (len(steps) - 1) // 2, "last": len(steps) - 1}
    chosen = chosen.strip().lower()
    if chosen == "all":
        return steps
    if chosen in places:
        return [steps[places[chosen]]]
    found = [step for step in steps if step.number == int(chosen)]
    if not found:
        numbers = _ranges([step.number for step in steps])
        raise NoSuchStep(f"Step {int(chosen)} has no mask of its own. Of {run.steps} steps these have: {numbers}.")
    return found[:1]


def check_chosen(chosen: str) -> None:
    """Raises ValueError for what `choose` cannot read."""
    if not isinstance(chosen, str) or not re.fullmatch(
        "first|middle|last|all|0*[1-9][0-9]{0,5}", chosen.strip().lower()
    ):
        raise ValueError(f"step must be first, middle, last, all or a number from 1, got {shown(chosen)}")


def _cards(draw: Callable):
    """A style of one picture for every step, item and frame, with a title and the scale of its colours."""

    def style(run: GuidedRun, steps: Sequence[RecordedStep], image: Optional[Tensor]) -> list[np.ndarray]:
        top, cards = _top(run), []
        for step in steps:
            items, frames = step.mask.shape[:2]
            for k in range(items * frames):
                item, frame = divmod(k, frames)
                picture = draw(step, item, frame, _image(image, item, frame, items, frames), top)
                size = max(14, max(picture.shape[:2]) // 36)
                title = f"step {step.number} of {run.steps}, sigma {step.sigma:.3g}{_of(frame, frames)}"
                title += f"\n{_coverage(step, item, frame):.0%} blurred, strength {step.strength:.2g}"
                tiles = [Tile(picture)]
                if image is None or draw is not _outline:  # the map's colours are there
                    tiles.append(Tile(legend(picture.shape[0], top, size)))
                    title += "\ncolours: the map behind the mask, 1 is its average"
                cards.append(sheet(tiles, len(tiles), size=size, title=title))
        return cards

    return style


def _heat_map(step: RecordedStep, item: int, frame: int, image: Optional[np.ndarray], top: float) -> np.ndarray:
    colours = heat(step.attention[item, frame].numpy(), top)
    return _shown(colours) if image is None else enlarged(colours, _shown(image).shape[:2])


def _outline(step: RecordedStep, item: int, frame: int, image: Optional[np.ndarray], top: float) -> np.ndarray:
    ground = _heat_map(step, item, frame, None, top) if image is None else _shown(image)
    mask = step.mask[item, frame].numpy() > 127
    return outlined(ground, enlarged(mask, ground.shape[:2]))


def _overlay(step: RecordedStep, item: int, frame: int, image: Optional[np.ndarray], top: float) -> np.ndarray:
    colours = _heat_map(step, item, frame, image, top)
    if image is None:
        return _outline(step, item, frame, None, top)
    mask = step.mask[item, frame].numpy() > 127
    return outlined(blended(_shown(image), colours, 0.5), enlarged(mask, colours.shape[:2]))


def _contact_sheets(run: GuidedRun, _, image: Optional[Tensor]) -> list[np.ndarray]:
    """One sheet for each item of the batch: its maps over time."""
    steps = _evenly([step for step in run.guided if step.mask is not None], TILES)
    items, frames = steps[0].mask.shape[:2]
    frame, top, sheets = frames // 2, _top(run), []
    columns = math.ceil(math.sqrt(len(steps)))
    for item in range(items):
        tiles = []
        for step in steps:
            ground = _overlay(step, item, frame, _image(image, item, frame, items, frames), top)
            caption = f"step {step.number}, sigma {step.sigma:.3g}, {_coverage(step, item, frame):.0%}"
            tiles.append(Tile(fitted(ground, TILE), caption))
        sheets.append(sheet(tiles, columns, title=f"What is blurred, of {run.steps} steps{_of(frame, frames)}"))
    return sheets


def _plots(run: GuidedRun, *_) -> list[np.ndarray]:
    coverage = [(step.sigma, step.coverage) for step in run.guided if step.coverage is not None]
    strength = [(step.sigma, step.strength) for step in run.guided if math.isfinite(step.strength)]
    highest = max((y for _, y in strength), default=0)
    return [
        plot(
            Curve("blurred", coverage, 1, "{:.0%}"),
            Curve("strength of guidance", strength, _round_up(highest), "{:g}"),
            f"Guided {len(run.guided)} of {run.steps} steps",
        )
    ]


def _round_up(value: float) -> float:
    """The next number whose quarters are short."""
    if value <= 0:
        return 1
    power = 10.0 ** math.floor(math.log10(value))
    return next(round(top * power, 12) for top in (1, 2, 4, 8, 10) if value <= top * power)


STYLES = {
    "heat map": _cards(_heat_map),
    "outline": _cards(_outline),
    "overlay": _cards(_overlay),
    "contact sheet": _contact_sheets,
    "plot": _plots,
}


def _top(run: GuidedRun) -> float:
    """The brightest colour's value, the same in all pictures of a run: what 1 in 100 places exceed, but at least 2."""
    values = np.concatenate([step.attention.numpy().ravel() for step in run.guided if step.attention is not None])
    finite = values[np.isfinite(values)].astype(np.float32)  # all of it is infinite where everything is blurred
    return max(2.0, float(np.percentile(finite, 99))) if finite.size else 2.0


def _coverage(step: RecordedStep, item: int, frame: int) -> float:
    return step.mask[item, frame].float().mean().item() / 255


def _of(frame: int, frames: int) -> str:
    return f", frame {frame + 1} of {frames}" if frames > 1 else ""


def _image(image: Optional[Tensor], item: int, frame: int, items: int, frames: int) -> Optional[np.ndarray]:
    """The image (H, W, 3) of 0..255 that belongs to a frame of an item: a video has more images than latent frames."""
    if image is None:
        return None
    each = max(1, len(image) // items)
    of_frame = 0 if frames == 1 else round(frame * (each - 1) / (frames - 1))
    return picture_of(image[(item * each + of_frame) % len(image)])


def _shown(picture: np.ndarray) -> np.ndarray:
    """A picture at the size of a preview: small ones with every pixel a block, of a whole number of pixels."""
    longer = max(picture.shape[:2])
    return fitted(picture, longer * math.ceil(SMALLEST / longer) if longer < SMALLEST else min(longer, LARGEST))


def _masks(step: RecordedStep, size: Optional[tuple[int, int]]) -> Tensor:
    masks = step.mask.flatten(0, 1)[:, None].float() / 255
    if size is not None:
        masks = torch.nn.functional.interpolate(masks, size=size)
    return masks[:, 0]


def _evenly(steps: Sequence[RecordedStep], most: int) -> list[RecordedStep]:
    places = np.linspace(0, len(steps) - 1, min(most, len(steps))) if most > 1 else [0]
    return [steps[round(place)] for place in places]


def _ranges(numbers: Sequence[int]) -> str:
    """Numbers that grow, with runs of neighbours as ranges: 1-3, 5."""
    ranges: list[list[int]] = []
    for number in numbers:
        if ranges and number == ranges[-1][-1] + 1:
            ranges[-1] = [ranges[-1][0], number]
        else:
            ranges.append([number, number])
    return ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in ranges)
