import pytest
import torch

from sag_core import perpendicular


def pair(*shape):
    noise = torch.Generator().manual_seed(0)
    return [torch.randn(*shape, generator=noise) for _ in range(2)]


def test_has_these_values():
    guidance = torch.tensor([[3.0, 4.0], [1.0, 1.0]]).reshape(2, 1, 1, 2)
    prediction = torch.tensor([[2.0, 0.0], [1.0, -1.0]]).reshape(2, 1, 1, 2)
    assert perpendicular(guidance, prediction).flatten(1).tolist() == [[0.0, 4.0], [1.0, 1.0]]


@pytest.mark.parametrize("shape", [(2, 4, 8, 8), (2, 3, 4, 5, 6)])
def test_each_sample_is_perpendicular_and_the_rest_is_parallel(shape):
    guidance, prediction = pair(*shape)
    kept = perpendicular(guidance, prediction)
    torch.testing.assert_close((kept * prediction).flatten(1).sum(1), torch.zeros(2), atol=1e-3, rtol=0)
    removed = guidance - kept
    torch.testing.assert_close(perpendicular(removed, prediction), torch.zeros(shape), atol=1e-5, rtol=0)
    torch.testing.assert_close(perpendicular(kept, prediction), kept)


def test_what_is_parallel_vanishes_and_against_nothing_all_is_kept():
    guidance, _ = pair(1, 4, 8, 8)
    torch.testing.assert_close(perpendicular(-2 * guidance, guidance), torch.zeros_like(guidance), atol=1e-6, rtol=0)
    assert torch.equal(perpendicular(guidance, torch.zeros_like(guidance)), guidance)


def test_half_precision_is_computed_in_float32_and_comes_back_in_half_precision():
    guidance, prediction = (300 * t.half() for t in pair(1, 4, 8, 8))  # whose squares float16 does not hold
    precise = perpendicular(guidance.float(), prediction.float())
    assert torch.equal(perpendicular(guidance, prediction), precise.half())


def test_says_what_does_not_fit():
    guidance, prediction = pair(2, 4, 8, 8)
    with pytest.raises(ValueError, match="prediction must have the shape of guidance"):
        perpendicular(guidance, prediction[:1])
