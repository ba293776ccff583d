"""Writes example_workflows: each graph below in the window's form, its API twin and its thumbnail.

    python -m tools.templates COMFYUI

Slots and widgets are those that the ComfyUI in that folder reports of its nodes (COMFYUI_PYTHON: its interpreter).
"""

import json
import shutil
import sys
import tempfile
import uuid
from pathlib import Path
from typing import Any, NamedTuple, Optional

from PIL import Image, ImageChops

from demo.comfyui import find_python
from demo.server import Server, serve
from sag_core import PRESETS

from . import thumbnails
from .help import PICTURES

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "example_workflows"
PACK, HOST = "self-attention-guidance", "comfy-core"
WIDGETS = {"INT", "FLOAT", "STRING", "BOOLEAN", "COMBO"}
NOTE = "MarkdownNote"
ANY = 300  # a height that suits most nodes


class Out(NamedTuple):
    """An output of a node: its place in the graph, and which of its outputs, from 0."""

    node: int
    slot: int = 0


class Model(NamedTuple):
    """A file that a loader needs, for the window's dialog of missing models."""

    directory: str
    url: str

    @property
    def name(self) -> str:
        return self.url.rsplit("/", 1)[-1]


class Node(NamedTuple):
    """A node, numbered from 1 in the order of its graph.

    Attributes:
        type: its id.
        box: left, top, width and height.
        inputs: values and links by name; the others stay at their defaults.
        title: instead of its own.
        models: the files that it needs.
    """

    type: str
    box: "tuple[int, int, int, int]"
    inputs: "dict[str, Any]" = {}
    title: Optional[str] = None
    models: "tuple[Model, ...]" = ()


def note(text: str, box: "tuple[int, int, int, int]") -> Node:
    return Node(NOTE, box, {"text": text}, "About this workflow")


def sampler(model: Out, positive: Out, negative: Out, latent: Out, **values: Any) -> "dict[str, Any]":
    return {
        "model": model, "positive": positive, "negative": negative, "latent_image": latent,
        "seed": 20221003, **values,
    }  # fmt: skip


# --- graphs of the demo model ----------------------------------------------------------------------------------------

GUIDED = PRESETS["sharper"]
DRAWN = {"steps": 20, "cfg": 2.0, "sampler_name": "ddim", "scheduler": "simple"}


def demo_model(prompt: str, pictures: int, box=(40, 60, 320, 220)) -> Node:
    return Node("SAGDemoModel", box, {"prompt": prompt, "batch_size": pictures})


def decoded(samples: Out, model: Out, left: int, top: int) -> Node:
    return Node("VAEDecode", (left, top, 260, 60), {"samples": samples, "vae": model})


def demo_sampler(model: Out, top: int, left: int, title: Optional[str] = None) -> Node:
    inputs = sampler(model, Out(1, 1), Out(1, 2), Out(1, 3), **DRAWN)
    return Node("KSampler", (left, top, 300, ANY), inputs, title)


def demo() -> "list[Node]":
    return [
        demo_model("a pink house", 1),
        demo_sampler(Out(1), 60, 780, "KSampler (without guidance)"),
        decoded(Out(2), Out(1, 4), 1140, 60),
        Node("SAGSelfAttentionGuidanceAdvanced", (420, 460, 300, 560), {"model": Out(1), **GUIDED}),
        demo_sampler(Out(4), 460, 780, "KSampler (guided: sharper)"),
        decoded(Out(5), Out(1, 4), 1140, 460),
        Node("SAGMaskPreview", (1140, 600, 320, 420),
             {"trace": Out(4, 1), "after": Out(6), "style": "overlay", "step": "middle"}),
        Node("SAGSelfAttentionGuidance", (420, 1100, 300, 140), {"model": Out(1)}),
        demo_sampler(Out(8), 1100, 780, "KSampler (guided as in the paper)"),
        decoded(Out(9), Out(1, 4), 1140, 1100),
        Node("SAGCompareGrid", (1540, 60, 760, 860),
             {"images": Out(3), "images_2": Out(6), "images_3": Out(10), "images_4": Out(7),
              "labels": "without\nsharper\nthe paper\nblurred for sharper", "difference": 4.0, "cell_size": 384}),
        Node("SaveImage", (2360, 60, 460, 560), {"images": Out(11), "filename_prefix": "sag_demo"}),
        note("**SAG Demo Model** is a small model inside the pack, so this runs without a checkpoint and without a "
             "graphics card.\n\nAll three KSamplers draw the same seed with the same settings. Above, the model goes "
             "straight to the sampler; in the middle it passes **Self-Attention Guidance** with the settings of the "
             "preset *sharper* first, and below with those of the paper, which calm and soften. The sheet on the "
             "right shows all, how they differ from the first (four times enlarged, grey is no difference), and what "
             "was blurred in the middle of the run.\n\nChange `scale` (0 gives the picture without guidance again), "
             "`blur_sigma`, the words of the prompt, or all seeds.", (40, 340, 320, 440)),
    ]  # fmt: skip


