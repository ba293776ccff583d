"""Masks, and queries that stand for others, beside whole attention matrices."""

import pytest
import torch
from peak_memory import PeakMemory

from sag_core import received_attention
from sag_core.attention import MAX_BYTES, spread


def naive(q, k, heads, image=slice(None), mask=None):
    """(b, n) in float64: the image cut out of whole matrices, rows scaled to sum 1; rows that see nothing left out."""
    k = k.repeat_interleave(heads // k.shape[1], 1)
    scores = q.double() @ k.double().transpose(-1, -2) * q.shape[-1] ** -0.5
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else scores + mask
    attention = scores.softmax(-1).nan_to_num()[:, :, image, image]
    sums = attention.sum(-1, keepdim=True)
    received = torch.where(sums > 0, attention / sums, 0.0).sum((1, 2))
    return received / received.mean(-1, keepdim=True)


def qk(b, heads, n, d, key_heads=None, seed=0):
    noise = torch.Generator().manual_seed(seed)
    return tuple(2 * torch.randn(b, count, n, d, generator=noise) for count in (heads, key_heads or heads))


def allowed(*shape, seed=1):
    mask = torch.rand(*shape, generator=torch.Generator().manual_seed(seed)) > 0.4
    mask[..., -1] = True
    return mask


@pytest.mark.parametrize("image", [slice(None), slice(4, 29), slice(0, 20)], ids=["all", "text first", "image first"])
@pytest.mark.parametrize("additive", [False, True], ids=["boolean", "additive"])
@pytest.mark.parametrize(
    "shape", [(30, 30), (1, 30), (2, 30, 30), (2, 1, 30), (1, 1, 30), (2, 1, 1, 30), (2, 6, 30, 30), (1, 6, 1, 30)]
)
def test_a_mask_hides_what_the_attention_does_not_see(shape, additive, image):
    q, k = qk(2, 6, 30, 8, key_heads=3)
    mask = allowed(*shape)
    mask[..., 10] = True  # every query sees an image token
    if additive:
        mask = torch.where(mask, torch.randn(*shape, generator=torch.Generator().manual_seed(2)), -torch.inf)
    full = mask[None] if mask.ndim == 2 else mask
    full = full[:, None] if full.ndim == 3 else full
    for max_bytes in (200, 2**20):
        got = received_attention(q, k, 6, image_tokens=image, mask=mask, max_bytes=max_bytes)
        torch.testing.assert_close(got.double(), naive(q, k, 6, image, full), rtol=1e-4, atol=1e-5)
    if not additive and shape[-2] == 1 and shape[0] == 1:
        assert (got[:, ~full.expand(1, -1, 1, 30)[0, 0, 0, image]] == 0).sum() == got[got == 0].numel()


def test_padding_queries_that_see_nothing_count_for_nothing():
    q, k = qk(1, 2, 16, 8)
    mask = torch.ones(16, 16, dtype=torch.bool)
    mask[12:] = False
    got = received_attention(q, k, 2, mask=mask)
    torch.testing.assert_close(got.double(), naive(q, k, 2, mask=mask[None, None]), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(got.mean(-1), torch.ones(1))


def test_a_mask_that_hides_everything_gives_zeros():
    q, k = qk(1, 2, 16, 8)
    assert received_attention(q, k, 2, mask=torch.zeros(16, 16, dtype=torch.bool)).eq(0).all()


def test_a_half_precision_padding_mask_reads_as_a_boolean_one():
    q, k = qk(1, 2, 16, 8)
    seen = allowed(1, 16)
    padding = torch.where(seen, 0.0, torch.finfo(torch.float16).min).half()
    torch.testing.assert_close(received_attention(q, k, 2, mask=padding), received_attention(q, k, 2, mask=seen))


@pytest.mark.parametrize("mask", [torch.ones(5, 16), torch.ones(16), torch.ones(16, 16, dtype=torch.int64)])
def test_a_mask_that_does_not_fit_is_refused(mask):
    q, k = qk(1, 2, 16, 8)
    with pytest.raises(ValueError, match="mask"):
        received_attention(q, k, 2, mask=mask)


@pytest.mark.parametrize("count, wanted", [(4096, 1000), (32768, 4096), (17, 16), (1000, 1), (64 * 64, 64)])
def test_spread_positions_lie_one_in_each_share_and_in_all_columns_alike(count, wanted):
    positions = spread(count, wanted)
    assert len(positions) == wanted and len(set(positions.tolist())) == wanted
    assert ((positions * wanted + wanted - 1) // count - torch.arange(wanted)).abs().max() <= 1
    assert positions.min() >= 0 and positions.max() < count and (positions.diff() > 0).all()
    if wanted >= 1000:  # on a grid with 64 columns, no column is met twice as often as it should be
        columns = torch.bincount(positions % 64, minlength=64)
        assert columns.min() > 0.7 * wanted / 64 and columns.max() < 1.3 * wanted / 64


def test_all_queries_are_used_where_there_are_not_more_than_allowed():
    q, k = qk(1, 2, 64, 8)
    assert torch.equal(received_attention(q, k, 2, max_queries=64), received_attention(q, k, 2))


def test_chosen_queries_give_the_map_of_those_queries():
    q, k = qk(2, 4, 60, 8)
    mask = allowed(2, 1, 60, 60)
    chosen = spread(60, 13)
    got = received_attention(q, k, 4, mask=mask, max_queries=13)
    scores = (q.double() @ k.double().transpose(-1, -2) * 8**-0.5).masked_fill(~mask, -torch.inf)
    expected = scores[:, :, chosen].softmax(-1).mean(1).sum(1)
    expected = expected / expected.mean(-1, keepdim=True)
    torch.testing.assert_close(got.double(), expected, rtol=1e-4, atol=1e-5)


def test_few_queries_stand_for_many_on_a_map_with_structure():
    """Tokens of a smooth image attend alike: some of them give nearly the map, and nearly the mask, of all."""
    noise = torch.Generator().manual_seed(0)
    smooth = torch.nn.functional.interpolate(torch.randn(1, 32, 6, 6, generator=noise), (32, 32), mode="bicubic")
    tokens = smooth.flatten(2).transpose(1, 2)  # (1, 1024, 32)
    q, k = (tokens @ torch.randn(32, 32, generator=noise) / 32**0.5 * 2 for _ in range(2))
    whole = received_attention(q, k, 4)
    parts = [received_attention(q, k, 4, max_queries=count) for count in (64, 256, 512)]
    errors = [float((part - whole).norm() / whole.norm()) for part in parts]
    flipped = [float(((part > 1) != (whole > 1)).float().mean()) for part in parts]
    assert errors[2] < errors[1] < errors[0] < 0.25 and errors[1] < 0.1
    assert flipped[1] < 0.03
    assert torch.equal(parts[1], received_attention(q, k, 4, max_queries=256))  # and always the same ones


def test_memory_stays_within_bounds_at_any_number_of_heads_and_queries():
    """4096 image and 512 text tokens, and 32768 of video: the budget for scores, one head's keys, and little more.

    A chunk of scores is full with fewer queries than all and one head; more of either come one chunk after the other.
    """
    peaks = []
    for heads, image, text, max_queries in ((1, 4096, 512, 2048), (24, 4096, 512, 2048), (1, 32768, 0, 256)):
        q, k = (x.bfloat16() for x in qk(1, heads, text + image, 128))
        with PeakMemory() as memory:
            received_attention(q, k, heads, image_tokens=slice(text, None), max_queries=max_queries)
        peaks.append(memory.peak)
        one_head = (2 + 4 + 4) * image * 128  # its keys as they came, in float32, and turned for the product
        assert memory.peak <= 2 * MAX_BYTES + one_head <= 128 * 2**20
    assert abs(peaks[0] - peaks[1]) < 4 * 2**20
