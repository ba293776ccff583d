"""The numbers a user chooses, checked before anything runs."""

from dataclasses import dataclass

from .checks import check_number


@dataclass(frozen=True)
class Settings:
    """How strongly to guide, and what to degrade.

    Attributes:
        scale: s of SAG equation 16, -2..5 in the nodes; 0 is off.
        blur_sigma: standard deviation of the blur in latent pixels, at least 0.
        mask_threshold: psi in units of the average attention, at least 0.

    Raises:
        ValueError: a number that is not finite or out of range.
    """

    scale: float = 0.75
    blur_sigma: float = 1.0
    mask_threshold: float = 1.0

    def __post_init__(self) -> None:
        check_number("scale", self.scale)
        check_number("blur_sigma", self.blur_sigma, low=0)
        check_number("mask_threshold", self.mask_threshold, low=0)
