"""The first stream of a packed latent, and the others left as they are."""

import importlib
from types import SimpleNamespace

import pytest
import torch
from on_standin import node_classes


@pytest.fixture
def streams():
    node_classes()  # loads the pack
    return importlib.import_module("pack_under_test.nodes.adapter.streams")


def test_a_video_with_its_sound(streams):
    video, sound = torch.randn(2, 3, 4, 5, 6), torch.randn(2, 8, 7, 9)
    packed = torch.cat([video.reshape(2, 1, -1), sound.reshape(2, 1, -1)], -1)
    held = streams.streams_in([torch.Size([1, 3, 4, 5, 6]), torch.Size([1, 8, 7, 9])])  # of one sample
    assert torch.equal(held.first(packed), video)
    changed = held.put(packed, video * 2)
    assert torch.equal(held.first(changed), video * 2)
    assert torch.equal(changed[..., -8 * 7 * 9 :], packed[..., -8 * 7 * 9 :])


@pytest.mark.parametrize("shapes", [None, [], [torch.Size([1, 4, 8, 8])]])
def test_a_latent_that_packs_nothing_is_itself(streams, shapes):
    latent, other = torch.randn(2, 1, 4, 8, 8)
    held = streams.streams_in(shapes)
    assert held.first(latent) is latent and held.put(latent, other) is other


def test_the_host_notes_the_shapes_in_the_entries(streams):
    shapes = [torch.Size([1, 3, 4, 5, 6]), torch.Size([1, 8, 7, 9])]
    entry = {"model_conds": {"latent_shapes": SimpleNamespace(cond=shapes)}}
    assert streams.streams_of([entry, entry]).shapes == tuple(shapes)
    assert streams.streams_of([{"model_conds": {}}]).shapes is None and streams.streams_of([]).shapes is None
