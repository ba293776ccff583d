"""The nodes that show what guidance does, through the real server on the demo model: POST /prompt, and look."""

import io

import numpy as np
import pytest
from PIL import Image

STEPS = 4


pytestmark = pytest.mark.usefixtures("server_log")


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
