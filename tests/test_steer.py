import pytest
import torch

from sag_core import perpendicular, rescaled, steer


def predictions(seed=0):
    noise = torch.Generator().manual_seed(seed)
    return [torch.randn(2, 4, 6, 8, generator=noise) for _ in range(3)]


def test_plain_is_the_papers_sum_to_the_bit():
    denoised, term, _ = predictions()
    assert torch.equal(steer(denoised, term, 0.75), denoised + 0.75 * term)


def test_projection_comes_before_rescale():
    denoised, term, reference = predictions()
    guided = steer(denoised, term, 2.0, projection=True, rescale=0.6, rescale_mode="partial", reference=reference)
    expected = rescaled(denoised, perpendicular(2.0 * term, denoised), reference, 0.6, "partial")
    assert torch.equal(guided, expected)


def test_a_region_is_guided_and_the_rest_is_left_bit_for_bit():
    denoised, term, _ = predictions()
    region = torch.zeros(2, 1, 6, 8)
    region[0, :, :, :4], region[1] = 1, 0.5
    guided, everywhere = steer(denoised, term, 0.75, region=region), steer(denoised, term, 0.75)
    assert torch.equal(guided[0, ..., 4:], denoised[0, ..., 4:])
    torch.testing.assert_close(guided[0, ..., :4], everywhere[0, ..., :4])
    torch.testing.assert_close(guided[1], (denoised[1] + everywhere[1]) / 2)


def test_keeps_the_dtype_and_writes_to_nothing():
    denoised, term, reference = (t.half() for t in predictions())
    before = [t.clone() for t in (denoised, term, reference)]
    region = torch.ones(2, 1, 6, 8)
    guided = steer(denoised, term, 1.0, projection=True, rescale=1.0, reference=reference, region=region)
    assert guided.dtype == torch.float16
    assert all(torch.equal(a, b) for a, b in zip((denoised, term, reference), before))


@pytest.mark.parametrize(
    "change, message",
    [
        ({"scale": float("inf")}, "scale must be a finite number"),
        ({"term": torch.zeros(2, 4, 6, 7)}, "term must have the shape of denoised"),
        ({"region": torch.ones(2, 1, 3, 3)}, "region must broadcast to"),
        ({"rescale": -0.1}, "rescale must lie in"),
    ],
)
def test_says_what_does_not_fit(change, message):
    denoised, term, _ = predictions()
    with pytest.raises(ValueError, match=message):
        steer(**{"denoised": denoised, "term": term, "scale": 1.0, **change})
