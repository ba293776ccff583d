"""Re-noising and the update rule are the paper's for every way a model may predict and mix noise.

The paper writes noise: eps(x_bar) + (1 + s) * (eps(x) - eps(x_bar)), x_bar being the degraded image under the noise
that was predicted. Here each sampling type's process x = alpha * x0 + spread * noise is written down in closed form,
and what the node does to a step is compared with that rule in noise.
"""

import comfy.model_sampling as sampling
import pytest
import torch
import torch.nn.functional as F
from reference import blur

SCALE, BLUR, SHIFT = 0.75, 1.5, 3.0
EVALUATION = "self_attention_guidance_evaluation"


def added(sigma):
    return torch.ones_like(sigma), sigma


def flow(sigma):
    return 1 - sigma, sigma


def made_of(kind, schedule, **parameters):
    def make(config):
        model_sampling = type("ModelSampling", (schedule, kind), {})(config)
        if parameters:
            model_sampling.set_parameters(**parameters)
        return model_sampling

    return make


CASES = {
    "EPS": (made_of(sampling.EPS, sampling.ModelSamplingDiscrete), added),
    "V": (made_of(sampling.V_PREDICTION, sampling.ModelSamplingDiscrete), added),
    "V, EDM schedule": (made_of(sampling.V_PREDICTION, sampling.ModelSamplingContinuousEDM), added),
    "EDM": (
        made_of(sampling.EDM, sampling.ModelSamplingContinuousEDM, sigma_min=0.002, sigma_max=80.0, sigma_data=0.5),
        added,
    ),
    "X0": (made_of(sampling.X0, sampling.ModelSamplingDiscrete), added),
    "flow": (made_of(sampling.CONST, sampling.ModelSamplingDiscreteFlow), flow),
    "flow with shift": (made_of(sampling.CONST, sampling.ModelSamplingDiscreteFlow, shift=SHIFT), flow),
    "Flux": (made_of(sampling.CONST, sampling.ModelSamplingFlux, shift=1.15), flow),
    "Cosmos": (made_of(sampling.COSMOS_RFLOW, sampling.ModelSamplingCosmosRFlow), added),
    "Stable Cascade": (made_of(sampling.EPS, sampling.StableCascadeSampling), added),
}


@pytest.mark.parametrize("name", CASES)
def test_a_guided_step_is_the_papers_rule_in_noise(host, guide, name):
    make, process = CASES[name]
    model = host.unet()
    model.add_object_patch("model_sampling", make(model.model.model_config))
    before, after, calls, passes = [], [], [], []

    def network(apply_model, args):
        result = apply_model(args["input"], args["timestep"], **args["c"])
        calls.append((args["input"].clone(), result.clone()))
        return result

    def note_before(args):
        before.append((args["input"].clone(), args["sigma"].clone(), args["denoised"].clone()))
        return args["denoised"]

    def note_after(args):
        after.append(args["denoised"].clone())
        passes.append(args["model_options"]["transformer_options"][EVALUATION].find(args["input"]))
        return args["denoised"]

    model.set_model_unet_function_wrapper(network)
    model.set_model_sampler_post_cfg_function(note_before)
    guided = guide(model, scale=SCALE, blur_sigma=BLUR)
    guided.set_model_sampler_post_cfg_function(note_after)
    prompt = host.conditioning(seed=1)
    host.sample(guided, prompt, prompt, torch.zeros(2, 4, 12, 20), cfg=1.0, steps=3, scheduler="simple")

    assert len(before) == len(after) == 3 and len(calls) == 6
    for number, ((x, sigma, x0), result, here) in enumerate(zip(before, after, passes)):
        x, x0, result = x.double(), x0.double(), result.double()
        x_bar, x0_bar = (tensor.double() for tensor in calls[2 * number + 1])
        alpha, spread = (factor.double().reshape(-1, 1, 1, 1) for factor in process(sigma))
        (recorded,) = here.maps.values()
        received = recorded.received.reshape(2, 1, *recorded.grid).double()
        mask = (F.interpolate(received, (12, 20), mode="nearest") > 1).double()
        degraded = mask * blur(x0, BLUR) + (1 - mask) * x0

        noise = (x - alpha * x0) / spread  # what the model takes for noise
        within = {"rtol": 1e-4, "atol": 1e-4 * float(x.abs().max())}
        torch.testing.assert_close(x_bar, alpha * degraded + spread * noise, **within)
        noise_bar = (x_bar - alpha * x0_bar) / spread
        guided_noise = noise_bar + (1 + SCALE) * (noise - noise_bar)
        rebuilt = alpha * result + spread * guided_noise  # x again, if the result is what that noise leaves of x
        torch.testing.assert_close(rebuilt, x, **within)
        assert (result - x0).abs().max() > 1e-3 * x0.abs().max()
    if name.startswith("flow") or name == "Flux":  # at the first step nothing of the image is left to degrade
        assert float(before[0][1][0]) == pytest.approx(1.0, abs=1e-3)


def test_shift_moves_the_noise_levels_and_not_the_share_of_the_image(host):
    """The share of the image is a function of sigma alone: a shift only chooses other sigmas."""
    config = host.unet().model.model_config
    plain, shifted = CASES["flow"][0](config), CASES["flow with shift"][0](config)
    middle = plain.percent_to_sigma(0.5)
    assert shifted.percent_to_sigma(0.5) == pytest.approx(SHIFT * middle / (1 + (SHIFT - 1) * middle))
    for model_sampling in (plain, shifted):
        share = model_sampling.noise_scaling(torch.tensor([0.3]), torch.zeros(1, 1), torch.ones(1, 1))
        torch.testing.assert_close(share, torch.tensor([[0.7]]))
