"""Finds ComfyUI and the interpreter it runs with.

As a program, `python -m demo.comfyui`, it prints a line for each that is found: folder, tab, interpreter.
"""

import os
import subprocess
import sys
from pathlib import Path
from typing import Optional

PACK = Path(__file__).resolve().parents[1]
NEEDED = ("torch", "aiohttp", "sqlalchemy", "safetensors", "transformers")  # a few of the packages ComfyUI starts with
NOT_FOUND = "no ComfyUI found: set COMFYUI_PATH to its folder"


def find_comfyui() -> Optional[Path]:
    """COMFYUI_PATH, then the custom_nodes folder this pack may lie in, then the usual places."""
    given = os.environ.get("COMFYUI_PATH")
    places = [Path(given)] if given else [PACK.parent.parent, Path.home() / "ComfyUI", Path.home() / "comfy/ComfyUI"]
    return next(filter(_is_comfyui, places), None)


def find_python(comfyui: Path) -> Path:
    """COMFYUI_PYTHON, then the interpreter of ComfyUI's own virtual environment, then this one."""
    given = os.environ.get("COMFYUI_PYTHON")
    if given:
        return Path(given)
    inside = ("bin/python", "Scripts/python.exe")
    places = [comfyui / venv / python for venv in (".venv", "venv") for python in inside]
    places.append(comfyui.parent / "python_embeded" / "python.exe")
    return next((place for place in places if place.exists()), Path(sys.executable))


def check_python(python: Path) -> None:
    """Raise RuntimeError, with what to set, unless an interpreter has what ComfyUI starts with."""
    advice = "set COMFYUI_PYTHON to the interpreter that this ComfyUI is started with"
    find = f"from importlib.util import find_spec; print(*(name for name in {NEEDED} if find_spec(name) is None))"
    try:
        answer = subprocess.run([str(python), "-c", find], capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise RuntimeError(f"{python} cannot be run ({error}); {advice}") from error
    if answer.returncode:
        raise RuntimeError(f"{python} is no Python ({answer.stderr.strip()[-300:]}); {advice}")
    if answer.stdout.strip():
        raise RuntimeError(f"{python} lacks packages that ComfyUI needs: {answer.stdout.strip()}; {advice}")


def is_this_interpreter(python: Path) -> bool:
    """Whether `python` is the interpreter of this process (a virtual environment is known by its folder)."""
    return os.path.realpath(python.parent) == os.path.realpath(Path(sys.executable).parent)


def _is_comfyui(folder: Path) -> bool:
    return (folder / "comfy" / "samplers.py").is_file()


if __name__ == "__main__":
    # Several versions may lie side by side, as ~/ComfyUI and ~/ComfyUI-0.3.64.
    others = [] if os.environ.get("COMFYUI_PATH") else sorted(Path.home().glob("ComfyUI-*"))
    for folder in filter(None, [find_comfyui(), *filter(_is_comfyui, others)]):
        print(folder, find_python(folder), sep="\t")
