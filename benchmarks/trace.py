"""What it costs to keep a guided step for the mask preview, beside one transformer block.

    COMFYUI_PATH=... <ComfyUI's python> benchmarks/trace.py [--device cuda] [--dtype bfloat16] [--repeat 3]

The block is a small one, of 4096 tokens and 2 heads of 128 (1024 px). A guided step evaluates tens of larger ones three
times, and of a video several times as many tokens, so the share of a step is far below the share of this block.
"""

import argparse
import importlib
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parent / "helpers"))

import torch  # noqa: E402
from inside_comfyui import load_pack  # noqa: E402
from recording import Block, seconds  # noqa: E402

STEPS = 50
CASES = {
    "1024 px": (1, 1, 128, 128),
    "1024 px, batch of 8": (8, 1, 128, 128),
    "video, 81 frames of 832 x 480": (1, 1, 21, 60, 104),
    "video, 81 frames of 1280 x 720": (1, 1, 21, 90, 160),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"))
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--repeat", type=int, default=3)
    options = parser.parse_args()
    where = {"device": options.device, "dtype": getattr(torch, options.dtype)}
    pack = load_pack()["SAGSelfAttentionGuidance"].__module__.rpartition(".")[0]
    trace, watching = (importlib.import_module(f"{pack}.adapter.{name}") for name in ("trace", "watching"))
    with torch.inference_mode():
        block, x = Block(2, **where), torch.randn(1, 4096, 256, **where)
        one = seconds(lambda: block(x), options.repeat, options.device)
    print(f"one block: {one * 1e3:.0f} ms")
    print(f"{'':32}{'keep a step':>14}{'of the block':>14}{'50 steps':>12}")
    for name, shape in CASES.items():
        recorded = trace.Trace()
        watch = trace.recorded_in(recorded)
        attention = torch.rand(shape, device=options.device)
        mask, strength = (attention > 0.5).float(), torch.full(shape[:1], 0.1, device=options.device)

        def keep(watch=watch, attention=attention, mask=mask, strength=strength):
            watch.begin([float(sigma) for sigma in range(STEPS, -1, -1)])
            for number in range(STEPS):
                sigma = float(STEPS - number)
                watch.guided(watching.GuidedStep(number + 1, sigma, attention, mask, attention, 1.0, strength))
            watch.end()

        kept = seconds(keep, options.repeat, options.device) / STEPS
        size = sum(k.nbytes for step in recorded.run.guided for k in (step.attention, step.mask)) / 2**20
        print(f"{name:32}{kept * 1e3:>11.2f} ms{kept / one:>14.2%}{size:>8.1f} MiB")


if __name__ == "__main__":
    main()
