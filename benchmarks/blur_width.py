"""What a blur of one latent width means at the sizes of SD 1.5 and SDXL.

    python benchmarks/blur_width.py

Three measurements, none of which needs a model file:

1. the width of the blur relative to the image, measured on a single bright latent pixel;
2. the share of an image's contrast that the blur removes;
3. the size of the guidance term relative to the prediction, over noise levels.

2 and 3 use random images with the spectrum of photographs (amplitude falls as 1 / frequency) in place of latents, and
3 the denoiser that is exact for such images, the Wiener filter, in place of a network; everything is blurred, as no
attention exists. They say how blur and image size interact. They do not say what a trained SDXL makes of it.
"""

import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from sag_core import gaussian_blur, guidance_term  # noqa: E402

SIZES = {"SD 1.5, 512 px": 64, "SDXL, 1024 px": 128}  # latent pixels along a side, 8 image pixels each
BLURS = [(0.34, None), (0.5, None), (1.0, None), (2.0, None), (4.0, None), (4.0, 9), (10.0, 9)]  # sigma, kernel
NOISE_LEVELS = [0.1, 0.3, 1.0, 3.0, 10.0]


def spectrum(size):
    """Power of a field with amplitude 1 / frequency, scaled to variance 1; constant offsets have none."""
    rows, columns = torch.fft.fftfreq(size)[:, None], torch.fft.rfftfreq(size)[None]
    power = 1 / (rows**2 + columns**2).clamp_min(1 / size**2)
    power[0, 0] = 0
    full = torch.fft.fft2(torch.fft.irfft2(power, (size, size))).real.mean()
    return power / full


def images(size, count=8, seed=0):
    noise = torch.randn(count, 4, size, size, generator=torch.Generator().manual_seed(seed))
    return torch.fft.irfft2(torch.fft.rfft2(noise) * spectrum(size).sqrt(), (size, size))


def wiener(size, sigma):
    """The expected image given image + sigma * noise, exact for these images."""
    power = spectrum(size)
    return lambda x: torch.fft.irfft2(torch.fft.rfft2(x) * power / (power + sigma**2), (size, size))


def blur_width(sigma, kernel):
    """The standard deviation of what a single latent pixel becomes."""
    pixel = torch.zeros(1, 1, 129, 129)
    pixel[0, 0, 64, 64] = 1
    line = gaussian_blur(pixel, sigma, kernel)[0, 0].sum(0)
    offsets = torch.arange(129.0) - 64
    return (line * offsets**2).sum().sqrt().item()


def removed_contrast(size, sigma, kernel):
    x0 = images(size)
    return ((x0 - gaussian_blur(x0, sigma, kernel)).std() / x0.std()).item()


def term_size(size, sigma, kernel):
    """The norm of the guidance term over that of the prediction, averaged over the noise levels."""
    shares = []
    for level in NOISE_LEVELS:
        x = images(size) + level * torch.randn(8, 4, size, size, generator=torch.Generator().manual_seed(1))
        denoise = wiener(size, level)
        x0 = denoise(x)
        term = guidance_term(x, x0, torch.ones_like(x0[:, :1]), denoise, blur_sigma=sigma, kernel_size=kernel)
        shares.append((term.norm() / x0.norm()).item())
    return sum(shares) / len(shares)


def main():
    print(f"torch {torch.__version__}; random 1/f images, exact denoiser; no trained model is involved\n")
    print("blur_sigma  kernel  width (latent px)" + "".join(f"  |  {name}: width, removed, term" for name in SIZES))
    for sigma, kernel in BLURS:
        width = blur_width(sigma, kernel)
        cells = [
            f"  |  {'':{max(0, len(name) - 15)}}{width / size:9.2%} {removed_contrast(size, sigma, kernel):10.1%}"
            f" {term_size(size, sigma, kernel):10.1%}"
            for name, size in SIZES.items()
        ]
        print(f"{sigma:10g}  {kernel or 'auto':>6}  {width:17.2f}" + "".join(cells))


if __name__ == "__main__":
    main()
