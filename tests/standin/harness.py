"""The stand-in host behind the interface that the adapter's tests use; a twin drives a real ComfyUI the same way."""

from contextlib import contextmanager

import torch
from comfy import model_sampling, samplers
from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel
from comfy.model_base import BaseModel, ModelType
from comfy.model_patcher import ModelPatcher

_PREDICTION = {
    "eps": (model_sampling.ModelSamplingDiscrete, model_sampling.EPS),
    "v": (model_sampling.ModelSamplingDiscrete, model_sampling.V_PREDICTION),
    "x0": (model_sampling.ModelSamplingDiscrete, model_sampling.X0),
    "flow": (model_sampling.ModelSamplingDiscreteFlow, model_sampling.CONST),
}


class StandInHost:
    name = "stand-in"

    def unet(
        self,
        *,
        channels=32,
        channel_mult=(1, 2),
        depth=(1, 1),
        depth_middle=1,
        context_dim=16,
        prediction="eps",
        dtype=torch.float32,
        seed=0,
    ):
        """A UNet with random weights; depth holds each level's number of transformer blocks."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network = UNetModel(
                model_channels=channels,
                channel_mult=channel_mult,
                transformer_depth=depth,
                transformer_depth_middle=depth_middle,
                context_dim=context_dim,
            )
        with torch.no_grad():
            for name, weight in network.named_parameters():
                if name.endswith(("to_q.weight", "to_k.weight")):
                    weight *= 3.0  # logits with a spread of about 3: attention far from uniform
        sampling = type("ModelSampling", _PREDICTION[prediction], {})()
        model_type = {"v": ModelType.V_PREDICTION, "flow": ModelType.FLOW}.get(prediction, ModelType.EPS)
        return ModelPatcher(BaseModel(network, sampling, dtype, model_type))

    def conditioning(self, *, tokens=8, dim=16, batch=1, seed=0, **extras):
        return [[torch.randn(batch, tokens, dim, generator=torch.Generator().manual_seed(seed)), extras]]

    def sample(
        self,
        model,
        positive,
        negative,
        latent,
        *,
        cfg=7.0,
        steps=2,
        sampler="euler",
        scheduler="normal",
        seed=0,
        guider="cfg",
        noise_mask=None,
    ):
        """Denoise `latent` (b, c, h, w) from full noise; without a negative, or with guider "basic", on one branch."""
        run = samplers.CFGGuider(model)
        if negative is None or guider == "basic":
            run.inner_set_conds({"positive": positive})
        else:
            run.set_conds(positive, negative)
            run.set_cfg(cfg)
        noise = torch.randn(latent.shape, generator=torch.Generator().manual_seed(seed)).to(latent.dtype)
        sigmas = samplers.calculate_sigmas(model.get_model_object("model_sampling"), scheduler, steps)
        with torch.inference_mode():  # as the host runs its nodes
            samples = run.sample(noise, latent, samplers.ksampler(sampler), sigmas, denoise_mask=noise_mask, seed=seed)
        return samples.clone()

    @contextmanager
    def free_memory(self, bytes_or_None):
        """Pretend that this many bytes are free, so that the host splits its batches; None: as much as it wants."""
        before = ModelPatcher.free_memory
        ModelPatcher.free_memory = float("inf") if bytes_or_None is None else bytes_or_None
        try:
            yield
        finally:
            ModelPatcher.free_memory = before
