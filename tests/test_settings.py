import dataclasses
import math

import pytest

from sag_core import MASK_MODES, Settings, declarations

RANGES = {
    "scale": (-2.0, 5.0),
    "blur_sigma": (0.0, 10.0),
    "mask_threshold": (0.0, 4.0),
    "start_percent": (0.0, 1.0),
    "end_percent": (0.0, 1.0),
    "mask_feather": (0.0, 10.0),
    "blur_kernel": (0, 127),
    "rescale": (0.0, 1.0),
    "apply_every": (1, 100),
}
STEPS = {
    "scale": 0.01,
    "blur_sigma": 0.1,
    "mask_threshold": 0.05,
    "start_percent": 0.001,
    "end_percent": 0.001,
    "mask_feather": 0.1,
    "blur_kernel": 1,
    "rescale": 0.01,
    "apply_every": 1,
}
CHOICES = {
    "scale_curve": ("constant", "linear_fade_out", "cosine_fade_out", "fade_in", "bell"),
    "mask_mode": tuple(MASK_MODES),
    "mask_upsampling": ("nearest", "bilinear"),
    "branch": ("auto", "unconditional", "conditional"),
    "rescale_mode": ("full", "partial", "norm_clamp"),
    "difference": ("noise", "image", "detail"),
}


def test_the_defaults_are_the_plain_method():
    assert dataclasses.asdict(Settings()) == {
        "scale": 0.75,
        "blur_sigma": 1.0,
        "mask_threshold": 1.0,
        "start_percent": 0.0,
        "end_percent": 1.0,
        "scale_curve": "constant",
        "attention_blocks": "auto",
        "mask_mode": "self_attention",
        "mask_upsampling": "nearest",
        "mask_feather": 0.0,
        "branch": "auto",
        "blur_kernel": 0,
        "rescale": 0.0,
        "rescale_mode": "full",
        "projection": False,
        "apply_every": 1,
        "reuse": False,
        "difference": "noise",
    }


def test_every_setting_is_declared_with_what_is_tested_here():
    declared = declarations()
    assert list(declared) == [setting.name for setting in dataclasses.fields(Settings)]
    assert {name: one.range for name, one in declared.items() if one.range} == RANGES
    assert {name: one.step for name, one in declared.items() if one.step} == STEPS
    assert {name: one.choices for name, one in declared.items() if one.choices} == CHOICES
    assert all(one.meaning.strip().endswith(".") for one in declared.values())
    everyday = [name for name, one in declared.items() if not one.expert]
    assert everyday == [
        "scale",
        "blur_sigma",
        "mask_threshold",
        "start_percent",
        "end_percent",
        "scale_curve",
        "difference",
    ]


@pytest.mark.parametrize("name", RANGES)
def test_every_number_is_held_to_its_range(name):
    low, high = RANGES[name]
    assert getattr(Settings(**{name: high}), name) == high
    assert getattr(Settings(**{name: low}), name) == low
    for wrong in (low - 1, high + 1, math.nan, math.inf, None, "1", True):
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


def test_blocks_are_chosen_by_whoever_reads_them_unless_named():
    assert Settings().reads_blocks_by_itself and Settings(attention_blocks=" AUTO ").reads_blocks_by_itself
    assert not Settings(attention_blocks="middle.0").reads_blocks_by_itself
    with pytest.raises(ValueError, match="attention_blocks must be text, got 3"):
        Settings(attention_blocks=3)


def test_settings_cannot_be_changed_afterwards():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Settings().scale = 1.0
