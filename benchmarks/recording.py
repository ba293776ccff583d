"""What recording attention costs, beside the attention and the model it is recorded in, measured in one run.

    python benchmarks/recording.py [--device cuda] [--dtype bfloat16] [--heads 24] [--repeat 3]

A block is the attention and the linear layers of a diffusion transformer of that width; a forward pass is `depth` of
them, of which the recorder reads `read`, as the node does by default. Fewer heads take less time and hardly change the
ratios to the attention; the ratios to the forward pass they make worse, because the linear layers shrink faster.
"""

import argparse
import statistics
import sys
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

ROOT = Path(__file__).resolve().parents[1]
sys.path += [str(ROOT), str(ROOT / "benchmarks" / "helpers")]

from peak_memory import PeakMemory  # noqa: E402

from sag_core import received_attention  # noqa: E402

MAX_QUERIES = 4096  # as the recorder
WIDTH = 128  # channels of a head
CASES = {
    # name: (image tokens, text tokens, depth of the model, blocks that are read)
    "4096 image + 512 text tokens": (4096, 512, 57, 4),
    "32768 video tokens": (32768, 0, 40, 4),
}


class Block(nn.Module):
    """Attention and linear layers of a transformer block, without the parts that cost next to nothing."""

    def __init__(self, heads, **where):
        super().__init__()
        self.heads, channels = heads, heads * WIDTH
        self.qkv = nn.Linear(channels, 3 * channels, **where)
        self.out = nn.Linear(channels, channels, **where)
        self.mlp = nn.Sequential(
            nn.Linear(channels, 4 * channels, **where), nn.GELU(), nn.Linear(4 * channels, channels, **where)
        )

    def forward(self, x):
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, WIDTH)).permute(2, 0, 3, 1, 4)
        x = x + self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        return x + self.mlp(x)


def seconds(work, repeat, device):
    """Median time of some work, after one round that is not counted."""
    times = []
    for _ in range(repeat + 1):
        start = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])


def unet_case(device, dtype, repeat, noise):
    """A UNet's attention over a batch of two, of which one, the unconditional branch, is recorded."""
    q, k, v = (torch.randn(2, 20, 4096, 64, generator=noise).to(device, dtype) for _ in range(3))

    def record():
        return received_attention(q[:1], k[:1], 20)

    with PeakMemory() as memory:
        record()
    attention = seconds(lambda: F.scaled_dot_product_attention(q, k, v), repeat, device)
    both = seconds(lambda: (F.scaled_dot_product_attention(q, k, v), record()), repeat, device)
    print("UNet, 4096 tokens, 20 heads of 64, a batch of two, one of it recorded")
    print(f"  memory that recording adds        {memory.peak / 2**20:8.1f} MiB")
    print(f"  attention, with / without         {both / attention:8.2f} times\n")


def smooth_tokens(frames, side, heads, noise):
    """q and k of a smooth video, whose neighbouring tokens attend alike: (1, heads, frames * side * side, WIDTH)."""
    video = torch.randn(1, WIDTH, -(-frames // 4), side // 8, side // 8, generator=noise)
    tokens = F.interpolate(video, (frames, side, side), mode="trilinear").flatten(2).transpose(1, 2)
    projections = torch.randn(2, heads, WIDTH, WIDTH, generator=noise) / WIDTH**0.5
    return tuple(tokens[:, None] @ projection for projection in projections)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--dtype", default=None)
    parser.add_argument("--heads", type=int, default=None)
    parser.add_argument("--repeat", type=int, default=None)
    options = parser.parse_args()
    device = torch.device(options.device)
    on_gpu = device.type == "cuda"
    dtype = getattr(torch, options.dtype or ("bfloat16" if on_gpu else "float32"))
    heads = options.heads or (24 if on_gpu else 2)
    repeat = options.repeat or (5 if on_gpu else 1)
    noise = torch.Generator().manual_seed(0)
    print(f"torch {torch.__version__}, {device}, {dtype}, {heads} heads of {WIDTH}\n")

    with torch.inference_mode():
        unet_case(device, dtype, max(repeat, 3), noise)
        for name, (image, text, depth, read) in CASES.items():
            shape = (1, heads, text + image, WIDTH)
            q, k, v = (torch.randn(shape, generator=noise).to(device, dtype) for _ in range(3))
            block = Block(heads, device=device, dtype=dtype)
            x = torch.randn(1, text + image, heads * WIDTH, generator=noise).to(device, dtype)

            def record(q=q, k=k, text=text):
                return received_attention(q, k, heads, image_tokens=slice(text, None), max_queries=MAX_QUERIES)

            def attend(q=q, k=k, v=v):
                return F.scaled_dot_product_attention(q, k, v)

            def run_block(block=block, x=x):
                return block(x)

            with PeakMemory() as memory:
                record()
            recording, attention, whole = (seconds(work, repeat, device) for work in (record, attend, run_block))
            print(name)
            print(f"  memory that recording adds        {memory.peak / 2**20:8.1f} MiB")
            print(f"  a block's attention               {attention * 1e3:8.1f} ms")
            print(f"  a block                           {whole * 1e3:8.1f} ms")
            print(f"  recording it                      {recording * 1e3:8.1f} ms")
            print(f"  recording / attention             {recording / attention:8.1%}")
            share = read * recording / (depth * whole)
            print(f"  {read} recordings / {depth} blocks          {share:8.1%} of a forward pass\n")

        print("fewer queries for all: error of the map (norm), and tokens that change sides of 1")
        for frames in (1, 8):
            q, k = (tokens.to(device) for tokens in smooth_tokens(frames, 64, 1, noise))
            whole = received_attention(q, k, 1)
            for count in (512, 1024, 2048, 4096)[: 3 if frames == 1 else 4]:
                part = received_attention(q, k, 1, max_queries=count)
                error = float((part - whole).norm() / whole.norm())
                flipped = float(((part > 1) != (whole > 1)).float().mean())
                print(f"  {frames * 64 * 64:5d} tokens, {count:4d} queries  {error:7.2%}  {flipped:7.2%}")


if __name__ == "__main__":
    main()
