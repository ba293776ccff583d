"""Self-Attention Guidance written a second time: slowly, with whole attention matrices, sharing nothing with the pack.

It is put on an unguided model as a post-CFG function and evaluates the guided branch's entries once more, one by one,
to read queries and keys straight from the block's own projections.
"""

import comfy.samplers
import torch
import torch.nn.functional as F


def guide_by_reference(model, scale=0.75, blur_sigma=1.0, threshold=1.0, block=None, flow=False):
    """A clone of `model` that the reference guides.

    `block` finds its transformer block, default the middle one; `flow` is said where a patch makes it a flow.
    """
    guided = model.clone()

    def post_cfg(args):
        network = args["model"].diffusion_model
        transformer = block(network) if block else network.middle_block[1].transformer_blocks[0]
        sigma, x = args["sigma"], args["input"]
        side = "uncond" if live(args["uncond"], sigma) else "cond"
        entries = live(args[side], sigma)
        seen_as = 1 if side == "uncond" else 0

        def evaluate(latent, chosen):
            conds = [None, None]
            conds[seen_as] = chosen
            return comfy.samplers.calc_cond_batch(args["model"], conds, latent, sigma, args["model_options"])[seen_as]

        x0 = evaluate(x, entries)  # of the model: what the host hands on may have been changed by others
        total, weight = torch.zeros_like(x[:, :1]), torch.zeros_like(x[:, :1])
        for entry in entries:
            place = comfy.samplers.get_area_and_mult(entry, x, sigma)
            h, w, top, left = place.area or (*x.shape[2:], 0, 0)
            received, (gh, gw) = read_attention(transformer, lambda e=entry: evaluate(x, [e]))
            received = F.interpolate(received.reshape(-1, 1, gh, gw).float(), (h, w), mode="nearest")
            total[:, :, top : top + h, left : left + w] += received * place.mult[:, :1]
            weight[:, :, top : top + h, left : left + w] += place.mult[:, :1]
        mask = (total > threshold * weight).to(x.dtype)  # no entry, no mask: 0 > 0 is false

        degraded = mask * blur(x0, blur_sigma) + (1 - mask) * x0
        at = sigma.reshape(-1, 1, 1, 1)
        if flow or "FLOW" in str(getattr(args["model"], "model_type", "")):
            noise = (x - (1 - at) * x0) / at
            renoised = (1 - at) * degraded + at * noise
        else:
            noise = (x - x0) / at
            renoised = degraded + at * noise
        return args["denoised"] + scale * (degraded - evaluate(renoised, entries))

    guided.set_model_sampler_post_cfg_function(post_cfg)
    return guided


def live(entries, sigma):
    return [
        e for e in entries or () if e.get("timestep_start", 1e9) >= sigma[0] and e.get("timestep_end", -1) <= sigma[0]
    ]


def read_attention(block, run):
    """Run something and compute the attention each token received in it from the projections' outputs."""
    attn1, q, k, grid = block.attn1, [], [], []
    hooks = [
        attn1.to_q.register_forward_hook(lambda _, __, out: q.append(out)),
        attn1.to_k.register_forward_hook(lambda _, __, out: k.append(out)),
        block.register_forward_pre_hook(
            lambda _, __, kwargs: grid.append(kwargs["transformer_options"]["activations_shape"][-2:]), with_kwargs=True
        ),
    ]
    try:
        run()
    finally:
        for hook in hooks:
            hook.remove()
    q, k, heads = q[0].float(), k[0].float(), attn1.heads
    maps = []
    for sample_q, sample_k in zip(q, k):
        per_head = []
        for head_q, head_k in zip(sample_q.chunk(heads, -1), sample_k.chunk(heads, -1)):
            per_head.append(torch.softmax(head_q @ head_k.T / head_q.shape[-1] ** 0.5, dim=-1))
        maps.append(torch.stack(per_head).mean(0).sum(0))
    return torch.stack(maps), grid[0]


def blur(x, sigma):
    """Dense Gaussian blur, tap by tap over mirrored coordinates."""
    if sigma == 0:
        return x
    reach = max(4, int(-(-4 * sigma // 1)))
    offsets = range(-reach, reach + 1)
    taps = [2.718281828459045 ** (-o * o / (2 * sigma * sigma)) for o in offsets]
    for axis in (2, 3):
        n, result = x.shape[axis], 0
        for offset, tap in zip(offsets, taps):
            rows = torch.tensor([mirror(i + offset, n) for i in range(n)])
            result = result + tap / sum(taps) * x.index_select(axis, rows)
        x = result
    return x


def mirror(i, n):
    while not 0 <= i < n:
        i = -i if i < 0 else 2 * (n - 1) - i
        if n == 1:
            return 0
    return i


def relative_error(got, expected):
    return float((got.double() - expected.double()).norm() / expected.double().norm().clamp_min(1e-30))
