"""Makes the ComfyUI that is found importable in this process, and loads the pack into it; to be imported first."""

import asyncio
import sys
from pathlib import Path

PACK = Path(__file__).resolve().parents[2]
sys.path.append(str(PACK))

from demo.comfyui import NOT_FOUND, find_comfyui  # noqa: E402

COMFYUI = find_comfyui()
if COMFYUI is None:
    sys.exit(NOT_FOUND)
sys.path.insert(0, str(COMFYUI))  # before the pack's folder, whose nodes/ would hide ComfyUI's nodes.py
given, sys.argv = sys.argv, ["main.py", "--cpu", "--disable-api-nodes"]
import comfy.options  # noqa: E402

comfy.options.enable_args_parsing()
import comfy.cli_args  # noqa: E402, F401  (reads sys.argv when imported)

sys.argv = given


def load_pack():
    """ComfyUI's table of nodes, after its own loader has loaded this pack."""
    import nodes

    asyncio.run(nodes.load_custom_node(str(PACK), set(nodes.NODE_CLASS_MAPPINGS)))
    return nodes.NODE_CLASS_MAPPINGS
