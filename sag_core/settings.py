"""The choices a user makes, checked before anything runs."""

from dataclasses import dataclass

from .checks import check_choice, check_number
from .guidance import DIFFERENCES
from .mask_modes import MASK_MODES
from .rescale import RESCALE_MODES
from .schedule import SCALE_CURVES

BRANCHES: "tuple[str, ...]" = ("auto", "unconditional", "conditional")
UPSAMPLINGS: "tuple[str, ...]" = ("nearest", "bilinear")

# The least and the greatest value of every number, for the nodes' widgets as well.
RANGES = {
    "scale": (-2.0, 5.0),
    "blur_sigma": (0.0, 10.0),
    "mask_threshold": (0.0, 4.0),
    "start_percent": (0.0, 1.0),
    "end_percent": (0.0, 1.0),
    "mask_feather": (0.0, 10.0),
    "blur_kernel": (0, 127),
    "rescale": (0.0, 1.0),
    "apply_every": (1, 100),
}
CHOICES = {
    "scale_curve": tuple(SCALE_CURVES),
    "mask_mode": tuple(MASK_MODES),
    "mask_upsampling": UPSAMPLINGS,
    "branch": BRANCHES,
    "rescale_mode": RESCALE_MODES,
    "difference": DIFFERENCES,
}


@dataclass(frozen=True)
class Settings:
    """How strongly and when to guide, and what to degrade. The defaults are the plain method.

    Attributes:
        scale: s of SAG equation 16, -2..5; 0 is off.
        blur_sigma: standard deviation of the blur in latent pixels, 0..10; 0 is off as well.
        mask_threshold: psi in units of the average attention, 0..4.
        start_percent, end_percent: the share of the noise schedule to guide in, 0..1, half-open: the start is inside,
            the end is not. A start that is not below the end guides nothing.
        scale_curve: the course of the scale over that window, see `scale_curve`.
        mask_mode: what is blurred, see `mask_modes.MASK_MODES`.
        mask_upsampling: "nearest" (the paper) or "bilinear", from the token grid to the latent.
        mask_feather: standard deviation of the mask's soft edge in latent pixels, 0..10; 0 is a hard edge.
        branch: which side of classifier-free guidance to degrade; "auto" is the unconditional one where there is one.
        blur_kernel: taps of the blur, an odd number up to 127; 0 takes as many as blur_sigma asks for.
        rescale, rescale_mode: how much to hold the guided prediction's contrast, 0..1, and how, see `rescaled`.
        projection: keep only the part of the guidance that is perpendicular to the prediction.
        apply_every: evaluate the guidance at every k-th step of the window, 1..100.
        reuse: between those steps, apply the last guidance again instead of none.
        difference: compare predicted "noise" (the paper) or predicted "image", or add "detail" without an evaluation,
            see `guidance_term`.

    Raises:
        ValueError: a number that is not finite or out of range, an unknown choice, an even blur_kernel.
    """

    scale: float = 0.75
    blur_sigma: float = 1.0
    mask_threshold: float = 1.0
    start_percent: float = 0.0
    end_percent: float = 1.0
    scale_curve: str = "constant"
    mask_mode: str = "self_attention"
    mask_upsampling: str = "nearest"
    mask_feather: float = 0.0
    branch: str = "auto"
    blur_kernel: int = 0
    rescale: float = 0.0
    rescale_mode: str = "full"
    projection: bool = False
    apply_every: int = 1
    reuse: bool = False
    difference: str = "noise"

    def __post_init__(self) -> None:
        for name, (low, high) in RANGES.items():
            check_number(name, getattr(self, name), low, high)
        for name, choices in CHOICES.items():
            check_choice(name, getattr(self, name), choices)
        for name in ("blur_kernel", "apply_every"):
            if getattr(self, name) != int(getattr(self, name)):
                raise ValueError(f"{name} must be a whole number, got {getattr(self, name)!r}")
        if self.blur_kernel and self.blur_kernel % 2 == 0:
            raise ValueError(f"blur_kernel must be odd, or 0 for automatic, got {self.blur_kernel!r}")
