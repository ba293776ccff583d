"""The pack loaded on the stand-in host, for tests that run where no ComfyUI is at hand."""

import asyncio
import sys
from functools import cache

import pytest
from loading import ROOT, load_package

REAL_HOST_LOADED = "comfy.options" in sys.modules  # one process holds one host


@cache
def node_classes() -> dict:
    """The pack's nodes by id, loaded through its entry point."""
    if REAL_HOST_LOADED:
        pytest.skip("the real ComfyUI is loaded here: tests/host covers this")
    folder = str(ROOT / "tests" / "standin")
    if folder not in sys.path:
        sys.path.insert(0, folder)

    async def nodes():
        return await (await load_package("pack_under_test", ROOT).comfy_entrypoint()).get_node_list()

    return {node.define_schema().node_id: node for node in asyncio.run(nodes())}
