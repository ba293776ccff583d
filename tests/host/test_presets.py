"""The presets "paper ADM", "diffusers" and "ComfyUI built-in" are what they name."""

import importlib

import pytest
import torch
from by_hand import guide_noise
from comfy_extras.nodes_sag import SelfAttentionGuidance
from reference import relative_error

SIZES = [(16, 16), (16, 24), (32, 8)]  # multiples of 64 pixels


@pytest.fixture(scope="module")
def preset(node_classes):
    """A model guided by the node, and the settings that stand behind it."""
    node = node_classes["SAGPreset"]
    presets = importlib.import_module(node.__module__).PRESETS
    return lambda model, name: (node.execute(model=model, preset=name).args[0], presets[name])


def sample(host, model, size, **how):
    positive, negative = host.conditioning(seed=1), host.conditioning(seed=2)
    return host.sample(model, positive, negative, torch.zeros(2, 4, *size), **{"steps": 2, "cfg": 4.0, **how})


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("name", ["ComfyUI built-in", "diffusers"])
def test_agree_with_the_hosts_own_node(host, preset, name, size):
    model = host.unet()
    guided, settings = preset(model, name)
    theirs = SelfAttentionGuidance.execute(model, settings["scale"], settings["blur_sigma"]).args[0]
    expected = sample(host, theirs, size)
    assert relative_error(sample(host, guided, size), expected) < 1e-4
    assert relative_error(sample(host, model, size), expected) > 1e-3


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_diffusers_is_its_rule_in_predicted_noise(host, preset, size):
    model = host.unet()
    expected = guide_noise(model, 0.75, 1.0, 9, lambda net: [net.middle_block[1].transformer_blocks[0]])
    ours = sample(host, preset(model, "diffusers")[0], size)
    assert relative_error(ours, sample(host, expected, size)) < 1e-4


def test_paper_adm_is_the_papers_rule_at_output_block_2(host, preset):
    """The authors' settings for ImageNet 256, unconditional, but for their models: those are not ComfyUI's."""
    model = host.unet()
    expected = guide_noise(model, 0.5, 9.0, 31, lambda net: [net.output_blocks[2][1].transformer_blocks[0]])
    ours = sample(host, preset(model, "paper ADM")[0], (32, 32))
    assert relative_error(ours, sample(host, expected, (32, 32))) < 1e-4
    assert relative_error(ours, sample(host, model, (32, 32))) > 1e-3


def test_default_is_the_plain_node(host, guide, preset):
    model = host.unet()
    assert sample(host, preset(model, "default")[0], (16, 16)).equal(sample(host, guide(model), (16, 16)))