def demo_mask() -> "list[Node]":
    seen = {"trace": Out(2, 1), "after": Out(4), "step": "all"}
    return [
        demo_model("a green tree", 1),
        Node("SAGSelfAttentionGuidanceAdvanced", (420, 60, 300, 560), {"model": Out(1), **GUIDED}),
        demo_sampler(Out(2), 60, 780),
        decoded(Out(3), Out(1, 4), 1140, 60),
        Node("SAGMaskPreview", (1460, 60, 620, 700), {**seen, "style": "contact sheet"}, "All steps"),
        Node("SAGMaskPreview", (1460, 820, 620, 560), {**seen, "style": "plot"}, "How much and how strongly"),
        Node("SaveImage", (2140, 60, 460, 560), {"images": Out(5), "filename_prefix": "sag_demo_mask_preview"}),
        note("The second output of the Advanced node, `trace`, keeps what guidance saw and did in the last run. "
             "**SAG Mask Preview** makes a picture of it: here all steps on one sheet, and how much was blurred and "
             "how strong guidance was over the noise levels.\n\nTry the other styles, and `step` first, middle or "
             "last. With your own checkpoint, replace SAG Demo Model by Load Checkpoint.", (40, 340, 320, 300)),
    ]  # fmt: skip


def demo_region() -> "list[Node]":
    return [
        demo_model("a blue house", 1),
        Node("SolidMask", (40, 480, 320, 120), {"value": 0.0, "width": 32, "height": 32}, "Nowhere"),
        Node("SolidMask", (40, 660, 320, 120), {"value": 1.0, "width": 16, "height": 32}, "The right half"),
        Node("MaskComposite", (420, 480, 300, 160),
             {"destination": Out(2), "source": Out(3), "x": 16, "y": 0, "operation": "add"}),
        Node("SAGSelfAttentionGuidanceAdvanced", (780, 420, 300, 560),
             {"model": Out(1), **GUIDED, "scale": 2.0, "mask": Out(4)}),
        demo_sampler(Out(1), 60, 1140, "KSampler (without guidance)"),
        decoded(Out(6), Out(1, 4), 1500, 60),
        demo_sampler(Out(5), 420, 1140, "KSampler (the right half guided)"),
        decoded(Out(8), Out(1, 4), 1500, 420),
        Node("SAGCompareGrid", (1820, 60, 660, 860),
             {"images": Out(7), "images_2": Out(9), "labels": "without\nright half guided", "difference": 4.0,
              "cell_size": 384}),
        Node("SaveImage", (2540, 60, 460, 560), {"images": Out(10), "filename_prefix": "sag_demo_region"}),
        note("`mask` says where to guide: here the right half. Outside the mask no step is changed by guidance; what "
             "changes there all the same comes from the model, which looks at the whole picture.\n\nThe mask may have "
             "any size, and grey guides in part. For a mask of your own, connect the MASK of Load Image and paint it "
             "there.", (1140, 800, 620, 200)),
    ]  # fmt: skip


