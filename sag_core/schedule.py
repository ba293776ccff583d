"""When to guide, and how strongly: a window of noise levels and a curve over it."""

import math
from collections.abc import Sequence
from typing import Callable, NamedTuple

from .checks import check_choice, check_number

# Every curve is continuous on 0..1 and stays within 0..1; its greatest value is 1.
SCALE_CURVES: dict[str, Callable[[float], float]] = {
    "constant": lambda p: 1.0,
    "linear_fade_out": lambda p: 1.0 - p,
    "cosine_fade_out": lambda p: 0.5 * (1.0 + math.cos(math.pi * p)),
    "fade_in": lambda p: p,
    "bell": lambda p: math.sin(math.pi * p) ** 2,
}


def scale_curve(name: str, progress: float) -> float:
    """The share of the scale to guide with at some progress through the window.

    Limiting guidance to part of the schedule is Kynkaanniemi et al. 2024, "Applying Guidance in a Limited Interval"
    (arXiv 2404.07724); the curves fade its edges.

    Args:
        name: one of SCALE_CURVES.
        progress: 0 at the window's start, 1 at its end.

    Returns:
        0..1.

    Raises:
        ValueError: an unknown curve, progress outside 0..1.
    """
    check_choice("scale_curve", name, SCALE_CURVES)
    check_number("progress", progress, 0, 1)
    return SCALE_CURVES[name](progress)


class Window(NamedTuple):
    """The noise levels `end < sigma <= start`; half-open, so that adjoining windows never share a step."""

    start: float
    end: float

    def holds(self, sigma: float) -> bool:
        """Whether a noise level lies inside."""
        return self.end < sigma <= self.start

    def position(self, sigma: float, schedule: Sequence[float]) -> int:
        """The number, from 0, of the schedule's step inside the window to which a noise level belongs.

        It depends on the noise level alone, so all evaluations that a sampler makes within a step count as one, and so
        do steps of one noise level.

        Args:
            sigma: a noise level inside the window.
            schedule: the noise levels of the sampler's steps, falling.
        """
        return max(0, len({step for step in schedule if sigma <= step <= self.start}) - 1)


def window(start_percent: float, end_percent: float, percent_to_sigma: Callable[[float], float]) -> Window:
    """The noise levels between two shares of a schedule. 0 takes in all that is above, and 1 all that is below.

    Args:
        start_percent, end_percent: 0..1; a start that is not below the end gives a window that holds nothing.
        percent_to_sigma: falls from the schedule's highest noise level at 0 to its lowest at 1.

    Raises:
        ValueError: a share outside 0..1.
    """
    check_number("start_percent", start_percent, 0, 1)
    check_number("end_percent", end_percent, 0, 1)
    start = math.inf if start_percent <= 0 else float(percent_to_sigma(start_percent))
    end = -math.inf if end_percent >= 1 else float(percent_to_sigma(end_percent))
    if start_percent >= end_percent:
        end = start = -math.inf
    return Window(start, end)


def progress(
    sigma: float, start_percent: float, end_percent: float, percent_to_sigma: Callable[[float], float]
) -> float:
    """How far a noise level is through a window, 0..1, in the schedule's own measure.

    The inverse of `percent_to_sigma` is found by halving, so it holds for every schedule that falls.
    """
    low, high = start_percent, end_percent
    for _ in range(24):  # to 1e-7 of the schedule, the precision of a noise level
        middle = 0.5 * (low + high)
        if float(percent_to_sigma(middle)) >= sigma:
            low = middle
        else:
            high = middle
    return (low - start_percent) / (end_percent - start_percent)
