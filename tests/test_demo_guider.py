"""The guider for diffusers' modular pipelines: against the demo's engine, and against sag_core by hand."""

from types import SimpleNamespace

import pytest
import torch

pytest.importorskip("diffusers.guiders", reason="needs a diffusers that has guiders")

import diffusers
from diffusers.guiders import ClassifierFreeGuidance

import sag_core
from demo import checkpoint
from demo.engine import Engine, schedule_of
from demo.guidance import SelfAttentionGuidance as Reference
from demo.guider import MIDDLE, SelfAttentionGuidance, draw, level_of

STEPS, TEXTS = 4, ["a red apple", "duck"]  # 4 divides 1000: a scheduler then takes the steps that the demo takes
LEVELS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
VP = {  # every way of walking: its own noise levels, in between the trained ones, twice at the same, with new noise
    "DDIM": (diffusers.DDIMScheduler, {}),
    "Euler, Karras": (diffusers.EulerDiscreteScheduler, {"use_karras_sigmas": True}),
    "Euler ancestral": (diffusers.EulerAncestralDiscreteScheduler, {}),
    "Heun": (diffusers.HeunDiscreteScheduler, {}),
    "DPM++ 2M": (diffusers.DPMSolverMultistepScheduler, {}),
    "UniPC": (diffusers.UniPCMultistepScheduler, {}),
}


@pytest.fixture(scope="module")
def engine():
    return Engine(checkpoint.load())


@pytest.fixture
def noise(engine):
    return engine.noise(0, len(TEXTS))


def scheduler_of(name, prediction="epsilon"):
    kind, options = VP[name]
    return kind(**LEVELS, **options, prediction_type=prediction)


@pytest.mark.parametrize("cfg", [1.0, 3.0])
@pytest.mark.parametrize("scale", [0.75, -0.5])
def test_it_draws_what_the_demo_draws(engine, noise, cfg, scale):
    scheduler = schedule_of(engine.architecture)
    guider = SelfAttentionGuidance(scheduler, guidance_scale=cfg, sag_scale=scale, sag_blur_sigma=2.0)
    ours = draw(engine, scheduler, guider, noise, TEXTS, STEPS)
    with Reference(engine.unet, scale, 2.0) as guidance:
        theirs = engine.sample(noise, TEXTS, steps=STEPS, cfg=cfg, guidance=guidance)
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3)
    unguided = engine.sample(noise, TEXTS, steps=STEPS, cfg=cfg)
    assert not torch.allclose(ours, unguided, atol=1e-2)


@pytest.mark.parametrize("name", VP)
def test_a_network_that_predicts_velocity_draws_the_same_with_any_scheduler(engine, noise, name):
    pictures = []
    for prediction in ("epsilon", "v_prediction"):
        scheduler = scheduler_of(name, prediction)
        guider = SelfAttentionGuidance(scheduler, guidance_scale=2.0, sag_blur_sigma=2.0)
        network = engine.unet if prediction == "epsilon" else Velocity(engine.unet, scheduler)
        torch.manual_seed(0)  # some schedulers add noise
        pictures.append(draw(SimpleNamespace(unet=network, embed=engine.embed), scheduler, guider, noise, TEXTS, STEPS))
    assert pictures[0].isfinite().all()
    torch.testing.assert_close(*pictures, rtol=1e-2, atol=1e-2)


class Velocity(torch.nn.Module):
    """A network for noise as one for velocity, v = alpha * noise - sigma * x0."""

    def __init__(self, unet, scheduler):
        super().__init__()
        self.unet, self.scheduler = unet, scheduler
        self.mid_block = unet.mid_block

    def forward(self, z, timestep, **options):
        eps = self.unet(z, timestep, **options)[0]
        alpha = level_of(self.scheduler, timestep).alpha
        sigma = (1 - alpha**2) ** 0.5
        return (alpha * eps - sigma * (z - sigma * eps) / alpha,)


class Flow(torch.nn.Module):
    """A network for noise as one for a flow, v = noise - x0 at z = (1 - s) * x0 + s * noise."""

    def __init__(self, unet, table):
        super().__init__()
        self.unet, self.mid_block = unet, unet.mid_block
        self.ratios = ((1 - table) / table).sqrt()

    def forward(self, z, timestep, **options):
        s = float(timestep) / 1000
        nearest = (self.ratios - s / (1 - s)).abs().argmin()  # the trained level with about as much noise
        size = (1 - s) * (1 + (s / (1 - s)) ** 2) ** 0.5
        eps = self.unet(z / size, nearest, **options)[0]
        return (eps - (z - s * eps) / (1 - s),)


