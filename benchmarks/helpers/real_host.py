"""Small random-weight models built from ComfyUI's own classes, and its own samplers around them."""

from contextlib import contextmanager

import comfy.model_base
import comfy.model_management
import comfy.model_patcher
import comfy.sample
import comfy.samplers
import comfy.supported_models
import torch
from comfyui_version import __version__

MODEL_TYPES = {"eps": "EPS", "v": "V_PREDICTION", "flow": "FLOW", "edm": "EDM"}
FAMILIES = {
    # family: (configuration, model, transformer depth of the middle, further network arguments)
    "sd15": (comfy.supported_models.SD15, comfy.model_base.BaseModel, 1, {}),
    "sd2": (comfy.supported_models.SD20, comfy.model_base.BaseModel, 1, {"use_linear_in_transformer": True}),
    "sdxl": (comfy.supported_models.SDXL, comfy.model_base.SDXL, 3, {"adm_in_channels": 2816}),
    "refiner": (comfy.supported_models.SDXLRefiner, comfy.model_base.SDXLRefiner, 2, {"adm_in_channels": 2560}),
    "ssd1b": (comfy.supported_models.SSD1B, comfy.model_base.SDXL, -1, {"adm_in_channels": 2816}),
    "vega": (comfy.supported_models.Segmind_Vega, comfy.model_base.SDXL, -1, {"adm_in_channels": 2816}),
}


class RealHost:
    name = f"ComfyUI {__version__}"

    def unet(
        self,
        *,
        family="sd15",
        channels=32,
        channel_mult=(1, 2),
        depth=(1, 1),
        depth_middle=None,
        context_dim=16,
        prediction="eps",
        dtype=torch.float32,
        seed=0,
        in_channels=4,
    ):
        """A ModelPatcher around a small UNet whose attention is far from uniform."""
        config_class, model_class, middle, more = FAMILIES[family]
        if "adm_in_channels" in more:
            more = {**more, "num_classes": "sequential", "use_linear_in_transformer": True}
        config = config_class(
            {
                "image_size": 32,
                "in_channels": in_channels,
                "out_channels": 4,
                "model_channels": channels,
                "num_res_blocks": [1] * len(channel_mult),
                "channel_mult": list(channel_mult),
                "transformer_depth": list(depth),
                "transformer_depth_output": [d for d in depth for _ in range(2)],
                "transformer_depth_middle": middle if depth_middle is None else depth_middle,
                "context_dim": context_dim,
                "use_spatial_transformer": True,
                "legacy": False,
                **more,
            }
        )
        config.set_inference_dtype(dtype, None)
        config.unet_config["num_heads"], config.unet_config["num_head_channels"] = -1, 16
        torch.manual_seed(seed)
        model = model_class(config, model_type=getattr(comfy.model_base.ModelType, MODEL_TYPES[prediction]))
        randomise(model.diffusion_model, seed)
        if in_channels > 4:
            model.set_inpaint()
        device = torch.device("cpu")
        return comfy.model_patcher.ModelPatcher(model, load_device=device, offload_device=device)

    def conditioning(self, *, tokens=8, dim=16, batch=1, seed=0, **extras):
        noise = torch.Generator().manual_seed(seed)
        pooled = torch.randn(batch, 1280, generator=noise)
        return [[torch.randn(batch, tokens, dim, generator=noise), {"pooled_output": pooled, **extras}]]

    @torch.inference_mode()  # as ComfyUI runs its nodes
    def sample(
        self, model, positive, negative, latent, *, cfg=7.0, steps=2, sampler="euler", scheduler="normal", seed=0,
        guider="cfg", noise_mask=None, denoise=1.0,
    ):  # fmt: skip
        """What KSampler (guider "cfg") or SamplerCustomAdvanced with a BasicGuider ("basic") make of a latent."""
        noise = comfy.sample.prepare_noise(latent, seed)
        if guider == "cfg":
            return comfy.sample.sample(
                model, noise, steps, cfg, sampler, scheduler, positive, negative, latent, denoise=denoise,
                noise_mask=noise_mask, disable_pbar=True, seed=seed,
            )  # fmt: skip
        from comfy_extras.nodes_custom_sampler import Guider_Basic

        basic = Guider_Basic(model)
        basic.set_conds(positive)
        sigmas = comfy.samplers.calculate_sigmas(model.get_model_object("model_sampling"), scheduler, steps)
        chosen = comfy.samplers.sampler_object(sampler)
        return basic.sample(noise, latent, chosen, sigmas, denoise_mask=noise_mask, disable_pbar=True, seed=seed)

    @contextmanager
    def free_memory(self, amount):
        """Let the host believe that so much memory is free: little memory makes it evaluate entries one by one."""

        def free(device=None, torch_free_too=False):
            return (amount, amount) if torch_free_too else amount

        real = comfy.model_management.get_free_memory
        patcher = comfy.model_patcher.ModelPatcher
        own = patcher.__dict__.get("get_free_memory")
        comfy.model_management.get_free_memory = free
        if own is not None:
            patcher.get_free_memory = lambda self, device: amount
        try:
            yield
        finally:
            comfy.model_management.get_free_memory = real
            if own is not None:
                patcher.get_free_memory = own


def randomise(network, seed):
    """Fill a network with weights that keep its signal alive and make its attention pick out some tokens."""
    noise = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in network.named_parameters():
            if weight.ndim < 2:
                value = torch.ones(weight.shape) if name.endswith("weight") else torch.zeros(weight.shape)
                value = value + 0.1 * torch.randn(weight.shape, generator=noise)
            else:
                value = torch.randn(weight.shape, generator=noise) * weight[0].numel() ** -0.5
                if ".to_q." in name or ".to_k." in name:
                    value = value * 2
            weight.copy_(value.to(weight.dtype))
