"""When a node guides: inside its window, along its curve, at every k-th step."""

from collections.abc import Hashable
from typing import Any, Optional

from ...sag_core import Settings, progress, scale_curve, window
from .evaluation import Plan, Run


def plan_of(settings: Settings, node: Hashable):
    """What a node with these settings does at a noise level, as a Listener wants to know it."""
    percents = settings.start_percent, settings.end_percent
    always = percents == (0, 1) and settings.scale_curve == "constant"

    def plan(run: Run, model_sampling: Any, sigma: float, schedule: list[float]) -> Optional[Plan]:
        if percents[0] >= percents[1]:
            return None  # said when the run began
        percent_to_sigma: Any = getattr(model_sampling, "percent_to_sigma", None)
        if percent_to_sigma is None and not always:
            run.warn("this model's schedule has no percents, for start_percent, end_percent or scale_curve to mean")
            return None
        inside = window(*percents, percent_to_sigma)
        if schedule and not any(inside.holds(step) for step in schedule):
            run.warn(f"no step of this run lies between start_percent {percents[0]:g} and end_percent {percents[1]:g}")
        if not inside.holds(sigma):
            return None
        scale = settings.scale
        if settings.scale_curve != "constant":
            scale *= scale_curve(settings.scale_curve, progress(sigma, *percents, percent_to_sigma))
        if scale == 0:
            return None
        if settings.apply_every == 1 or inside.position(sigma, schedule) % settings.apply_every == 0:
            return Plan(scale, fresh=True)
        return Plan(scale, fresh=node not in run.terms) if settings.reuse else None

    return plan
