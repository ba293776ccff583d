"""The contract of the adapter, on the stand-in host: where no ComfyUI is at hand, this is what covers the adapter."""

import on_standin
import pytest

if on_standin.REAL_HOST_LOADED:
    pytest.skip("the real ComfyUI is loaded here: tests/host runs this contract", allow_module_level=True)

NODE = on_standin.node_classes()["SAGSelfAttentionGuidance"]

from contract import *  # noqa: E402, F403  (needs the stand-in, which loading the pack has put in place)


@pytest.fixture(scope="module")
def host():
    from harness import StandInHost

    return StandInHost()


@pytest.fixture(scope="module")
def guide():
    def guide(model, scale=0.75, blur_sigma=1.0):
        return NODE.execute(model=model, scale=scale, blur_sigma=blur_sigma).args[0]

    return guide
