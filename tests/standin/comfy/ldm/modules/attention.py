"""Attention as the host calls it, and the transformer block with the patch slots of a UNet."""

import functools

import torch.nn.functional as F
from torch import nn


def wrap_attn(func):
    """Let transformer_options["optimized_attention_override"] take over, unless the override itself is the caller."""

    @functools.wraps(func)
    def wrapper(*args, **kwargs):
        if kwargs.get("_inside_attn_wrapper"):
            return func(*args, **kwargs)
        kwargs["_inside_attn_wrapper"] = True
        override = (kwargs.get("transformer_options") or {}).get("optimized_attention_override")
        return func(*args, **kwargs) if override is None else override(func, *args, **kwargs)

    return wrapper


@wrap_attn
def optimized_attention(
    q, k, v, heads, mask=None, attn_precision=None, skip_reshape=False, skip_output_reshape=False, **kwargs
):
    """q, k, v are (b, n, heads * d), or (b, heads, n, d) with skip_reshape."""
    if not skip_reshape:  # q's batch is everyone's: keys follow queries that a patch (HyperTile) cut into tiles
        b, _, inner_dim = q.shape
        q, k, v = (t.reshape(b, -1, heads, inner_dim // heads).transpose(1, 2) for t in (q, k, v))
    if mask is not None:
        mask = mask[None, None] if mask.ndim == 2 else mask[:, None] if mask.ndim == 3 else mask
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=kwargs.get("scale"))  # (b, heads, n, d)
    return out if skip_output_reshape else out.transpose(1, 2).flatten(2)


optimized_attention_masked = optimized_attention


class CrossAttention(nn.Module):
    def __init__(self, query_dim, context_dim=None, heads=2, dim_head=16):
        super().__init__()
        inner_dim = heads * dim_head
        self.heads, self.dim_head, self.attn_precision = heads, dim_head, None
        self.to_q = nn.Linear(query_dim, inner_dim, bias=False)
        self.to_k = nn.Linear(context_dim or query_dim, inner_dim, bias=False)
        self.to_v = nn.Linear(context_dim or query_dim, inner_dim, bias=False)
        self.to_out = nn.Sequential(nn.Linear(inner_dim, query_dim))

    def forward(self, x, context=None, value=None, mask=None, transformer_options={}):
        context = x if context is None else context
        q, k, v = self.to_q(x), self.to_k(context), self.to_v(context if value is None else value)
        out = optimized_attention(
            q, k, v, self.heads, mask=mask, attn_precision=self.attn_precision, transformer_options=transformer_options
        )
        return self.to_out(out)


class GEGLU(nn.Module):
    def __init__(self, dim, dim_out):
        super().__init__()
        self.proj = nn.Linear(dim, dim_out * 2)

    def forward(self, x):
        x, gate = self.proj(x).chunk(2, dim=-1)
        return x * F.gelu(gate)


class FeedForward(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.net = nn.Sequential(GEGLU(dim, dim * 4), nn.Identity(), nn.Linear(dim * 4, dim))

    def forward(self, x):
        return self.net(x)


class BasicTransformerBlock(nn.Module):
    def __init__(self, dim, n_heads, d_head, context_dim=None):
        super().__init__()
        self.n_heads, self.d_head = n_heads, d_head
        self.attn1 = CrossAttention(dim, None, n_heads, d_head)
        self.attn2 = CrossAttention(dim, context_dim, n_heads, d_head)
        self.ff = FeedForward(dim)
        self.norm1, self.norm2, self.norm3 = nn.LayerNorm(dim), nn.LayerNorm(dim), nn.LayerNorm(dim)

    def forward(self, x, context=None, transformer_options={}):
        extra_options = {k: v for k, v in transformer_options.items() if k not in ("patches", "patches_replace")}
        extra_options.update(n_heads=self.n_heads, dim_head=self.d_head, attn_precision=None)
        x = x + self._attend("attn1", self.attn1, self.norm1(x), None, extra_options, transformer_options)
        x = x + self._attend("attn2", self.attn2, self.norm2(x), context, extra_options, transformer_options)
        return x + self.ff(self.norm3(x))

    def _attend(self, name, attn, n, context, extra_options, transformer_options):
        """One attention layer with its three slots: patch (before q, k, v), replace, output patch."""
        patches = transformer_options.get("patches", {})
        replace = transformer_options.get("patches_replace", {}).get(name, {})
        value = None
        if name + "_patch" in patches:
            context = n if context is None and name == "attn1" else context
            value = context
            for patch in patches[name + "_patch"]:
                n, context, value = patch(n, context, value, extra_options)

        block = transformer_options.get("block")
        exact = block and (block[0], block[1], transformer_options.get("block_index", 0))
        replacement = replace.get(exact, replace.get(block))  # the exact transformer first, then the whole block
        if replacement is None:
            out = attn(n, context=context, value=value, transformer_options=transformer_options)
        else:
            context = n if context is None else context
            q, k, v = attn.to_q(n), attn.to_k(context), attn.to_v(context if value is None else value)
            out = attn.to_out(replacement(q, k, v, extra_options))
        for patch in patches.get(name + "_output_patch", []):
            out = patch(out, extra_options)
        return out


class SpatialTransformer(nn.Module):
    """Transformer blocks over the positions of a feature map."""

    def __init__(self, in_channels, n_heads, d_head, depth=1, context_dim=None):
        super().__init__()
        inner_dim = n_heads * d_head
        self.norm = nn.GroupNorm(min(32, in_channels), in_channels, eps=1e-6)
        self.proj_in = nn.Conv2d(in_channels, inner_dim, 1)
        self.transformer_blocks = nn.ModuleList(
            BasicTransformerBlock(inner_dim, n_heads, d_head, context_dim) for _ in range(depth)
        )
        self.proj_out = nn.Conv2d(inner_dim, in_channels, 1)

    def forward(self, x, context=None, transformer_options={}):
        transformer_options["activations_shape"] = list(x.shape)  # (b, c, h, w): the token grid is h by w
        h = self.proj_in(self.norm(x))
        tokens = h.flatten(2).transpose(1, 2)  # (b, h * w, c)
        for index, block in enumerate(self.transformer_blocks):
            transformer_options["block_index"] = index
            tokens = block(tokens, context=context, transformer_options=transformer_options)
        return x + self.proj_out(tokens.transpose(1, 2).reshape_as(h))
