"""The node inside ComfyUI, on trained weights, against the author's diffusers pipeline and ComfyUI's built-in node."""

from functools import partial

import comfy.sample
import comfy.samplers
import pytest
import torch
from author_pipeline import SAME, author_latents, clear_seed, demo_engine, worst

TEXTS = ["a red apple"] * 2


@pytest.fixture(scope="module")
def engine():
    return demo_engine()


@pytest.fixture(scope="module")
def demo(node_classes):
    """MODEL, positive, negative, LATENT and VAE of the demo node."""
    return node_classes["SAGDemoModel"].execute(prompt=TEXTS[0], negative_prompt="", batch_size=len(TEXTS)).args


@torch.inference_mode()
def host_latents(demo, model, seed, *, steps, cfg, sampler="euler"):
    """The noisy pictures that every step leaves, each (b, 3, h, w), scaled as diffusers does: of variance about 1."""
    _, positive, negative, empty, _ = demo
    before = []
    last = comfy.sample.sample(
        model, noise_of(demo, seed), steps, cfg, sampler, "simple", positive, negative, empty["samples"],
        callback=lambda step, x0, x, total: before.append(x.clone()), disable_pbar=True, seed=seed,
    )  # fmt: skip
    sigmas = comfy.samplers.calculate_sigmas(model.get_model_object("model_sampling"), "simple", steps)
    return [x / (1 + sigma**2) ** 0.5 for x, sigma in zip([*before[1:], last], sigmas[1:])]


def noise_of(demo, seed):
    return comfy.sample.prepare_noise(demo[3]["samples"], seed)


@pytest.mark.parametrize("steps, seed, sampler", [(4, 0, "euler"), (8, 40, "ddim")])
@pytest.mark.parametrize("cfg", [3.0, 1.0])
@pytest.mark.parametrize("scale", [0.75, 0.3, 0.0])
def test_every_step_equals_the_authors_pipeline(demo, engine, guide, scale, cfg, steps, seed, sampler):
    how = {"steps": steps, "cfg": cfg}
    seed = clear_seed(engine, partial(noise_of, demo), TEXTS, seed, scale=scale, **how)
    authors = author_latents(engine, noise_of(demo, seed), TEXTS, scale=scale, **how)
    ours = host_latents(demo, guide(demo[0], scale=scale), seed, sampler=sampler, **how)
    assert len(ours) == steps
    assert worst(ours, authors).max() <= SAME


@pytest.mark.parametrize("cfg", [3.0, 1.0])
@pytest.mark.parametrize("wrong", [{"scale": 0.0}, {"scale": 0.7}, {"mask_threshold": 1.1}, {"blur_sigma": 1.2}])
def test_other_settings_do_not_pass_for_the_authors(demo, engine, advanced, wrong, cfg):
    authors = author_latents(engine, noise_of(demo, 0), TEXTS, steps=2, cfg=cfg)
    ours = host_latents(demo, advanced(demo[0], **wrong), 0, steps=2, cfg=cfg)
    assert worst(ours, authors).max() > SAME


@pytest.mark.parametrize("scale, blur_sigma", [(0.75, 1.0), (0.5, 2.0), (-0.5, 1.0)])
def test_every_step_equals_the_built_in_node(demo, engine, advanced, scale, blur_sigma):
    from comfy_extras.nodes_sag import SelfAttentionGuidance

    theirs = SelfAttentionGuidance.execute(demo[0], scale, blur_sigma).args[0]
    ours = advanced(demo[0], scale=scale, blur_sigma=blur_sigma, blur_kernel=9)
    how = {"steps": 4, "cfg": 3.0}
    for first in (0, 40):
        seed = clear_seed(engine, partial(noise_of, demo), TEXTS, first, scale=scale, blur_sigma=blur_sigma, **how)
        results = [host_latents(demo, model, seed, **how) for model in (ours, theirs, demo[0])]
        assert worst(results[0], results[1]).max() <= 1e-4
        assert worst(results[2], results[1]).max() > 1e-2
