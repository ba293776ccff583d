"""The MASK a user draws: in bounds, finite, and never kept larger than any latent."""

import sys

import on_standin
import pytest
import torch


@pytest.fixture(scope="module")
def check_mask():
    node = on_standin.node_classes()["SAGSelfAttentionGuidance"]
    package = node.__module__.rpartition(".")[0]
    return sys.modules[f"{package}.adapter.region"].check_mask


def test_a_mask_in_bounds_stays_as_it_is(check_mask):
    mask = torch.rand(2, 5, 7)
    assert torch.equal(check_mask(mask), mask)
    assert torch.equal(check_mask(mask[:, None]), mask)
    assert torch.equal(check_mask(mask[0]), mask[:1])


def test_what_is_out_of_bounds_is_brought_in(check_mask):
    mask = torch.tensor([[torch.nan, -1.0, 0.5], [2.0, torch.inf, -torch.inf]])
    assert check_mask(mask).tolist() == [[[0.0, 0.0, 0.5], [1.0, 1.0, 0.0]]]


def test_a_mask_larger_than_any_latent_is_averaged_down(check_mask):
    mask = torch.rand(2, 4096, 3)
    small = check_mask(mask)
    assert small.shape == (2, 2048, 3)
    torch.testing.assert_close(small, mask.unflatten(1, (2048, 2)).mean(2))
    assert check_mask(torch.ones(1, 2048, 2048)).shape == (1, 2048, 2048)
