"""A tiny UNet with the block numbering and the option keys of Stable Diffusion's (same parameter names, too)."""

import math

import torch
import torch.nn.functional as F
from torch import nn

from comfy.ldm.modules.attention import SpatialTransformer
from comfy.patcher_extension import WrapperExecutor, WrappersMP, get_all_wrappers


class ResBlock(nn.Module):
    def __init__(self, channels, emb_channels, out_channels):
        super().__init__()
        self.in_layers = nn.Sequential(
            nn.GroupNorm(32, channels), nn.SiLU(), nn.Conv2d(channels, out_channels, 3, padding=1)
        )
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(emb_channels, out_channels))
        self.out_layers = nn.Sequential(
            nn.GroupNorm(32, out_channels),
            nn.SiLU(),
            nn.Identity(),
            nn.Conv2d(out_channels, out_channels, 3, padding=1),
        )
        self.skip_connection = nn.Identity() if channels == out_channels else nn.Conv2d(channels, out_channels, 1)

    def forward(self, x, emb):
        h = self.in_layers(x) + self.emb_layers(emb)[:, :, None, None]
        return self.skip_connection(x) + self.out_layers(h)


class Downsample(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.op = nn.Conv2d(channels, channels, 3, stride=2, padding=1)  # an odd size rounds up

    def forward(self, x):
        return self.op(x)


class Upsample(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x, output_shape):
        return self.conv(F.interpolate(x, size=output_shape[2:], mode="nearest"))


def timestep_embedding(timesteps, dim):
    frequencies = torch.exp(-math.log(10000) * torch.arange(dim // 2, device=timesteps.device) / (dim // 2))
    angles = timesteps[:, None].float() * frequencies
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


def _run(block, h, emb, context, transformer_options, output_shape=None):
    for layer in block:
        if isinstance(layer, ResBlock):
            h = layer(h, emb)
        elif isinstance(layer, SpatialTransformer):
            h = layer(h, context, transformer_options)
            transformer_options["transformer_index"] += 1
        elif isinstance(layer, Upsample):
            h = layer(h, output_shape)
        else:
            h = layer(h)
    return h


def _add_control(h, control, name):
    residual = control[name].pop() if control and control.get(name) else None
    return h if residual is None else h + residual


class UNetModel(nn.Module):
    """One residual block per level; transformer_depth gives each level's number of transformer blocks.

    transformer_depth_middle 0 leaves a transformer without attention, -1 a lone residual block, -2 no middle block.
    """

    def __init__(
        self,
        in_channels=4,
        model_channels=32,
        out_channels=4,
        channel_mult=(1, 2),
        transformer_depth=(1, 1),
        transformer_depth_middle=1,
        context_dim=16,
        num_heads=2,
    ):
        super().__init__()
        self.model_channels = model_channels
        emb_channels = model_channels * 4
        self.time_embed = nn.Sequential(
            nn.Linear(model_channels, emb_channels), nn.SiLU(), nn.Linear(emb_channels, emb_channels)
        )

        def stage(ch_in, ch_out, depth):
            layers = [ResBlock(ch_in, emb_channels, ch_out)]
            if depth > 0:
                layers.append(SpatialTransformer(ch_out, num_heads, ch_out // num_heads, depth, context_dim))
            return layers

        ch = model_channels
        self.input_blocks = nn.ModuleList([nn.Sequential(nn.Conv2d(in_channels, ch, 3, padding=1))])
        skips = [ch]
        for level, mult in enumerate(channel_mult):
            self.input_blocks.append(nn.Sequential(*stage(ch, mult * model_channels, transformer_depth[level])))
            ch = mult * model_channels
            skips.append(ch)
            if level < len(channel_mult) - 1:
                self.input_blocks.append(nn.Sequential(Downsample(ch)))
                skips.append(ch)

        middle = [ResBlock(ch, emb_channels, ch)]
        if transformer_depth_middle >= 0:
            middle += [
                SpatialTransformer(ch, num_heads, ch // num_heads, transformer_depth_middle, context_dim),
                ResBlock(ch, emb_channels, ch),
            ]
        self.middle_block = nn.Sequential(*middle) if transformer_depth_middle >= -1 else None

        self.output_blocks = nn.ModuleList()
        for level, mult in reversed(list(enumerate(channel_mult))):
            for i in range(2):
                layers = stage(ch + skips.pop(), mult * model_channels, transformer_depth[level])
                ch = mult * model_channels
                if level and i == 1:
                    layers.append(Upsample(ch))
                self.output_blocks.append(nn.Sequential(*layers))
        self.out = nn.Sequential(nn.GroupNorm(32, ch), nn.SiLU(), nn.Conv2d(ch, out_channels, 3, padding=1))

    def forward(self, x, timesteps=None, context=None, y=None, control=None, transformer_options={}, **kwargs):
        wrappers = get_all_wrappers(WrappersMP.DIFFUSION_MODEL, transformer_options)
        executor = WrapperExecutor.new_class_executor(self._forward, self, wrappers)
        return executor.execute(x, timesteps, context, y, control, transformer_options, **kwargs)

    def _forward(self, x, timesteps=None, context=None, y=None, control=None, transformer_options={}, **kwargs):
        transformer_options["original_shape"] = list(x.shape)
        transformer_options["transformer_index"] = 0
        patches = transformer_options.get("patches", {})
        emb = self.time_embed(timestep_embedding(timesteps, self.model_channels).to(x.dtype))

        h, skips = x, []
        for number, block in enumerate(self.input_blocks):
            transformer_options["block"] = ("input", number)
            h = _add_control(_run(block, h, emb, context, transformer_options), control, "input")
            for patch in patches.get("input_block_patch", []):
                h = patch(h, transformer_options)
            skips.append(h)

        transformer_options["block"] = ("middle", 0)
        if self.middle_block is not None:
            h = _run(self.middle_block, h, emb, context, transformer_options)
        h = _add_control(h, control, "middle")

        for number, block in enumerate(self.output_blocks):
            transformer_options["block"] = ("output", number)
            skip = _add_control(skips.pop(), control, "output")
            for patch in patches.get("output_block_patch", []):
                h, skip = patch(h, skip, transformer_options)
            size = skips[-1].shape if skips else None
            h = _run(block, torch.cat([h, skip], dim=1), emb, context, transformer_options, size)
        return self.out(h)
