"""Says on the node itself how guidance went, where somebody watches."""

from collections.abc import Sequence
from typing import Optional

import torch
from torch import Tensor

from .prompt import server
from .steps import step_count, step_number
from .watching import GuidedStep, Watch


def told_on(node: str) -> Watch:
    """Who looks on and, at the end of a run, writes a line under the node with this id."""
    schedule: list[float] = []
    numbers: set[int] = set()
    strengths: list[Tensor] = []
    coverages: list[Tensor] = []
    said: list[str] = []
    watched, evaluations = False, 0

    def begin(sigmas: Sequence[float]) -> None:
        nonlocal watched, evaluations
        watched, evaluations = _client() is not None, 0
        for kept in (schedule, numbers, strengths, coverages, said):
            kept.clear()
        schedule.extend(sigmas)

    def guided(step: GuidedStep) -> None:
        nonlocal evaluations
        if not watched:
            return
        evaluations = step.evaluation
        numbers.add(step_number(step.evaluation, step.sigma, schedule))
        strengths.append(step.strength.float().mean())
        if step.mask is not None:
            coverages.append(step.mask.float().mean())

    def end() -> None:
        host, client = server(), _client()
        if watched and host is not None and client is not None:
            line = summary(len(numbers), step_count(evaluations, schedule), _mean(coverages), _mean(strengths), said)
            host.send_progress_text(line, node, sid=client)

    def say(message: str) -> None:
        said.append(message)

    return Watch(begin, guided, say, end)


def summary(guided: int, steps: int, coverage: Optional[float], strength: Optional[float], said: Sequence[str]) -> str:
    """A line about a run: how many steps were guided, how much was blurred, how much it changed, and what was said."""
    reasons = "; ".join(said)
    if not guided:
        return f"not guided: {reasons}" if reasons else f"not guided: none of {steps} steps"
    line = f"guided {guided} of {steps} steps"
    if coverage is not None:
        line += f", {coverage:.0%} blurred"
    line += f", strength {strength:.2g}"
    return f"{line}; {reasons}" if reasons else line


def _mean(values: Sequence[Tensor]) -> Optional[float]:
    return torch.stack(list(values)).mean().item() if values else None


def _client() -> Optional[str]:
    """Who queued the prompt that runs and is still connected, on hosts that can write under a node."""
    host = server()
    client = getattr(host, "client_id", None)
    return client if client in getattr(host, "sockets", {}) and hasattr(host, "send_progress_text") else None
