"""What a guidance node records of a run, and what the preview makes of it."""

import importlib
from types import SimpleNamespace

import pytest
import torch
from contract import our_messages
from families import FAMILIES, build
from outcomes import sample as sample_family

ADVANCED = "SAGSelfAttentionGuidanceAdvanced"
PREVIEW = "SAGMaskPreview"


@pytest.fixture(scope="module")
def traced(node_classes):
    """A model guided by the Advanced node, and its trace."""
    node = node_classes[ADVANCED]
    defaults = {i.id: i.default for i in node.define_schema().inputs if getattr(i, "default", None) is not None}
    return lambda model, **chosen: node.execute(model=model, **{**defaults, **chosen}).args


@pytest.fixture(scope="module")
def adapter(node_classes):
    return lambda name: importlib.import_module(
        f".adapter.{name}", node_classes[ADVANCED].__module__.rpartition(".")[0]
    )


@pytest.fixture
def shown(node_classes, monkeypatch):
    """What the preview node puts out; the file that it shows in the window is left out."""
    node = node_classes[PREVIEW]
    monkeypatch.setattr(importlib.import_module(node.__module__).ui, "PreviewImage", lambda *_, **__: None)
    return lambda **inputs: node.execute(**{"style": "overlay", "step": "middle", **inputs}).args


def sample(host, model, *, batch=2, size=(16, 24), **how):
    positive, negative = host.conditioning(seed=1), host.conditioning(seed=2)
    return host.sample(model, positive, negative, torch.zeros(batch, 4, *size), **{"steps": 4, "cfg": 4.0, **how})


def test_every_guided_step_is_recorded(host, traced):
    model, trace = traced(host.unet())
    assert trace.run is None and "Nothing was recorded yet" in trace.problem()
    sample(host, model)
    run = trace.run
    assert run.steps == 4 and [step.number for step in run.guided] == [1, 2, 3, 4] and run.said == ()
    assert trace.problem() is None
    sigmas = [step.sigma for step in run.guided]
    assert sigmas == sorted(sigmas, reverse=True)
    for step in run.guided:
        assert step.attention.shape == step.mask.shape == (2, 1, 16, 24)
        assert step.attention.dtype == torch.float16 and step.mask.dtype == torch.uint8
        assert step.attention.device.type == "cpu"
        assert step.attention.float().mean((1, 2, 3)).tolist() == pytest.approx([1, 1], abs=0.01)
        clear = (step.attention - 1).abs() > 0.01
        assert (step.mask == 255)[clear].equal((step.attention > 1)[clear])
        assert step.coverage == pytest.approx((step.attention > 1).float().mean().item(), abs=0.02)
        assert 0 < step.strength < 1


def test_strength_is_what_guidance_changed_relative_to_the_prediction(host, traced):
    """One step of Euler to 0 gives the prediction itself."""
    plain = host.unet()
    model, trace = traced(plain)
    without, guided = (sample(host, m, steps=1, batch=1) for m in (plain, model))
    expected = (guided - without).norm() / without.norm()
    assert trace.run.guided[0].strength == pytest.approx(expected.item(), rel=1e-3)


def test_recording_changes_nothing(host, traced, guide):
    model = host.unet()
    assert sample(host, traced(model)[0]).equal(sample(host, guide(model)))


def test_a_run_takes_the_place_of_the_one_before(host, traced):
    model, trace = traced(host.unet())
    sample(host, model)
    sample(host, model, steps=3, size=(8, 8), batch=1)
    assert trace.run.steps == 3 and [step.mask.shape for step in trace.run.guided] == [(1, 1, 8, 8)] * 3


def test_a_clone_is_recorded_by_the_same_trace(host, traced):
    model, trace = traced(host.unet())
    later = model.clone()
    later.model_options["transformer_options"]["someone_elses"] = object()
    sample(host, later.clone())
    assert len(trace.run.guided) == 4


def test_each_node_has_its_own_trace(host, traced):
    first, one = traced(host.unet())
    both, two = traced(first, start_percent=0.5)
    sample(host, both)
    assert len(one.run.guided) == 4 and len(two.run.guided) < 4


