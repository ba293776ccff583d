"""A diffusion network together with its schedule: apply_model takes noisy latents and returns x0."""

import math
from enum import Enum

import torch

import comfy.conds
from comfy.patcher_extension import WrapperExecutor, WrappersMP, get_all_wrappers


class ModelType(Enum):
    EPS = 1
    V_PREDICTION = 2
    FLOW = 6


class BaseModel(torch.nn.Module):
    memory_usage_factor = 1.0

    def __init__(self, diffusion_model, model_sampling, dtype=torch.float32, model_type=ModelType.EPS):
        super().__init__()
        self.diffusion_model = diffusion_model.to(dtype).requires_grad_(False).eval()
        self.model_sampling = model_sampling
        self.model_type = model_type
        self.dtype = dtype
        self.manual_cast_dtype = None
        self.current_patcher = None

    def get_dtype(self):
        return self.dtype

    def apply_model(self, x, t, c_concat=None, c_crossattn=None, control=None, transformer_options={}, **kwargs):
        wrappers = get_all_wrappers(WrappersMP.APPLY_MODEL, transformer_options)
        executor = WrapperExecutor.new_class_executor(self._apply_model, self, wrappers)
        return executor.execute(x, t, c_concat, c_crossattn, control, transformer_options, **kwargs)

    def _apply_model(self, x, t, c_concat=None, c_crossattn=None, control=None, transformer_options={}, **kwargs):
        dtype = self.manual_cast_dtype or self.dtype
        xc = self.model_sampling.calculate_input(t, x)
        if c_concat is not None:
            xc = torch.cat([xc, c_concat.to(xc)], dim=1)

        def cast(value):
            if isinstance(value, list):
                return [cast(item) for item in value]
            if not torch.is_tensor(value):
                return value
            return value.to(xc.device, None if value.dtype in (torch.int, torch.long) else dtype)

        # The copy keeps what the network writes into it (block, activations_shape) away from APPLY_MODEL wrappers.
        output = self.diffusion_model(
            xc.to(dtype),
            self.model_sampling.timestep(t).float(),
            context=cast(c_crossattn),
            control=control,
            transformer_options=transformer_options.copy(),
            **{name: cast(value) for name, value in kwargs.items()},
        )
        return self.model_sampling.calculate_denoised(t, output.float(), x)

    def extra_conds(self, **kwargs):
        """Turn what a conditioning entry holds into the model's inputs."""
        inputs = {
            "c_crossattn": (comfy.conds.CONDCrossAttn, kwargs.get("cross_attn")),
            "c_concat": (comfy.conds.CONDNoiseShape, kwargs.get("noise_concat")),
        }
        return {name: kind(value) for name, (kind, value) in inputs.items() if value is not None}

    def memory_required(self, input_shape, cond_shapes={}):
        return input_shape[0] * math.prod(input_shape[2:]) * 0.15 * self.memory_usage_factor * 1024**2

    def process_latent_in(self, latent):
        return latent

    def process_latent_out(self, latent):
        return latent

    def scale_latent_inpaint(self, sigma, noise, latent_image, **kwargs):
        return self.model_sampling.noise_scaling(sigma.view(-1, *[1] * (noise.ndim - 1)), noise, latent_image)
