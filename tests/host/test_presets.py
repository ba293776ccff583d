"""The settings that README calls "paper ADM", "diffusers" and "ComfyUI built-in" are what they name."""

import pytest
import torch
from by_hand import guide_noise
from comfy_extras.nodes_sag import SelfAttentionGuidance
from reference import relative_error

PAPER_ADM = {"scale": 0.5, "blur_sigma": 9.0, "blur_kernel": 31, "attention_blocks": "output.2"}
DIFFUSERS = {"scale": 0.75, "blur_sigma": 1.0, "blur_kernel": 9}
BUILT_IN = {"scale": 0.5, "blur_sigma": 2.0, "blur_kernel": 9, "branch": "unconditional"}
SIZES = [(16, 16), (16, 24), (32, 8)]  # multiples of 64 pixels


def sample(host, model, size, **how):
    positive, negative = host.conditioning(seed=1), host.conditioning(seed=2)
    return host.sample(model, positive, negative, torch.zeros(2, 4, *size), **{"steps": 2, "cfg": 4.0, **how})


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
    expected = guide_noise(model, 0.75, 1.0, 9, lambda net: [net.middle_block[1].transformer_blocks[0]])
    ours = sample(host, advanced(model, **DIFFUSERS), size)
    assert relative_error(ours, sample(host, expected, size)) < 1e-4


def test_paper_adm_is_the_papers_rule_at_output_block_2(host, advanced):
    """The authors' settings for ImageNet 256, unconditional, but for their models: those are not ComfyUI's."""
    model = host.unet()
    expected = guide_noise(model, 0.5, 9.0, 31, lambda net: [net.output_blocks[2][1].transformer_blocks[0]])
    ours = sample(host, advanced(model, **PAPER_ADM), (32, 32))
    assert relative_error(ours, sample(host, expected, (32, 32))) < 1e-4
    assert relative_error(ours, sample(host, model, (32, 32))) > 1e-3
