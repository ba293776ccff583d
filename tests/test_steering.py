"""What the adapter hands to `steer`, on the stand-in host: by a sampler's own steps, and by what a watch was shown."""

import sys

import on_standin
import pytest
import torch

from sag_core import steer

SIZE = (12, 16)


def guided_steps(settings):
    """What the steps of a run gave to guidance, after another node's change, got from it, and showed a watch."""
    on_standin.node_classes()  # puts the stand-in in place
    from harness import StandInHost

    adapter, core = (sys.modules[f"pack_under_test.{name}"] for name in ("nodes.adapter", "sag_core"))
    host, before, after, seen = StandInHost(), [], [], []
    unet = host.unet()
    unet.set_model_sampler_post_cfg_function(lambda args: before.append(args) or 1.5 * args["denoised"])
    watch = adapter.Watch(lambda schedule: None, seen.append, lambda message: None, lambda: None)
    guided = adapter.guide_model(unet, core.Settings(**settings), watches=[watch])
    guided.set_model_sampler_post_cfg_function(lambda args: after.append(args) or args["denoised"])
    host.sample(guided, host.conditioning(seed=1), host.conditioning(seed=2), torch.zeros(1, 4, *SIZE), cfg=4.0)
    return before, after, seen


@pytest.mark.parametrize("mode", ["full", "partial"])
def test_rescale_holds_the_contrast_of_the_prompts_own_prediction(mode):
    how = {"rescale": 0.7, "rescale_mode": mode}
    before, after, seen = guided_steps(how)
    assert len(before) == len(after) == len(seen) == 2
    for given, guided, step in zip(before, after, seen):
        denoised = 1.5 * given["denoised"]
        expected = steer(denoised, step.term, step.scale, **how, reference=given["cond_denoised"])
        assert torch.equal(guided["denoised"], expected)
        assert not torch.equal(steer(denoised, step.term, step.scale, **how, reference=denoised), expected)


@pytest.mark.parametrize("mode", ["nearest", "bilinear"])
def test_coarser_maps_are_enlarged_as_the_map_is(mode):
    # The tokens of the first block are the latent's places, so that both maps are averaged on the latent itself.
    fine, coarse, both = (
        guided_steps({"attention_blocks": blocks, "mask_upsampling": mode})[2][0].attention
        for blocks in ("input.1", "middle.0", "input.1, middle.0")
    )
    assert not torch.allclose(fine, coarse, rtol=0.01)
    torch.testing.assert_close(both, (fine + coarse) / 2)