@pytest.mark.parametrize("sampler", ["heun", "dpm_2", "dpmpp_2s_ancestral", "dpmpp_sde", "euler_ancestral", "lcm"])
def test_steps_are_the_samplers_steps_however_often_it_evaluates(host, traced, sampler):
    model, trace = traced(host.unet())
    sample(host, model, sampler=sampler)
    assert trace.run.steps == 4 and [step.number for step in trace.run.guided] == [1, 2, 3, 4]


def test_a_step_number_is_found_by_its_noise_level(adapter):
    step_number, step_count = adapter("steps").step_number, adapter("steps").step_count
    schedule = [14.0, 7.0, 2.0, 0.0]
    assert [step_number(9, sigma, schedule) for sigma in (14.0, 10.0, 7.0001, 7.0, 3.0, 2.0, 0.5)] == [
        1,
        1,
        2,
        2,
        2,
        3,
        3,
    ]
    assert step_number(9, 20.0, schedule) == 1
    assert step_count(9, schedule) == 3
    assert (step_number(9, 5.0, []), step_count(9, [])) == (9, 9)


def test_reused_guidance_has_a_strength_and_no_map(host, traced, shown):
    model, trace = traced(host.unet(), apply_every=2, reuse=True)
    latent = sample(host, model)
    assert [step.mask is None for step in trace.run.guided] == [False, True, False, True]
    assert all(step.strength > 0 for step in trace.run.guided)
    pictures, masks = shown(trace=trace, after={"samples": latent}, step="all")
    assert len(pictures) == len(masks) == 2 * 2
    pictures, masks = shown(trace=trace, after={"samples": latent}, step="2")
    assert len(pictures) == 1 and masks.eq(0).all()


def test_what_was_said_is_what_the_preview_says(host, traced, shown, node_classes, monkeypatch):
    model, trace = traced(host.unet(), start_percent=0.5, end_percent=0.5)
    said = []
    module = importlib.import_module(node_classes[PREVIEW].__module__)
    monkeypatch.setattr(module, "nothing_to_see", lambda words, image: said.append(words) or (words, image))
    latent = sample(host, model)
    assert trace.run.guided == [] and trace.run.steps == 4
    shown(trace=trace, after={"samples": latent})
    assert "No step was guided" in said[-1] and "start_percent 0.5 is not below end_percent 0.5" in said[-1]
    shown(trace=None, after={"samples": latent})
    assert "No trace is connected" in said[-1]
    shown(trace=traced(host.unet(), scale=0.0)[1], after={"samples": latent})
    assert "scale or blur_sigma is 0" in said[-1]
    model, trace = traced(host.unet())
    sample(host, model)
    shown(trace=trace, after={"samples": latent}, step="7")
    assert said[-1] == "Step 7 has no mask of its own. Of 4 steps these have: 1-4."


def test_a_run_that_fails_leaves_what_it_had(host, traced):
    model, trace = traced(host.unet())
    calls = []

    def interrupt(args):
        calls.append(1)
        if len(calls) == 3:
            raise RuntimeError("interrupted")
        return args["denoised"]

    model.set_model_sampler_post_cfg_function(interrupt)
    with pytest.raises(RuntimeError, match="interrupted"):
        sample(host, model)
    assert [step.number for step in trace.run.guided] == [1, 2, 3]


@pytest.mark.parametrize(
    "shape",
    [(1, 4, 128, 128), (16, 4, 128, 128), (1, 16, 21, 90, 160), (64, 4, 128, 128)],
    ids=["1024 px", "batch", "video", "large batch"],
)
@pytest.mark.parametrize("steps", [20, 50, 400])
def test_a_run_takes_at_most_32_mib(adapter, shape, steps):
    trace_module, watching = adapter("trace"), adapter("watching")
    trace = trace_module.Trace()
    watch = trace_module.recorded_in(trace)
    schedule = [float(sigma) for sigma in range(steps, -1, -1)]
    batch, _, *cells = shape
    attention = torch.rand(batch, 1, *cells)
    watch.begin(schedule)
    for number, sigma in enumerate(schedule[:3]):
        term, strength = torch.zeros(1), torch.full((batch,), 0.1)
        step = watching.GuidedStep(number + 1, sigma, attention, (attention > 0.5).float(), term, 1.0, strength)
        watch.guided(step)
    watch.end()
    step = trace.run.guided[0]
    size = sum(kept.element_size() * kept.nelement() for kept in (step.attention, step.mask))
    assert size * steps <= 32 * 2**20 * 1.05
    assert step.attention.float().mean().item() == pytest.approx(0.5, abs=0.01)
    assert step.coverage == pytest.approx(0.5, abs=0.01)
    if shape == (1, 4, 128, 128) and steps <= 50:
        assert step.attention.shape == (1, 1, 128, 128), "and no less than there is room for"


