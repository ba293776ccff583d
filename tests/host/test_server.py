"""The main job on the real ComfyUI: start its server, queue the shipped workflows, look at the pictures.

Runs inside the interpreter of a ComfyUI installation, whose folder COMFYUI_PATH names:

    COMFYUI_PATH=/path/to/ComfyUI /path/to/ComfyUI/.venv/bin/python -m pytest tests/host/test_server.py

It needs no GPU, no download and no network: the checkpoint is a small one with random weights, written here.
"""

import copy
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import api_page
import pytest
from schemas import WIDGETS

from demo.comfyui import find_comfyui
from demo.server import Server
from demo.sheet import CELL, GAP, TITLE

torch = pytest.importorskip("torch")
safetensors_torch = pytest.importorskip("safetensors.torch")
Image = pytest.importorskip("PIL.Image")

COMFYUI = find_comfyui()
pytestmark = pytest.mark.usefixtures("server_log")

ROOT = Path(__file__).resolve().parents[2]
PACK_FOLDER = "self-attention-guidance"
NODE_ID = "SAGSelfAttentionGuidance"
WORKFLOWS = sorted((ROOT / "example_workflows" / "api").glob("sag_sd15_*.json"))
RELEASED = sorted((ROOT / "tests" / "released").glob("*/workflows/*.json"))
DEMO = ROOT / "example_workflows" / "api" / "sag_demo.json"

WIDTH, HEIGHT, STEPS = 128, 96, 2  # not square, so that a mix-up of rows and columns shows


# --- a checkpoint that the host takes for SD 1.5 ---------------------------------------------------------------------


def write_checkpoint(path: Path) -> None:
    """Write a checkpoint with the keys and widths by which the host knows SD 1.5, and as few blocks as it accepts.

    The UNet has two levels with one residual block each, the VAE is the tiny one that the host knows as TAESD. The
    text encoder cannot lose a layer, so its weights are stored in 8 bits; the host casts them on loading. Weights are
    scaled by their fan-in, which keeps random activations near 1 through the whole network.
    """
    generator = torch.Generator().manual_seed(0)
    shapes = {**unet_shapes(), **vae_shapes(), **clip_shapes()}
    tensors = {}
    for key, shape in shapes.items():
        if key.endswith(".bias") or key.endswith("vae_shift"):
            value = torch.zeros(shape)
        elif key.endswith("vae_scale") or "norm" in key or len(shape) == 1:
            value = torch.ones(shape)
        else:
            fan_in = max(1, torch.Size(shape[1:]).numel())
            value = torch.randn(shape, generator=generator) * fan_in**-0.5
        in_clip = key.startswith("cond_stage_model.")
        tensors[key] = value.to(torch.float8_e4m3fn if in_clip else torch.float16)
    safetensors_torch.save_file(tensors, str(path))


def unet_shapes() -> dict:
    """Parameters of the UNet: model_channels 320 and context 768 are what makes it SD 1.5 to the host."""
    width, context, time_width = 320, 768, 1280
    shapes = {}

    def layer(key, *shape):
        shapes[key + ".weight"] = shape
        shapes[key + ".bias"] = (shape[0],)

    def norm(key, channels):
        shapes[key + ".weight"] = (channels,)
        shapes[key + ".bias"] = (channels,)

    def res_block(key, channels):
        norm(f"{key}.in_layers.0", channels)
        layer(f"{key}.in_layers.2", width, channels, 3, 3)
        layer(f"{key}.emb_layers.1", width, time_width)
        norm(f"{key}.out_layers.0", width)
        layer(f"{key}.out_layers.3", width, width, 3, 3)
        if channels != width:
            layer(f"{key}.skip_connection", width, channels, 1, 1)

    def transformer(key):
        norm(f"{key}.norm", width)
        layer(f"{key}.proj_in", width, width, 1, 1)
        layer(f"{key}.proj_out", width, width, 1, 1)
        block = f"{key}.transformer_blocks.0"
        for attention, source in (("attn1", width), ("attn2", context)):
            shapes[f"{block}.{attention}.to_q.weight"] = (width, width)
            shapes[f"{block}.{attention}.to_k.weight"] = (width, source)
            shapes[f"{block}.{attention}.to_v.weight"] = (width, source)
            layer(f"{block}.{attention}.to_out.0", width, width)
        layer(f"{block}.ff.net.0.proj", 8 * width, width)
        layer(f"{block}.ff.net.2", width, 4 * width)
        for name in ("norm1", "norm2", "norm3"):
            norm(f"{block}.{name}", width)

    layer("time_embed.0", time_width, width)
    layer("time_embed.2", time_width, time_width)
    layer("input_blocks.0.0", width, 4, 3, 3)
    res_block("input_blocks.1.0", width)
    layer("input_blocks.2.0.op", width, width, 3, 3)
    res_block("input_blocks.3.0", width)
    transformer("input_blocks.3.1")  # the host reads the context width off the first transformer of the input side
    res_block("middle_block.0", width)
    transformer("middle_block.1")
    res_block("middle_block.2", width)
    for index in range(4):
        res_block(f"output_blocks.{index}.0", 2 * width)
    layer("output_blocks.1.1.conv", width, width, 3, 3)
    norm("out.0", width)
    layer("out.2", 4, width, 3, 3)
    return {"model.diffusion_model." + key: shape for key, shape in shapes.items()}