def demo_sweep() -> "list[Node]":
    return [
        demo_model("a red mushroom", 1),
        Node("SAGSweep", (420, 60, 320, 220),
             {"model": Out(1), "sweep": "scale=0, 0.75, 1.5\ndifference=noise, image"}),
        demo_sampler(Out(2), 60, 800),
        decoded(Out(3), Out(1, 4), 1160, 60),
        Node("SAGCompareGrid", (1480, 60, 760, 760),
             {"images": Out(4), "labels": Out(2, 1), "columns": Out(2, 2), "cell_size": 320}),
        Node("SaveImage", (2300, 60, 460, 460), {"images": Out(5), "filename_prefix": "sag_demo_sweep"}),
        note("**SAG Sweep** gives one model for every combination of the settings in its text. The KSampler runs once "
             "for each, with the same seed, and **SAG Compare Grid** puts the pictures on one sheet.\n\nWith your own "
             "checkpoint: replace SAG Demo Model by Load Checkpoint, two CLIP Text Encode and Empty Latent Image. "
             "Settings are inputs of the Advanced node.", (40, 420, 700, 200)),
    ]  # fmt: skip


# --- graphs for models that have to be downloaded --------------------------------------------------------------------


def text_to_image(name: str, model: Model, side: int, prompt: str, **values: Any) -> "list[Node]":
    negative = "blurry, low quality, text, watermark"
    return [
        Node("CheckpointLoaderSimple", (40, 60, 320, 120), {"ckpt_name": model.name}, models=(model,)),
        Node("SAGSelfAttentionGuidance", (840, 60, 300, 110), {"model": Out(1)}),
        Node("CLIPTextEncode", (420, 240, 360, 140), {"text": prompt, "clip": Out(1, 1)},
             "CLIP Text Encode (Positive)"),
        Node("CLIPTextEncode", (420, 440, 360, 140), {"text": negative, "clip": Out(1, 1)},
             "CLIP Text Encode (Negative)"),
        Node("EmptyLatentImage", (420, 640, 360, 120), {"width": side, "height": side}),
        Node("KSampler", (1200, 60, 300, ANY),
             sampler(Out(2), Out(3), Out(4), Out(5), steps=25, cfg=7.0, sampler_name="euler", **values)),
        Node("VAEDecode", (1560, 60, 260, 60), {"samples": Out(6), "vae": Out(1, 2)}),
        Node("SaveImage", (1880, 60, 460, 560), {"images": Out(7), "filename_prefix": name}),
        note("**Self-Attention Guidance** sits between the loader and the sampler, and nothing else changes. To see "
             "what it does, keep the seed and compare `scale` 0 with 0.75.\n\nIt costs one more evaluation of the "
             "model at every step: three instead of two.", (40, 240, 320, 240)),
    ]  # fmt: skip


def sd15() -> "list[Node]":
    files = "https://huggingface.co/Comfy-Org/stable-diffusion-v1-5-archive/resolve/main/"
    return text_to_image(
        "sag_sd15_text_to_image", Model("checkpoints", files + "v1-5-pruned-emaonly-fp16.safetensors"), 512,
        "a lighthouse on a rocky coast at dusk, waves, detailed photograph", scheduler="normal",
    )  # fmt: skip


def sdxl() -> "list[Node]":
    files = "https://huggingface.co/stabilityai/stable-diffusion-xl-base-1.0/resolve/main/"
    return text_to_image(
        "sag_sdxl_text_to_image", Model("checkpoints", files + "sd_xl_base_1.0.safetensors"), 1024,
        "a fox asleep in a birch forest, autumn leaves, morning mist, detailed photograph", scheduler="normal",
    )  # fmt: skip


