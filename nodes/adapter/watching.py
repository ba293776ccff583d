"""What a guided step was, for whoever wants to look: a trace, a preview, a status line."""

from collections.abc import Sequence
from typing import Callable, NamedTuple, Optional

from torch import Tensor


class GuidedStep(NamedTuple):
    """The results of guidance in one evaluation of the guider. Tensors are the ones in use: to be copied, not changed.

    Attributes:
        evaluation: its number in the run, from 1.
        sigma: the noise level.
        attention: what the mask is made of, on the latent, (b, 1, h, w) or (b, 1, t, h, w); 1 is the average where it
            is received attention. None where the last guidance was applied again.
        mask: what was blurred, 0..1, in the same shape; None as well where the last guidance was applied again.
        term: what steers, not yet scaled, in the shape of the latent.
        scale: what it was scaled by.
        strength: (b,), the norm of what guidance changed relative to the norm of the prediction.
    """

    evaluation: int
    sigma: float
    attention: Optional[Tensor]
    mask: Optional[Tensor]
    term: Tensor
    scale: float
    strength: Tensor


class Watch(NamedTuple):
    """Somebody who looks on while a node guides.

    All four must be functions and no bound methods: hosts before 0.14 copy objects, and with them methods, whenever a
    model is cloned, and the copy would look on in place of the one that was asked.

    Attributes:
        begin: called when a sampling run begins, with the noise levels of its schedule, falling.
        guided: called at every guided step.
        said: called with every message of the run, once each, such as why steps are not guided.
        end: called when the run ends, also by an error.
    """

    begin: Callable[[Sequence[float]], None]
    guided: Callable[[GuidedStep], None]
    said: Callable[[str], None]
    end: Callable[[], None]