def test_a_flow_is_guided_as_sag_core_says_by_hand(engine, noise):
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler()
    scheduler.set_timesteps(STEPS)
    timestep = scheduler.timesteps[1]
    s = float(timestep) / 1000
    network = Flow(engine.unet, schedule_of(engine.architecture).alphas_cumprod)
    prompts = engine.embed(TEXTS), engine.embed([""] * 2)
    guider = SelfAttentionGuidance(scheduler, guidance_scale=3.0, sag_scale=0.6, sag_blur_sigma=1.5)
    guider.set_state(step=1, num_inference_steps=STEPS, timestep=timestep)
    batches = guider.prepare_inputs({"text": prompts})
    with torch.no_grad():
        for batch in batches:
            guider.prepare_models(network)
            batch.noise_pred = network(noise, timestep, encoder_hidden_states=batch.text, return_dict=False)[0]
            guider.cleanup_models(network)
        guided = noise - s * guider(batches).pred

        attention, seen = network.get_submodule(MIDDLE), []
        handle = attention.register_forward_pre_hook(lambda _, args: seen.append(args[0]))

        def denoise(z, text):
            return z - s * network(z, timestep, encoder_hidden_states=text, return_dict=False)[0]

        cond, uncond = (denoise(noise, text) for text in prompts)
        handle.remove()
        received = sag_core.received_attention(attention.to_q(seen[1]), attention.to_k(seen[1]), attention.heads)
        mask = sag_core.attention_mask(sag_core.upsample_map(received, (8, 8), (32, 32)))
        by_hand = sag_core.self_attention_guidance(
            uncond + 3.0 * (cond - uncond), noise, uncond, mask, lambda z: denoise(z, prompts[1]),
            scale=0.6, blur_sigma=1.5, alpha=1 - s,
        )  # fmt: skip
    assert not torch.allclose(guided, uncond + 3.0 * (cond - uncond), atol=1e-2)
    torch.testing.assert_close(guided, by_hand, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["Euler, Karras", "Heun", "DPM++ 2M"])
def test_the_noise_level_is_the_scheduler_s(name):
    scheduler = scheduler_of(name)
    scheduler.set_timesteps(7)
    for timestep, sigma in zip(scheduler.timesteps, scheduler.sigmas):
        assert level_of(scheduler, timestep).alpha == pytest.approx(float(1 / (1 + sigma**2).sqrt()), rel=2e-3)


def test_without_sag_it_is_the_library_s_own_guider_bit_for_bit(engine, noise):
    scheduler = schedule_of(engine.architecture)
    plain = draw(engine, scheduler, ClassifierFreeGuidance(guidance_scale=3.0), noise, TEXTS, STEPS)
    for options in ({"sag_scale": 0.0}, {"sag_blur_sigma": 0.0}, {"sag_stop": 0.0}):
        guider = SelfAttentionGuidance(scheduler, guidance_scale=3.0, **options)
        assert torch.equal(draw(engine, scheduler, guider, noise, TEXTS, STEPS), plain)
        assert guider.num_conditions == 2


def test_nothing_stays_on_the_network(engine, noise):
    scheduler = schedule_of(engine.architecture)
    draw(engine, scheduler, SelfAttentionGuidance(scheduler), noise, TEXTS, 2)
    for module in engine.unet.modules():
        assert not module._forward_hooks and not module._forward_pre_hooks


def test_its_configuration_is_kept_without_the_scheduler(engine):
    scheduler = schedule_of(engine.architecture)
    guider = SelfAttentionGuidance(scheduler, sag_scale=0.5).new(scheduler=scheduler, sag_threshold=1.3)
    assert (guider.settings.scale, guider.settings.mask_threshold) == (0.5, 1.3)
    assert "scheduler" not in guider.config


def test_what_is_missing_or_wrong_is_named(engine, noise):
    scheduler = schedule_of(engine.architecture)
    with pytest.raises(ValueError, match="give it as `scheduler`"):
        draw(engine, scheduler, SelfAttentionGuidance(), noise, TEXTS, 1)
    with pytest.raises(ValueError, match="scale must lie in"):
        SelfAttentionGuidance(scheduler, sag_scale=50.0)
    with pytest.raises(ValueError, match="prediction_type must be one of epsilon, v_prediction, sample"):
        level_of(SimpleNamespace(config={"prediction_type": "x"}, alphas_cumprod=torch.ones(9)), torch.tensor(1))
