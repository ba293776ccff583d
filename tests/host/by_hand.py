"""SAG as the paper and diffusers write it, in predicted noise: eps + s * (eps(x) - eps(x_bar))."""

import comfy.samplers
import torch
import torch.nn.functional as F
from reference import read_attention


def blur(x, size, sigma):
    """A square kernel at once, the border reflected as torch does it."""
    offsets = torch.arange(size) - size // 2
    taps = torch.exp(-(offsets**2) / (2 * sigma**2))
    kernel = torch.outer(taps, taps) / taps.sum() ** 2
    padded = F.pad(x, (size // 2,) * 4, mode="reflect")
    return F.conv2d(padded, kernel.expand(x.shape[1], 1, size, size), groups=x.shape[1])


def guide_noise(model, scale, sigma, size, blocks):
    """A clone of `model`, guided by the attention of `blocks(network)`, averaged on the first block's grid."""
    guided = model.clone()

    def post_cfg(args):
        x, x0, at = args["input"], args["uncond_denoised"], args["sigma"].reshape(-1, 1, 1, 1)

        def uncond(latent):
            conds = [None, args["uncond"]]
            return comfy.samplers.calc_cond_batch(args["model"], conds, latent, args["sigma"], args["model_options"])[1]

        maps = []
        for block in blocks(args["model"].diffusion_model):
            received, (gh, gw) = read_attention(block, lambda: uncond(x))
            maps.append(received.reshape(-1, 1, gh, gw))
        maps = [F.interpolate(one, maps[0].shape[2:], mode="nearest") for one in maps]
        mask = F.interpolate((sum(maps) / len(maps) > 1.0).float(), x.shape[2:], mode="nearest")
        noise = (x - x0) / at
        degraded = mask * blur(x0, size, sigma) + (1 - mask) * x0
        x_bar = degraded + at * noise
        noise_bar = (x_bar - uncond(x_bar)) / at
        guided_noise = (x - args["denoised"]) / at + scale * (noise - noise_bar)
        return x - at * guided_noise

    guided.set_model_sampler_post_cfg_function(post_cfg)
    return guided
