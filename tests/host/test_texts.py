"""Every node has its texts, of which the schema is the source, and a help page that names every input.

SAG_WRITE_TEXTS=1 writes what is made from the schema: the English texts, and the help page's table of inputs of the
Advanced node.
"""

import json
import os
import re
import warnings

import pytest

from demo.comfyui import PACK
from demo.prompts import COLOURS, OBJECTS
from sag_core import declarations

LOCALES = sorted(path.parent.name for path in (PACK / "locales").glob("*/nodeDefs.json"))
ADVANCED = "SAGSelfAttentionGuidanceAdvanced"
HELPED = ["SAGSelfAttentionGuidance", ADVANCED, "SAGDemoModel"]
NODES = [*HELPED, "SAGPreset", "SAGMaskPreview", "SAGSweep", "SAGCompareGrid"]
TABLE = re.compile(r"(?<=## Inputs\n\n)(\|.*\n)+")
WRITES = bool(os.environ.get("SAG_WRITE_TEXTS"))


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


def help_path(node):
    return PACK / "web" / "docs" / f"{node}.md"


def table_of(inputs):
    """A help page's table of inputs."""
    lines = ["| Name | Default | Range | Meaning |", "| --- | --- | --- | --- |"]
    for field in inputs:
        default = getattr(field, "default", None)
        if isinstance(default, bool):
            default = "on" if default else "off"
        span = ", ".join(f"`{option}`" for option in getattr(field, "options", None) or ())
        if getattr(field, "min", None) is not None:
            span = f"{field.min:g} to {field.max:g}"
        cells = (f"`{field.id}`", "" if default is None else str(default), span, field.tooltip)
        lines.append("|" + "|".join(f" {cell} " if cell else " " for cell in cells) + "|")
    return "\n".join(lines) + "\n"


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
def test_other_languages_name_nothing_else_and_what_they_lack_is_shown_in_english(language):
    english, translated = dict(flat(texts("en"))), dict(flat(texts(language)))
    assert set(translated) <= set(english)
    assert all(text.strip() for text in translated.values())
    for node in texts("en"):
        places = [place for place in english if place[0] == node]
        lacking = [" ".join(place[1:]) for place in places if place not in translated]
        if lacking:
            what = "all of it" if len(lacking) == len(places) else ", ".join(lacking)
            warnings.warn(f"locales/{language}: {node} is shown in English: {what}", stacklevel=1)


@pytest.mark.parametrize("node", HELPED)
def test_the_help_page_has_a_row_for_every_input(node_classes, node):
    page = help_path(node).read_text(encoding="utf-8")
    missing = [i.id for i in node_classes[node].define_schema().inputs if f"| `{i.id}` |" not in page]
    assert missing == []


def test_the_advanced_nodes_table_says_what_is_declared(node_classes):
    page, right = (
        help_path(ADVANCED).read_text(encoding="utf-8"),
        table_of(node_classes[ADVANCED].define_schema().inputs),
    )
    if WRITES:
        help_path(ADVANCED).write_text(TABLE.sub(lambda _: right, page), encoding="utf-8")
        return
    assert TABLE.search(page).group() == right, f"SAG_WRITE_TEXTS=1 writes this table:\n{right}"


def test_every_language_and_the_help_page_name_the_words_of_the_demo_model():
    page = help_path("SAGDemoModel").read_text(encoding="utf-8")
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
