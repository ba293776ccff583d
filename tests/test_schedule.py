import math

import pytest

from sag_core import SCALE_CURVES, Window, progress, scale_curve, window


def falling(percent):
    """A schedule from sigma 10 to 0.1, evenly in log sigma."""
    return 10 * 0.01**percent


@pytest.mark.parametrize(
    "name, values",
    [
        ("constant", [1, 1, 1, 1, 1]),
        ("linear_fade_out", [1, 0.75, 0.5, 0.25, 0]),
        ("cosine_fade_out", [1, 0.5 + 0.5**1.5, 0.5, 0.5 - 0.5**1.5, 0]),
        ("fade_in", [0, 0.25, 0.5, 0.75, 1]),
        ("bell", [0, 0.5, 1, 0.5, 0]),
    ],
)
def test_curves_have_these_values(name, values):
    assert [scale_curve(name, p / 4) for p in range(5)] == pytest.approx(values, abs=1e-12)


@pytest.mark.parametrize("name", SCALE_CURVES)
def test_curves_stay_within_the_scale_and_never_jump(name):
    values = [scale_curve(name, i / 1000) for i in range(1001)]
    assert min(values) >= 0 and max(values) == pytest.approx(1)
    assert max(abs(a - b) for a, b in zip(values, values[1:])) < 0.004


def test_the_window_holds_its_start_and_not_its_end():
    held = [sigma for sigma in (0, 1, 2, 3, 4) if Window(3, 1).holds(sigma)]
    assert held == [2, 3]


def test_adjoining_windows_share_no_noise_level_and_leave_none_out():
    first, second = window(0.2, 0.5, falling), window(0.5, 0.8, falling)
    both = window(0.2, 0.8, falling)
    for sigma in [falling(i / 100) for i in range(101)]:
        assert first.holds(sigma) + second.holds(sigma) == both.holds(sigma)


def test_zero_and_one_are_open_ends_that_need_no_schedule():
    everything = window(0.0, 1.0, None)
    assert all(everything.holds(sigma) for sigma in (0.0, 1e-9, 1.0, 999999999.9, 1e30))


@pytest.mark.parametrize("start, end", [(0.5, 0.5), (0.6, 0.4), (1.0, 0.0), (1.0, 1.0), (0.0, 0.0)])
def test_a_start_that_is_not_below_the_end_holds_nothing(start, end):
    nothing = window(start, end, falling)
    assert not any(nothing.holds(sigma) for sigma in (0.0, falling(0.5), falling(0.45), 10.0, 1e9))


@pytest.mark.parametrize("start, end", [(-0.1, 1.0), (0.0, 1.1), (math.nan, 1.0), (0.0, math.inf)])
def test_percents_outside_the_schedule_are_named(start, end):
    with pytest.raises(ValueError, match="_percent must"):
        window(start, end, falling)


@pytest.mark.parametrize("percent", [0.2, 0.3, 0.5, 0.79])
def test_progress_is_the_schedules_own_share(percent):
    assert progress(falling(percent), 0.2, 0.8, falling) == pytest.approx((percent - 0.2) / 0.6, abs=1e-5)


def test_progress_stays_within_0_and_1():
    assert progress(1e9, 0.2, 0.8, falling) == 0
    assert progress(0.0, 0.2, 0.8, falling) == pytest.approx(1)


def test_positions_count_the_schedules_steps_in_the_window():
    schedule = [10.0, 8.0, 5.0, 3.0, 1.0, 0.0]
    inside = Window(8.0, 1.0)
    assert [inside.position(sigma, schedule) for sigma in (8.0, 5.0, 3.0)] == [0, 1, 2]
    # A sampler's evaluations between two steps belong to the step that they refine.
    assert [inside.position(sigma, schedule) for sigma in (7.9, 5.1, 4.0)] == [0, 0, 1]
    # Steps of one noise level are one.
    assert Window(8.0, 1.0).position(3.0, [10.0, 8.0, 8.0, 5.0, 5.0, 3.0]) == 2
    # Without a schedule, and above it, there is only a first step.
    assert inside.position(6.0, []) == 0
    assert Window(math.inf, 0.0).position(11.0, schedule) == 0
