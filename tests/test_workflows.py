"""The shipped workflows: sound files, wired as meant, and the same graph in both formats. Runs without ComfyUI."""

import json
from pathlib import Path

import on_standin
import pytest

from sag_core import PRESETS, Settings

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "example_workflows"
UI_FILES = sorted(FOLDER.glob("*.json"))
API_FILES = sorted((FOLDER / "api").glob("*.json"))
DEMO = FOLDER / "api" / "sag_demo.json"

# A widget of the window alone, which follows every seed and is not sent to the server.
SEED_CONTROLS = {"fixed", "increment", "decrement", "randomize"}
NOTES = {"Note", "MarkdownNote"}
LOADERS = {
    "CheckpointLoaderSimple": "checkpoints",
    "CLIPLoader": "text_encoders",
    "UNETLoader": "diffusion_models",
    "VAELoader": "vae",
}
TITLE_HEIGHT = 30  # the frontend draws a node's title above its position


def pack_schemas() -> dict:
    """Inputs of the pack's nodes by node id, in order: type, and for numbers default, min, max."""
    return {
        node_id: {
            field.id: {
                "type": field.get_io_type(),
                "optional": bool(getattr(field, "optional", False)),
                **{name: getattr(field, name) for name in ("default", "min", "max") if hasattr(field, name)},
            }
            for field in node.define_schema().inputs
        }
        for node_id, node in on_standin.node_classes().items()
    }


def read(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))


def widgets(node: dict) -> dict:
    """Values of a UI node's widgets by input name; the file keeps them by position alone."""
    values = list(node.get("widgets_values", []))
    named = {}
    for slot in node["inputs"]:
        if "widget" in slot:
            named[slot["widget"]["name"]] = values.pop(0)
            if slot["name"] in ("seed", "noise_seed"):
                assert values.pop(0) in SEED_CONTROLS
    assert not values, f"{node['type']} has widget values without an input: {values}"
    return named


def as_api(workflow: dict) -> dict:
    """The API form of a UI workflow, without titles: what the window sends to the server."""
    links = {link[0]: link for link in workflow["links"]}
    prompt = {}
    for node in workflow["nodes"]:
        if node["type"] in NOTES:
            continue
        inputs = widgets(node)
        for slot in node["inputs"]:
            if slot["link"] is not None:
                _, source, source_slot, *_ = links[slot["link"]]
                inputs[slot["name"]] = [str(source), source_slot]
        prompt[str(node["id"])] = {"class_type": node["type"], "inputs": inputs}
    return prompt


def rectangle(node: dict) -> tuple:
    (x, y), (width, height) = node["pos"], node["size"]
    return x, y - TITLE_HEIGHT, x + width, y + height


ui_files = pytest.mark.parametrize("path", UI_FILES, ids=lambda path: path.stem)
api_files = pytest.mark.parametrize("path", API_FILES, ids=lambda path: path.stem)
checkpoint_files = pytest.mark.parametrize(
    "path", [path for path in API_FILES if "_text_to_image" in path.stem], ids=lambda path: path.stem
)


def needs_no_download(path: Path) -> bool:
    return path.stem.startswith("sag_demo")


def test_workflows_exist_in_both_formats():
    assert UI_FILES
    assert [path.name for path in UI_FILES] == [path.name for path in API_FILES]


@ui_files
def test_ui_file_has_the_fields_of_version_0_4(path):
    workflow = read(path)
    assert workflow["version"] == 0.4
    nodes, links = workflow["nodes"], workflow["links"]
    required = {"id", "type", "pos", "size", "flags", "order", "mode", "inputs", "outputs", "properties"}
    for node in nodes:
        assert required <= set(node), f"node {node['id']} lacks {required - set(node)}"
        assert node["mode"] == 0, f"node {node['id']} is muted or bypassed"
    for ids, last in (([node["id"] for node in nodes], "last_node_id"), ([link[0] for link in links], "last_link_id")):
        assert len(set(ids)) == len(ids)
        assert workflow[last] == max(ids)
    assert sorted(node["order"] for node in nodes) == list(range(len(nodes)))


