"""Exactly the steps inside start_percent..end_percent are guided, whatever the scheduler."""

import logging

import comfy.samplers
import pytest
import torch
from counting import Calls

STEPS = 4


@pytest.fixture(scope="module", params=["eps", "flow"])
def model(request, host):
    return host.unet(prediction=request.param, channel_mult=(1, 1), depth=(0, 0))


def sample(host, model, **how):
    positive, negative = host.conditioning(seed=1), host.conditioning(seed=2)
    return host.sample(model, positive, negative, torch.zeros(1, 4, 8, 8), **{"steps": STEPS, **how})


def guided_steps(host, model, **how):
    calls = Calls(model)
    sample(host, calls.model, **how)
    return calls.guided()


def percent_at(sampling, sigma):
    """The last share of the schedule at which its noise level is not yet below sigma."""
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if float(sampling.percent_to_sigma(middle)) >= sigma else (low, middle)
    return low


@pytest.mark.parametrize("scheduler", comfy.samplers.SCHEDULER_NAMES)
def test_a_window_cut_at_a_step_guides_that_step_once(host, advanced, model, scheduler):
    """Two windows meet exactly at the noise level of a step: the second one guides it, the first does not."""
    sampling = model.get_model_object("model_sampling")
    sigmas = comfy.samplers.calculate_sigmas(sampling, scheduler, STEPS)
    sigmas = sigmas[sigmas > 0].tolist()
    cut = next(i for i in (2, 1) if sigmas[i] <= float(sampling.percent_to_sigma(1e-6)))
    percent = percent_at(sampling, sigmas[cut])
    before = guided_steps(host, advanced(model, end_percent=percent), scheduler=scheduler)
    after = guided_steps(host, advanced(model, start_percent=percent), scheduler=scheduler)
    assert before == sigmas[:cut]
    assert after == sigmas[cut:]


@pytest.mark.parametrize("scheduler", comfy.samplers.SCHEDULER_NAMES)
@pytest.mark.parametrize("start, end", [(0.0, 1.0), (0.25, 0.75)])
def test_the_models_own_schedule_decides(host, advanced, model, scheduler, start, end):
    sampling = model.get_model_object("model_sampling")
    sigmas = comfy.samplers.calculate_sigmas(sampling, scheduler, STEPS)
    high = float("inf") if start == 0 else float(sampling.percent_to_sigma(start))
    low = float(sampling.percent_to_sigma(end))
    expected = [sigma for sigma in sigmas.tolist() if low < sigma <= high]
    guided = guided_steps(host, advanced(model, start_percent=start, end_percent=end), scheduler=scheduler)
    assert guided == expected
    assert start > 0 or len(guided) == len(sigmas[sigmas > 0])


def test_outside_the_window_nothing_is_recorded_or_changed(host, advanced, model):
    """A window that begins behind the only step: the same image bit for bit, from the same calls."""
    late, always, plain = (Calls(m) for m in (advanced(model, start_percent=0.9), advanced(model), model))
    images, recording = [], []
    for calls in (late, always, plain):
        inside = []
        calls.model.set_model_attn1_patch(
            lambda n, context, value, options, inside=inside: (
                inside.append(options.get("self_attention_guidance_recording") is not None) or (n, context, value)
            )
        )
        images.append(sample(host, calls.model, steps=1))
        recording.append(any(inside))
    assert torch.equal(images[0], images[2])
    assert late.seen == plain.seen
    assert recording == [False, True, False]


@pytest.mark.parametrize("start, end", [(0.6, 0.4), (0.5, 0.5), (1.0, 1.0), (0.0, 0.0)])
def test_a_start_that_is_not_below_the_end_guides_nothing_and_says_so(host, advanced, model, caplog, start, end):
    with caplog.at_level(logging.WARNING):
        ours = sample(host, advanced(model, start_percent=start, end_percent=end))
    assert torch.equal(ours, sample(host, model))
    said = [record.getMessage() for record in caplog.records if "Self-Attention Guidance" in record.getMessage()]
    assert said == [
        f"Self-Attention Guidance: start_percent {start:g} is not below end_percent {end:g}; no step is guided."
    ]


def test_a_window_between_two_steps_says_that_it_holds_none(host, advanced, model, caplog):
    with caplog.at_level(logging.WARNING):
        ours = sample(host, advanced(model, start_percent=0.9, end_percent=0.91), steps=1)
    assert torch.equal(ours, sample(host, model, steps=1))
    assert "no step of this run lies between start_percent 0.9 and end_percent 0.91" in caplog.text


@pytest.mark.parametrize("sampler", ["heun", "dpm_2", "dpmpp_2s_ancestral"])
def test_every_second_step_means_steps_and_not_evaluations(host, advanced, model, sampler):
    """Samplers that evaluate twice a step guide both evaluations of a step or none."""
    sampling = model.get_model_object("model_sampling")
    sigmas = comfy.samplers.calculate_sigmas(sampling, "normal", 5 if sampler == "dpm_2" else 4)
    calls = Calls(advanced(model, apply_every=2))
    sample(host, calls.model, sampler=sampler, scheduler="normal")
    steps = sigmas.tolist()
    for sigma, branches in calls.seen:
        step = max(0, sum(s >= sigma for s in steps) - 1)
        if len(branches) == 1:
            assert step % 2 == 0
    evaluated = [sigma for sigma, branches in calls.seen if len(branches) == 2]
    wanted = [sigma for sigma in evaluated if max(0, sum(s >= sigma for s in steps) - 1) % 2 == 0]
    assert calls.guided() == wanted


def test_a_schedule_without_percents_is_guided_by_default_and_else_says_so(host, advanced, caplog):
    bare = host.unet()
    bare.model.model_sampling.percent_to_sigma = None
    plain = sample(host, bare)
    assert not torch.equal(sample(host, advanced(bare)), plain)
    with caplog.at_level(logging.WARNING):
        for change in ({"start_percent": 0.5}, {"scale_curve": "bell"}):
            assert torch.equal(sample(host, advanced(bare, **change)), plain)
    assert caplog.text.count("this model's schedule has no percents") == 2
