"""What is known of a guided step."""

from collections.abc import Sequence
from typing import NamedTuple, Optional

from torch import Tensor


class RecordedStep(NamedTuple):
    """One guided evaluation of the model.

    Attributes:
        number: which evaluation of the run it was, from 1.
        sigma: the noise level.
        attention: what the mask was made of, (b, t, h, w), t is 1 for still pictures; None where the last guidance was
            applied again.
        mask: what was blurred, (b, t, h, w) of 0..255; None as well where the last guidance was applied again.
        strength: what guidance changed relative to the prediction.
    """

    number: int
    sigma: float
    attention: Optional[Tensor]
    mask: Optional[Tensor]
    strength: float

    @property
    def coverage(self) -> Optional[float]:
        """The share that was blurred, 0..1."""
        return None if self.mask is None else self.mask.float().mean().item() / 255


class GuidedRun(NamedTuple):
    """A sampling run: how many steps it had, those that were guided, and what was said in it."""

    steps: int
    guided: Sequence[RecordedStep]
    said: Sequence[str] = ()
