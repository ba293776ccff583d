"""Context windows against a slow second computation: the map of every window, laid over the frames by its weights."""

import comfy.samplers
import pytest
import torch
from attention_calls import attention_calls, received_by_brute_force
from contract import WHOLE_RUN
from families import FAMILIES, build, conditioning
from graphs import windows
from reference import blur, relative_error

FAMILY = next(family for family in FAMILIES if family.name == "Wan 2.1 text to video")
BLOCKS = list(FAMILY.chosen.values())  # which attention calls of a forward pass are read
ROWS, COLUMNS = FAMILY.grid[1:]


def guide_by_frames(model, frames, weights, scale=0.75, blur_sigma=1.0):
    """A clone that is guided by attention averaged frame by frame.

    Args:
        frames: of every window, in the order of evaluation, with the frames put before it as None.
        weights: of every frame of a window, in the same form.
    """
    guided = model.clone()

    def post_cfg(args):
        x, sigma, side = args["input"], args["sigma"], "uncond" if args["uncond"] else "cond"

        def evaluate(latent):
            conds = [None, args["uncond"]] if side == "uncond" else [args["cond"], None]
            out = comfy.samplers.calc_cond_batch(args["model"], conds, latent, sigma, args["model_options"])
            return out[side == "uncond"]

        with attention_calls(args["model"].diffusion_model) as passes:
            x0 = evaluate(x)
        assert len(passes) == len(frames)
        total, weight = torch.zeros_like(x[:, :1]), torch.zeros_like(x[:, :1])
        for calls, places, factors in zip(passes, frames, weights):
            image = len(places) * ROWS * COLUMNS
            received = sum(received_by_brute_force(calls[call], 0, image) for call in BLOCKS) / len(BLOCKS)
            received = received.reshape(-1, 1, len(places), ROWS, COLUMNS)
            received = received.repeat_interleave(2, -2).repeat_interleave(2, -1)[..., : x.shape[-2], : x.shape[-1]]
            for position, (frame, factor) in enumerate(zip(places, factors)):
                if frame is not None:
                    total[:, :, frame] += factor * received[:, :, position]
                    weight[:, :, frame] += factor
        mask = (total > weight).to(x.dtype)
        blurred = torch.stack([blur(frame, blur_sigma) for frame in x0.unbind(2)], dim=2)
        degraded = mask * blurred + (1 - mask) * x0
        at = sigma.reshape(-1, 1, 1, 1, 1)
        noise = (x - (1 - at) * x0) / at
        return args["denoised"] + scale * (degraded - evaluate((1 - at) * degraded + at * noise))

    guided.set_model_sampler_post_cfg_function(post_cfg)
    return guided


CASES = {
    "flat": (windows(3, 1), [[0, 1, 2], [2, 3, 4]], [[1, 1, 1]] * 2),
    "pyramid": (windows(3, 2, fuse="pyramid"), [[0, 1, 2], [1, 2, 3], [2, 3, 4]], [[1, 2, 1]] * 3),
    "relative": (
        windows(3, 2, fuse="relative"), [[0, 1, 2], [1, 2, 3], [2, 3, 4]], [[0.01, 1, 0.01]] * 3
    ),
    "a causal anchor": (
        windows(3, 1, causal_window_fix=True), [[0, 1, 2], [None, 2, 3, 4]], [[1, 1, 1], [0, 1, 1, 1]]
    ),
    "with the anchor as long as the whole": (
        windows(4, 3, causal_window_fix=True), [[0, 1, 2, 3], [None, 1, 2, 3, 4]], [[1] * 4, [0, 1, 1, 1, 1]]
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("cfg", [3.0, 1.0])
def test_windows_equal_the_maps_laid_together(host, guide, name, cfg):
    other, frames, weights = CASES[name]
    model = other(build(FAMILY))
    positive, negative = conditioning(FAMILY, seed=1), conditioning(FAMILY, seed=2)
    start = torch.zeros(1, FAMILY.latent[0], 5, *FAMILY.latent[2:])
    plain, ours, expected = (
        host.sample(one, positive, negative, start, steps=2, cfg=cfg, scheduler="simple")
        for one in (model, guide(model), guide_by_frames(model, frames, weights))
    )
    assert relative_error(expected, plain) > 1e-3
    assert relative_error(ours, expected) < WHOLE_RUN
