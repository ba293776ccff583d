"""How much attention every token receives."""

from typing import Optional, Union

import torch
from einops import rearrange
from torch import Tensor

from .checks import check_floating, check_number

MAX_BYTES = 32 * 2**20


@torch.no_grad()
def received_attention(
    q: Tensor,
    k: Tensor,
    heads: int,
    *,
    image_tokens: slice = slice(None),
    mask: Optional[Tensor] = None,
    scale: Optional[float] = None,
    max_queries: Optional[int] = None,
    max_bytes: Optional[int] = None,
    query_weights: Optional[Tensor] = None,
) -> Tensor:
    """Attention that every image token receives from all image tokens, with mean 1 (SAG section 4, `A_t`).

    `received[k] = (keys / queries) * sum_q mean_heads softmax_k(scale * q . k + mask)`

    Rows of the softmax sum to 1, so the mean over tokens is 1 at any resolution, and "above 1" reads "above average".
    In a joint text+image attention, give `image_tokens`: the softmax then runs over the image keys alone, which equals
    cutting the image columns out of the whole map and renormalising its rows.

    The whole map (queries x keys) never exists: it is summed up in chunks of at most `max_bytes`.

    Args:
        q: queries, (b, n, heads*d) or (b, heads, n, d), any floating dtype.
        k: keys in the same form; its heads may be fewer where they divide `heads` (grouped-query attention).
        heads: number of query heads.
        image_tokens: where the image tokens lie on the token axis of both `q` and `k`; default all.
        mask: what the attention hides: booleans (True is seen) or numbers added to the scores, broadcastable to
            (b, heads, n, n) over the tokens of `q` and `k`; two axes are (n, n), three (b, n, n). A query that sees no
            image token counts for nothing.
        scale: factor on the scores; default `d ** -0.5`.
        max_queries: where there are more queries, so many of them, spread evenly, stand for all; default all.
        max_bytes: upper bound of a chunk of scores, in bytes, of which two exist at a time; default at most 32 MiB.
        query_weights: (b, queries), how much each image token's attention counts, with mean 1; default all alike.

    Returns:
        (b, n) float32 on the device of `q`, n being the number of image tokens among the keys.

    Raises:
        ValueError: shapes that do not fit each other, `heads` or the mask, integer tensors, no image token.
    """
    q, k = _split_heads(q, k, heads)
    if mask is not None:
        mask = _cut_mask(mask, q, k, image_tokens)
    q, k = q[:, :, image_tokens], k[:, :, image_tokens]
    batch, _, queries, width = q.shape  # (b, heads, q, d)
    key_heads, keys = k.shape[1:3]  # (b, key_heads, k, d)
    if queries == 0 or keys == 0:
        raise ValueError(f"image_tokens must select at least one token, got {image_tokens}")
    if scale is None:
        scale = width**-0.5
    check_number("scale", scale)
    if max_bytes is None:
        max_bytes = MAX_BYTES
        if q.device.type == "cpu":  # 256 rows are enough to work on, and few enough to stay in the cache
            max_bytes = min(max(256 * 4 * keys, 2**20), MAX_BYTES)
    check_number("max_bytes", max_bytes, low=1)
    if query_weights is not None and query_weights.shape != (batch, queries):
        raise ValueError(f"query_weights must have shape {(batch, queries)}, got {tuple(query_weights.shape)}")
    chosen_queries = None
    if max_queries is not None:
        check_number("max_queries", max_queries, low=1)
        if max_queries < queries:
            chosen_queries = spread(queries, int(max_queries)).to(q.device)
            queries = len(chosen_queries)

    # Long rows first: a chunk holds whole score rows of one head, and several heads only where they all fit.
    rows_at_once = min(queries, max(1, int(max_bytes) // (4 * keys)))
    heads_at_once = min(heads, max(1, int(max_bytes) // (4 * keys * rows_at_once)))

    # One workspace for all chunks: taking fresh memory for each would cost more than filling it.
    workspace = torch.empty(2, heads_at_once, rows_at_once, keys, dtype=torch.float32, device=q.device)
    received = torch.zeros(batch, keys, dtype=torch.float32, device=q.device)
    for row, sums in enumerate(received):
        for first in range(0, heads, heads_at_once):
            chosen = torch.arange(first, min(first + heads_at_once, heads), device=k.device)
            keys_t = k[row, chosen // (heads // key_heads)].float().transpose(1, 2)  # (heads, d, k)
            some_heads = slice(first, first + heads_at_once)
            for start in range(0, queries, rows_at_once):
                rows: Union[slice, Tensor] = slice(start, start + rows_at_once)
                rows = rows if chosen_queries is None else chosen_queries[rows]
                part_of_mask = None if mask is None else _part(mask, row, some_heads, rows)
                part_of_weights = None if query_weights is None else query_weights[row, rows]
                part = q[row, some_heads][:, rows].float() * scale
                sums += _column_sums(part, keys_t, part_of_mask, part_of_weights, workspace)
    # The sum over keys is the number of rows that see anything, whatever a mask hides: dividing by it gives mean 1.
    return received / received.mean(-1, keepdim=True).clamp_min(torch.finfo(torch.float32).tiny)


def spread(count: int, wanted: int) -> Tensor:
    """`wanted` positions of `count`, one in each equal share, at places within the shares that always differ.

    A constant stride would meet the same columns of a token grid again and again.

    Returns:
        (wanted,) int64, ascending.

    >>> spread(12, 4).tolist()
    [0, 4, 8, 9]
    """
    edges = torch.arange(wanted + 1) * count // wanted
    places = (torch.arange(wanted, dtype=torch.float64) * 2**0.5) % 1  # irrational: never in step with rows
    return edges[:-1] + (places * edges.diff()).long()


def _column_sums(
    q: Tensor, keys_t: Tensor, mask: Optional[Tensor], query_weights: Optional[Tensor], workspace: Tensor
) -> Tensor:
    """Sum the softmax of q @ keys_t over heads and weighted queries: (heads, q, d), (heads, d, k), (q,) -> (k,)."""
    scores, attention = workspace[:, : q.shape[0], : q.shape[1]]  # (heads, q, k) each
    torch.bmm(q, keys_t, out=scores)
    if mask is not None:
        if mask.dtype == torch.bool:
            scores.masked_fill_(~mask, -torch.inf)
        else:
            scores.add_(mask)
    torch.softmax(scores, -1, out=attention)
    if mask is not None:
        attention.masked_fill_(scores.amax(-1, keepdim=True) == -torch.inf, 0)  # a row that sees nothing gives nothing
    # A product with the weights adds rows up many times faster than a sum over them.
    weights = q.new_ones(q.shape[1]) if query_weights is None else query_weights
    return torch.matmul(weights, attention).sum(0)


def _cut_mask(mask: Tensor, q: Tensor, k: Tensor, image_tokens: slice) -> Tensor:
    """Bring a mask to four axes and cut the image tokens out of those that are not broadcast."""
    whole = (*q.shape[:3], k.shape[2])
    if mask.ndim not in (2, 3, 4) or not (mask.dtype == torch.bool or mask.is_floating_point()):
        raise ValueError(
            f"mask must be boolean or floating-point with 2 to 4 axes, got {mask.dtype} {tuple(mask.shape)}"
        )
    mask = mask[None] if mask.ndim == 2 else mask
    mask = mask[:, None] if mask.ndim == 3 else mask
    if any(size not in (1, full) for size, full in zip(mask.shape, whole)):
        raise ValueError(f"mask must broadcast to {whole}, got {tuple(mask.shape)}")
    mask = mask[:, :, image_tokens] if mask.shape[2] > 1 else mask
    return mask[..., image_tokens] if mask.shape[3] > 1 else mask


def _part(mask: Tensor, row: int, heads: slice, queries: Union[slice, Tensor]) -> Tensor:
    """The piece of a four-axes mask that belongs to a chunk of scores, (heads or 1, q or 1, k or 1)."""
    part = mask[row if mask.shape[0] > 1 else 0]
    part = part[heads] if part.shape[0] > 1 else part
    return part[:, queries] if part.shape[1] > 1 else part


def _split_heads(q: Tensor, k: Tensor, heads: int) -> tuple[Tensor, Tensor]:
    """Bring q and k to (b, heads, n, d), checking that they belong together."""
    check_floating("q", q, (3, 4))
    check_floating("k", k, (q.ndim,))
    check_number("heads", heads, low=1)
    shapes = f"q {tuple(q.shape)}, k {tuple(k.shape)}, heads {heads}"
    if q.ndim == 3:
        width, rest = divmod(q.shape[-1], heads)
        if rest or width == 0 or k.shape[-1] % width:
            raise ValueError(f"the last axis of q and k must divide into heads of one width, got {shapes}")
        q = rearrange(q, "b n (heads d) -> b heads n d", d=width)
        k = rearrange(k, "b n (heads d) -> b heads n d", d=width)
    if q.shape[1] != heads:
        raise ValueError(f"axis 1 of q must be heads, got {shapes}")
    if q.shape[0] != k.shape[0] or q.shape[-1] != k.shape[-1]:
        raise ValueError(f"q and k must share batch size and channels per head, got {shapes}")
    if k.shape[1] == 0 or heads % k.shape[1]:
        raise ValueError(f"the number of key heads must divide heads, got {shapes}")
    return q, k
