"""Makes the real ComfyUI importable; its tests are collected only where ComfyUI's own interpreter runs them."""

import asyncio
import os
import sys
import zipfile
from pathlib import Path

import archive
import pytest

from demo.comfyui import NOT_FOUND, PACK, find_comfyui, find_python, is_this_interpreter
from demo.server import serve

COMFYUI = find_comfyui()
# For the servers that tests start: the models are so small that threads only cost time.
os.environ.setdefault("OMP_NUM_THREADS", "1")
INSIDE = COMFYUI is not None and is_this_interpreter(find_python(COMFYUI))

if INSIDE:
    sys.path.insert(0, str(COMFYUI))  # before the pack's folder, whose nodes/ would hide ComfyUI's nodes.py
    arguments, sys.argv = sys.argv, ["main.py", "--cpu", "--disable-api-nodes"]
    import comfy.options

    comfy.options.enable_args_parsing()
    import comfy.cli_args  # noqa: F401  (reads sys.argv when imported)

    sys.argv = arguments
    sys.path.append(str(PACK / "tests" / "host"))
else:
    collect_ignore_glob = ["test_*.py"]


def pytest_report_header():
    if not INSIDE:
        return NOT_FOUND if COMFYUI is None else "tests/host needs ComfyUI's own interpreter"
    from comfyui_version import __version__

    return f"ComfyUI {__version__} in {COMFYUI}"


@pytest.fixture(scope="session")
def node_classes():
    """ComfyUI's table of nodes after its own loader has loaded this pack."""
    import nodes

    assert asyncio.run(nodes.load_custom_node(str(PACK), set(nodes.NODE_CLASS_MAPPINGS)))
    return nodes.NODE_CLASS_MAPPINGS


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    """ComfyUI on a base directory of its own, with the pack as the registry would serve it and nothing else."""
    pack = PACK
    if archive.tracked():
        folder = tmp_path_factory.mktemp("archive")
        archive.pack(folder / "node.zip")
        pack = folder / "unpacked"
        zipfile.ZipFile(folder / "node.zip").extractall(pack)
    # The classic cache forgets what the last prompt did not use, so going back to an earlier prompt samples again.
    options = ["--cpu", "--cache-classic"]
    with serve(COMFYUI, Path(sys.executable), tmp_path_factory.mktemp("comfyui"), options, pack) as running:
        yield running


@pytest.fixture
def server_log(server):
    """Put what the server printed meanwhile into the report of a failed test; pytest drops it when the test passes."""
    before = len(server.log_text())
    yield
    print(server.log_text()[before:])


@pytest.fixture(scope="session")
def host():
    from real_host import RealHost

    return RealHost()


@pytest.fixture(scope="session")
def guide(node_classes):
    def guide(model, scale=0.75, blur_sigma=1.0):
        return node_classes["SAGSelfAttentionGuidance"].execute(model=model, scale=scale, blur_sigma=blur_sigma).args[0]

    return guide


@pytest.fixture(scope="session")
def advanced(node_classes):
    """The Advanced node as the host runs it: every widget at its default unless given."""
    node = node_classes["SAGSelfAttentionGuidanceAdvanced"]
    inputs = node.define_schema().inputs
    defaults = {i.id: i.default for i in inputs if getattr(i, "default", None) is not None}

    def advanced(model, **chosen):
        return node.execute(model=model, **{**defaults, **chosen}).args[0]

    return advanced
