"""Self-Attention Guidance as a guider of diffusers' modular pipelines, which have PAG, SEG and others, and no SAG.

An example to copy, together with `sag_core`, written against diffusers 0.42. In a modular pipeline with a UNet, such as
Stable Diffusion XL's:

    pipe.update_components(guider=SelfAttentionGuidance(pipe.scheduler, guidance_scale=5.0, sag_scale=0.75))

`draw` is the loop of those pipelines in a few lines, on the model in this pack.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple, Optional

import torch
from diffusers.configuration_utils import register_to_config
from diffusers.guiders.guider_utils import BaseGuidance, GuiderOutput
from torch import Tensor, nn

import sag_core

from .engine import Engine

MIDDLE = "mid_block.attentions.0.transformer_blocks.0.attn1"  # where the paper and its ports read


class Level(NamedTuple):
    """What is known at a noise level of a network that sees `z = alpha * x0 + sigma * noise`.

    Attributes:
        alpha: share of the picture in z.
        of_latent, of_prediction: the predicted picture is `of_latent * z + of_prediction * prediction`.
    """

    alpha: float
    of_latent: float
    of_prediction: float


def level_of(scheduler: Any, timestep: Tensor) -> Level:
    """The noise level of a step: what the network was trained on, however the scheduler walks.

    Raises:
        ValueError: a network that predicts something else than noise, velocity, the picture or a flow.
    """
    kind = scheduler.config.get("prediction_type", "flow_prediction")
    if kind == "flow_prediction":
        place = int((scheduler.timesteps == timestep.to(scheduler.timesteps.device)).nonzero()[0])
        sigma = float(scheduler.sigmas[place])  # z = (1 - sigma) * x0 + sigma * noise, v = noise - x0
        return Level(1 - sigma, 1.0, -sigma)
    signal = _signal(scheduler.alphas_cumprod, float(timestep))
    alpha, sigma = signal**0.5, (1 - signal) ** 0.5
    levels = {
        "epsilon": Level(alpha, 1 / alpha if alpha else math.inf, -sigma / alpha if alpha else math.inf),
        "v_prediction": Level(alpha, alpha, -sigma),
        "sample": Level(alpha, 0.0, 1.0),
    }
    if kind not in levels:
        raise ValueError(f"the scheduler's prediction_type must be one of {', '.join(levels)}, got {kind!r}")
    return levels[kind]


def _signal(table: Tensor, timestep: float) -> float:
    """alpha squared at a timestep, which lies between two trained ones where a scheduler chose its own noise levels."""
    low = math.floor(timestep)
    if low == timestep:
        return float(table[low])
    low_noise, high_noise = (math.log((1 - float(table[t])) / float(table[t])) for t in (low, low + 1))
    return 1 / (1 + math.exp(low_noise + (timestep - low) * (high_noise - low_noise)))


class SelfAttentionGuidance(BaseGuidance):
    """Classifier-free guidance and Self-Attention Guidance (Hong et al., ICCV 2023, arXiv 2210.00939) beside it.

    The pipeline evaluates the branch without the prompt (with it, where there is no classifier-free guidance) once
    more, on the latent whose attended parts this guider has blurred.

    Args:
        scheduler: that of the pipeline, which knows the noise levels. It is not kept in the configuration.
        guidance_scale: of classifier-free guidance; 1 is without.
        sag_scale: of Self-Attention Guidance; 0 is without, and costs nothing.
        sag_blur_sigma: width of the blur in latent pixels.
        sag_threshold: how much attention a place must receive to be blurred; 1 is the average.
        sag_attention: the name of the self-attention in the network that decides.
        sag_start, sag_stop: the part of the steps that SAG guides.
        start, stop, enabled: of all guidance, as in the library's guiders.

    Raises:
        ValueError: numbers out of range, as `sag_core.Settings`; no scheduler when the first step is guided.
    """

    _input_predictions = ["pred_cond", "pred_uncond", "pred_blurred"]
    ignore_for_config = ["scheduler"]

    @register_to_config
    def __init__(
        self,
        scheduler: Any = None,
        guidance_scale: float = 7.5,
        sag_scale: float = 0.75,
        sag_blur_sigma: float = 1.0,
        sag_threshold: float = 1.0,
        sag_attention: str = MIDDLE,
        sag_start: float = 0.0,
        sag_stop: float = 1.0,
        start: float = 0.0,
        stop: float = 1.0,
        enabled: bool = True,
    ) -> None:
        super().__init__(start, stop, enabled)
        self.scheduler = scheduler
        self.guidance_scale = guidance_scale
        self.settings = sag_core.Settings(
            scale=sag_scale,
            blur_sigma=sag_blur_sigma,
            mask_threshold=sag_threshold,
            start_percent=sag_start,
            end_percent=sag_stop,
        )
        self.sag_attention = sag_attention
        self._handles: list[Any] = []

    # What the library's loop asks for, in this order: set_state, prepare_inputs, then for each batch prepare_models,
    # the network, cleanup_models, and at last the guider itself.

    def prepare_inputs(self, data: "dict[str, Any]") -> "list[Any]":
        return [self._prepare_batch(data, index, name) for index, name in self._batches()]

    def prepare_inputs_from_block_state(self, data: Any, input_fields: "dict[str, Any]") -> "list[Any]":
        return [
            self._prepare_batch_from_block_state(input_fields, data, index, name) for index, name in self._batches()
        ]

    def prepare_models(self, denoiser: nn.Module) -> None:
        super().prepare_models(denoiser)
        if not self._guides_by_attention():
            return
        if self._count_prepared == self.num_conditions - 1:
            attention = denoiser.get_submodule(self.sag_attention)
            self._handles.append(attention.register_forward_pre_hook(self._record, with_kwargs=True))
            self._handles.append(denoiser.register_forward_hook(self._note, with_kwargs=True))
        elif self._count_prepared == self.num_conditions:
            self._handles.append(denoiser.register_forward_pre_hook(self._blur, with_kwargs=True))

    def cleanup_models(self, denoiser: nn.Module) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def forward(
        self, pred_cond: Tensor, pred_uncond: Optional[Tensor] = None, pred_blurred: Optional[Tensor] = None
    ) -> GuiderOutput:
        pred = pred_cond if pred_uncond is None else pred_uncond + self.guidance_scale * (pred_cond - pred_uncond)
        if pred_blurred is not None:
            level = self._level
            answer = level.of_latent * self._x_bar + level.of_prediction * pred_blurred
            # SAG equation 16 for predicted pictures, as a change of what the network predicts.
            pred = pred + self.settings.scale / level.of_prediction * (self._degraded - answer)
        return GuiderOutput(pred=pred, pred_cond=pred_cond, pred_uncond=pred_uncond)

    @property
    def is_conditional(self) -> bool:
        return self._count_prepared == 1 or not self._guides_by_prompt()

    @property
    def num_conditions(self) -> int:
        return len(self._batches())

    def _batches(self) -> "list[tuple[int, str]]":
        """Which of (cond, uncond) is evaluated, under which name."""
        batches = [(0, "pred_cond")]
        if self._guides_by_prompt():
            batches.append((1, "pred_uncond"))
        if self._guides_by_attention():
            batches.append((batches[-1][0], "pred_blurred"))
        return batches

    def _guides_by_prompt(self) -> bool:
        return self._enabled and self.guidance_scale != 1 and self._within(self._start, self._stop)

    def _guides_by_attention(self) -> bool:
        off = self.settings.scale == 0 or self.settings.blur_sigma == 0
        within = self._within(self.settings.start_percent, self.settings.end_percent)
        return self._enabled and not off and within and self._within(self._start, self._stop)

    def _within(self, start: float, stop: float) -> bool:
        steps = self._num_inference_steps
        return steps is None or int(start * steps) <= self._step < int(stop * steps)

    # Hooks, in the order in which they are called.

    def _record(self, attention: Any, args: "tuple[Any, ...]", kwargs: "dict[str, Any]") -> None:
        hidden_states = args[0] if args else kwargs["hidden_states"]
        q, k = attention.to_q(hidden_states), attention.to_k(hidden_states)
        self._received = sag_core.received_attention(q, k, attention.heads, scale=attention.scale)  # (b, n)

    def _note(self, denoiser: nn.Module, args: "tuple[Any, ...]", kwargs: "dict[str, Any]", output: Any) -> None:
        if self.scheduler is None:
            raise ValueError("SelfAttentionGuidance needs the pipeline's scheduler: give it as `scheduler`")
        z, prediction = args[0] if args else kwargs["sample"], output[0]
        self._level = level_of(self.scheduler, self._timestep)
        x0 = self._level.of_latent * z + self._level.of_prediction * prediction
        rows, columns = z.shape[-2:]
        halvings = round((rows * columns / self._received.shape[1]) ** 0.5)  # of both sides, by the network's levels
        grid = -(-rows // halvings), -(-columns // halvings)
        attended = sag_core.upsample_map(self._received, grid, (rows, columns))
        mask = sag_core.attention_mask(attended, self.settings.mask_threshold).to(x0.dtype)
        self._degraded = x0 + mask * (sag_core.gaussian_blur(x0, self.settings.blur_sigma) - x0)
        self._x_bar = z + self._level.alpha * (self._degraded - x0)

    def _blur(self, denoiser: nn.Module, args: "tuple[Any, ...]", kwargs: "dict[str, Any]") -> Any:
        return ((self._x_bar, *args[1:]), kwargs) if args else (args, {**kwargs, "sample": self._x_bar})


@torch.no_grad()
def draw(
    engine: Engine, scheduler: Any, guider: BaseGuidance, noise: Tensor, texts: Sequence[str], steps: int = 20
) -> Tensor:
    """Draw with the model in this pack as the library's modular pipelines do.

    Args:
        engine: the model.
        scheduler: any of diffusers, made for the model's noise levels.
        guider: any of diffusers, or the one above.
        noise: standard noise, (b, 3, h, w).
        texts: a prompt for each picture.
        steps: how many.

    Returns:
        Pictures (b, 3, h, w), about -1..1.
    """
    scheduler.set_timesteps(steps)
    latents = noise * scheduler.init_noise_sigma
    prompts = engine.embed(list(texts)), engine.embed([""] * len(texts))  # with the prompt, without
    for step, timestep in enumerate(scheduler.timesteps):
        guider.set_state(step=step, num_inference_steps=len(scheduler.timesteps), timestep=timestep)
        z = scheduler.scale_model_input(latents, timestep)
        batches = guider.prepare_inputs({"text": prompts})
        for batch in batches:
            guider.prepare_models(engine.unet)
            batch.noise_pred = engine.unet(z, timestep, encoder_hidden_states=batch.text, return_dict=False)[0]
            guider.cleanup_models(engine.unet)
        latents = scheduler.step(guider(batches).pred, timestep, latents, return_dict=False)[0]
    return latents
