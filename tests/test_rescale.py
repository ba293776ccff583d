import pytest
import torch

from sag_core import RESCALE_MODES, rescaled


def predictions(batch=2, seed=0):
    noise = torch.Generator().manual_seed(seed)
    return [torch.randn(batch, 4, 6, 6, generator=noise) for _ in range(3)]


def std(x):
    return x.std((1, 2, 3))


@pytest.mark.parametrize("mode", RESCALE_MODES)
def test_zero_is_the_plain_sum(mode):
    denoised, guidance, reference = predictions()
    assert torch.equal(rescaled(denoised, guidance, reference, 0.0, mode), denoised + guidance)


def test_full_and_partial_have_these_values():
    """With a prediction of 0 the guided one is the guidance alone, and it gets the reference's contrast."""
    guidance, reference = predictions()[:2]
    none = torch.zeros_like(guidance)
    full = rescaled(none, 3 * guidance, reference, 1.0, "full")
    torch.testing.assert_close(std(full), std(reference))
    partial = rescaled(none, 3 * guidance, reference, 1.0, "partial")
    torch.testing.assert_close(std(partial), std(3 * guidance) * std(reference) / std(reference + 3 * guidance))


@pytest.mark.parametrize("mode", RESCALE_MODES)
def test_the_amount_blends(mode):
    denoised, guidance, reference = predictions()
    none, part, whole = (rescaled(denoised, guidance, reference, amount, mode) for amount in (0.0, 0.25, 1.0))
    torch.testing.assert_close(part, 0.75 * none + 0.25 * whole)


@pytest.mark.parametrize("mode", RESCALE_MODES)
def test_contrast_is_measured_in_float32(mode):
    halves = [300 * t.half() for t in predictions()]  # whose squares float16 does not hold
    precise = rescaled(*(t.float() for t in halves), 0.7, mode)
    torch.testing.assert_close(rescaled(*halves, 0.7, mode).float(), precise, rtol=2e-3, atol=1)


def test_the_norm_never_grows_and_is_never_enlarged():
    denoised, guidance, reference = predictions()
    norm = denoised.flatten(1).norm(dim=1)
    clamped = rescaled(denoised, 2 * denoised, reference, 1.0, "norm_clamp")
    torch.testing.assert_close(clamped, denoised)
    shrinking = -0.5 * denoised
    torch.testing.assert_close(rescaled(denoised, shrinking, reference, 1.0, "norm_clamp"), denoised + shrinking)
    assert (rescaled(denoised, guidance, reference, 1.0, "norm_clamp").flatten(1).norm(dim=1) <= norm * 1.0001).all()


@pytest.mark.parametrize("mode", RESCALE_MODES)
def test_samples_do_not_influence_each_other(mode):
    denoised, guidance, reference = predictions()
    both = rescaled(denoised, guidance, reference, 0.7, mode)
    for i in range(2):
        one = [t[i : i + 1] for t in (denoised, guidance, reference)]
        torch.testing.assert_close(both[i : i + 1], rescaled(*one, 0.7, mode))


@pytest.mark.parametrize("mode", RESCALE_MODES)
def test_flat_predictions_stay_finite(mode):
    flat = torch.zeros(1, 4, 2, 2)
    assert rescaled(flat, flat, flat, 1.0, mode).isfinite().all()


def test_says_what_does_not_fit():
    denoised, guidance, reference = predictions()
    with pytest.raises(ValueError, match="rescale must lie in"):
        rescaled(denoised, guidance, reference, 1.1)
    with pytest.raises(ValueError, match="rescale_mode must be one of full, partial, norm_clamp, got 'half'"):
        rescaled(denoised, guidance, reference, 0.5, "half")
    with pytest.raises(ValueError, match="guidance must have the shape of denoised"):
        rescaled(denoised, guidance[:1], reference, 0.5)
