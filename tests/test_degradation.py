import pytest
import torch

from sag_core import (
    MASK_MODES,
    Settings,
    attention_mask,
    degradation_mask,
    feathered,
    high_frequency_map,
    received_attention,
    soft_attention_mask,
    token_rank,
)

X0 = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
ATTENTION = 2 * torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(1))


def made(**settings):
    """The map, the mask, and the seeds by which attention was asked for."""
    seeds = []
    values, mask = degradation_mask(Settings(**settings), X0, lambda seed: seeds.append(seed) or ATTENTION, 7)
    return values, mask, seeds


@pytest.mark.parametrize(
    "mode, statistic, seed, graded",
    [
        ("self_attention", received_attention, None, False),
        ("soft_self_attention", received_attention, None, True),
        ("token_rank", token_rank, None, False),
        ("random", received_attention, 7, False),
    ],
)
def test_modes_that_read_attention_mark_what_gets_more_than_the_threshold(mode, statistic, seed, graded):
    values, mask, seeds = made(mask_mode=mode, mask_threshold=1.3)
    assert MASK_MODES[mode].statistic is statistic
    assert values is ATTENTION and seeds == [seed]
    assert torch.equal(mask, (soft_attention_mask if graded else attention_mask)(ATTENTION, 1.3))


def test_detail_is_what_the_settings_blur_would_remove():
    values, mask, seeds = made(mask_mode="high_frequency", blur_sigma=2.5, mask_threshold=0.8)
    assert seeds == [] and MASK_MODES["high_frequency"].statistic is None
    assert torch.equal(values, high_frequency_map(X0, 2.5))
    assert torch.equal(mask, attention_mask(values, 0.8))


@pytest.mark.parametrize("threshold", [0.0, 4.0])
def test_blur_guidance_asks_nobody_and_blurs_everything(threshold):
    _, mask, seeds = made(mask_mode="global_blur", mask_threshold=threshold)
    assert seeds == [] and torch.equal(mask, torch.ones(2, 1, 8, 8))


def test_the_mask_is_feathered_and_the_map_is_not():
    values, mask, _ = made(mask_feather=1.5)
    assert values is ATTENTION
    assert torch.equal(mask, feathered(attention_mask(ATTENTION), 1.5))
