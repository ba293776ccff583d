"""Attention and latents that other nodes cut into tiles."""

import pytest
import torch
from attention_calls import attention_calls
from contract import latent, our_messages, prompts
from graphs import node
from outcomes import spied


def in_tiles(size):
    """HyperTile at every depth, tiles of `size` tokens a side."""
    return node("nodes_hypertile", "HyperTile", size * 8, 1, 10, False)


@pytest.mark.parametrize("size, tiles", [(4, 4), (8, 1)])
def test_the_map_of_attention_in_tiles_is_that_of_the_attention_that_was_made(host, guide, caplog, size, tiles):
    """The UNet's middle block sees 8 x 8 tokens of a latent of 32 x 32."""
    model = host.unet(channel_mult=(1, 1, 1), depth=(0, 0, 0), depth_middle=1)
    positive, negative = prompts(host)
    start = latent(32, 32)
    guided, seen = spied(guide(in_tiles(size)(model)))
    with attention_calls(model.model.diffusion_model) as passes:
        image = host.sample(guided, positive, negative, start, steps=1)
    assert our_messages(caplog) == []
    plain = host.sample(in_tiles(size)(model), positive, negative, start, steps=1)
    assert (image - plain).abs().max() > 1e-3 * plain.abs().max()

    ((key, recorded),) = seen[0].maps.items()
    call = next(calls[0] for calls in passes if key.entry.uuid in calls[0].uuids)
    batch, heads = len(call.k), call.heads
    assert recorded.grid == (8, 8) and len(call.q) == tiles * batch
    # What the host does with such queries: the keys' tokens one after the other, as many to each tile.
    q, k = (x.reshape(len(call.q), -1, heads, x.shape[-1] // heads).transpose(1, 2).double() for x in (call.q, call.k))
    attention = torch.softmax(q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5, -1)
    received = attention.mean(1).sum(1).reshape(batch, 64)
    rows = batch // len(call.uuids)
    first = call.uuids.index(key.entry.uuid) * rows
    torch.testing.assert_close(recorded.received.double(), received[first : first + rows], rtol=1e-4, atol=1e-4)
