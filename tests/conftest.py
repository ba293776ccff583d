"""Loads the pack, its core, its demo and its pictures from this folder, as ComfyUI does: by path, not by its name."""

import importlib.util
import sys
from pathlib import Path

import torch

torch.set_num_threads(1)  # the models here are so small that threads only cost time

ROOT = Path(__file__).resolve().parents[1]


def load_package(name: str, folder: Path):
    init = folder / "__init__.py"
    spec = importlib.util.spec_from_file_location(name, init, submodule_search_locations=[str(folder)])
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


load_package("sag_core", ROOT / "sag_core")
load_package("demo", ROOT / "demo")
load_package("pictures", ROOT / "nodes" / "pictures")
