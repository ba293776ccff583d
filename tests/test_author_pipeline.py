"""sag_core, plugged into a diffusers sampler, against the pipeline that the method's author wrote for diffusers."""

import pytest
import torch
from author_pipeline import SAME, author_latents, clear_seed, demo_engine, worst

from demo.guidance import SelfAttentionGuidance

TEXTS = ["a red apple", ""]


@pytest.fixture(scope="module")
def engine():
    return demo_engine()


def our_latents(engine, noise, texts, *, steps, cfg=1.0, scale=0.75, **settings):
    latents = []
    with SelfAttentionGuidance(engine.unet, scale, **settings) as guidance:
        engine.sample(noise, texts, steps=steps, cfg=cfg, guidance=guidance, on_step=latents.append)
    return latents


@pytest.mark.parametrize("steps, seed", [(4, 0), (8, 40)])
@pytest.mark.parametrize("cfg", [3.0, 1.0])
@pytest.mark.parametrize("scale", [0.75, 0.3, 0.0])
def test_every_step_equals_the_authors_pipeline(engine, scale, cfg, steps, seed):
    how = {"steps": steps, "cfg": cfg, "scale": scale}

    def draw(seed):
        return engine.noise(seed, len(TEXTS))

    noise = draw(clear_seed(engine, draw, TEXTS, seed, **how))
    ours, authors = our_latents(engine, noise, TEXTS, **how), author_latents(engine, noise, TEXTS, **how)
    assert len(ours) == steps
    assert worst(ours, authors).max() <= SAME


def test_also_where_pictures_are_not_square(engine):
    size = engine.architecture.size
    how = {"steps": 4, "cfg": 3.0}

    def draw(seed):
        return torch.randn(1, 3, size, size + size // 2, generator=torch.Generator().manual_seed(seed))

    noise = draw(clear_seed(engine, draw, ["duck"], 0, **how))
    ours, authors = (run(engine, noise, ["duck"], **how) for run in (our_latents, author_latents))
    assert worst(ours, authors).max() <= SAME


@pytest.mark.parametrize("cfg", [3.0, 1.0])
@pytest.mark.parametrize("wrong", [{"scale": 0.0}, {"scale": 0.7}, {"mask_threshold": 1.1}, {"blur_sigma": 1.2}])
def test_other_settings_do_not_pass_for_the_authors(engine, wrong, cfg):
    noise = engine.noise(0, len(TEXTS))
    authors = author_latents(engine, noise, TEXTS, steps=2, cfg=cfg)
    assert worst(our_latents(engine, noise, TEXTS, steps=2, cfg=cfg, **wrong), authors).max() > SAME
