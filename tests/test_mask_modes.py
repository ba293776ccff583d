import pytest
import torch

from sag_core import (
    MASK_MODES,
    attention_mask,
    average_maps,
    everywhere,
    feathered,
    gaussian_blur,
    high_frequency_map,
    shuffled_tokens,
    soft_attention_mask,
    upsample_map,
)


def received(*shape, seed=0):
    values = torch.rand(*shape, generator=torch.Generator().manual_seed(seed))
    return values / values.mean()


def test_the_graded_mask_has_these_values():
    mask = soft_attention_mask(torch.tensor([0.0, 0.5, 1.0, 2.0, float("inf"), float("nan")]))
    torch.testing.assert_close(mask, torch.tensor([0.0, 1 / 17, 0.5, 16 / 17, 1.0, 0.0]))
    assert soft_attention_mask(torch.tensor([0.0, 0.1]), 0.0).tolist() == [0, 1]


def test_the_graded_mask_is_graded_within_0_and_1_and_ordered_as_the_attention():
    values = received(1, 500)
    mask = soft_attention_mask(values, 1.3)
    assert mask.min() >= 0 and mask.max() <= 1
    assert torch.equal(mask.argsort(), values.argsort())
    # Rounding it gives the paper's mask.
    assert torch.equal((mask > 0.5).float(), attention_mask(values, 1.3))


def test_detail_is_found_where_it_is_and_averages_to_one():
    x0 = torch.zeros(2, 4, 16, 16)
    x0[:, :, 4:8, 4:8] = torch.randn(4, 4, 4, generator=torch.Generator().manual_seed(0))
    x0[1] *= 3
    energy = high_frequency_map(x0, 1.0)
    assert energy.shape == (2, 1, 16, 16) and energy.min() >= 0
    torch.testing.assert_close(energy.mean((1, 2, 3)), torch.ones(2))
    assert energy[..., 4:8, 4:8].min() > energy[..., 12:, 12:].max()


def test_detail_counts_by_its_energy_and_in_its_surroundings():
    x0 = torch.zeros(1, 4, 16, 32)
    x0[:, 1:3, 8, 8], x0[:, 3, 8, 24] = 1.0, 2.0
    energy = high_frequency_map(x0, 1.0)[0, 0]
    # Twice the height in half as many channels is twice the energy; a point is spread as the blur spreads it.
    assert energy[8, 24] / energy[8, 8] == pytest.approx(2)
    assert energy[8, 9] / energy[8, 8] == pytest.approx(torch.e**-0.5, rel=0.02)


@pytest.mark.parametrize("sigma", [0.0, 1.0])
def test_an_image_without_detail_marks_nothing(sigma):
    assert attention_mask(high_frequency_map(torch.full((1, 4, 8, 8), 3.0), sigma)).sum() == 0


@pytest.mark.parametrize("threshold", [0.0, 1.0, 4.0])
def test_blur_guidance_marks_everything(threshold):
    mask = attention_mask(everywhere(torch.zeros(2, 4, 3, 5), 1.0), threshold)
    assert mask.shape == (2, 1, 3, 5) and mask.min() == 1


def test_shuffled_tokens_are_the_same_values_elsewhere():
    values = received(3, 64)
    once, again, other = (shuffled_tokens(values, seed) for seed in (1, 1, 2))
    assert torch.equal(once, again)
    assert not torch.equal(once, other) and not torch.equal(once, values)
    assert torch.equal(once.sort(1).values, values.sort(1).values)
    alike = shuffled_tokens(values[:1].expand(3, 64), 1)
    assert not torch.equal(alike[0], alike[1]) and not torch.equal(alike[1], alike[2])


def test_no_feather_is_the_mask_itself():
    mask = attention_mask(received(1, 1, 8, 8))
    assert feathered(mask, 0.0) is mask


def test_a_feathered_mask_is_the_blurred_one_and_stays_within_0_and_1():
    mask = attention_mask(received(2, 1, 16, 16))
    soft = feathered(mask, 1.5)
    torch.testing.assert_close(soft, gaussian_blur(mask, 1.5))
    assert soft.min() >= 0 and soft.max() <= 1
    assert gaussian_blur(torch.ones(1, 1, 64, 64), 7.0).max() > 1, "the example must be rounded to more than 1"
    assert feathered(torch.ones(1, 1, 64, 64), 7.0).max() == 1


def test_bilinear_upsampling_has_no_blocks():
    tokens = torch.tensor([[0.0, 2.0]])
    assert upsample_map(tokens, (1, 2), (1, 4), "bilinear")[0, 0].tolist() == [[0.0, 0.5, 1.5, 2.0]]
    assert upsample_map(tokens, (1, 2), (1, 4))[0, 0].tolist() == [[0.0, 0.0, 2.0, 2.0]]
    frames = upsample_map(torch.arange(8.0)[None], (2, 2, 2), (2, 4, 4), "bilinear")
    assert frames[0, 0, 0].max() == 3 and frames[0, 0, 1].min() == 4
    with pytest.raises(ValueError, match="mask_upsampling must be one of nearest, bilinear"):
        upsample_map(tokens, (1, 2), (1, 4), "cubic")


def test_several_maps_are_averaged_on_the_finest_grid():
    coarse, fine = torch.tensor([[1.0, 3.0]]), torch.tensor([[0.0, 1.0, 2.0, 3.0]])
    average, grid = average_maps([coarse, fine], [(1, 2), (1, 4)])
    assert grid == (1, 4) and average.tolist() == [[0.5, 1.0, 2.5, 3.0]]
    average, grid = average_maps([fine, coarse, fine], [(1, 4), (1, 2), (1, 4)], "bilinear")
    torch.testing.assert_close(average, torch.tensor([[1 / 3, 3.5 / 3, 6.5 / 3, 3.0]]))


def test_a_single_map_is_left_alone():
    tokens = received(2, 6)
    average, grid = average_maps([tokens], [(2, 3)], "bilinear")
    assert average is tokens and grid == (2, 3)
    with pytest.raises(ValueError, match="at least one map"):
        average_maps([], [])


def test_these_modes_are_on_offer_the_papers_first():
    assert list(MASK_MODES) == [
        "self_attention",
        "soft_self_attention",
        "token_rank",
        "global_blur",
        "high_frequency",
        "random",
    ]


@pytest.mark.parametrize("name", MASK_MODES)
@pytest.mark.parametrize("threshold", [0.0, 1.0, 4.0])
def test_no_mode_leaves_0_to_1(name, threshold):
    mode = MASK_MODES[name]
    x0 = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    values = mode.image_map(x0, 1.0) if mode.statistic is None else received(1, 1, 8, 8)
    mask = mode.mask(values, threshold)
    assert mask.isfinite().all() and mask.min() >= 0 and mask.max() <= 1
