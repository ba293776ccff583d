"""Every node has its texts in every language, and a help page that names every input."""

import json

import comfyui
import pytest

from demo.prompts import COLOURS, OBJECTS

LOCALES = sorted(path.parent.name for path in (comfyui.ROOT / "locales").glob("*/nodeDefs.json"))
NODES = ["SAGSelfAttentionGuidance", "SAGSelfAttentionGuidanceAdvanced", "SAGDemoModel"]
ENGLISH_ONLY = ["SAGPreset", "SAGMaskPreview", "SAGSweep", "SAGCompareGrid"]


def texts(language, node):
    path = comfyui.ROOT / "locales" / language / "nodeDefs.json"
    return json.loads(path.read_text(encoding="utf-8"))[node]


@pytest.mark.parametrize("node", NODES + ENGLISH_ONLY)
def test_english_says_what_the_schema_says(node_classes, node):
    schema, english = node_classes[node].define_schema(), texts("en", node)
    assert (english["display_name"], english["description"]) == (schema.display_name, schema.description)
    assert english["inputs"] == {i.id: {"name": i.id, "tooltip": i.tooltip} for i in schema.inputs}


@pytest.mark.parametrize("language", LOCALES)
@pytest.mark.parametrize("node", NODES)
def test_every_language_has_every_text(node_classes, node, language):
    schema, translated = node_classes[node].define_schema(), texts(language, node)
    assert list(translated["inputs"]) == [i.id for i in schema.inputs]
    assert list(translated["outputs"]) == [str(i) for i in range(len(schema.outputs))]
    fields = [translated, *translated["inputs"].values(), *translated["outputs"].values()]
    assert all(text.strip() for field in fields for text in field.values() if isinstance(text, str))
    assert all({"name", "tooltip"} <= field.keys() for field in fields[1:])


@pytest.mark.parametrize("node", NODES)
def test_the_help_page_has_a_row_for_every_input(node_classes, node):
    page = (comfyui.ROOT / "web" / "docs" / f"{node}.md").read_text(encoding="utf-8")
    missing = [i.id for i in node_classes[node].define_schema().inputs if f"| `{i.id}` |" not in page]
    assert missing == []
    for field in node_classes[node].define_schema().inputs:
        assert all(option in page for option in getattr(field, "options", None) or ())


def test_every_language_and_the_help_page_name_the_words_of_the_demo_model():
    page = (comfyui.ROOT / "web" / "docs" / "SAGDemoModel.md").read_text(encoding="utf-8")
    for text in (page, *(texts(language, "SAGDemoModel")["inputs"]["prompt"]["tooltip"] for language in LOCALES)):
        assert ", ".join(COLOURS) in text and ", ".join(OBJECTS) in text


def test_the_advanced_node_shows_everyday_inputs_first_and_takes_the_mask_last(node_classes):
    inputs = node_classes["SAGSelfAttentionGuidanceAdvanced"].define_schema().inputs
    assert [i.id for i in inputs] == [
        "model", "scale", "blur_sigma", "mask_threshold", "start_percent", "end_percent", "scale_curve",
        "attention_blocks", "mask_mode", "mask_upsampling", "mask_feather", "branch", "blur_kernel", "rescale",
        "rescale_mode", "projection", "apply_every", "reuse", "mask",
    ]  # fmt: skip
    marked = [i.id for i in inputs if getattr(i, "advanced", None)]
    experts = [i.id for i in inputs[7:-1]]
    assert marked == (experts if hasattr(inputs[0], "advanced") else [])
