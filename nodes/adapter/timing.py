"""When a node guides: inside its window, along its curve, at every k-th step."""

from collections.abc import Hashable
from typing import Any, Optional

from ...sag_core import Settings, progress, scale_curve, window
from .recording import Moment, Run


def moment_of(settings: Settings, node: Hashable):
    """What a node with these settings does at a noise level, as a Listener wants to know it."""

    def moment(run: Run, model_sampling: Any, sigma: float, schedule: "list[float]") -> Optional[Moment]:
        percents = settings.start_percent, settings.end_percent
        if percents[0] >= percents[1]:
            return None  # said when the run began
        inside = window(*percents, getattr(model_sampling, "percent_to_sigma", None))
        if schedule and not any(inside.holds(step) for step in schedule):
            run.warn(f"no step of this run lies between start_percent {percents[0]:g} and end_percent {percents[1]:g}")
        if not inside.holds(sigma):
            return None
        scale = settings.scale
        if settings.scale_curve != "constant":
            through = progress(sigma, *percents, model_sampling.percent_to_sigma)
            scale *= scale_curve(settings.scale_curve, through)
        if scale == 0:
            return None
        fresh = settings.apply_every == 1 or inside.position(sigma, schedule) % settings.apply_every == 0
        if fresh or not settings.reuse:
            return Moment(scale, True) if fresh else None
        return Moment(scale, fresh=node not in run.terms)

    return moment
