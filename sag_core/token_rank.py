"""How much attention every token receives in the long run."""

from typing import Optional

from torch import Tensor

from .attention import received_attention
from .checks import check_number

STEPS = 10


def token_rank(
    q: Tensor,
    k: Tensor,
    heads: int,
    *,
    image_tokens: slice = slice(None),
    mask: Optional[Tensor] = None,
    scale: Optional[float] = None,
    max_queries: Optional[int] = None,
    max_bytes: Optional[int] = None,
    steps: int = STEPS,
) -> Tensor:
    """The stationary distribution of the attention between image tokens, with mean 1 (TokenRank).

    Attention rows sum to 1, so the head-averaged map A is a Markov chain over tokens. A token ranks high if tokens
    that rank high attend to it: `pi = pi A`, found by power steps from the uniform distribution (Erel et al.,
    "Attention (as Discrete-Time Markov) Chains", 2025, arXiv 2507.17657). The first step is `received_attention`.

    The map never exists: every step recomputes its scores in chunks. A softmax is nowhere 0, so there is one
    stationary distribution and no damping is needed.

    Args:
        q, k: see `received_attention`; both must hold the same tokens.
        heads, image_tokens, mask, scale, max_queries, max_bytes: see `received_attention`.
        steps: power steps, at least 1.

    Returns:
        (b, n) float32 on the device of `q`.

    Raises:
        ValueError: as `received_attention`; different numbers of queries and keys, no step.
    """
    check_number("steps", steps, low=1)

    def step(weights: Optional[Tensor]) -> Tensor:
        return received_attention(
            q,
            k,
            heads,
            image_tokens=image_tokens,
            mask=mask,
            scale=scale,
            max_queries=max_queries,
            max_bytes=max_bytes,
            query_weights=weights,
        )

    rank = step(None)
    for _ in range(steps - 1):
        rank = step(rank)
    return rank
