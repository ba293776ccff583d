"""Latents that the host evaluates in context windows are guided as a whole."""

import importlib
import inspect

import comfy.context_windows as windows
import pytest
import torch
from families import build, family_named
from outcomes import sample, spied, streams
from reference import guide_by_reference, relative_error

FRAMES = 9
SCHEDULES = [
    ("standard_static", {}), ("standard_uniform", {}), ("standard_uniform", {"context_stride": 2}),
    ("looped_uniform", {}), ("looped_uniform", {"closed_loop": True, "context_stride": 2}), ("batched", {}),
]  # fmt: skip
FUSIONS = [name for name in ("flat", "pyramid", "relative", "overlap-linear") if name in windows.FUSE_MAPPING]


def video_named(name):
    family = family_named(name)
    if family.sound and not hasattr(windows, "WindowingState"):
        pytest.skip("this host cannot cut packed latents into windows")
    if "VACE" in name and "vace_context" not in inspect.getsource(windows):
        pytest.skip("this host does not cut VACE's streams into windows")
    return family


def in_windows(model, length, overlap, *, schedule="standard_static", fusion="flat", dim=0, **more):
    """A clone that the host evaluates in windows; options that an older host does not know are left out."""
    known = inspect.signature(windows.IndexListContextHandler).parameters
    if more.get("split_conds_to_windows") and "split_conds_to_windows" not in known:
        pytest.skip("this host does not split prompts over windows")
    chosen = schedule
    if isinstance(schedule, str):
        chosen = windows.get_matching_context_schedule(schedule)
    model = model.clone()
    model.model_options["context_handler"] = windows.IndexListContextHandler(
        context_schedule=chosen, fuse_method=windows.get_matching_fuse_method(fusion), context_length=length,
        context_overlap=overlap, dim=dim, **{name: value for name, value in more.items() if name in known},
    )  # fmt: skip
    windows.create_prepare_sampling_wrapper(model)
    return model


def messages(caplog):
    return [record.getMessage() for record in caplog.records if record.name == "self-attention-guidance"]


def frames(host, model, positive=None, negative=None, **how):
    """Frames that know nothing of each other: whatever window they lie in, the model answers alike."""
    positive, negative = positive or host.conditioning(seed=1), negative or host.conditioning(seed=2)
    return host.sample(model, positive, negative, torch.zeros(FRAMES, 4, 8, 8), **{"steps": 2, **how})


@pytest.fixture(scope="module")
def unet(host):
    """A model whose frames are a batch, on a host that can cut a batch into windows."""
    model = host.unet(channel_mult=(1,), depth=(1,))
    try:
        frames(host, in_windows(model, 4, 2))
    except RuntimeError as problem:
        pytest.skip(f"this host cannot cut a batch into windows: {problem}")
    return model


@pytest.fixture(scope="module")
def guided_frames(host, unet):
    return frames(host, guide_by_reference(unet))


@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize("schedule, more", SCHEDULES)
def test_independent_frames_are_guided_as_without_windows(
    host, guide, caplog, unet, guided_frames, schedule, more, fusion
):
    if (schedule, fusion) == ("batched", "overlap-linear"):
        pytest.skip("the host itself fails: it gives windows of other lengths the weights of one length")
    windowed = in_windows(guide(unet), 4, 2, schedule=schedule, fusion=fusion, **more)
    assert relative_error(frames(host, windowed), guided_frames) < 1e-4
    assert messages(caplog) == []


@pytest.mark.parametrize("anchored", [True, False])
@pytest.mark.parametrize("cfg", [1.0, 7.0])
def test_frames_put_before_a_window_belong_to_another(host, guide, caplog, unet, anchored, cfg):
    windowed = guide(in_windows(unet, 4, 1, causal_window_fix=anchored))
    assert relative_error(frames(host, windowed, cfg=cfg), frames(host, guide_by_reference(unet), cfg=cfg)) < 1e-4
    assert messages(caplog) == []


