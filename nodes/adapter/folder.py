"""What there is to say at start about the folder that the pack lies in."""

import sys
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

from .evaluation import logger

HERE = Path(__file__).resolve().parents[2]
IN_ADDRESSES = "!$&'()*+,;=:@"  # what may stand in an address as it is, beside letters, digits and -._~ (RFC 3986)


def warn_of_folder(node_id: str) -> None:
    """Log what is wrong with the folder of this pack, which holds that node; to be called before it is registered."""
    registered = getattr(sys.modules.get("nodes"), "NODE_CLASS_MAPPINGS", {})
    for problem in problems(HERE, registered, node_id):
        logger.warning("Self-Attention Guidance: %s.", problem)


def problems(folder: Path, registered: Mapping[str, type], node_id: str) -> list[str]:
    """What is wrong with a folder, in a line each.

    Args:
        folder: where the pack lies.
        registered: the nodes that the host has loaded before it, by id.
        node_id: one of the pack.
    """
    found = []
    if quote(folder.name, safe=IN_ADDRESSES) != folder.name:
        found.append(
            f"ComfyUI serves no help pages and no templates from a folder called {folder.name!r}; rename it to "
            "self-attention-guidance"
        )
    if node_id in registered:
        module = sys.modules.get(registered[node_id].__module__)
        other = Path(getattr(module, "__file__", None) or folder / "nodes" / "it").resolve().parents[1]
        if other != folder:
            found.append(f"the pack is installed twice, in {other} and in {folder}, which now counts; remove one")
    return found
