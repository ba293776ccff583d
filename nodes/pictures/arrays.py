"""Images as they come and go, tensors of 0..1, and as they are drawn, arrays (h, w, 3) of 0..255."""

import numpy as np
import torch
from PIL import Image
from torch import Tensor


def picture_of(image: Tensor) -> np.ndarray:
    """An image (h, w, c) of 0..1 as a picture: c is 1 for grey, 3, or more, of which the first three are shown."""
    channels = image[..., :3] if image.shape[-1] >= 3 else image[..., :1].expand(-1, -1, 3)
    return (channels.float().nan_to_num().clamp(0, 1) * 255).round().to(torch.uint8).cpu().numpy()


def fitted(picture: np.ndarray, longer: int) -> np.ndarray:
    """A picture whose longer side has so many pixels. Small ones show their pixels as blocks."""
    height, width = picture.shape[:2]
    factor = longer / max(height, width)
    if factor == 1:
        return picture
    size = max(1, round(width * factor)), max(1, round(height * factor))
    kind = Image.Resampling.NEAREST if factor >= 2 else Image.Resampling.LANCZOS
    return np.asarray(Image.fromarray(picture).resize(size, kind))


def images_of(pictures: list[np.ndarray]) -> Tensor:
    """Pictures as images (n, h, w, 3) of 0..1; white fills up those that are smaller than others."""
    height, width = (max(picture.shape[axis] for picture in pictures) for axis in (0, 1))
    canvas = np.full((len(pictures), height, width, 3), 255, dtype=np.uint8)
    for page, picture in zip(canvas, pictures):
        page[: picture.shape[0], : picture.shape[1]] = picture
    return torch.from_numpy(canvas).float() / 255
