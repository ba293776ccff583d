"""The author's own Self-Attention Guidance, diffusers' StableDiffusionSAGPipeline, around the demo model."""

import pytest
import torch

INSTALL = "the author's pipeline needs: pip install diffusers transformers"
diffusers = pytest.importorskip("diffusers", reason=INSTALL)
pytest.importorskip("transformers", reason=INSTALL)
if not hasattr(diffusers, "StableDiffusionSAGPipeline"):
    pytest.skip(f"diffusers {diffusers.__version__} is without the author's pipeline", allow_module_level=True)

from demo import checkpoint  # noqa: E402
from demo.engine import Engine, schedule_of  # noqa: E402
from demo.guidance import SelfAttentionGuidance  # noqa: E402

SAME = 1e-3  # of latents with a standard deviation of about 1
CLEAR = 3e-5  # closer to the hard threshold than this, float noise may decide whether a token is blurred


def demo_engine():
    return Engine(checkpoint.load())


def author_latents(engine, noise, texts, *, steps, cfg=1.0, scale=0.75):
    """The noisy pictures that every step leaves, each (b, 3, h, w); the arguments are those of `Engine.sample`."""
    pipeline = diffusers.StableDiffusionSAGPipeline(
        unet=engine.unet,
        scheduler=schedule_of(engine.architecture),
        # Embeddings and noise come ready made, and latents are all that is asked for.
        vae=None,
        text_encoder=None,
        tokenizer=None,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    latents = []
    pipeline(
        prompt_embeds=engine.embed(texts),
        negative_prompt_embeds=engine.embed([""] * len(texts)),
        latents=noise,
        num_inference_steps=steps,
        guidance_scale=cfg,
        sag_scale=scale,
        output_type="latent",
        callback=lambda step, timestep, x: latents.append(x),
    )
    return latents


def worst(ours, authors):
    """The largest absolute difference at each step."""
    assert len(ours) == len(authors)
    return torch.stack([(mine - theirs).abs().max() for mine, theirs in zip(ours, authors)])


def clear_seed(engine, draw, texts, first, *, steps, cfg, scale=0.75, **settings):
    """The first seed from `first` on whose run, guided by us, keeps all attention clear of the threshold 1.

    Args:
        draw: the noise of a seed, (b, 3, h, w).
        texts, steps, cfg: as `Engine.sample`; scale, settings: as `SelfAttentionGuidance`.
    """
    received = []

    class Watched(SelfAttentionGuidance):
        def __call__(self, step):
            received.append(self._recorder.received[step.branch])
            return super().__call__(step)

    for seed in range(first, first + 20):
        received.clear()
        with Watched(engine.unet, scale, **settings) as guidance:
            engine.sample(draw(seed), texts, steps=steps, cfg=cfg, guidance=guidance)
        if min((tokens - 1).abs().min() for tokens in received) > CLEAR:
            return seed
    raise AssertionError(f"attention comes within {CLEAR} of the threshold at every seed from {first} on")