def flux() -> "list[Node]":
    model = Model("checkpoints", "https://huggingface.co/Comfy-Org/flux1-dev/resolve/main/flux1-dev-fp8.safetensors")
    prompt = "a narrow street in an old harbour town after rain, lanterns, reflections, detailed photograph"
    return [
        Node("CheckpointLoaderSimple", (40, 60, 320, 120), {"ckpt_name": model.name}, models=(model,)),
        Node("SAGSelfAttentionGuidance", (1180, 60, 300, 110), {"model": Out(1)}),
        Node("CLIPTextEncode", (420, 240, 360, 160), {"text": prompt, "clip": Out(1, 1)}),
        Node("FluxGuidance", (840, 240, 280, 80), {"conditioning": Out(3), "guidance": 3.5}),
        Node("ConditioningZeroOut", (840, 380, 280, 50), {"conditioning": Out(3)}),
        Node("EmptySD3LatentImage", (840, 490, 280, 120), {"width": 1024, "height": 1024}),
        Node("KSampler", (1540, 60, 300, ANY),
             sampler(Out(2), Out(4), Out(5), Out(6), steps=20, cfg=1.0, sampler_name="euler", scheduler="simple")),
        Node("VAEDecode", (1900, 60, 260, 60), {"samples": Out(7), "vae": Out(1, 2)}),
        Node("SaveImage", (2220, 60, 460, 560), {"images": Out(8), "filename_prefix": "sag_flux_cfg_1"}),
        note("Flux runs at CFG 1, where the negative prompt is not evaluated. **Self-Attention Guidance** then guides "
             "by the prompt's own prediction: two evaluations a step instead of one.\n\nGuidance of transformer models "
             "is experimental: no trained one was measured. Keep the seed, and compare with `scale` 0.",
             (40, 460, 740, 170)),
    ]  # fmt: skip


def wan() -> "list[Node]":
    files = "https://huggingface.co/Comfy-Org/Wan_2.1_ComfyUI_repackaged/resolve/main/split_files/"
    unet = Model("diffusion_models", files + "diffusion_models/wan2.1_t2v_1.3B_fp16.safetensors")
    text = Model("text_encoders", files + "text_encoders/umt5_xxl_fp8_e4m3fn_scaled.safetensors")
    vae = Model("vae", files + "vae/wan_2.1_vae.safetensors")
    return [
        Node("UNETLoader", (40, 60, 360, 100), {"unet_name": unet.name, "weight_dtype": "default"}, models=(unet,)),
        Node("ModelSamplingSD3", (460, 60, 300, 60), {"model": Out(1), "shift": 8.0}),
        Node("SAGSelfAttentionGuidance", (820, 60, 300, 110), {"model": Out(2)}),
        Node("CLIPLoader", (40, 240, 360, 120), {"clip_name": text.name, "type": "wan", "device": "default"},
             models=(text,)),
        Node("CLIPTextEncode", (460, 240, 360, 140),
             {"text": "a paper boat drifts down a brook in a forest, the camera follows it", "clip": Out(4)},
             "CLIP Text Encode (Positive)"),
        Node("CLIPTextEncode", (460, 440, 360, 140), {"text": "blurry, low quality, still picture", "clip": Out(4)},
             "CLIP Text Encode (Negative)"),
        Node("EmptyHunyuanLatentVideo", (460, 640, 360, 140), {"width": 832, "height": 480, "length": 33}),
        Node("VAELoader", (1180, 440, 300, 60), {"vae_name": vae.name}, models=(vae,)),
        Node("KSampler", (1180, 60, 300, ANY),
             sampler(Out(3), Out(5), Out(6), Out(7), steps=30, cfg=6.0, sampler_name="uni_pc", scheduler="simple")),
        Node("VAEDecode", (1540, 60, 260, 60), {"samples": Out(9), "vae": Out(8)}),
        Node("SaveAnimatedWEBP", (1860, 60, 460, 460),
             {"images": Out(10), "filename_prefix": "sag_wan_text_to_video", "fps": 16.0, "lossless": False,
              "quality": 90, "method": "default"}),
        note("**Self-Attention Guidance** sits last before the sampler, behind what changes the model. Every frame "
             "gets a mask of its own.\n\nGuidance of video models is experimental: no trained one was measured. Keep "
             "the seed, and compare with `scale` 0. It costs one more evaluation of the model at every step.",
             (40, 440, 360, 260)),
    ]  # fmt: skip


