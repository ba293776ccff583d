import pytest
import torch

from sag_core import Settings, gaussian_blur, self_attention_guidance


def latents(*shape, seed=0):
    noise = torch.Generator().manual_seed(seed)
    return [torch.randn(*shape, generator=noise) for _ in range(3)]


def half_mask(x0):
    mask = torch.zeros_like(x0[:, :1])
    mask[..., : x0.shape[-1] // 2] = 1
    return mask


def toy_denoise(x):
    return torch.tanh(x) + 0.1 * x.roll(1, -1)


@pytest.mark.parametrize("shape", [(1, 4, 8, 8), (2, 16, 5, 9), (2, 3, 4, 6, 5)])
@pytest.mark.parametrize("alpha, sigma", [(1.0, 3.0), (0.3, 0.7), (0.8, 0.6)])
def test_is_the_rule_of_the_paper_in_predicted_noise(shape, alpha, sigma):
    """eps(x_bar) + (1 + s) * (eps(x) - eps(x_bar)) for x = alpha * x0 + sigma * eps, without any other guidance."""
    x, *_ = latents(*shape)
    x0, s = toy_denoise(x), 0.6
    mask = half_mask(x0)

    def eps(latent):
        return (latent - alpha * toy_denoise(latent)) / sigma

    degraded = mask * gaussian_blur(x0, 1.0) + (1 - mask) * x0
    x_bar = alpha * degraded + sigma * eps(x)
    expected_eps = eps(x_bar) + (1 + s) * (eps(x) - eps(x_bar))
    expected = (x - sigma * expected_eps) / alpha
    got = self_attention_guidance(x0, x, x0, mask, toy_denoise, scale=s, alpha=alpha)
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)


def test_joins_classifier_free_guidance_as_a_further_term():
    x, cond, _ = latents(1, 4, 8, 8)
    uncond = toy_denoise(x)
    cfg = uncond + 7 * (cond - uncond)
    mask = half_mask(x)
    alone = self_attention_guidance(uncond, x, uncond, mask, toy_denoise)
    torch.testing.assert_close(self_attention_guidance(cfg, x, uncond, mask, toy_denoise) - cfg, alone - uncond)


def test_scale_zero_is_the_prediction_itself_and_calls_no_model():
    x, x0, denoised = latents(1, 4, 8, 8)
    assert self_attention_guidance(denoised, x, x0, half_mask(x0), None, scale=0) is denoised
    assert self_attention_guidance(denoised, x, x0, half_mask(x0), None, blur_sigma=0) is denoised


def test_the_model_is_called_once_and_only_where_the_mask_is_set_the_input_changes():
    x, x0, denoised = latents(1, 4, 8, 8)
    seen = []
    self_attention_guidance(denoised, x, x0, half_mask(x0), lambda x_bar: seen.append(x_bar) or x_bar, alpha=0.5)
    assert len(seen) == 1
    assert torch.equal(seen[0][..., 4:], x[..., 4:])
    torch.testing.assert_close(seen[0][..., :4], (x + 0.5 * (gaussian_blur(x0, 1.0) - x0))[..., :4])


def test_alpha_may_differ_from_sample_to_sample():
    x, x0, denoised = latents(2, 4, 8, 8)
    alpha = torch.tensor([0.2, 0.9]).reshape(2, 1, 1, 1)
    both = self_attention_guidance(denoised, x, x0, half_mask(x0), toy_denoise, alpha=alpha)
    for i in range(2):
        one = [t[i : i + 1] for t in (denoised, x, x0, half_mask(x0))]
        torch.testing.assert_close(
            both[i : i + 1], self_attention_guidance(*one, toy_denoise, alpha=alpha[i].item()), rtol=1e-5, atol=1e-6
        )


def test_nothing_is_written_to_and_dtype_is_kept():
    for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        tensors = [t.to(dtype) for t in latents(1, 4, 8, 8)]
        tensors.append(half_mask(tensors[0]))
        before = [t.clone() for t in tensors]
        guided = self_attention_guidance(*tensors, toy_denoise, alpha=torch.ones(1, 1, 1, 1))
        assert guided.dtype == dtype
        assert all(torch.equal(a, b) for a, b in zip(tensors, before))


@pytest.mark.parametrize(
    "change, message",
    [
        ({"x": torch.zeros(1, 4, 8, 9)}, r"x must have the shape of denoised, \(1, 4, 8, 8\), got \(1, 4, 8, 9\)"),
        ({"x0": torch.zeros(1, 4, 8, 8).int()}, "x0 must be a floating-point tensor"),
        ({"denoised": torch.zeros(4, 8, 8)}, "denoised must have 4 or 5 axes"),
        ({"mask": torch.zeros(1, 1, 4, 4)}, "mask must broadcast to"),
        ({"mask": torch.zeros(2, 1, 8, 8)}, "mask must broadcast to"),
        ({"scale": float("nan")}, "scale must be a finite number"),
        ({"blur_sigma": -1.0}, "blur_sigma must lie in"),
        ({"alpha": float("inf")}, "alpha must be a finite number"),
        ({"alpha": torch.ones(3, 1, 1, 1)}, "alpha must broadcast to"),
        ({"denoise": lambda x: x[:, :2]}, "the result of denoise must have the shape of x0"),
    ],
)
def test_says_what_does_not_fit(change, message):
    x, x0, denoised = latents(1, 4, 8, 8)
    arguments = {"denoised": denoised, "x": x, "x0": x0, "mask": half_mask(x0), "denoise": toy_denoise, **change}
    with pytest.raises(ValueError, match=message):
        self_attention_guidance(**arguments)


@pytest.mark.parametrize(
    "wrong",
    [{"scale": float("nan")}, {"scale": "1"}, {"blur_sigma": -0.1}, {"blur_sigma": float("inf")}, {"scale": True}],
)
def test_settings_name_the_input_to_change(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Settings(**wrong)
