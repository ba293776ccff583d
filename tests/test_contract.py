"""The contract of the adapter, on the stand-in host: where no ComfyUI is at hand, this is what covers the adapter."""

import sys

import comfyui
import pytest

if "comfy.options" in sys.modules:
    pytest.skip("the real ComfyUI is loaded here: tests/host runs this contract", allow_module_level=True)

sys.path.insert(0, str(comfyui.ROOT / "tests" / "standin"))

from contract import *  # noqa: E402, F403


@pytest.fixture(scope="module")
def host():
    from harness import StandInHost

    return StandInHost()


@pytest.fixture(scope="module")
def guide():
    import asyncio

    from conftest import load_package

    pack = load_package("pack_under_test", comfyui.ROOT)
    (node, *_) = asyncio.run(_node_list(pack))

    def guide(model, scale=0.75, blur_sigma=1.0):
        return node.execute(model=model, scale=scale, blur_sigma=blur_sigma).args[0]

    return guide


async def _node_list(pack):
    return await (await pack.comfy_entrypoint()).get_node_list()