GRAPHS = {
    "sag_demo": demo,  # first by name, and the window lists them by name: it needs no download
    "sag_demo_mask_preview": demo_mask,
    "sag_demo_region": demo_region,
    "sag_demo_sweep": demo_sweep,
    "sag_flux_cfg_1": flux,
    "sag_sd15_text_to_image": sd15,
    "sag_sdxl_text_to_image": sdxl,
    "sag_wan_text_to_video": wan,
}


# --- the two forms ---------------------------------------------------------------------------------------------------


def schema_inputs(node: Node, info: dict) -> "dict[str, tuple[str, dict]]":
    """Type and options of each of a node's inputs; a list of words is a COMBO."""
    found = {}
    for group in ("required", "optional"):
        for name, (kind, *options) in info[node.type]["input"].get(group, {}).items():
            found[name] = ("COMBO" if isinstance(kind, list) else kind, options[0] if options else {})
    unknown = set(node.inputs) - set(found)
    if unknown:
        raise ValueError(f"{node.type} has no inputs {sorted(unknown)}; it has {sorted(found)}")
    return found


def value_of(node: Node, name: str, kind: str, options: dict, info: dict) -> Any:
    """What a widget shows: the graph's value, or the node's default."""
    if name in node.inputs and not isinstance(node.inputs[name], Out):
        return node.inputs[name]
    if kind == "COMBO" and "default" not in options:
        return options.get("options", [None])[0]
    return options.get("default", "")


def api(graph: "list[Node]", info: dict) -> dict:
    """A graph as the server takes it."""
    prompt = {}
    for number, node in enumerate(graph, 1):
        if node.type == NOTE:
            continue
        inputs = {}
        for name, (kind, options) in schema_inputs(node, info).items():
            given = node.inputs.get(name)
            if isinstance(given, Out):
                inputs[name] = [str(given.node), given.slot]
            elif kind in WIDGETS:
                inputs[name] = value_of(node, name, kind, options, info)
        title = node.title or info[node.type]["display_name"] or node.type
        prompt[str(number)] = {"inputs": inputs, "class_type": node.type, "_meta": {"title": title}}
    return prompt


def order_of(graph: "list[Node]") -> "dict[int, int]":
    """When each node runs: after those whose outputs it takes."""
    order: dict[int, int] = {}
    while len(order) < len(graph):
        for number, node in enumerate(graph, 1):
            needs = [value.node for value in node.inputs.values() if isinstance(value, Out)]
            if number not in order and all(source in order for source in needs):
                order[number] = len(order)
    return order


def window(name: str, graph: "list[Node]", info: dict, version: str) -> dict:
    """A graph as the window saves it, version 0.4."""
    nodes, links, order = [], [], order_of(graph)
    for number, node in enumerate(graph, 1):
        inputs, values = [], []
        for slot, kind, options in [] if node.type == NOTE else _slots(node, info):
            given = node.inputs.get(slot)
            link = None
            if isinstance(given, Out):
                link = len(links) + 1
                sent = info[graph[given.node - 1].type]["output"][given.slot]
                links.append([link, given.node, given.slot, number, len(inputs), sent])
            inputs.append({"name": slot, "type": kind, "link": link})
            if kind in WIDGETS:
                inputs[-1]["widget"] = {"name": slot}
                values.append(value_of(node, slot, kind, options, info))
                if options.get("control_after_generate"):
                    values.append("fixed")
        pack = PACK if node.type.startswith("SAG") else HOST
        properties: dict[str, Any] = {"cnr_id": pack, "ver": version if pack == PACK else "0.3.64"}
        properties["Node name for S&R"] = node.type
        if node.models:
            properties["models"] = [{"name": m.name, "url": m.url, "directory": m.directory} for m in node.models]
        saved = {
            "id": number, "type": node.type, "pos": list(node.box[:2]), "size": list(node.box[2:]), "flags": {},
            "order": order[number], "mode": 0, "inputs": inputs, "outputs": [], "properties": properties,
        }  # fmt: skip
        if node.title:
            saved["title"] = node.title
        if node.type == NOTE:
            saved.update(properties={}, color="#432", bgcolor="#653")
            values = [node.inputs["text"]]
        if values:
            saved["widgets_values"] = values
        nodes.append(saved)
    for number, node in enumerate(graph, 1):
        if node.type != NOTE:
            about = info[node.type]
            nodes[number - 1]["outputs"] = [
                {"name": called, "type": kind, "links": [n for n, a, b, *_ in links if (a, b) == (number, slot)]}
                for slot, (called, kind) in enumerate(zip(about["output_name"], about["output"]))
            ]
    return {
        "id": str(uuid.uuid5(uuid.NAMESPACE_URL, name)),
        "revision": 0,
        "last_node_id": len(nodes),
        "last_link_id": len(links),
        "nodes": nodes,
        "links": links,
        "groups": [],
        "config": {},
        "extra": {"ds": {"scale": 0.6, "offset": [40, 80]}},
        "version": 0.4,
    }