def test_styles_draw_a_video_and_an_image_that_is_not_square(host, traced, shown, node_classes):
    model, trace = traced(host.unet())
    latent = sample(host, model, size=(16, 24))
    image = torch.rand(2, 128, 192, 3)
    for style in importlib.import_module(node_classes[PREVIEW].__module__).STYLES:
        pictures, masks = shown(trace=trace, after={"samples": latent}, image=image, style=style, step="last")
        assert pictures.ndim == 4 and masks.shape == (2, 128, 192)
        again, _ = shown(trace=trace, after=image, style=style, step="last")
        assert again.equal(pictures), "an IMAGE at 'after' is drawn on as well"


def test_a_video_is_recorded_and_shown_frame_by_frame(traced, shown, node_classes):
    family = next(family for family in FAMILIES if family.name == "Wan 2.1 text to video")
    frames, height, width = family.latent[1:]
    model, trace = traced(build(family))
    latent = sample_family(model, family, 4.0, steps=2)
    assert [step.mask.shape for step in trace.run.guided] == [(family.batch, frames, height, width)] * 2
    video = torch.rand(family.batch * (4 * (frames - 1) + 1), 8 * height, 8 * width, 3)
    for style, count in (("heat map", frames), ("overlay", frames), ("contact sheet", 1)):
        pictures, masks = shown(trace=trace, after={"samples": latent}, image=video, style=style, step="last")
        assert len(pictures) == family.batch * count
        assert masks.shape == (family.batch * frames, 8 * height, 8 * width)


# --- where we are in a prompt ---

PROMPT = {
    "model": {"class_type": "Loader", "inputs": {"name": "a"}},
    "sag": {"class_type": "Advanced", "inputs": {"model": ["model", 0], "scale": 1}, "is_changed": [True]},
    "sampler": {"class_type": "KSampler", "inputs": {"model": ["sag", 0], "seed": 1}},
    "other": {"class_type": "KSampler", "inputs": {"model": ["sag", 0], "seed": 1}},
    "preview": {"class_type": "Preview", "inputs": {"trace": ["sag", 1], "after": ["sampler", 0], "style": "plot"}},
}


def with_input(prompt, node, **inputs):
    return {**prompt, node: {**prompt[node], "inputs": {**prompt[node]["inputs"], **inputs}}}


def test_an_output_is_connected_where_another_node_takes_it(adapter):
    prompt = adapter("prompt")
    place = prompt.Place("id", PROMPT, "sag")
    assert prompt.is_connected(place, 0) and prompt.is_connected(place, 1) and not prompt.is_connected(place, 2)
    assert not prompt.is_connected(place._replace(node="sampler"), 1)
    assert prompt.is_connected(place._replace(node="made while it runs"), 1), "nobody knows"


def test_what_decides_over_a_result_is_found(adapter):
    upstream = adapter("prompt").upstream
    assert set(upstream(PROMPT, "sampler")) == {"sampler", "sag", "model"}
    assert set(upstream(PROMPT, "model")) == {"model"} and upstream(PROMPT, "gone") == {}
    assert upstream(PROMPT, "sampler") == upstream(with_input(PROMPT, "preview", style="overlay"), "sampler")
    unasked = {**PROMPT, "sag": {**PROMPT["sag"], "is_changed": [False]}}
    assert upstream(PROMPT, "sampler") == upstream(unasked, "sampler")
    assert upstream(PROMPT, "sampler") != upstream(with_input(PROMPT, "model", name="b"), "sampler")
    assert set(upstream(with_input(PROMPT, "model", name=["sampler", 0]), "sampler")) == {"sampler", "sag", "model"}


