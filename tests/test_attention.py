import pytest
import torch
from peak_memory import PeakMemory

from sag_core import received_attention


def naive(q, k, heads):
    """Whole matrices, in float64: (b, heads, q, k), softmax over keys, mean over heads, sum over queries."""
    if q.ndim == 3:
        q, k = (t.reshape(*t.shape[:2], -1, q.shape[-1] // heads).transpose(1, 2) for t in (q, k))
    k = k.repeat_interleave(heads // k.shape[1], 1)
    scores = q.double() @ k.double().transpose(-1, -2) * q.shape[-1] ** -0.5
    received = scores.softmax(-1).mean(1).sum(1)
    return received / received.mean(-1, keepdim=True)


def qk(*shape, dtype=torch.float32, seed=0):
    noise = torch.Generator().manual_seed(seed)
    return tuple((2 * torch.randn(*shape, generator=noise)).to(dtype) for _ in range(2))


def test_literal_value_of_two_tokens():
    q = torch.tensor([[[1.0], [0.0]]])  # one channel, so the scale is 1
    k = torch.tensor([[[1.0], [0.0]]])
    # Query 0 scores 1 and 0: it gives e/(e+1) and 1/(e+1). Query 1 scores 0 and 0: it gives a half to each.
    e = torch.e
    expected = torch.tensor([[e / (e + 1) + 0.5, 1 / (e + 1) + 0.5]])
    torch.testing.assert_close(received_attention(q, k, 1), expected)


@pytest.mark.parametrize("shape, heads", [((2, 35, 24), 3), ((2, 3, 35, 8), 3), ((1, 64, 64), 1), ((3, 1, 5), 5)])
def test_equals_the_whole_matrix(shape, heads):
    q, k = qk(*shape)
    torch.testing.assert_close(received_attention(q, k, heads).double(), naive(q, k, heads), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("max_bytes", [1, 500, 4 * 35, 10_000, 2**30])
def test_chunks_of_any_size_give_one_result(max_bytes):
    q, k = qk(2, 35, 24)
    torch.testing.assert_close(
        received_attention(q, k, 3, max_bytes=max_bytes), received_attention(q, k, 3), rtol=1e-5, atol=1e-6
    )


def test_mean_is_one_and_batch_of_two_is_two_batches_of_one():
    q, k = qk(2, 48, 32)
    both = received_attention(q, k, 4)
    torch.testing.assert_close(both.mean(-1), torch.ones(2))
    assert torch.equal(both, torch.cat([received_attention(q[i : i + 1], k[i : i + 1], 4) for i in range(2)]))


def test_uniform_attention_is_one_everywhere():
    q = torch.zeros(1, 30, 8)
    torch.testing.assert_close(received_attention(q, q, 2), torch.ones(1, 30))


def test_grouped_query_heads():
    q, _ = qk(2, 6, 20, 8)
    _, k = qk(2, 3, 20, 8)
    torch.testing.assert_close(received_attention(q, k, 6).double(), naive(q, k, 6), rtol=1e-5, atol=1e-5)


def test_image_tokens_of_a_joint_sequence_are_renormalised():
    q, k = qk(1, 2, 7 + 12, 8)
    received = received_attention(q, k, 2, image_tokens=slice(7, None))
    whole = (q @ k.transpose(-1, -2) * 8**-0.5).softmax(-1)[:, :, 7:, 7:]
    cut = (whole / whole.sum(-1, keepdim=True)).mean(1).sum(1)
    torch.testing.assert_close(received, cut, rtol=1e-5, atol=1e-5)
    assert received.shape == (1, 12)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_any_dtype_is_computed_in_float32(dtype):
    q, k = qk(1, 2, 40, 40, dtype=dtype)  # 40 channels: their scale is no power of 2, and would be rounded
    received = received_attention(q, k, 2)
    assert received.dtype == torch.float32
    torch.testing.assert_close(received.double(), naive(q, k, 2), rtol=1e-5, atol=1e-5)


def test_half_precision_scores_do_not_overflow():
    q, k = (t * 100 for t in qk(1, 2, 40, 64, dtype=torch.float16))
    assert (q @ k.transpose(-1, -2)).isinf().any(), "the example must overflow in float16"
    assert received_attention(q, k, 2).isfinite().all()


def test_the_scale_is_a_factor_on_the_scores():
    q, k = qk(1, 2, 12, 4)
    expected = naive(3 * 4**0.5 * q, k, 2)
    torch.testing.assert_close(received_attention(q, k, 2, scale=3.0).double(), expected, rtol=1e-5, atol=1e-5)


def test_keeps_nothing_for_gradients():
    q, k = (t.requires_grad_() for t in qk(1, 2, 12, 4))
    assert not received_attention(q, k, 2).requires_grad


def test_works_in_inference_mode_and_writes_to_no_argument():
    q, k = qk(1, 2, 12, 4)
    before = q.clone(), k.clone()
    with torch.inference_mode():
        inside = received_attention(q, k, 2)
    assert torch.equal(inside, received_attention(q, k, 2))
    assert torch.equal(q, before[0]) and torch.equal(k, before[1])


@pytest.mark.parametrize(
    "q, k, heads, message",
    [
        (torch.zeros(1, 4, 8).int(), torch.zeros(1, 4, 8), 2, "q must be a floating-point tensor, got torch.int32"),
        (torch.zeros(1, 4, 8), torch.zeros(1, 2, 4, 4), 2, "k must have 3 axes"),
        (torch.zeros(4, 8), torch.zeros(4, 8), 2, "q must have 3 or 4 axes, got shape"),
        (torch.zeros(1, 4, 9), torch.zeros(1, 4, 9), 2, "must divide into heads"),
        (torch.zeros(1, 3, 4, 8), torch.zeros(1, 3, 4, 8), 2, "axis 1 of q must be heads"),
        (torch.zeros(2, 4, 8), torch.zeros(1, 4, 8), 2, "share batch size"),
        (torch.zeros(1, 6, 4, 8), torch.zeros(1, 4, 4, 8), 6, "key heads must divide heads"),
        (torch.zeros(1, 4, 8), torch.zeros(1, 4, 8), 0, "heads must lie in"),
        (torch.zeros(1, 0, 8), torch.zeros(1, 0, 8), 2, "q must not be empty"),
    ],
)
def test_says_what_does_not_fit(q, k, heads, message):
    with pytest.raises(ValueError, match=message):
        received_attention(q, k, heads)


@pytest.mark.parametrize("wrong", [{"scale": float("nan")}, {"max_bytes": 0}, {"image_tokens": slice(9, None)}])
def test_says_which_option_is_out_of_range(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        received_attention(torch.zeros(1, 4, 8), torch.zeros(1, 4, 8), 2, **wrong)


def test_4096_tokens_of_20_heads_stay_under_128_mib():
    q, k = qk(1, 20, 4096, 64)
    with PeakMemory() as memory:
        received_attention(q, k, 20)
    assert 0 < memory.peak < 128 * 2**20


def test_another_default_dtype_changes_nothing():
    q, k = qk(1, 2, 12, 4)
    expected = received_attention(q, k, 2)
    torch.set_default_dtype(torch.float64)
    try:
        assert torch.equal(received_attention(q, k, 2), expected)
    finally:
        torch.set_default_dtype(torch.float32)
