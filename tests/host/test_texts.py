"""Every node has its texts, of which the schema is the source, and a help page in every language.

SAG_WRITE_TEXTS=1 writes what is made from the schema: the English texts, and of the help pages what `tools.help` gives.
"""

import json
import os

import pytest

from demo.comfyui import PACK
from demo.prompts import COLOURS, OBJECTS
from sag_core import declarations
from tools import help

LOCALES = sorted(path.parent.name for path in (PACK / "locales").glob("*/nodeDefs.json"))
ADVANCED = "SAGSelfAttentionGuidanceAdvanced"
NODES = [
    "SAGSelfAttentionGuidance",
    ADVANCED,
    "SAGPreset",
    "SAGMaskPreview",
    "SAGSweep",
    "SAGCompareGrid",
    "SAGDemoModel",
]
WRITES = bool(os.environ.get("SAG_WRITE_TEXTS"))
# (node, "inputs" or "outputs", name): shown in English in the other languages until somebody translates it.
AWAITING_TRANSLATION: set = set()


def texts_path(language):
    return PACK / "locales" / language / "nodeDefs.json"


def texts(language):
    return json.loads(texts_path(language).read_text(encoding="utf-8"))


def texts_of(schema):
    """What a language says of a node, by the schema."""
    return {
        "display_name": schema.display_name,
        "description": schema.description,
        "inputs": {i.id: {"name": i.id, "tooltip": i.tooltip} for i in schema.inputs},
        "outputs": {str(n): {"name": o.display_name, "tooltip": o.tooltip} for n, o in enumerate(schema.outputs)},
    }


def help_path(node, language):
    """The page that the window shows; one in no language of ours gets the English one."""
    pages = PACK / "web" / "docs"
    return pages / f"{node}.md" if language == "en" else pages / node / f"{language}.md"


def flat(node_texts, place=()):
    """{(place, ...): text}"""
    for name, value in node_texts.items():
        if isinstance(value, dict):
            yield from flat(value, (*place, name))
        else:
            yield (*place, name), value


@pytest.mark.parametrize("node", NODES)
def test_english_says_what_the_schema_says(node_classes, node):
    english, right = texts("en"), texts_of(node_classes[node].define_schema())
    if WRITES:
        content = json.dumps({**english, node: right}, indent=2, ensure_ascii=False) + "\n"
        texts_path("en").write_text(content, encoding="utf-8")
        return
    assert english.get(node) == right, "SAG_WRITE_TEXTS=1 writes it"


@pytest.mark.parametrize("language", [language for language in LOCALES if language != "en"])
def test_other_languages_say_all_that_english_says_but_what_awaits_translation(language):
    english, translated = dict(flat(texts("en"))), dict(flat(texts(language)))
    assert set(translated) <= set(english)
    assert all(text.strip() for text in translated.values())
    lacking = {place for place in english if place not in translated}
    assert lacking <= {place for place in english if place[:3] in AWAITING_TRANSLATION}


@pytest.mark.parametrize("language", LOCALES)
@pytest.mark.parametrize("node", NODES)
def test_the_help_page_says_what_the_texts_say(node_classes, node, language):
    english, translated = texts("en")[node], texts(language).get(node, {})
    shown = {**english, **translated}
    for part in ("inputs", "outputs"):
        shown[part] = {**english[part], **translated.get(part, {})}
    path, right = help_path(node, language), help.page(node, node_classes[node].define_schema(), shown, language)
    page = path.read_text(encoding="utf-8") if path.exists() else ""
    made, marker, rest = page.partition("\n" + help.MORE)
    if WRITES:
        path.parent.mkdir(exist_ok=True)
        path.write_text(right + marker + rest, encoding="utf-8")
        return
    assert made == right, "SAG_WRITE_TEXTS=1 writes it"
    assert all(f"**`{field.id}`**" in page for field in node_classes[node].define_schema().inputs)
    # The window looks for pictures beside the English page, whatever the language.
    assert (PACK / "web" / "docs" / help.PICTURES[node]).is_file()


def test_every_language_and_the_help_page_name_the_words_of_the_demo_model():
    page = help_path("SAGDemoModel", "en").read_text(encoding="utf-8")
    tooltip = ("SAGDemoModel", "inputs", "prompt", "tooltip")
    translated = [dict(flat(texts(language))).get(tooltip) for language in LOCALES]
    for text in (page, *filter(None, translated)):
        assert ", ".join(COLOURS) in text and ", ".join(OBJECTS) in text


def test_the_advanced_node_marks_the_inputs_for_experts_and_takes_the_mask_last(node_classes):
    inputs, declared = node_classes[ADVANCED].define_schema().inputs, declarations()
    assert [i.id for i in inputs] == ["model", *declared, "mask"]
    marked = [i.id for i in inputs if getattr(i, "advanced", None)]
    experts = [name for name in declared if declared[name].expert]
    assert marked == (experts if hasattr(inputs[0], "advanced") else [])
