"""Keeps what guidance did in a model's last run, small and on the CPU, for a preview."""

import math
from collections.abc import Sequence
from typing import Optional

import torch
import torch.nn.functional as F
from torch import Tensor

from ..pictures import GuidedRun, RecordedStep
from .prompt import Place, Prompt, here, is_connected, upstream
from .steps import step_count, step_number
from .watching import GuidedStep, Watch

MOST_BYTES, CELL_BYTES = 32 * 2**20, 3  # of a run, and of a place in its maps: float16 for attention, 8 bits for mask


class Trace:
    """The last run of a guided model.

    Attributes:
        run: None until there was one.
    """

    def __init__(self) -> None:
        self.run: Optional[GuidedRun] = None
        self._place: Optional[Place] = None
        self._recipe: Prompt = {}

    def begins(self) -> None:
        """Note whose run it is."""
        self.run, self._place = None, here()
        self._recipe = upstream(self._place.prompt, self._place.node) if self._place else {}

    def problem(self) -> Optional[str]:
        """Why there is nothing to show to the node that is being executed, in words; None if there is."""
        now, then = here(), self._place
        if self.run is None:
            return (
                "Nothing was recorded yet. The sampler has not run with this model, or guidance is off: scale or "
                "blur_sigma is 0. Connect 'after' to what the sampler draws, and change its seed to draw it anew."
            )
        if now and then and not self._made(now, then):
            return (
                "What was recorded belongs to another picture: this one comes from ComfyUI's cache, or from another "
                "sampler. Connect 'after' to the sampler that draws with this model, and change its seed to draw anew."
            )
        if not self.run.guided:
            return "\n".join(["No step was guided.", *(f"{reason}." for reason in self.run.said)])
        return None

    def _made(self, now: Place, then: Place) -> bool:
        """Whether the run made what the node that is being executed is given."""
        if then.node in now.prompt and then.node not in upstream(now.prompt, now.node):
            return False
        return now.prompt_id == then.prompt_id or upstream(now.prompt, then.node) == self._recipe


def is_wanted(output: int) -> bool:
    """Whether a trace that the node being executed puts out there has to be filled: unless surely nobody takes it."""
    place = here()
    return place is None or is_connected(place, output)


def recorded_in(trace: Trace) -> Watch:
    """Who looks on and keeps every run in a trace, one evaluation of each step."""
    schedule: list[float] = []
    steps: dict[int, RecordedStep] = {}
    strengths: list[Tensor] = []
    said: list[str] = []
    evaluations = 0

    def begin(sigmas: Sequence[float]) -> None:
        nonlocal evaluations
        evaluations = 0
        for kept in (schedule, steps, strengths, said):
            kept.clear()
        schedule.extend(sigmas)
        trace.begins()

    def guided(step: GuidedStep) -> None:
        nonlocal evaluations
        evaluations = step.evaluation
        number = step_number(step.evaluation, step.sigma, schedule)
        if number in steps:
            return
        attention = mask = None
        if step.attention is not None and step.mask is not None:
            cells = MOST_BYTES // (CELL_BYTES * max(1, step_count(50, schedule)))
            attention = _kept(step.attention, cells, torch.float16)
            mask = _kept(step.mask * 255, cells, torch.uint8)
        steps[number] = RecordedStep(number, step.sigma, attention, mask, math.nan)
        strengths.append(step.strength.float().mean())

    def end() -> None:
        # To read the strengths waits for the device, and so for all that was copied before.
        values = torch.stack(strengths).tolist() if strengths else []
        recorded = [step._replace(strength=value) for step, value in zip(steps.values(), values)]
        trace.run = GuidedRun(step_count(evaluations, schedule), recorded, tuple(said))

    def say(message: str) -> None:
        said.append(message)

    return Watch(begin, guided, say, end)


def _kept(values: Tensor, cells: int, dtype: torch.dtype) -> Tensor:
    """A map (b, 1, h, w) or (b, 1, t, h, w) as (b, t, h, w) on the CPU, with at most about so many values."""
    values = values.squeeze(1) if values.ndim == 5 else values
    factor = min(math.ceil(math.sqrt(values.numel() / cells)), *values.shape[-2:])
    if factor > 1:
        values = F.avg_pool2d(values.float(), factor, ceil_mode=True)
    if not dtype.is_floating_point:
        values = values.round()
    # Not waited for: that would hold up the device at every step.
    return values.to(dtype, copy=True).to("cpu", non_blocking=True)
