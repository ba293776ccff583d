"""Callers that are no usual guider: they look elsewhere first, run without a guider, or say less than the host does."""

import comfy.sampler_helpers
import comfy.samplers
import pytest
import torch
from contract import WHOLE_RUN, latent, our_messages, prompts
from families import FAMILIES, build, conditioning
from graphs import sample_with, windows
from reference import guide_by_reference, relative_error


class LooksElsewhereFirst(comfy.samplers.CFGGuider):
    """Evaluates the same entries at another latent before those of the step: whole predictions or branches alone."""

    whole = True

    def predict_noise(self, x, timestep, model_options=None, seed=None):
        positive, negative = self.conds["positive"], self.conds["negative"]
        other = 0.5 * x.flip(-1) + 1
        if self.whole:
            comfy.samplers.sampling_function(
                self.inner_model, other, timestep, negative, positive, self.cfg, model_options=model_options, seed=seed
            )
        else:
            comfy.samplers.calc_cond_batch(self.inner_model, [positive, negative], other, timestep, model_options)
        return super().predict_noise(x, timestep, model_options, seed)


def guider(kind, model, positive, negative):
    chosen = kind(model)
    chosen.set_conds(positive, negative)
    chosen.set_cfg(4.0)
    return chosen


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("cfg", [4.0, 1.0])
def test_the_latent_that_is_guided_is_the_one_that_is_read(host, guide, whole, cfg):
    model, elsewhere = host.unet(), type("Elsewhere", (LooksElsewhereFirst,), {"whole": whole})
    images = []
    for kind, patched in (
        (comfy.samplers.CFGGuider, model),
        (comfy.samplers.CFGGuider, guide_by_reference(model)),
        (elsewhere, guide(model)),
    ):
        chosen = guider(kind, patched, *prompts(host))
        chosen.set_cfg(cfg)
        images.append(sample_with(chosen))
    plain, expected, ours = images
    assert relative_error(expected, plain) > 1e-3
    assert relative_error(ours, expected) < WHOLE_RUN


@pytest.mark.parametrize("whole", [True, False])
def test_so_it_is_with_context_windows(host, guide, whole, caplog):
    family = next(family for family in FAMILIES if family.name == "Wan 2.1 text to video")
    model, elsewhere = guide(windows(3, 1)(build(family))), type("Elsewhere", (LooksElsewhereFirst,), {"whole": whole})
    entries = conditioning(family, seed=1), conditioning(family, seed=2)
    start = torch.zeros(1, family.latent[0], 5, *family.latent[2:])
    noise = torch.randn(start.shape, generator=torch.Generator().manual_seed(7))
    images = []
    for kind in (comfy.samplers.CFGGuider, elsewhere):
        sigmas = comfy.samplers.calculate_sigmas(model.get_model_object("model_sampling"), "simple", 2)
        with torch.inference_mode():
            images.append(
                guider(kind, model, *entries).sample(
                    noise, start, comfy.samplers.sampler_object("euler"), sigmas, disable_pbar=True
                )
            )
    assert torch.equal(*images)
    assert our_messages(caplog) == []


def sample_without_a_guider(host, model, sigmas=(10.0, 5.0, 1.0, 0.0)):
    """A loop over noise levels of its own, around the host's sampling_function."""
    x = sigmas[0] * torch.randn(1, 4, 8, 12, generator=torch.Generator().manual_seed(3))
    conds = {
        name: comfy.sampler_helpers.convert_cond(entries)
        for name, entries in zip(("positive", "negative"), prompts(host))
    }
    conds = comfy.samplers.process_conds(model.model, x, conds, torch.device("cpu"))
    options = comfy.model_patcher.create_model_options_clone(model.model_options)
    model.model.current_patcher = model
    with torch.inference_mode():
        for sigma, after in zip(sigmas, sigmas[1:]):
            at = torch.full((1,), sigma)
            denoised = comfy.samplers.sampling_function(
                model.model, x, at, conds["negative"], conds["positive"], 4.0, model_options=options
            )
            x = denoised + after * (x - denoised) / sigma
    return x


def test_a_run_without_a_guider_is_not_guided_and_says_so_once_a_run(host, guide, caplog):
    model = host.unet()
    plain, guided = sample_without_a_guider(host, model), guide(model)
    for _ in range(2):
        caplog.clear()
        assert torch.equal(sample_without_a_guider(host, guided), plain)
        assert len(our_messages(caplog)) == 1
        assert "does not run the guided model as its own" in our_messages(caplog)[0]


SAID = ("denoised", "cond", "uncond", "cond_denoised", "uncond_denoised", "sigma", "input", "model", "model_options",
        "cond_scale")  # fmt: skip
NEEDED = {
    "sigma": "the sampler does not say what its sigma is",
    "input": "the sampler does not say what its input is",
    "model": "the sampler does not say what its model is",
    "model_options": "does not run the guided model as its own",
}


@pytest.mark.parametrize("missing", SAID[3:])
@pytest.mark.parametrize("settings", [{}, {"rescale": 0.7}, {"apply_every": 2, "reuse": True}], ids=str)
def test_a_caller_that_says_less_gets_a_warning_at_most(host, advanced, caplog, missing, settings):
    model = host.unet()
    guided = advanced(model, **settings)
    functions = guided.model_options["sampler_post_cfg_function"]
    functions[:] = [
        lambda args, function=function: function({name: args[name] for name in SAID if name != missing})
        for function in functions
    ]
    ours = host.sample(guided, *prompts(host), latent(8, 12), cfg=4.0)
    plain = host.sample(model, *prompts(host), latent(8, 12), cfg=4.0)
    messages = our_messages(caplog)
    if missing in NEEDED:
        assert torch.equal(ours, plain)
        assert len(messages) == 1 and NEEDED[missing] in messages[0]
    else:
        assert not torch.equal(ours, plain) and ours.isfinite().all()
        assert messages == []
