"""Pictures of what guidance does: plain torch, numpy and Pillow, which know nothing of ComfyUI.

Pictures are arrays (h, w, 3) of 0..255 inside, and tensors (n, h, w, 3) of 0..1 where they leave.

steps.py       what is known of a guided step
preview.py     a run as pictures: heat maps, outlines, overlays, a contact sheet, a plot
comparison.py  labelled pictures side by side, with their differences
metrics.py     PSNR and SSIM
heat.py        maps as colours, outlines, the legend
plot.py        curves over sigma
layout.py      captioned tiles on one sheet
arrays.py      images as they come and go, and as they are drawn
text.py        words in pictures
"""

from .comparison import Zoom, comparison
from .metrics import psnr, ssim
from .preview import STYLES, NoSuchStep, check_chosen, nothing_to_see, preview
from .steps import GuidedRun, RecordedStep
from .text import message

__all__ = [
    "STYLES", "GuidedRun", "NoSuchStep", "RecordedStep", "Zoom",
    "check_chosen", "comparison", "message", "nothing_to_see", "preview", "psnr", "ssim",
]  # fmt: skip