@pytest.mark.parametrize(
    ("prompt_id", "prompt", "sampler", "belongs"),
    [
        ("first", PROMPT, "sampler", True),
        ("first", PROMPT, "other", False),
        ("first", PROMPT, "made while it runs", True),
        ("later", with_input(PROMPT, "preview", style="overlay"), "sampler", True),
        ("later", with_input(PROMPT, "sampler", seed=2), "sampler", False),
        ("later", with_input(PROMPT, "model", name="b"), "sampler", False),
        ("later", with_input(PROMPT, "preview", after=["other", 0]), "sampler", False),
        ("later", {name: node for name, node in PROMPT.items() if name != "sampler"}, "sampler", False),
        ("later", PROMPT, "made while it runs", True),  # nobody knows
    ],
)
def test_a_trace_knows_the_pictures_that_its_run_made(
    host, traced, adapter, monkeypatch, prompt_id, prompt, sampler, belongs
):
    model, trace = traced(host.unet())
    place = adapter("prompt").Place
    monkeypatch.setattr(adapter("trace"), "here", lambda: place("first", PROMPT, sampler))
    sample(host, model, steps=1, batch=1)
    monkeypatch.setattr(adapter("trace"), "here", lambda: place(prompt_id, prompt, "preview"))
    assert (trace.problem() is None) == belongs
    assert belongs or "belongs to another picture" in trace.problem()


def test_a_step_that_cannot_be_read_is_refused_at_queue_time(node_classes):
    node = node_classes[PREVIEW]
    assert node.validate_inputs(step="all") is True and node.validate_inputs() is True
    assert "first, middle, last, all or a number from 1, got 'frist'" in node.validate_inputs(step="frist")


# --- the line on the node ---


@pytest.fixture
def watched(adapter, monkeypatch):
    """A server whose client watches; what is written under its nodes."""
    lines = []
    server = SimpleNamespace(
        client_id="client",
        sockets={"client": None},
        send_progress_text=lambda text, node, sid: lines.append((node, sid, text)),
    )
    monkeypatch.setattr(adapter("status"), "server", lambda: server)
    return SimpleNamespace(lines=lines, server=server)


@pytest.fixture
def told(adapter, host):
    """A model that is guided and tells on node 7."""

    def told(**settings):
        patch, core = (
            adapter("patch"),
            importlib.import_module("...sag_core", adapter("patch").__name__.rpartition(".")[0]),
        )
        return patch.guide_model(host.unet(), core.Settings(**settings), watches=[adapter("status").told_on("7")])

    return told


def test_a_run_is_summed_up_under_its_node_once(host, told, watched):
    sample(host, told())
    ((node, client, text),) = watched.lines
    assert (node, client) == ("7", "client")
    share = text.removeprefix("guided 4 of 4 steps, ").partition("% blurred, strength 0.")
    assert 10 < int(share[0]) < 60 and share[2].isdigit()
    sample(host, told(start_percent=0.4))
    assert watched.lines[1][2].startswith("guided 2 of 4 steps, ") and len(watched.lines) == 2


def test_why_nothing_was_guided_is_said_under_the_node(host, told, watched):
    sample(host, told(start_percent=0.5, end_percent=0.5))
    assert watched.lines[0][2] == "not guided: start_percent 0.5 is not below end_percent 0.5; no step is guided"
    sample(host, told(branch="unconditional"), cfg=1.0)
    assert watched.lines[1][2].startswith("not guided: ")


def test_nothing_is_said_where_nobody_watches(host, told, watched):
    watched.server.client_id = None
    sample(host, told())
    watched.server.client_id = "one that has left"
    sample(host, told())
    del watched.server.send_progress_text
    watched.server.client_id = "client"
    sample(host, told())
    assert watched.lines == []


def test_without_a_server_a_run_is_as_ever(host, told, caplog):
    assert sample(host, told()).isfinite().all()
    assert our_messages(caplog) == []


def test_the_line_is_in_words(adapter):
    summary = adapter("status").summary
    assert summary(18, 20, 0.384, 0.0612, []) == "guided 18 of 20 steps, 38% blurred, strength 0.061"
    assert summary(18, 20, None, 0.5, ["why"]) == "guided 18 of 20 steps, strength 0.5; why"
    assert summary(0, 20, None, None, ["why", "and so"]) == "not guided: why; and so"
    assert summary(0, 20, None, None, []) == "not guided: none of 20 steps"
