"""The nodes that show what guidance does, through the real server on the demo model: POST /prompt, and look."""

import asyncio
import io
import json
import re
import struct
import sys
from dataclasses import asdict
from pathlib import Path

import aiohttp
import numpy as np
import pytest
from PIL import Image

from demo.comfyui import find_comfyui
from demo.server import serve
from sag_core import Settings

STEPS = 4


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    base = tmp_path_factory.mktemp("comfyui")
    with serve(find_comfyui(), Path(sys.executable), base, ["--cpu", "--cache-lru", "100"]) as running:
        yield running


@pytest.fixture(autouse=True)
def server_log(server):
    """Put the server's log into the report of a failed test; pytest drops it when the test passes."""
    yield
    print(server.log_text())


def node(class_type, **inputs):
    return {"class_type": class_type, "inputs": inputs}


def sampling(model, *, batch_size=1, seed=3):
    """The demo model, a KSampler that draws with `model`, and the decoded images."""
    return {
        "demo": node("SAGDemoModel", prompt="a red mushroom", negative_prompt="", batch_size=batch_size),
        "sampler": node(
            "KSampler", model=model, seed=seed, steps=STEPS, cfg=2.0, sampler_name="ddim", scheduler="simple",
            positive=["demo", 1], negative=["demo", 2], latent_image=["demo", 3], denoise=1.0,
        ),
        "image": node("VAEDecode", samples=["sampler", 0], vae=["demo", 4]),
    }  # fmt: skip


def grid(images=("image", 0), **inputs):
    defaults = {
        "labels": "", "columns": 0, "cell_size": 128, "difference": 0.0, "metrics": False, "zoom": 1.0, "zoom_x": 0.5,
        "zoom_y": 0.5,
    }  # fmt: skip
    return node("SAGCompareGrid", images=list(images), **{**defaults, **inputs})


ADVANCED = asdict(Settings(scale=1.0, blur_sigma=3.0))


def traced(*, seed=3, batch_size=1, after=("sampler", 0), image=None, **shown):
    """The demo model guided by the Advanced node, and a preview of its masks."""
    more = {} if image is None else {"image": image}
    return {
        **sampling(["sag", 0], seed=seed, batch_size=batch_size),
        "sag": node("SAGSelfAttentionGuidanceAdvanced", model=["demo", 0], **ADVANCED),
        "preview": node(
            "SAGMaskPreview",
            **{"trace": ["sag", 1], "after": list(after), "style": "overlay", "step": "last", **more, **shown},
        ),
    }


def untraced(**how):
    prompt = traced(**how)
    prompt["preview"] = node("PreviewImage", images=["image", 0])
    return prompt


def pictures(server, prompt, shown):
    """The pictures that a node shows, (h, w, 3)."""
    return [np.asarray(Image.open(io.BytesIO(file)).convert("RGB")) for file in server.pictures(prompt)[shown]]


def sweep(text, preset="default", **sampled):
    return {
        **sampling(["sweep", 0], **sampled),
        "sweep": node("SAGSweep", model=["demo", 0], sweep=text, preset=preset),
    }


def test_one_prompt_renders_a_sweep_as_one_labelled_table(server):
    prompt = {
        **sweep("scale=0, 1, 3; blur_sigma=1, 3"),
        "grid": grid(labels=["sweep", 1], columns=["sweep", 2], metrics=True, difference=2.0),
    }
    (page,) = pictures(server, prompt, "grid")
    assert page.shape[1] == 3 * (128 + 6) + 6
    cells = [page[:, 6 + i * 134 : 6 + i * 134 + 128] for i in range(3)]
    assert page.shape[0] > 4 * 128 and not (cells[0] == cells[1]).all()
    colours = {tuple(colour) for colour in cells[1].reshape(-1, 3)}
    assert len(colours) > 50, "the pictures are blank"


def test_scale_0_is_in_a_sweep_what_the_unguided_model_draws(server):
    prompt = {**sweep("scale=0, 1"), "save": node("PreviewImage", images=["image", 0])}
    plain = {**sampling(["demo", 0]), "save": node("PreviewImage", images=["image", 0])}
    off, guided = pictures(server, prompt, "save")
    (expected,) = pictures(server, plain, "save")
    assert (off == expected).all() and not (guided == expected).all()


def test_bad_text_is_refused_when_it_is_queued(server):
    prompt = {**sweep("scale=0, 1; blur_sigm=1"), "grid": grid()}
    with pytest.raises(RuntimeError, match=r"there is no setting 'blur_sigm'.*line 1, character 13.*\^"):
        server.queue(prompt)


def test_a_grid_takes_several_inputs_and_batches(server):
    prompt = {
        **sampling(["demo", 0], batch_size=2),
        "grid": grid(labels="a\nb\nc", images_2=["image", 0], images_4=["image", 0]),
    }
    (page,) = pictures(server, prompt, "grid")
    assert page.shape[1] == 3 * (128 + 6) + 6
    assert 2 * 128 < page.shape[0] < 3 * 128


def test_the_preset_node_guides(server):
    def drawn(model, more):
        (picture,) = pictures(
            server, {**sampling(model), **more, "save": node("PreviewImage", images=["image", 0])}, "save"
        )
        return picture

    preset = {"preset": node("SAGPreset", model=["demo", 0], preset="ComfyUI built-in")}
    plain = {"preset": node("SAGSelfAttentionGuidance", model=["demo", 0], scale=0.75, blur_sigma=1.0)}
    default = {"preset": node("SAGPreset", model=["demo", 0], preset="default")}
    assert (drawn(["preset", 0], default) == drawn(["preset", 0], plain)).all()
    assert not (drawn(["preset", 0], preset) == drawn(["preset", 0], plain)).all()


