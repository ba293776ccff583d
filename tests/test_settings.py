import dataclasses
import math

import pytest

from sag_core import Settings, declarations

RANGES = {name: declared.range for name, declared in declarations().items() if declared.range}
CHOICES = {name: declared.choices for name, declared in declarations().items() if declared.choices}


@pytest.mark.parametrize("name", RANGES)
def test_every_number_is_held_to_its_range(name):
    low, high = RANGES[name]
    assert getattr(Settings(**{name: high}), name) == high
    assert getattr(Settings(**{name: low}), name) == low
    for wrong in (low - 1, high + 1, math.nan, math.inf, None, "1"):
        with pytest.raises(ValueError, match=f"{name} must"):
            Settings(**{name: wrong})


@pytest.mark.parametrize("name", CHOICES)
def test_every_choice_is_one_of_those_on_offer(name):
    assert getattr(Settings(), name) == CHOICES[name][0]
    for choice in CHOICES[name]:
        assert getattr(Settings(**{name: choice}), name) == choice
    with pytest.raises(ValueError, match=f"{name} must be one of {', '.join(CHOICES[name])}, got 'middling'"):
        Settings(**{name: "middling"})


def test_a_kernel_has_a_middle():
    assert Settings(blur_kernel=9).blur_kernel == 9
    with pytest.raises(ValueError, match="blur_kernel must be odd, or 0 for automatic, got 8"):
        Settings(blur_kernel=8)


@pytest.mark.parametrize("name", ["blur_kernel", "apply_every"])
def test_counts_are_whole(name):
    with pytest.raises(ValueError, match=f"{name} must be a whole number, got 1.5"):
        Settings(**{name: 1.5})


def test_a_start_behind_the_end_is_allowed_and_guides_nothing():
    assert Settings(start_percent=0.6, end_percent=0.4).start_percent == 0.6


def test_settings_cannot_be_changed_afterwards():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Settings().scale = 1.0
