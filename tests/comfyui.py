"""Finds ComfyUI and the interpreter it runs with. As a program, prints one line for each: folder, tab, interpreter."""

import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
NOT_FOUND = "no ComfyUI found: set COMFYUI_PATH to its folder to run the tests inside it"


def find_comfyui() -> "Path | None":
    """COMFYUI_PATH, then the custom_nodes folder this pack may lie in, then the usual places."""
    given = os.environ.get("COMFYUI_PATH")
    places = [Path(given)] if given else [ROOT.parent.parent, Path.home() / "ComfyUI", Path.home() / "comfy/ComfyUI"]
    return next((place for place in places if (place / "comfy" / "samplers.py").is_file()), None)


def is_this_interpreter(python: Path) -> bool:
    """Whether `python` is the interpreter of this process (a virtual environment is known by its folder)."""
    return os.path.realpath(python.parent) == os.path.realpath(Path(sys.executable).parent)


if __name__ == "__main__":
    sys.path.append(str(ROOT))
    from demo.server import find_python

    found = find_comfyui()
    # Several versions may lie side by side, as ~/ComfyUI and ~/ComfyUI-0.3.64.
    others = [] if os.environ.get("COMFYUI_PATH") else sorted(Path.home().glob("ComfyUI-*"))
    for folder in [found, *others]:
        if folder and (folder / "comfy" / "samplers.py").is_file():
            print(folder, find_python(folder), sep="\t")