def words(page):
    """Whether a picture is one of those that only say something."""
    return page.shape[1] == 512 and (page[0, 0] == 238).all()


@pytest.mark.parametrize("style", ["heat map", "outline", "overlay", "contact sheet", "plot"])
def test_a_preview_shows_each_picture_of_a_batch(server, style):
    pages = pictures(server, traced(batch_size=2, image=["image", 0], style=style), "preview")
    assert len(pages) == (1 if style == "plot" else 2)
    assert not any(words(page) for page in pages)
    assert all(len({tuple(colour) for colour in page.reshape(-1, 3)}) > 30 for page in pages)


def test_a_preview_of_all_steps_makes_a_picture_and_a_mask_of_each(server):
    prompt = traced(after=["image", 0], step="all", style="heat map")
    prompt["masks"] = node("MaskToImage", mask=["preview", 1])
    prompt["save"] = node("PreviewImage", images=["masks", 0])
    assert len(pictures(server, prompt, "preview")) == STEPS
    masks = pictures(server, prompt, "save")
    assert len(masks) == STEPS and all(set(np.unique(mask)) == {0, 255} for mask in masks)


def test_a_preview_that_is_connected_later_has_the_sampler_run_again(server):
    """What was not recorded cannot be shown, and the sampler's result would come from the cache."""
    (drawn,) = pictures(server, untraced(seed=11), "preview")
    prompt = traced(seed=11)
    prompt["save"] = node("PreviewImage", images=["image", 0])
    (page,) = pictures(server, prompt, "preview")
    assert not words(page)
    (again,) = pictures(server, prompt, "save")
    assert (again == drawn).all()


def test_another_style_of_the_same_picture_needs_no_second_run(server):
    pictures(server, traced(seed=12), "preview")
    (page,) = pictures(server, traced(seed=12, style="contact sheet"), "preview")
    assert not words(page)


def test_masks_of_another_picture_are_not_shown_for_one_from_the_cache(server):
    for seed in (13, 14):
        pictures(server, traced(seed=seed), "preview")
    (page,) = pictures(server, traced(seed=13, style="contact sheet"), "preview")
    assert words(page)
    (page,) = pictures(server, traced(seed=14, style="contact sheet"), "preview")
    assert not words(page)


def test_each_seed_has_its_own_masks(server):
    one, other, again = (pictures(server, traced(seed=seed), "preview")[0] for seed in (21, 22, 21))
    assert one.shape == other.shape and not (one == other).all() and (one == again).all()


def test_a_preview_behind_another_sampler_says_so(server):
    """Two samplers, of which only the other one is guided: its trace is no picture of this one."""
    prompt = traced(seed=31)
    prompt["plain"] = node("KSampler", **{**prompt["sampler"]["inputs"], "model": ["demo", 0]})
    prompt["save"] = node("PreviewImage", images=["image", 0])
    prompt["preview"]["inputs"]["after"] = ["plain", 0]
    (page,) = pictures(server, prompt, "preview")
    assert words(page)


def test_a_bypassed_guidance_node_is_no_error(server):
    prompt = traced(seed=41)
    del prompt["sag"], prompt["preview"]["inputs"]["trace"]
    prompt["sampler"]["inputs"]["model"] = ["demo", 0]
    (page,) = pictures(server, prompt, "preview")
    assert words(page)


def test_the_preset_node_is_traced_as_well(server):
    prompt = traced(seed=51)
    prompt["sag"] = node("SAGPreset", model=["demo", 0], preset="diffusers")
    (page,) = pictures(server, prompt, "preview")
    assert not words(page)


def texts_under_nodes(server, prompt):
    """What the server writes under nodes while somebody who is connected has a prompt run."""
    texts = []

    async def watch():
        address = server.address.replace("http", "ws") + "/ws?clientId=somebody"
        async with aiohttp.ClientSession() as session, session.ws_connect(address) as socket:
            server.queue(prompt, client_id="somebody")
            async for message in socket:
                if message.type is aiohttp.WSMsgType.BINARY:
                    kind, length = struct.unpack(">II", message.data[:8])
                    if kind == 3:  # the host's TEXT
                        texts.append((message.data[8 : 8 + length].decode(), message.data[8 + length :].decode()))
                else:
                    event = json.loads(message.data)
                    assert event["type"] != "execution_error", event
                    if event["type"] == "execution_success":
                        return

    asyncio.run(asyncio.wait_for(watch(), 300))
    return texts


def test_the_node_says_how_guidance_went(server):
    ((node_id, text),) = texts_under_nodes(server, untraced(seed=61))
    assert node_id == "sag" and re.fullmatch(rf"guided {STEPS} of {STEPS} steps, \d+% blurred, strength 0\.\d+", text)

    prompt = untraced(seed=62)
    prompt["sag"]["inputs"].update(start_percent=0.5, end_percent=0.5)
    ((_, text),) = texts_under_nodes(server, prompt)
    assert text.startswith("not guided: start_percent 0.5 is not below end_percent 0.5")

    plain = {**sampling(["sag", 0], seed=63), "preview": node("PreviewImage", images=["image", 0])}
    plain["sag"] = node("SAGSelfAttentionGuidance", model=["demo", 0], scale=1.0, blur_sigma=3.0)
    assert [text[:8] for _, text in texts_under_nodes(server, plain)] == ["guided 4"]