def test_prompts_that_are_split_over_the_windows(host, guide, caplog, unet):
    """Three windows, three negative prompts: each guides its own window."""
    prompts = [host.conditioning(seed=seed) for seed in (5, 6, 7)]
    negative = [entry for prompt in prompts for entry in prompt]
    windowed = in_windows(guide(unet), 3, 0, split_conds_to_windows=True)
    expected = [
        frames(host, guide_by_reference(unet), negative=prompt)[3 * i : 3 * i + 3] for i, prompt in enumerate(prompts)
    ]
    assert relative_error(frames(host, windowed, negative=negative), torch.cat(expected)) < 1e-4
    assert messages(caplog) == []


ONE_WINDOW = windows.ContextSchedule("one window", lambda length, handler, model_options: [list(range(length))])
VIDEOS = [
    ("Wan 2.1 text to video", 2),
    ("Wan 2.1 VACE", 2),
    ("HunyuanVideo", 2),
    ("LTX-Video", 2),
    ("LTX-2 (video and sound)", 2),
]
PANORAMAS = [("Wan 2.1 text to video", 4), ("Qwen-Image", 4), ("Flux.1 dev", 3)]


@pytest.mark.parametrize("name, dim", [*VIDEOS, *PANORAMAS])
def test_one_window_over_everything_is_the_whole_latent(guide, caplog, name, dim):
    """The host cuts no windows as long as the latent: the schedule is ours."""
    family = video_named(name)
    model, how = build(family), {"cfg": 4.0, "batch": 1}
    length = family.latent[dim - 1]
    whole = in_windows(guide(model), length - 1, 0, schedule=ONE_WINDOW, dim=dim)
    for windowed, plain in zip(streams(sample(whole, family, **how)), streams(sample(guide(model), family, **how))):
        assert relative_error(windowed, plain) < 1e-4
    assert messages(caplog) == []


@pytest.mark.parametrize("name, dim", [*VIDEOS, *PANORAMAS])
def test_a_place_gets_the_average_of_the_windows_that_cover_it(guide, node_classes, caplog, name, dim):
    family = video_named(name)
    model, steps = build(family), []
    package = node_classes["SAGSelfAttentionGuidance"].__module__.rsplit(".", 2)[0]
    adapter, core = (importlib.import_module(f"{package}.{name}") for name in ("nodes.adapter", "sag_core"))
    watch = adapter.Watch(lambda schedule: None, steps.append, lambda message: None, lambda: None)
    size, overlap = (2, 1) if family.latent[dim - 1] == 3 else (8, 2)

    windowed = in_windows(adapter.guide_model(model, core.Settings(), watches=[watch]), size, overlap, dim=dim)
    windowed, passes = spied(windowed)
    image = streams(sample(windowed, family, cfg=4.0, batch=1, steps=1))[0]
    plain = streams(sample(in_windows(model, size, overlap, dim=dim), family, cfg=4.0, batch=1, steps=1))[0]
    assert (image - plain).abs().max() > 1e-3 * plain.abs().max()
    assert messages(caplog) == []

    shape = family.latent[1:]
    total, count = torch.zeros(shape), torch.zeros(shape)
    for part in passes[0].windows:
        places = part.window.index_list
        maps = torch.stack([recorded.received.reshape(recorded.grid) for recorded in part.maps.values()]).mean(0)
        first = 1 if getattr(part.window, "causal_anchor_index", -1) >= 0 else 0
        sides = list(shape)
        sides[dim - 2] = first + len(places)
        for axis, (side, cells) in enumerate(zip(sides, maps.shape)):  # nearest
            maps = maps.index_select(axis, torch.arange(side) * cells // side)
        total.index_add_(dim - 2, torch.tensor(places), maps.narrow(dim - 2, first, len(places)))
        count.index_add_(dim - 2, torch.tensor(places), torch.ones_like(maps.narrow(dim - 2, first, len(places))))
    torch.testing.assert_close(steps[0].attention[0, 0], total / count, rtol=1e-4, atol=1e-4)
    assert count.max() > 1 and len(passes[0].windows) > 1
