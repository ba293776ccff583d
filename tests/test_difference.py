"""`difference`: the closed forms of docs/difference.md, on denoisers whose answer is known exactly."""

import sys
from pathlib import Path

import pytest
import torch

from sag_core import gaussian_blur, guidance_term, self_attention_guidance

sys.path.append(str(Path(__file__).resolve().parents[1]))  # last, so that nothing of ComfyUI's is hidden

from benchmarks.blur_width import images, spectrum, wiener  # noqa: E402


def test_literal_values_of_both_differences():
    """A blur of three taps 1/4 1/2 1/4 takes 1/2 off a stripe of 1, a denoiser passes a fifth of a change on."""
    sigma = (2 * torch.log(torch.tensor(2.0))).rsqrt().item()  # exp(-1 / (2 sigma^2)) = 1/2
    x0 = torch.zeros(1, 1, 5, 5, dtype=torch.float64)
    x0[..., 2] = 1
    stripe = torch.tensor([0.0, -0.25, 0.5, -0.25, 0.0]).double()  # what the blur removes from every row
    x, mask = 3 * x0, torch.ones_like(x0)

    def denoise(latent):
        return x0 + 0.2 * (latent - x)

    options = {"blur_sigma": sigma, "kernel_size": 3}
    noise = guidance_term(x, x0, mask, denoise, **options)
    image = guidance_term(x, x0, mask, denoise, difference="image", **options)
    torch.testing.assert_close(noise[0, 0, 1], -0.8 * stripe)
    torch.testing.assert_close(image[0, 0, 1], 0.2 * stripe)
    guided = self_attention_guidance(x0, x, x0, mask, denoise, scale=2.0, difference="image", **options)
    torch.testing.assert_close(guided, x0 + 0.4 * stripe)


@pytest.mark.parametrize("masked", [False, True], ids=["everything", "half"])
@pytest.mark.parametrize("alpha, sigma", [(1.0, 0.1), (1.0, 3.0), (0.8, 0.6)])
def test_for_the_exact_denoiser_of_gaussian_pictures_they_are_the_wiener_gain_and_its_rest(masked, alpha, sigma):
    power = spectrum(32)
    x0_true = images(32, count=2)
    x = alpha * x0_true + sigma * torch.randn(x0_true.shape, generator=torch.Generator().manual_seed(1))
    exact = wiener(32, sigma / alpha)  # of pictures whose noise is sigma / alpha

    def denoise(latent):
        return exact(latent / alpha)

    x0 = denoise(x)
    mask = torch.ones_like(x0[:, :1])
    mask[..., 16:] = 0 if masked else 1
    h = mask * (x0 - gaussian_blur(x0, 1.0))
    gain = alpha**2 * power / (alpha**2 * power + sigma**2)

    def filtered(share):
        return torch.fft.irfft2(torch.fft.rfft2(h) * share, (32, 32))

    noise = guidance_term(x, x0, mask, denoise, alpha=alpha)
    image = guidance_term(x, x0, mask, denoise, alpha=alpha, difference="image")
    torch.testing.assert_close(noise, filtered(gain - 1), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(image, filtered(gain), rtol=1e-4, atol=1e-5)
    # One softens and the other sharpens: against and along the detail that was removed.
    assert (noise * h).sum() < 0 < (image * h).sum()


def test_they_differ_by_what_the_blur_removes_whatever_the_model_does():
    x, x0 = torch.randn(2, 2, 4, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    mask = torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    noise, image = (guidance_term(x, x0, mask, torch.tanh, difference=name) for name in ("noise", "image"))
    torch.testing.assert_close(image - noise, mask * (x0 - gaussian_blur(x0, 1.0)))


def test_detail_is_an_unsharp_mask_that_calls_no_model():
    x, x0 = torch.randn(2, 2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    mask = torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    detail = guidance_term(x, x0, mask, None, blur_sigma=2.0, difference="detail")
    torch.testing.assert_close(detail, mask * (x0 - gaussian_blur(x0, 2.0)))
    # What the image difference is for a model that passes every change on.
    image = guidance_term(x, x0, mask, lambda latent: x0 + latent - x, blur_sigma=2.0, difference="image")
    torch.testing.assert_close(image, detail)
    guided = self_attention_guidance(x0, x, x0, mask, None, scale=0.2, blur_sigma=2.0, difference="detail")
    torch.testing.assert_close(guided, x0 + 0.2 * detail)


def test_noise_is_the_default_and_the_rule_as_it_was_bit_for_bit():
    x, x0 = torch.randn(2, 1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    mask = (torch.rand(1, 1, 8, 8, generator=torch.Generator().manual_seed(1)) < 0.5).float()
    removed = mask * (gaussian_blur(x0, 1.0) - x0)
    expected = x0 + removed - torch.tanh(x + 0.7 * removed)
    assert torch.equal(guidance_term(x, x0, mask, torch.tanh, alpha=0.7), expected)
    assert torch.equal(guidance_term(x, x0, mask, torch.tanh, alpha=0.7, difference="noise"), expected)


def test_an_unknown_difference_names_the_choices():
    x = torch.zeros(1, 4, 8, 8)
    with pytest.raises(ValueError, match="difference must be one of noise, image, detail, got 'picture'"):
        guidance_term(x, x, x, torch.tanh, difference="picture")
