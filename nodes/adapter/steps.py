"""Numbers the steps of a sampler, which may evaluate the model more than once in a step."""

from collections.abc import Sequence


def step_number(evaluation: int, sigma: float, schedule: Sequence[float]) -> int:
    """The step, from 1, that an evaluation at this noise level belongs to; its own number where there is no schedule.

    Args:
        schedule: the noise levels of the run, falling, with the one at which it ends.
    """
    begun = sum(level >= sigma * (1 - 1e-4) for level in schedule[:-1])
    return max(1, begun) if schedule else evaluation


def step_count(evaluations: int, schedule: Sequence[float]) -> int:
    """How many steps a run has; so many evaluations without schedule."""
    return len(schedule) - 1 if schedule else evaluations