def _slots(node: Node, info: dict):
    return [(name, kind, options) for name, (kind, options) in schema_inputs(node, info).items()]


# --- thumbnails ------------------------------------------------------------------------------------------------------

# What cannot be drawn without a model: a title, and what the workflow needs.
UNDRAWN = {
    "sag_flux_cfg_1": ("Flux at CFG 1", "the graph; needs Flux.1 dev"),
    "sag_sd15_text_to_image": ("Stable Diffusion 1.5", "the graph; needs the SD 1.5 checkpoint"),
    "sag_sdxl_text_to_image": ("SDXL", "the graph; needs the SDXL checkpoint"),
    "sag_wan_text_to_video": ("Wan 2.1 video", "the graph; needs the Wan 2.1 1.3B files"),
}
DRAWN_TITLES = {
    "sag_demo_mask_preview": "What was blurred, step by step",
    "sag_demo_region": "Guide one region only",
    "sag_demo_sweep": "Compare settings",
}


def thumbnail(name: str, server: Server) -> Image.Image:
    """A square picture of what a workflow gives, or of its graph."""
    if name in UNDRAWN:
        return thumbnails.of_graph(_read(FOLDER / f"{name}.json"), *UNDRAWN[name])
    prompt = _read(FOLDER / "api" / f"{name}.json")
    (last,) = [key for key, node in prompt.items() if node["class_type"] == "SaveImage"]
    if name != "sag_demo":
        ((sheet,),) = [server.pictures(prompt)[last]]
        return thumbnails.of_picture(thumbnails.opened(sheet), DRAWN_TITLES[name])
    shown = prompt[prompt[last]["inputs"]["images"][0]]["inputs"]
    keys = ("images", "images_2", "images_4")
    for key in keys:
        prompt[key] = {"class_type": "SaveImage", "inputs": {"images": shown[key], "filename_prefix": key}}
    drawn = server.pictures(prompt)
    without, guided, mask = (thumbnails.opened(drawn[key][0]) for key in keys)
    factor = shown["difference"]
    # Middle grey is no difference, as on the sheet.
    difference = ImageChops.subtract(guided, without, scale=2 / factor, offset=128)
    return thumbnails.of_four(
        {
            "without": without,
            "guided: sharper": guided,
            f"difference x {factor:g}": difference,
            "what was blurred": mask,
        }
    )


def _read(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))


def main(comfyui: Path) -> None:
    """Write every file."""
    lines = (ROOT / "pyproject.toml").read_text(encoding="utf-8").splitlines()
    (version,) = [line.split('"')[1] for line in lines if line.startswith("version = ")]
    base = Path(tempfile.mkdtemp())
    try:
        with serve(comfyui.resolve(), find_python(comfyui.resolve()), base) as server:
            info = server.get_json("/object_info")
            for name, graph in GRAPHS.items():
                for path, form in (
                    (FOLDER / f"{name}.json", window(name, graph(), info, version)),
                    (FOLDER / "api" / f"{name}.json", api(graph(), info)),
                ):
                    path.write_text(json.dumps(form, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
                picture = thumbnail(name, server)
                picture.save(FOLDER / f"{name}.jpg", quality=88)
                if f"{name}.jpg" in PICTURES.values():
                    picture.save(ROOT / "web" / "docs" / f"{name}.jpg", quality=88)
    finally:
        shutil.rmtree(base, ignore_errors=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
