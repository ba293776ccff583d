"""Does the demo model follow the reasoning of docs/difference.md? `python -m benchmarks.quality.gain` plots both.

Real pictures get noise, everything is blurred, and what comes back of the detail that the blur removed is measured in
rings of equal frequency, beside the Wiener gain that the pictures' own spectrum predicts. Writes docs/difference.png.
"""

import argparse
from pathlib import Path

import matplotlib
import torch
from torch import Tensor

from demo import checkpoint
from demo.data import pictures
from demo.engine import Engine
from sag_core import gaussian_blur, guidance_term

from .judge import HELD_OUT

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402

TIMESTEPS = (899, 699, 499, 299, 199, 99, 49)
BLUR = 1.0


def rings(images: Tensor) -> Tensor:
    """The spectrum of the brightness, (n, h, w) complex, of pictures (n, 3, h, w); noise of variance 1 has power 1."""
    return torch.fft.fft2(images.sum(1) / 3**0.5, norm="ortho")


def by_ring(values: Tensor) -> Tensor:
    """Means over rings from 1 to half as many periods as there are rows, of (n, h, w)."""
    side = values.shape[-1]
    rows = torch.fft.fftfreq(side, 1 / side)
    ring = torch.hypot(rows[:, None], rows[None]).round().long()
    return torch.stack([values[:, ring == r].mean() for r in range(1, side // 2 + 1)])


@torch.no_grad()
def gains(engine: Engine, images: Tensor, timestep: int) -> "tuple[Tensor, Tensor]":
    """By ring: the share of the removed detail that the image difference holds, and the Wiener gain."""
    signal = float(engine.schedule.alphas_cumprod[timestep])
    alpha, sigma = signal**0.5, (1 - signal) ** 0.5
    text = engine.embed([""] * len(images))
    x = alpha * images + sigma * torch.randn(images.shape, generator=torch.Generator().manual_seed(timestep))

    def denoise(x: Tensor) -> Tensor:
        return (x - sigma * engine.unet(x, timestep, text).sample) / alpha

    x0 = denoise(x)
    mask = torch.ones_like(x0[:, :1])
    term = rings(guidance_term(x, x0, mask, denoise, blur_sigma=BLUR, alpha=alpha, difference="image"))
    removed = rings(x0 - gaussian_blur(x0, BLUR))
    measured = by_ring((removed.conj() * term).real) / by_ring(removed.abs().square())
    power = alpha**2 * by_ring(rings(images - images.mean(0)).abs().square())
    return measured, power / (power + sigma**2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--samples", type=int, default=256, help="pictures")
    parser.add_argument("--weights", type=Path, default=checkpoint.WEIGHTS)
    parser.add_argument("--cache", type=Path, default=Path(".cache"), help="where pictures are kept")
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[2] / "docs" / "difference.png")
    args = parser.parse_args()
    engine = Engine(checkpoint.load(args.weights))
    real = pictures(args.samples, 32, args.cache / "pictures", first_chunk=HELD_OUT).images.float() / 127.5 - 1
    figure, axes = plt.subplots(figsize=(8, 4.5), layout="constrained")
    print("noise / picture | gain of the image difference at 2, 4, 8, 12, 16 periods a picture: measured (predicted)")
    for colour, timestep in enumerate(TIMESTEPS):
        measured, predicted = gains(engine, real, timestep)
        signal = float(engine.schedule.alphas_cumprod[timestep])
        noise = ((1 - signal) / signal) ** 0.5
        periods = range(1, len(measured) + 1)
        axes.plot(periods, measured, color=f"C{colour}", label=f"{noise:.2g}")
        axes.plot(periods, predicted, color=f"C{colour}", linestyle="--")
        cells = [f"{measured[r - 1]:6.2f} ({predicted[r - 1]:.2f})" for r in (2, 4, 8, 12, 16)]
        print(f"{noise:15.2f} | " + "  ".join(cells))
    axes.set(xlabel="periods a picture", ylabel="share of the removed detail, w", ylim=(-0.1, 1.1))
    axes.legend(title="noise / picture", fontsize=8)
    axes.set_title("image difference = w h, noise difference = -(1 - w) h;  solid: demo model, dashed: Wiener gain")
    axes.title.set_fontsize(10)
    figure.savefig(args.out, dpi=80)
    print(f"wrote {args.out}")


if __name__ == "__main__":
    main()
