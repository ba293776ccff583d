"""What apply_every and reuse save, and how far the result is from full guidance.

    COMFYUI_PATH=... <ComfyUI's python> benchmarks/reuse.py

Runs the Advanced node in the real ComfyUI on small UNets with random weights and compares latents at the same seed.
Evaluations are exact for any model. The PSNR is that of these models: random weights say nothing about the images of
a trained one, only whether reusing the last term stays closer to full guidance than skipping it.
"""

import statistics
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parent / "helpers"))

import torch  # noqa: E402
from counting import Calls  # noqa: E402
from inside_comfyui import load_pack  # noqa: E402
from real_host import RealHost  # noqa: E402

SEEDS, STEPS, CFG, SCALE = range(5), 24, 2.0, 0.75
WAYS = [(k, reuse) for k in (2, 3) for reuse in (False, True)]


def psnr(got, expected):
    """In dB, against the range of what is expected."""
    error = (got - expected).square().mean().sqrt()
    return (20 * torch.log10((expected.max() - expected.min()) / error)).item()


def advanced_node():
    node = load_pack()["SAGSelfAttentionGuidanceAdvanced"]
    defaults = {i.id: i.default for i in node.define_schema().inputs if getattr(i, "default", None) is not None}
    return lambda model, **chosen: node.execute(model=model, **{**defaults, "scale": SCALE, **chosen}).args[0]


def measure(host, guide, prediction, seed, **chosen):
    """The latent that a run gives, and how many rows its network evaluated."""
    unet = host.unet(prediction=prediction, seed=seed)
    calls = Calls(guide(unet, **chosen) if guide else unet)
    positive, negative = host.conditioning(seed=2 * seed), host.conditioning(seed=2 * seed + 1)
    latent = host.sample(
        calls.model, positive, negative, torch.zeros(1, 4, 16, 16), cfg=CFG, steps=STEPS, scheduler="simple", seed=seed
    )
    return latent, sum(len(branches) for _, branches in calls.seen)


def main():
    torch.set_num_threads(1)
    host, guide = RealHost(), advanced_node()
    print(f"{host.name}, random weights, {STEPS} steps, CFG {CFG:g}, scale {SCALE:g}, {len(SEEDS)} models and seeds\n")
    print("prediction  apply_every  reuse  evaluations saved  PSNR to full guidance, dB (mean, sd)")
    for prediction in ("eps", "v", "flow"):
        full = {seed: measure(host, guide, prediction, seed) for seed in SEEDS}
        for label, way in [(f"{k:11}  {reuse!s:>5}", (k, reuse)) for k, reuse in WAYS] + [("   unguided       ", None)]:
            values, saved = [], []
            for seed in SEEDS:
                chosen = {} if way is None else {"apply_every": way[0], "reuse": way[1]}
                got, evaluations = measure(host, guide if way else None, prediction, seed, **chosen)
                values.append(psnr(got, full[seed][0]))
                saved.append(1 - evaluations / full[seed][1])
            mean, spread = statistics.mean(values), statistics.stdev(values)
            print(f"{prediction:10}  {label}  {statistics.mean(saved):17.1%}  {mean:6.1f}, {spread:.1f}")


if __name__ == "__main__":
    main()
