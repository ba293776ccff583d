"""Two copies of the pack at once on the real server, one in a folder with a space, both read-only."""

import shutil
import sys
from pathlib import Path

import pytest

from demo.comfyui import PACK, find_comfyui
from demo.server import UNUSED, serve

NAMES = ("self attention guidance", "self-attention-guidance")


def contents(folder):
    return {
        path.relative_to(folder): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


@pytest.fixture(scope="module")
def twice(tmp_path_factory):
    base = tmp_path_factory.mktemp("places")
    shutil.copytree(PACK, base / "custom_nodes" / NAMES[0], ignore=UNUSED)
    with serve(find_comfyui(), Path(sys.executable), base, ["--cpu"]) as running:
        for path in (base / "custom_nodes").rglob("*"):
            path.chmod(0o555 if path.is_dir() else 0o444)
        yield running
        for path in (base / "custom_nodes").rglob("*"):
            path.chmod(0o755 if path.is_dir() else 0o644)


def test_each_odd_place_is_one_line_in_the_log(twice):
    lines = [line for line in twice.log_text().splitlines() if "Self-Attention Guidance:" in line]
    assert len(lines) == 2, lines
    (renamed,) = [line for line in lines if "rename it to self-attention-guidance" in line]
    (doubled,) = [line for line in lines if "the pack is installed twice" in line]
    assert repr(NAMES[0]) in renamed
    assert all(str(twice.base.resolve() / "custom_nodes" / name) in doubled for name in NAMES)


def test_the_nodes_draw_and_write_nothing_beside_themselves(twice):
    before = contents(twice.base / "custom_nodes")
    prompt = {
        "demo": {"class_type": "SAGDemoModel", "inputs": {"prompt": "", "negative_prompt": "", "batch_size": 1}},
        "guided": {
            "class_type": "SAGSelfAttentionGuidance",
            "inputs": {"model": ["demo", 0], "scale": 0.75, "blur_sigma": 3.0},
        },
        "sampler": {
            "class_type": "KSampler",
            "inputs": {
                "model": ["guided", 0], "seed": 0, "steps": 2, "cfg": 2.0, "sampler_name": "euler",
                "scheduler": "simple", "positive": ["demo", 1], "negative": ["demo", 2], "latent_image": ["demo", 3],
                "denoise": 1.0,
            },
        },
        "image": {"class_type": "VAEDecode", "inputs": {"samples": ["sampler", 0], "vae": ["demo", 4]}},
        "saved": {"class_type": "SaveImage", "inputs": {"images": ["image", 0], "filename_prefix": "here"}},
    }  # fmt: skip
    assert len(twice.pictures(prompt)["saved"]) == 1
    assert contents(twice.base / "custom_nodes") == before


def test_help_is_served_from_the_folder_without_a_space(twice):
    page = "docs/SAGSelfAttentionGuidance.md"
    assert twice.get(f"/extensions/{NAMES[1]}/{page}") == (PACK / "web" / page).read_bytes()
