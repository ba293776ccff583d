"""The demo model as ComfyUI's own objects: its UNet in a ModelPatcher, and what goes with it into a sampler."""

from typing import Any

import comfy.latent_formats
import comfy.model_management
import comfy.model_patcher
import comfy.sd
import comfy.supported_models_base
import comfy.utils
import torch

from ...demo.checkpoint import Architecture, Checkpoint


class DemoConfig(comfy.supported_models_base.BASE):
    """The demo model as one of the host's model families: noise prediction on pixels, -1..1."""

    unet_extra_config: dict[str, Any] = {}
    latent_format = comfy.latent_formats.ChromaRadiance  # any RGB picture, unscaled, a pixel for a pixel

    def __init__(self, architecture: Architecture) -> None:
        coarser = len(architecture.channels) - 1
        super().__init__(
            {
                "image_size": architecture.size,
                "in_channels": 3,
                "out_channels": 3,
                "model_channels": architecture.channels[0],
                "channel_mult": [channels // architecture.channels[0] for channels in architecture.channels],
                "num_res_blocks": [1] * (coarser + 1),
                "transformer_depth": [0] * coarser + [1],
                "transformer_depth_middle": 1,
                "transformer_depth_output": [0, 0] * coarser + [1, 1],
                "use_spatial_transformer": True,
                "context_dim": architecture.token_width,
                "num_heads": architecture.heads,
                "num_head_channels": -1,
                "legacy": False,
            }
        )
        self.sampling_settings.update(linear_start=architecture.beta_start, linear_end=architecture.beta_end)


def model_of(checkpoint: Checkpoint) -> comfy.model_patcher.ModelPatcher:
    """The UNet as the host's loaders give it: their choice of device and number format (float32 on the CPU).

    Raises:
        RuntimeError: the weights are not exactly those of the architecture that their file names.
    """
    config = DemoConfig(checkpoint.architecture)
    device, formats = comfy.model_management.get_torch_device(), config.supported_inference_dtypes
    size = sum(weight.numel() for weight in checkpoint.unet.values())
    dtype = comfy.model_management.unet_dtype(device, model_params=size, supported_dtypes=formats)
    config.set_inference_dtype(dtype, comfy.model_management.unet_manual_cast(dtype, device, formats))
    names = comfy.utils.unet_to_diffusers(config.unet_config)
    weights = {names.get(name, name): weight for name, weight in checkpoint.unet.items()}
    model = config.get_model(weights)
    try:
        model.diffusion_model.load_state_dict(weights)
    except RuntimeError as error:
        raise RuntimeError(f"the demo model's weights do not fit the architecture in their file: {error}") from error
    offload_device = comfy.model_management.unet_offload_device()
    # Not the patcher of newer hosts that streams weights: there is nothing to save on a model this small.
    patcher = comfy.model_patcher.ModelPatcher(model.to(offload_device), device, offload_device)
    patcher.cached_patcher_init = (model_of, (checkpoint,))  # how newer hosts make its twin for another GPU
    return patcher


def conditioning(checkpoint: Checkpoint, tokens: tuple[int, int]) -> list[list[Any]]:
    """A prompt's tokens as CONDITIONING, (1, 2, token_width)."""
    rows = torch.tensor([tokens])
    return [[checkpoint.token_table[rows], {}]]


def empty_latent(checkpoint: Checkpoint, batch_size: int) -> dict[str, torch.Tensor]:
    """Zeros as LATENT, (b, 3, h, w): what a sampler draws as many pictures from."""
    shape = batch_size, 3, checkpoint.architecture.size, checkpoint.architecture.size
    return {"samples": torch.zeros(shape, device=comfy.model_management.intermediate_device())}


def pixel_vae() -> comfy.sd.VAE:
    """The host's VAE of models that work on pixels: it maps 0..1 to -1..1, and back."""
    # float32: what the host takes on many devices, bfloat16, has too few levels of colour.
    return comfy.sd.VAE({"pixel_space_vae": torch.tensor(1.0)}, dtype=torch.float32)