def vae_shapes() -> dict:
    """Parameters of TAESD, whose layers are numbered in a plain sequence."""
    shapes = {"vae_scale": (), "vae_shift": ()}

    def conv(key, out_channels, in_channels, bias=True):
        shapes[key + ".weight"] = (out_channels, in_channels, 3, 3)
        if bias:
            shapes[key + ".bias"] = (out_channels,)

    def block(key):
        for index in (0, 2, 4):
            conv(f"{key}.conv.{index}", 64, 64)

    conv("taesd_encoder.0", 64, 3)
    for index in range(1, 14):
        if index in (2, 6, 10):
            conv(f"taesd_encoder.{index}", 64, 64, bias=False)
        else:
            block(f"taesd_encoder.{index}")
    conv("taesd_encoder.14", 4, 64)

    conv("taesd_decoder.1", 64, 4)
    for index in (3, 4, 5, 8, 9, 10, 13, 14, 15, 18):
        block(f"taesd_decoder.{index}")
    for index in (7, 12, 17):
        conv(f"taesd_decoder.{index}", 64, 64, bias=False)
    conv("taesd_decoder.19", 3, 64)
    return {"first_stage_model." + key: shape for key, shape in shapes.items()}


def clip_shapes() -> dict:
    """Parameters of the CLIP-L text encoder."""
    width, layers = 768, 12
    shapes = {
        "embeddings.token_embedding.weight": (49408, width),
        "embeddings.position_embedding.weight": (77, width),
        "final_layer_norm.weight": (width,),
        "final_layer_norm.bias": (width,),
    }
    for index in range(layers):
        linear = {"mlp.fc1": (4 * width, width), "mlp.fc2": (width, 4 * width)}
        linear.update({f"self_attn.{name}_proj": (width, width) for name in ("q", "k", "v", "out")})
        for name, shape in linear.items():
            shapes[f"encoder.layers.{index}.{name}.weight"] = shape
            shapes[f"encoder.layers.{index}.{name}.bias"] = (shape[0],)
        for name in ("layer_norm1", "layer_norm2"):
            shapes[f"encoder.layers.{index}.{name}.weight"] = (width,)
            shapes[f"encoder.layers.{index}.{name}.bias"] = (width,)
    return {"cond_stage_model.transformer.text_model." + key: shape for key, shape in shapes.items()}


# --- the server ------------------------------------------------------------------------------------------------------


def pictures(server: Server, prompt: dict) -> dict:
    """Run `prompt` and return the pictures that it makes by the id of the node that saves them."""
    files = server.pictures(prompt)
    return {node: [Image.open(io.BytesIO(file)).convert("RGB") for file in saved] for node, saved in files.items()}


def picture(server: Server, prompt: dict):
    """Run `prompt` and return the one picture that it makes."""
    ((only,),) = pictures(server, prompt).values()
    return only


@pytest.fixture(scope="module")
def checkpoint(server):
    """The name of a checkpoint in the server's folder."""
    path = server.base / "models" / "checkpoints" / "random_sd15.safetensors"
    path.parent.mkdir(exist_ok=True)
    write_checkpoint(path)
    yield path.name
    path.unlink()  # it is large, and pytest keeps the folders of the last three runs


# --- the tests -------------------------------------------------------------------------------------------------------


def load_prompt(path: Path, checkpoint: str) -> dict:
    """A shipped workflow, made small."""
    return made_small(json.loads(path.read_text(encoding="utf-8")), checkpoint)


def made_small(prompt: dict, checkpoint: str) -> dict:
    """Change the checkpoint, the picture size and the steps of a workflow, and nothing else."""
    values = {
        "CheckpointLoaderSimple": {"ckpt_name": checkpoint},
        "EmptyLatentImage": {"width": WIDTH, "height": HEIGHT},
        "KSampler": {"steps": STEPS},
    }
    for node in prompt.values():
        node["inputs"].update(values.get(node["class_type"], {}))
    return prompt


