"""Pictures as they were when somebody looked at them. `SAG_GOLDEN=write` draws them anew, to be looked at again."""

import os
from pathlib import Path

import numpy as np
from PIL import Image

FOLDER = Path(__file__).parent / "golden"
LEVELS, OUTLIERS = 1.0, 0.01  # of 255 on average, and the share of pixels that may differ clearly: letters' edges do


def check(picture, name: str) -> None:
    """Fail unless a picture, an array (h, w, 3) of 0..255, looks like the kept one of that name."""
    path = FOLDER / f"{name}.png"
    if os.environ.get("SAG_GOLDEN") == "write":
        Image.fromarray(picture).save(path, optimize=True)
    with Image.open(path) as kept:
        expected = np.asarray(kept.convert("RGB")).astype(int)
    assert picture.shape == expected.shape
    apart = np.abs(picture.astype(int) - expected)
    assert apart.mean() < LEVELS and (apart.max(-1) > 40).mean() < OUTLIERS, f"it no longer looks like {path}"
