import pytest
import torch

from sag_core import received_attention, token_rank


def queries_and_keys(batch=2, tokens=48, heads=3, width=8, seed=0):
    noise = torch.Generator().manual_seed(seed)
    return [1.5 * torch.randn(batch, tokens, heads * width, generator=noise) for _ in range(2)]


def whole_map(q, k, heads):
    """(b, n, n), rows summing to 1, in double precision."""
    q, k = (t.double().unflatten(-1, (heads, -1)).transpose(1, 2) for t in (q, k))
    return (q @ k.transpose(2, 3) * q.shape[-1] ** -0.5).softmax(-1).mean(1)


def test_is_the_left_eigenvector_of_the_whole_map():
    q, k = queries_and_keys()
    values, vectors = torch.linalg.eig(whole_map(q, k, 3).transpose(1, 2))
    first = values.abs().argmax(1)
    expected = torch.stack([v[:, i].real for v, i in zip(vectors, first)])
    expected = expected / expected.mean(1, keepdim=True)
    torch.testing.assert_close(token_rank(q, k, 3, steps=30).double(), expected, rtol=1e-4, atol=1e-4)
    # The steps that the node takes come close to it.
    torch.testing.assert_close(token_rank(q, k, 3).double(), expected, rtol=0.01, atol=0.01)


def test_one_step_is_the_attention_that_tokens_receive():
    q, k = queries_and_keys()
    assert torch.equal(token_rank(q, k, 3, steps=1), received_attention(q, k, 3))
    assert not torch.allclose(token_rank(q, k, 3), received_attention(q, k, 3), rtol=0.01)


def test_the_mean_is_one_and_no_rank_is_negative():
    rank = token_rank(*queries_and_keys(), 3)
    torch.testing.assert_close(rank.mean(1), torch.ones(2))
    assert rank.min() >= 0


def test_needs_no_memory_for_the_whole_map():
    q, k = queries_and_keys(tokens=40)
    torch.testing.assert_close(token_rank(q, k, 3, max_bytes=1), token_rank(q, k, 3), rtol=1e-5, atol=1e-5)


def test_tokens_that_attend_alike_rank_alike():
    torch.testing.assert_close(token_rank(torch.zeros(1, 9, 4), torch.zeros(1, 9, 4), 1), torch.ones(1, 9))


def test_only_image_tokens_count():
    q, k = queries_and_keys(tokens=20)
    torch.testing.assert_close(
        token_rank(q, k, 3, image_tokens=slice(4, None)), token_rank(q[:, 4:], k[:, 4:], 3), rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize(
    "option", [{"scale": 2.0}, {"mask": torch.ones(48, 48).tril().bool()}, {"max_queries": 11}], ids=str
)
def test_attention_is_read_with_every_option(option):
    q, k = queries_and_keys()
    assert torch.equal(token_rank(q, k, 3, steps=1, **option), received_attention(q, k, 3, **option))
    assert not torch.allclose(token_rank(q, k, 3, steps=1, **option), token_rank(q, k, 3, steps=1), rtol=0.01)


def test_there_must_be_a_step():
    with pytest.raises(ValueError, match="steps must lie in"):
        token_rank(*queries_and_keys(), 3, steps=0)


def test_queries_and_keys_must_be_the_same_tokens():
    q, k = queries_and_keys()
    with pytest.raises(ValueError, match="query_weights must have shape"):
        token_rank(q[:, :7], k, 3)
