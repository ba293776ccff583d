import math

import numpy as np
import pytest
import torch

from sag_core import gaussian_blur, gaussian_taps


def test_literal_taps():
    weights = [math.exp(-0.5 * i * i) for i in range(-4, 5)]
    expected = torch.tensor(weights) / sum(weights)
    torch.testing.assert_close(gaussian_taps(1.0), expected)


@pytest.mark.parametrize("sigma, taps", [(0.1, 9), (1.0, 9), (1.1, 11), (2.0, 17), (10.0, 81)])
def test_the_kernel_is_odd_at_least_9_and_at_least_8_sigma_plus_1(sigma, taps):
    assert len(gaussian_taps(sigma)) == taps
    assert taps % 2 == 1 and taps >= 8 * sigma + 1


@pytest.mark.parametrize("sigma", [0.01, 0.3, 1.0, 7.5, 100.0, 1e-30, 1e-50])
def test_taps_sum_to_one_and_are_finite(sigma):
    assert gaussian_taps(sigma).sum().item() == pytest.approx(1, abs=1e-6)


def test_a_larger_sigma_never_saturates():
    impulse = torch.zeros(1, 1, 1, 401)
    impulse[..., 200] = 1
    x = torch.arange(401.0) - 200
    for sigma in (0.8, 2.0, 5.0, 10.0):
        profile = gaussian_blur(impulse, sigma)[0, 0, 0]
        assert (profile * x**2).sum().sqrt().item() == pytest.approx(sigma, rel=0.01)


def test_sigma_zero_is_the_identity():
    x = torch.randn(1, 4, 5, 7)
    assert gaussian_blur(x, 0) is x


@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (2, 4, 1, 9), (1, 3, 2, 2), (1, 4, 33, 47), (1, 2, 3, 5, 8)])
@pytest.mark.parametrize("sigma", [0.5, 1.0, 6.0])
def test_equals_numpy_with_reflected_borders_also_where_the_kernel_is_larger_than_the_image(shape, sigma):
    x = torch.randn(*shape)
    taps = gaussian_taps(sigma).numpy()
    reach = len(taps) // 2
    expected = x.numpy()
    for axis in (-1, -2):
        n = expected.shape[axis]
        pads = [(0, 0)] * x.ndim
        pads[axis] = (reach, reach)
        padded = np.pad(expected, pads, mode="reflect" if n > 1 else "edge")
        moved = np.moveaxis(padded, axis, -1)
        lines = sum(tap * moved[..., i : i + n] for i, tap in enumerate(taps))
        expected = np.moveaxis(lines, -1, axis)
    np.testing.assert_allclose(gaussian_blur(x, sigma).numpy(), expected, rtol=1e-4, atol=1e-5)


def test_a_constant_image_stays_as_it_is():
    torch.testing.assert_close(gaussian_blur(torch.full((1, 2, 3, 5), 4.2), 3.0), torch.full((1, 2, 3, 5), 4.2))


def test_frames_are_blurred_one_by_one():
    x = torch.randn(2, 4, 3, 6, 5)
    frames = [gaussian_blur(x[:, :, t], 1.3) for t in range(3)]
    torch.testing.assert_close(gaussian_blur(x, 1.3), torch.stack(frames, 2))


def test_an_explicit_kernel_of_9_truncates_as_other_implementations_do():
    x = torch.randn(1, 4, 16, 16)
    line = torch.exp(-0.5 * (torch.linspace(-4, 4, 9) / 2.0) ** 2)
    line = line / line.sum()
    kernel = (line[:, None] * line).expand(4, 1, 9, 9)
    expected = torch.nn.functional.conv2d(torch.nn.functional.pad(x, (4,) * 4, mode="reflect"), kernel, groups=4)
    torch.testing.assert_close(gaussian_blur(x, 2.0, kernel_size=9), expected)
    assert not torch.allclose(gaussian_blur(x, 2.0), expected, atol=1e-3)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_blurred_in_float32_and_rounded_once(dtype):
    x = torch.randn(1, 4, 33, 47).to(dtype)
    assert torch.equal(gaussian_blur(x, 3.0), gaussian_blur(x.float(), 3.0).to(dtype))


def test_double_precision_is_kept():
    ramp = torch.arange(64, dtype=torch.float64).expand(1, 1, 1, 64) / 3
    # Far from the border a symmetric kernel leaves a ramp as it is; float32 would miss by 1e-7 of its height.
    torch.testing.assert_close(gaussian_blur(ramp, 1.0)[..., 16:48], ramp[..., 16:48], rtol=1e-7, atol=0)
    assert gaussian_blur(ramp, 1.0).dtype == torch.float64


def test_no_argument_is_written_to():
    x = torch.randn(1, 4, 9, 7)
    before = x.clone()
    gaussian_blur(x, 2.0)
    assert torch.equal(x, before)


@pytest.mark.parametrize(
    "x, sigma, kernel, message",
    [
        (torch.zeros(1, 4, 5, 5), -1, None, r"sigma must lie in \[0, inf\], got -1"),
        (torch.zeros(1, 4, 5, 5), float("nan"), None, "sigma must be a finite number, got nan"),
        (torch.zeros(1, 4, 5, 5), float("inf"), None, "sigma must be a finite number, got inf"),
        (torch.zeros(1, 4, 5, 5), 1.0, 8, "kernel_size must be odd, got 8"),
        (torch.zeros(1, 4, 5, 5), 1.0, -3, "kernel_size must lie in"),
        (torch.zeros(1, 4, 5, 5).long(), 1.0, None, "x must be a floating-point tensor, got torch.int64"),
        (torch.zeros(5, 5), 1.0, None, r"x must have 4 or 5 axes, got shape \(5, 5\)"),
    ],
)
def test_says_what_is_wrong(x, sigma, kernel, message):
    with pytest.raises(ValueError, match=message):
        gaussian_blur(x, sigma, kernel)


def test_taps_refuse_sigma_zero():
    with pytest.raises(ValueError, match="sigma must be above 0"):
        gaussian_taps(0)
