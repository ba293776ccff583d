"""Latents of several streams in one tensor, (b, 1, all their values)."""

import math

import torch


def pack_latents(latents):
    packed = torch.cat([latent.flatten(1)[:, None] for latent in latents], -1)
    return packed, [latent.shape for latent in latents]


def unpack_latents(packed, shapes):
    streams = packed.split([math.prod(shape[1:]) for shape in shapes], -1)
    return [stream.reshape(len(stream), *shape[1:]) for stream, shape in zip(streams, shapes)]