@ui_files
def test_ui_links_agree_with_the_slots_at_both_ends(path):
    workflow = read(path)
    nodes = {node["id"]: node for node in workflow["nodes"]}
    at_inputs, at_outputs = set(), set()
    for link_id, source, source_slot, target, target_slot, link_type in workflow["links"]:
        sent, taken = nodes[source]["outputs"][source_slot], nodes[target]["inputs"][target_slot]
        assert link_id in sent["links"]
        assert taken["link"] == link_id
        assert sent["type"] == link_type
        assert link_type in taken["type"].split(",")
        assert nodes[source]["order"] < nodes[target]["order"]
        at_outputs.add((link_id, source, source_slot))
        at_inputs.add((link_id, target, target_slot))
    for node in nodes.values():  # and no slot names a link that the list lacks
        for index, slot in enumerate(node["inputs"]):
            assert slot["link"] is None or (slot["link"], node["id"], index) in at_inputs
            optional = pack_schemas().get(node["type"], {}).get(slot["name"], {}).get("optional")
            connected = slot["link"] is not None or "widget" in slot or optional
            assert connected, f"{node['type']}.{slot['name']} is not connected"
        for index, slot in enumerate(node["outputs"]):
            assert all((link, node["id"], index) in at_outputs for link in slot["links"] or [])


@ui_files
def test_ui_nodes_do_not_overlap(path):
    boxes = [(node["id"], rectangle(node)) for node in read(path)["nodes"]]
    for index, (first, (left, top, right, bottom)) in enumerate(boxes):
        for second, box in boxes[index + 1 :]:
            apart = right <= box[0] or box[2] <= left or bottom <= box[1] or box[3] <= top
            assert apart, f"nodes {first} and {second} overlap"


@ui_files
def test_ui_nodes_say_which_pack_and_which_model_they_need(path):
    version = project_version()
    for node in read(path)["nodes"]:
        properties = node["properties"]
        if node["type"] in NOTES:
            continue
        if node["type"] in pack_schemas():
            assert (properties["cnr_id"], properties["ver"]) == ("self-attention-guidance", version)
        else:
            assert properties["cnr_id"] == "comfy-core"
        if node["type"] in LOADERS:
            (model,) = properties["models"]
            assert model["name"] == node["widgets_values"][0]
            assert model["directory"] == LOADERS[node["type"]]
            assert model["url"].startswith("https://huggingface.co/")
            assert model["url"].endswith("/" + model["name"])


def project_version() -> str:
    """The version in pyproject.toml, read without a TOML parser, which Python has only from 3.11 on."""
    lines = (ROOT / "pyproject.toml").read_text(encoding="utf-8").splitlines()
    (version,) = [line.split('"')[1] for line in lines if line.startswith("version = ")]
    return version


@ui_files
def test_ui_workflow_explains_itself(path):
    notes = [node for node in read(path)["nodes"] if node["type"] in NOTES]
    assert len(notes) == 1 and len(notes[0]["widgets_values"][0]) > 80


@api_files
def test_api_twin_is_the_same_graph(path):
    prompt = read(path)
    workflow = read(FOLDER / path.name)
    untitled = {key: {name: value for name, value in node.items() if name != "_meta"} for key, node in prompt.items()}
    assert untitled == as_api(workflow)
    titles = {str(node["id"]): node["title"] for node in workflow["nodes"] if "title" in node}
    for key, node in prompt.items():
        assert node["_meta"]["title"] == titles.get(key, node["_meta"]["title"])


@api_files
def test_api_inputs_are_literals_or_links_to_existing_nodes(path):
    prompt = read(path)
    for key, node in prompt.items():
        for name, value in node["inputs"].items():
            if isinstance(value, list):
                source, slot = value
                assert source in prompt and source != key and isinstance(slot, int), f"{key}.{name} = {value}"
            else:
                assert isinstance(value, (str, int, float, bool)), f"{key}.{name} = {value!r}"


@api_files
def test_one_picture_is_saved_under_the_workflows_name(path):
    (saved,) = [node for node in read(path).values() if node["class_type"].startswith("Save")]
    assert saved["inputs"]["filename_prefix"] == path.stem


def test_the_workflow_that_comes_first_needs_no_download():
    assert UI_FILES[0].stem == "sag_demo"
    for path in API_FILES:
        assert needs_no_download(path) == LOADERS.keys().isdisjoint(node["class_type"] for node in read(path).values())


@ui_files
def test_every_workflow_has_a_square_thumbnail(path):
    image = pytest.importorskip("PIL.Image")
    with image.open(path.with_suffix(".jpg")) as thumbnail:
        assert thumbnail.format == "JPEG" and thumbnail.width == thumbnail.height >= 256
        assert len(thumbnail.convert("L").getcolors()) > 16, "blank"


