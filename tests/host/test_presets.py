"""The settings that docs/presets.md calls "paper ADM", "diffusers" and "ComfyUI built-in" are what they name."""

import comfy.samplers
import pytest
import torch
import torch.nn.functional as F
from comfy_extras.nodes_sag import SelfAttentionGuidance
from reference import read_attention, relative_error

PAPER_ADM = {"scale": 0.5, "blur_sigma": 9.0, "blur_kernel": 31, "attention_blocks": "output.2"}
DIFFUSERS = {"scale": 0.75, "blur_sigma": 1.0, "blur_kernel": 9}
BUILT_IN = {"scale": 0.5, "blur_sigma": 2.0, "blur_kernel": 9, "branch": "unconditional"}
SIZES = [(16, 16), (16, 24), (32, 8)]  # multiples of 64 pixels


def sample(host, model, size, **how):
    positive, negative = host.conditioning(seed=1), host.conditioning(seed=2)
    return host.sample(model, positive, negative, torch.zeros(2, 4, *size), **{"steps": 2, "cfg": 4.0, **how})


def blur(x, size, sigma):
    """A square kernel at once, the border reflected as torch does it."""
    offsets = torch.arange(size) - size // 2
    taps = torch.exp(-(offsets**2) / (2 * sigma**2))
    kernel = torch.outer(taps, taps) / taps.sum() ** 2
    padded = F.pad(x, (size // 2,) * 4, mode="reflect")
    return F.conv2d(padded, kernel.expand(x.shape[1], 1, size, size), groups=x.shape[1])


def guide_noise(model, scale, sigma, size, attention):
    """SAG as the paper and diffusers write it, in predicted noise: eps + s * (eps(x) - eps(x_bar))."""
    guided = model.clone()

    def post_cfg(args):
        x, x0, at = args["input"], args["uncond_denoised"], args["sigma"].reshape(-1, 1, 1, 1)

        def uncond(latent):
            conds = [None, args["uncond"]]
            return comfy.samplers.calc_cond_batch(args["model"], conds, latent, args["sigma"], args["model_options"])[1]

        received, (gh, gw) = read_attention(attention(args["model"].diffusion_model), lambda: uncond(x))
        mask = (received > 1.0).float().reshape(-1, 1, gh, gw)
        mask = F.interpolate(mask, x.shape[2:], mode="nearest")
        noise = (x - x0) / at
        degraded = mask * blur(x0, size, sigma) + (1 - mask) * x0
        x_bar = degraded + at * noise
        noise_bar = (x_bar - uncond(x_bar)) / at
        guided_noise = (x - args["denoised"]) / at + scale * (noise - noise_bar)
        return x - at * guided_noise

    guided.set_model_sampler_post_cfg_function(post_cfg)
    return guided


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("preset", [BUILT_IN, {**DIFFUSERS, "branch": "auto"}], ids=["ComfyUI built-in", "diffusers"])
def test_agree_with_the_hosts_own_node(host, advanced, preset, size):
    model = host.unet()
    theirs = SelfAttentionGuidance.execute(model, preset["scale"], preset["blur_sigma"]).args[0]
    expected = sample(host, theirs, size)
    assert relative_error(sample(host, advanced(model, **preset), size), expected) < 1e-4
    assert relative_error(sample(host, model, size), expected) > 1e-3


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_diffusers_is_its_rule_in_predicted_noise(host, advanced, size):
    model = host.unet()
    expected = guide_noise(model, 0.75, 1.0, 9, lambda net: net.middle_block[1].transformer_blocks[0].attn1)
    ours = sample(host, advanced(model, **DIFFUSERS), size)
    assert relative_error(ours, sample(host, expected, size)) < 1e-4


def test_paper_adm_is_the_papers_rule_at_output_block_2(host, advanced):
    """The authors' settings for ImageNet 256, unconditional, but for their models: those are not ComfyUI's."""
    model = host.unet()
    expected = guide_noise(model, 0.5, 9.0, 31, lambda net: net.output_blocks[2][1].transformer_blocks[0].attn1)
    ours = sample(host, advanced(model, **PAPER_ADM), (32, 32))
    assert relative_error(ours, sample(host, expected, (32, 32))) < 1e-4
    assert relative_error(ours, sample(host, model, (32, 32))) > 1e-3
