"""Loads the pack's core, its demo and its pictures, and has failures in helper modules show their numbers."""

import pytest
import torch
from loading import ROOT, load_package

pytest.register_assert_rewrite("contract", "reference", "author_pipeline")

torch.set_num_threads(1)  # the models here are so small that threads only cost time

load_package("sag_core", ROOT / "sag_core")
load_package("demo", ROOT / "demo")
load_package("pictures", ROOT / "nodes" / "pictures")