def as_the_window_sends(server: Server, workflow: dict) -> dict:
    """The API form of a saved workflow, whose widget values go by position to the widgets that the server names."""
    links = {link[0]: [str(link[1]), link[2]] for link in workflow["links"]}
    prompt = {}
    for node in workflow["nodes"]:
        if node["type"] == "MarkdownNote":
            continue
        described = server.get_json(f"/object_info/{node['type']}")[node["type"]]["input"]
        values, inputs = list(node.get("widgets_values", [])), {}
        for name, (kind, *options) in {**described["required"], **described.get("optional", {})}.items():
            if not values or not (isinstance(kind, list) or kind in WIDGETS):
                continue
            inputs[name] = values.pop(0)
            if options and options[0].get("control_after_generate"):
                values.pop(0)  # a widget of the window alone
        assert not values, f"{node['type']} has lost the widgets of {values}"
        inputs.update({slot["name"]: links[slot["link"]] for slot in node["inputs"] if slot["link"] is not None})
        prompt[str(node["id"])] = {"class_type": node["type"], "inputs": inputs}
    return prompt


def only_node(prompt: dict, class_type: str) -> dict:
    """The one node of that class."""
    (node,) = [node for node in prompt.values() if node["class_type"] == class_type]
    return node


def with_input(prompt: dict, class_type: str, **values) -> dict:
    """A copy of `prompt` with some inputs of its only node of that class changed."""
    changed = copy.deepcopy(prompt)
    inputs = only_node(changed, class_type)["inputs"]
    assert set(values) <= set(inputs), f"{class_type} has the inputs {sorted(inputs)}"
    inputs.update(values)
    return changed


def without_guidance(prompt: dict) -> dict:
    """A copy of `prompt` without our node: what it fed now gets what it was fed."""
    changed = copy.deepcopy(prompt)
    ((node_id, node),) = [(key, node) for key, node in changed.items() if node["class_type"] == NODE_ID]
    del changed[node_id]
    for other in changed.values():
        for name, value in other["inputs"].items():
            if value == [node_id, 0]:
                other["inputs"][name] = node["inputs"]["model"]
    return changed


def test_server_offers_the_pack(server):
    info = server.get_json(f"/object_info/{NODE_ID}").get(NODE_ID)
    assert info, "the node is not registered"
    assert info["display_name"] == "Self-Attention Guidance (SAG)"
    assert info["category"] == "guidance/self-attention"
    assert info["description"]
    assert info["output"] == ["MODEL"]
    assert len(info["output_tooltips"]) == 1 and info["output_tooltips"][0]

    inputs = info["input"]["required"]
    assert list(inputs)[:3] == ["model", "scale", "blur_sigma"]
    for name, (_, options) in inputs.items():
        assert options.get("tooltip"), f"input {name} has no tooltip"
    limits = {name: [inputs[name][1][key] for key in ("default", "min", "max", "step")] for name in list(inputs)[1:3]}
    assert limits == {"scale": [0.75, -2.0, 5.0, 0.01], "blur_sigma": [1.0, 0.0, 10.0, 0.1]}


def test_server_has_help_texts_and_templates(server):
    pages = list((ROOT / "web" / "docs").rglob("*.md"))
    assert pages
    for page in pages:
        served = server.get(f"/extensions/{PACK_FOLDER}/docs/{page.relative_to(ROOT / 'web' / 'docs').as_posix()}")
        assert served == page.read_bytes()
    texts = server.get_json("/i18n")
    for language in (ROOT / "locales").iterdir():
        assert NODE_ID in texts[language.name]["nodeDefs"]
    templates = {path.stem for path in (ROOT / "example_workflows").glob("*.json")}
    assert templates <= set(server.get_json("/workflow_templates")[PACK_FOLDER])


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_shipped_workflow_makes_guided_pictures(server, checkpoint, path):
    prompt = load_prompt(path, checkpoint)
    seed = only_node(prompt, "KSampler")["inputs"]["seed"]

    guided = picture(server, prompt)
    assert guided.size == (WIDTH, HEIGHT)
    assert len(guided.getcolors(WIDTH * HEIGHT)) > 100, "the picture is blank"

    off = picture(server, with_input(prompt, NODE_ID, scale=0.0))
    plain = picture(server, without_guidance(prompt))
    assert off.tobytes() == plain.tobytes(), "scale 0 must equal the workflow without the node"
    assert guided.tobytes() != plain.tobytes(), "the guidance changed nothing"

    other = picture(server, with_input(prompt, "KSampler", seed=seed + 1))
    assert other.tobytes() != guided.tobytes()
    again = picture(server, prompt)
    assert again.tobytes() == guided.tobytes(), "a run must not depend on the runs before it"


