"""The nodes in ComfyUI's own window, in a real Chromium.

Runs where selenium, Chromium and chromedriver are at hand. COMFYUI_FRONTEND names the static folder of another
comfyui-frontend-package, for a host whose own is not the one that is installed; SCREENSHOTS a folder for pictures.
"""

import base64
import json
import os
import sys
from pathlib import Path

import browser
import pytest

from demo.comfyui import PACK, find_comfyui
from demo.server import serve

MISSING = browser.missing()
pytestmark = pytest.mark.skipif(MISSING is not None, reason=MISSING or "")

FOLDER = PACK / "example_workflows"
WORKFLOWS = sorted(FOLDER.glob("*.json"))
NODES = {
    "SAGSelfAttentionGuidance": "Self-Attention Guidance (SAG)",
    "SAGSelfAttentionGuidanceAdvanced": "Self-Attention Guidance Advanced (SAG)",
    "SAGPreset": "Self-Attention Guidance Preset (SAG)",
    "SAGSweep": "SAG Sweep",
    "SAGMaskPreview": "SAG Mask Preview",
    "SAGCompareGrid": "SAG Compare Grid",
    "SAGDemoModel": "SAG Demo Model",
}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    base = tmp_path_factory.mktemp("comfyui")
    # Without it, the window greets with a dialog that lies above everything.
    settings = base / "user" / "default" / "comfy.settings.json"
    settings.parent.mkdir(parents=True)
    settings.write_text(json.dumps({"Comfy.TutorialCompleted": True, "Comfy.Minimap.Visible": False}))
    options = ["--cpu"]
    if os.environ.get("COMFYUI_FRONTEND"):
        options += ["--front-end-root", os.environ["COMFYUI_FRONTEND"]]
    with serve(find_comfyui(), Path(sys.executable), base, options) as running:
        yield running


@pytest.fixture(scope="module")
def window(server):
    with browser.window(server.address) as opened:
        yield opened


@pytest.fixture(autouse=True)
def screenshot(window, request):
    """Keeps a picture of the window, and one at the end of every test, in the folder SCREENSHOTS."""

    def keep(name):
        if os.environ.get("SCREENSHOTS"):
            window.screenshot(Path(os.environ["SCREENSHOTS"]) / f"{name}.png")

    yield keep
    keep(request.node.name)


def ours(messages):
    """Console messages that this pack may have caused: all that name it or one of its nodes."""
    # The window asks for a page in its language and takes the English one where there is none.
    expected = "/en.md - Failed to load resource"
    return [text for text in messages if ("attention" in text or "SAG" in text) and expected not in text]


def has_aliases(server) -> bool:
    return "search_aliases" in server.get_json("/object_info/SAGSweep")["SAGSweep"]


def test_the_node_search_finds_every_node(server, window):
    found = window.search("self attention")
    wanted = list(NODES.values()) if has_aliases(server) else [name for name in NODES.values() if "Attention" in name]
    assert [name for name in wanted if name not in found] == []


@pytest.mark.parametrize("words", ["sag", "blur guidance", "attention guidance"])
def test_the_node_search_finds_both_guidance_nodes_by_other_words(server, window, words):
    if not has_aliases(server):
        pytest.skip("this ComfyUI knows no search aliases")
    found = window.search(words)
    assert {NODES["SAGSelfAttentionGuidance"], NODES["SAGSelfAttentionGuidanceAdvanced"]} <= set(found)


@pytest.mark.parametrize("node_id", NODES)
def test_the_info_button_opens_the_help_page(window, node_id):
    window.console()
    page = window.help(node_id)
    window.wait(lambda: NODES[node_id] in page.text, "title of the help page")
    pictures = (
        "return [...args[0].querySelectorAll('img')].map(image => [image.src, image.complete, image.naturalWidth])"
    )
    for source, complete, width in window.wait(lambda: window.script(pictures, page), "picture in the help page"):
        assert complete and width > 0, source
    sizes = window.script("return [args[0].scrollWidth, args[0].clientWidth]", page)
    assert sizes[0] <= sizes[1], "the page is wider than the panel"
    assert ours(window.console()) == []


def test_the_template_browser_shows_every_workflow_with_its_thumbnail(server, window):
    (templates,) = server.get_json("/workflow_templates").values()
    assert sorted(templates) == [path.stem for path in WORKFLOWS]
    for path in WORKFLOWS:
        thumbnail = server.get(f"/api/workflow_templates/self-attention-guidance/{path.stem}.jpg")
        assert thumbnail == path.with_suffix(".jpg").read_bytes()


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_template_loads_and_exports_its_api_twin(window, path):
    workflow = json.loads(path.read_text(encoding="utf-8"))
    window.console()
    window.load(workflow)
    assert sorted(window.node_types()) == sorted(node["type"] for node in workflow["nodes"])
    known = "return app.graph.nodes.filter(node => !LiteGraph.registered_node_types[node.type]).map(node => node.type)"
    assert window.script(known) == []
    twin = json.loads((FOLDER / "api" / path.name).read_text(encoding="utf-8"))
    exported = window.exported()
    assert {key: (node["class_type"], node["inputs"]) for key, node in exported.items()} == {
        key: (node["class_type"], node["inputs"]) for key, node in twin.items()
    }
    window.fit()
    assert ours(window.console()) == []


def test_the_demo_runs_to_the_end_and_shows_what_happened(server, window, screenshot):
    workflow = json.loads((FOLDER / "sag_demo.json").read_text(encoding="utf-8"))
    window.load(workflow)
    window.script("await app.queuePrompt(0)")
    node = "const node = app.graph.nodes.find(node => node.type === args[0]);"
    shown = node + "return (node.imgs || []).map(image => image.naturalWidth)"
    for node_id in ("SAGCompareGrid", "SAGMaskPreview", "SaveImage"):
        widths = window.wait(lambda: window.script(shown, node_id), f"picture at {node_id}", browser.RUN_SECONDS)  # noqa: B023
        assert all(width > 100 for width in widths)
    said = node + "return node.widgets.map(widget => String(widget.value))"
    texts = window.script(said, "SAGSelfAttentionGuidanceAdvanced")
    assert any(text.startswith("guided 12 of 20 steps") for text in texts), texts
    window.fit()
    screenshot("window")

    # The saved picture carries the workflow: dragged into the window, it brings the same graph back.
    (saved,) = (server.log.parent / "output").glob("sag_demo_0*.png")
    exported = window.exported()
    window.clear()
    window.script(
        "const bytes = Uint8Array.from(atob(args[0]), c => c.charCodeAt(0));"
        "const data = new DataTransfer(); data.items.add(new File([bytes], 'sag_demo.png', {type: 'image/png'}));"
        "const drop = new DragEvent('drop', {dataTransfer: data, bubbles: true, cancelable: true});"
        "document.getElementById('graph-canvas').dispatchEvent(drop)",
        base64.b64encode(saved.read_bytes()).decode(),
    )
    window.wait(lambda: len(window.node_types()) == len(workflow["nodes"]), "graph out of the picture")
    assert window.exported() == exported
