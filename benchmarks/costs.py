"""What guidance costs beside ComfyUI's own SAG and PAG nodes, by size, batch and tokens, all in one run.

    COMFYUI_PATH=... <ComfyUI's python> benchmarks/costs.py

Samples on a UNet with random weights, every way in turn within a round, and gives the median over the rounds of the
ratio to the unguided run of the same round; the bracket is the lowest and the highest. Time is that of the processor,
so that other programs do not count. With CFG an unguided step has two evaluations, and one more makes 1.5.
"""

import argparse
import statistics
import sys
import time
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parent / "helpers"))

import torch  # noqa: E402
from inside_comfyui import load_pack  # noqa: E402
from real_host import RealHost  # noqa: E402

CASES = [(32, 1), (32, 4), (64, 1)]  # rows and columns of the latent, batch
WAYS = {  # name: a node of which module, with what
    "SAG": (None, {}),
    "SAG, every 2nd step, reused": (None, {"apply_every": 2, "reuse": True}),
    "SAG, every 5th step, reused": (None, {"apply_every": 5, "reuse": True}),
    "SAG, first fifth of the steps": (None, {"end_percent": 0.2}),
    "ComfyUI's SAG": ("nodes_sag.SelfAttentionGuidance", {"scale": 0.5, "blur_sigma": 2.0}),
    "ComfyUI's PAG": ("nodes_pag.PerturbedAttentionGuidance", {"scale": 3.0}),
}


def guided(model, node, chosen):
    import nodes

    if node is not None:
        module, name = node.split(".")
        kind = getattr(__import__(f"comfy_extras.{module}", fromlist=[name]), name)
        return kind.execute(model, **chosen)[0] if hasattr(kind, "execute") else kind().patch(model, **chosen)[0]
    kind = nodes.NODE_CLASS_MAPPINGS["SAGSelfAttentionGuidanceAdvanced"]
    defaults = {i.id: i.default for i in kind.define_schema().inputs if getattr(i, "default", None) is not None}
    return kind.execute(model=model, **{**defaults, **chosen}).args[0]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--cfg", type=float, default=2.0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    load_pack()
    host = RealHost()
    unet = host.unet(channels=64, channel_mult=(1, 2, 4), depth=(0, 1, 1), depth_middle=1)
    models = {"unguided": unet, **{name: guided(unet, *way) for name, way in WAYS.items()}}
    positive, negative = host.conditioning(seed=1), host.conditioning(seed=2)
    print(f"{host.name}, torch {torch.__version__}, one thread, {args.steps} steps, CFG {args.cfg:g}\n")
    for side, batch in CASES:
        ratios = {name: [] for name in models}
        for _ in range(args.rounds):
            times = {}
            for name, model in models.items():
                start = time.process_time()
                latent = torch.zeros(batch, 4, side, side)
                host.sample(
                    model, positive, negative, latent, cfg=args.cfg, steps=args.steps, scheduler="simple", seed=0
                )
                times[name] = time.process_time() - start
            for name in models:
                ratios[name].append(times[name] / times["unguided"])
        # The middle block lies two halvings below the latent.
        print(
            f"latent {side} x {side}, batch {batch}, {(side // 4) ** 2} tokens read; unguided {times['unguided']:.2f} s"
        )
        for name in WAYS:
            one = ratios[name]
            print(f"  {name:32} {statistics.median(one):.2f}  [{min(one):.2f}, {max(one):.2f}]")


if __name__ == "__main__":
    main()