@ui_files
def test_links_run_from_left_to_right(path):
    workflow = read(path)
    nodes = {node["id"]: node for node in workflow["nodes"]}
    for _, source, _, target, *_ in workflow["links"]:
        right = nodes[source]["pos"][0] + nodes[source]["size"][0]
        below = nodes[source]["pos"][0] == nodes[target]["pos"][0]
        assert right <= nodes[target]["pos"][0] or below, f"{nodes[source]['type']} to {nodes[target]['type']}"


@checkpoint_files
def test_guidance_sits_between_loader_and_sampler(path):
    prompt = read(path)

    def source(node, name):
        return prompt[node["inputs"][name][0]]

    (sampler,) = [node for node in prompt.values() if node["class_type"] == "KSampler"]
    guidance = source(sampler, "model")
    assert guidance["class_type"] == "SAGSelfAttentionGuidance"
    loader = source(guidance, "model")
    assert loader["class_type"] == "CheckpointLoaderSimple"
    positive, negative = source(sampler, "positive"), source(sampler, "negative")
    assert positive is not negative
    assert source(positive, "clip") is source(negative, "clip") is loader
    assert source(sampler, "latent_image")["class_type"] == "EmptyLatentImage"
    (saved,) = [node for node in prompt.values() if node["class_type"] == "SaveImage"]
    decoded = source(saved, "images")
    assert source(decoded, "samples") is sampler
    assert source(decoded, "vae") is loader


def test_the_demo_compares_the_same_picture_without_guidance_sharper_and_as_in_the_paper():
    prompt = read(DEMO)
    (saved,) = [node for node in prompt.values() if node["class_type"] == "SaveImage"]

    def passed(node, *names):
        nodes = []
        for name in names:
            node = prompt[node["inputs"][name][0]]
            nodes.append(node)
        return nodes

    (sheet,) = passed(saved, "images")
    names = ("images", "images_2", "images_3")
    without, sharper, paper = (passed(sheet, name, "samples", "model") for name in names)
    assert [node["class_type"] for node in without] == ["VAEDecode", "KSampler", "SAGDemoModel"]
    links = {"samples", "model"}
    for guided in (sharper, paper):
        assert [node["class_type"] for node in guided[:2]] == ["VAEDecode", "KSampler"]
        for ours, theirs in zip(guided[:2], without[:2]):
            same = [{name: v for name, v in node["inputs"].items() if name not in links} for node in (ours, theirs)]
            assert same[0] == same[1]
        assert passed(guided[2], "model") == [without[2]]
    assert sharper[2]["class_type"] == "SAGSelfAttentionGuidanceAdvanced"
    assert {**sharper[2]["inputs"], **PRESETS["sharper"]} == sharper[2]["inputs"]
    assert paper[2]["class_type"] == "SAGSelfAttentionGuidance"
    assert Settings(scale=paper[2]["inputs"]["scale"], blur_sigma=paper[2]["inputs"]["blur_sigma"]) == Settings()
    (mask,) = passed(sheet, "images_4")
    assert mask["class_type"] == "SAGMaskPreview"
    assert passed(mask, "after") == [sharper[0]] and passed(mask, "trace") == [sharper[2]]
    assert sheet["inputs"]["difference"] > 0


@api_files
def test_nodes_of_the_pack_are_used_as_their_schemas_say(path):
    schemas = pack_schemas()
    used = [node for node in read(path).values() if node["class_type"].startswith("SAG")]
    assert used
    for node in used:
        schema = schemas[node["class_type"]]
        assert {name for name, field in schema.items() if not field["optional"]} <= set(node["inputs"]) <= set(schema)
        for name, value in node["inputs"].items():
            if isinstance(value, list):
                continue
            if "min" in schema[name]:
                assert schema[name]["min"] <= value <= schema[name]["max"]
            if not needs_no_download(path):
                assert value == schema[name]["default"], "examples show the defaults"


@ui_files
def test_ui_slots_of_the_pack_are_those_of_the_schema(path):
    for node in read(path)["nodes"]:
        if node["type"] in pack_schemas():
            # The host reports required inputs first.
            schema = sorted(pack_schemas()[node["type"]].items(), key=lambda item: item[1]["optional"])
            assert [(slot["name"], slot["type"]) for slot in node["inputs"]] == [
                (name, options["type"]) for name, options in schema
            ]