@pytest.mark.parametrize("path", RELEASED, ids=lambda path: f"{path.parents[1].name}-{path.stem}")
def test_a_workflow_saved_with_a_released_version_still_runs(server, checkpoint, path):
    saved = json.loads(path.read_text(encoding="utf-8"))
    prompt = as_the_window_sends(server, saved)
    twin = json.loads((path.parent / "api" / path.name).read_text(encoding="utf-8"))
    assert {key: node["inputs"] for key, node in prompt.items()} == {key: node["inputs"] for key, node in twin.items()}
    for drawn in pictures(server, made_small(prompt, checkpoint)).values():
        assert drawn and all(len(one.getcolors(one.width * one.height)) > 20 for one in drawn)


def demo_prompt(**inputs):
    prompt = json.loads(DEMO.read_text(encoding="utf-8"))
    only_node(prompt, "SAGDemoModel")["inputs"].update(inputs)
    return prompt


def test_the_demo_needs_no_checkpoint(server):
    prompt = demo_prompt()
    for node in prompt.values():
        if node["class_type"] == "KSampler":
            node["inputs"]["steps"] = STEPS
    (saved,) = [key for key, node in prompt.items() if node["class_type"] == "SaveImage"]
    before = len(server.log_text())
    (sheet,) = pictures(server, prompt)[saved]
    (plain,) = pictures(server, with_input(prompt, "SAGSelfAttentionGuidanceAdvanced", scale=0.0))[saved]
    assert min(sheet.size) >= 384
    assert len(sheet.getcolors(sheet.width * sheet.height)) > 100, "the picture is blank"
    assert sheet.tobytes() != plain.tobytes(), "the guidance changed nothing"
    assert "Self-Attention Guidance:" not in server.log_text()[before:], "a warning where all should be well"


def test_a_word_that_the_demo_lacks_is_named(server):
    with pytest.raises(RuntimeError, match="got 'zebra' in 'a red zebra'"):
        server.queue(demo_prompt(prompt="a red zebra"))

    prompt = demo_prompt(prompt=["text", 0])
    prompt["text"] = {"class_type": "PrimitiveString", "inputs": {"value": "a red zebra"}}
    status = server.wait(server.queue(prompt))["status"]
    assert status["status_str"] == "error" and "got 'zebra' in 'a red zebra'" in json.dumps(status)


def test_the_demo_command_draws_in_comfyui(tmp_path):
    out = tmp_path / "both.png"
    command = [sys.executable, "-m", "demo", "--comfyui", str(COMFYUI), "--steps", str(STEPS), "--out", str(out)]
    environment = {**os.environ, "COMFYUI_PYTHON": sys.executable}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert str(out) in done.stdout
    with Image.open(out) as both:
        assert both.height == 2 * TITLE + 4 * (CELL + GAP)  # four rows
        columns = [both.crop((x, 2 * TITLE, x + CELL, both.height)) for x in (GAP, GAP + CELL + GAP)]
    assert all(len(column.getcolors(2**20)) > 100 for column in columns)  # pictures, and no white paper
    assert columns[0].tobytes() != columns[1].tobytes(), "the guidance changed nothing"


def test_the_program_in_the_page_about_the_api_draws_and_says_what_is_wrong(server, tmp_path):
    done = api_page.run(tmp_path, server.address)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()
    for line in done.stdout.split():
        with Image.open(tmp_path / Path(line).name) as copy_here, Image.open(server.base / "output" / line) as original:
            assert copy_here.tobytes() == original.tobytes()

    workflow = tmp_path / "example_workflows" / "api" / "sag_demo.json"
    workflow.write_text(json.dumps(demo_prompt(prompt="a red zebra")))
    done = api_page.run(tmp_path, server.address)
    assert (
        done.returncode == 1 and "SAGDemoModel: Custom validation failed for node: prompt - prompt must" in done.stdout
    )

    prompt = demo_prompt(prompt=["text", 0])
    prompt["text"] = {"class_type": "PrimitiveString", "inputs": {"value": "a red zebra"}}
    workflow.write_text(json.dumps(prompt))
    done = api_page.run(tmp_path, server.address)
    assert done.returncode == 1 and "failed: node" in done.stdout and "got 'zebra'" in done.stdout
