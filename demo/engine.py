"""Sampling with the demo model without ComfyUI: diffusers' UNet and noise schedule, and a place for a guidance."""

from dataclasses import dataclass
from functools import partial
from typing import Callable, Optional

import torch
from diffusers import DDIMScheduler
from torch import Tensor

from . import prompts
from .checkpoint import Architecture, Checkpoint
from .unet import build


@dataclass(frozen=True)
class Step:
    """What a guidance gets to see of one step.

    Attributes:
        x: the noisy pictures `alpha * picture + sigma * noise`, (b, 3, h, w).
        alpha, sigma: shares of the picture and of the noise in `x`.
        denoised: the prediction to guide, after classifier-free guidance.
        x0: the prediction of the guided branch: without the prompt where that was evaluated, else with it.
        denoise: the model on that branch at this noise level; one evaluation of the network.
        branch: the rows of the last evaluation that belong to that branch.
        progress: share of the schedule that lies behind, 0 at the first step.
    """

    x: Tensor
    alpha: float
    sigma: float
    denoised: Tensor
    x0: Tensor
    denoise: "Callable[[Tensor], Tensor]"
    branch: slice
    progress: float


Guidance = Callable[[Step], Tensor]


def schedule_of(architecture: Architecture) -> DDIMScheduler:
    """The noise schedule that the model was trained on, from pure noise to a clean picture.

    The same levels as ComfyUI's scheduler "simple" where the steps divide 1000.
    """
    return DDIMScheduler(
        beta_start=architecture.beta_start,
        beta_end=architecture.beta_end,
        beta_schedule="scaled_linear",
        timestep_spacing="trailing",
        set_alpha_to_one=True,
        clip_sample=False,
    )


class Engine:
    """The demo model, ready to sample.

    Args:
        checkpoint: its weights.
        device: where it runs.
        dtype: what the network computes in; between its evaluations all is float32.

    Attributes:
        unet: diffusers' network, in evaluation mode.
        evaluations: pictures that went through the network so far.
    """

    def __init__(self, checkpoint: Checkpoint, device: str = "cpu", dtype: torch.dtype = torch.float32) -> None:
        self.architecture = checkpoint.architecture
        self.unet = build(checkpoint.architecture).requires_grad_(False).eval()
        self.unet.load_state_dict(checkpoint.unet)
        self.unet.to(device).type(dtype)
        self.token_table = checkpoint.token_table.to(device, dtype)
        self.schedule = schedule_of(checkpoint.architecture)
        self.evaluations = 0

    def noise(self, seed: int, count: int = 1) -> Tensor:
        """Pure noise for `count` pictures, (b, 3, h, w); picture i is that of seed `seed + i`."""
        size = self.architecture.size
        seeds = range(seed, seed + count)
        return torch.cat([torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(s)) for s in seeds])

    def embed(self, texts: "list[str]") -> Tensor:
        """Prompts as the network takes them, (b, 2, token_width). Raises ValueError on a word it does not know."""
        return self.token_table[torch.tensor([prompts.tokens(text) for text in texts])]

    @torch.no_grad()
    def sample(
        self,
        noise: Tensor,
        texts: "list[str]",
        *,
        steps: int = 20,
        cfg: float = 1.0,
        guidance: Optional[Guidance] = None,
        on_step: Optional[Callable[[Tensor], None]] = None,
    ) -> Tensor:
        """Draw pictures by DDIM.

        Args:
            noise: where to start, (b, 3, h, w).
            texts: a prompt for each, see `prompts.tokens`.
            steps: from 1 to 1000, as even as 1000 noise levels allow.
            cfg: scale of classifier-free guidance; 1 is without, and costs no second evaluation.
            guidance: what returns the prediction to go on with; default the one it is given.
            on_step: called after every step with the noisy pictures that it leaves, (b, 3, h, w).

        Returns:
            (b, 3, h, w) about -1..1.

        Raises:
            ValueError: a number of prompts that is not that of the noise, an unknown word, steps out of range.
        """
        if len(texts) != len(noise):
            raise ValueError(f"texts must give a prompt for each of {len(noise)} pictures, got {len(texts)}")
        trained = len(self.schedule.alphas_cumprod)
        if not 1 <= steps <= trained:
            raise ValueError(f"steps must be from 1 to {trained}, got {steps}")
        device = self.token_table.device
        text, x = self.embed(texts), noise.to(device)
        if cfg != 1:
            text = torch.cat([self.embed([""]).expand_as(text), text])
        self.schedule.set_timesteps(steps, device=device)
        signals = [float(signal) for signal in self.schedule.alphas_cumprod[self.schedule.timesteps.cpu()]] + [1.0]
        levels = [(signal**0.5, (1 - signal) ** 0.5) for signal in signals]
        for timestep, (alpha, sigma), (next_alpha, next_sigma) in zip(self.schedule.timesteps, levels, levels[1:]):

            def denoise(x: Tensor, text: Tensor) -> Tensor:
                self.evaluations += len(text)
                x = x.repeat(len(text) // len(x), 1, 1, 1)
                noise = self.unet(x.to(text.dtype), timestep, text).sample  # noqa: B023
                return (x - sigma * noise.to(x.dtype)) / alpha  # noqa: B023

            predictions = denoise(x, text)
            x0, denoised = predictions[: len(x)], predictions[-len(x) :]
            if cfg != 1:
                denoised = x0 + cfg * (denoised - x0)
            if guidance is not None:
                branch = slice(0, len(x))
                progress = 1 - (int(timestep) + 1) / trained
                again = partial(denoise, text=text[branch])
                denoised = guidance(Step(x, alpha, sigma, denoised, x0, again, branch, progress))
            # To the next of these levels: the scheduler's own step goes on by 1000 // steps of them, and so ends with
            # noise left where that does not divide.
            x = next_alpha * denoised + next_sigma * (x - alpha * denoised) / sigma
            if on_step is not None:
                on_step(x)
        return x
