"""Two hundred prompts in a row, two clients at once, and a server that is killed in the middle of a run.

SAG_LONG=1 runs it; SAG_PROMPTS says how many prompts.
"""

import io
import os
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest
from PIL import Image

from demo.comfyui import find_comfyui
from demo.server import serve

pytestmark = pytest.mark.skipif(os.environ.get("SAG_LONG") != "1", reason="takes minutes: set SAG_LONG=1")

PROMPTS = int(os.environ.get("SAG_PROMPTS", "200"))
WARM = 10
MEBIBYTE = 2**20


def node(class_type, **inputs):
    return {"class_type": class_type, "inputs": inputs}


ADVANCED = {
    "scale": 0.75, "blur_sigma": 3.0, "mask_threshold": 1.0, "start_percent": 0.0, "end_percent": 1.0,
    "scale_curve": "constant", "attention_blocks": "auto", "mask_mode": "self_attention", "mask_upsampling": "nearest",
    "mask_feather": 0.0, "branch": "auto", "blur_kernel": 0, "rescale": 0.0, "rescale_mode": "full",
    "projection": False, "apply_every": 1, "reuse": False,
}  # fmt: skip
GUIDED = [
    lambda: node("SAGSelfAttentionGuidance", model=["demo", 0], scale=0.75, blur_sigma=3.0),
    lambda: node("SAGSelfAttentionGuidanceAdvanced", model=["demo", 0], **ADVANCED),
    lambda: node(
        "SAGSelfAttentionGuidanceAdvanced", model=["demo", 0],
        **{**ADVANCED, "mask_mode": "token_rank", "apply_every": 2, "reuse": True, "rescale": 0.5},
    ),
    lambda: node("SAGPreset", model=["demo", 0], preset="diffusers"),
]  # fmt: skip
TRACED = {2, 3}  # whose trace, the second output, is looked at


def prompt(number, steps=2):
    """One of several graphs that draw and save one picture, with a seed of its own."""
    kind = number % (len(GUIDED) + 1)
    graph = {
        "demo": node("SAGDemoModel", prompt="a red duck", negative_prompt="", batch_size=1 + number % 2),
        "sampler": node(
            "KSampler", model=["guided", 0] if kind else ["demo", 0], seed=number, steps=steps,
            cfg=[1.0, 2.0][number % 2], sampler_name=["euler", "ddim", "dpmpp_2m"][number % 3], scheduler="simple",
            positive=["demo", 1], negative=["demo", 2], latent_image=["demo", 3], denoise=1.0,
        ),
        "image": node("VAEDecode", samples=["sampler", 0], vae=["demo", 4]),
        "saved": node("SaveImage", images=["image", 0], filename_prefix=f"load/{number:04}"),
    }  # fmt: skip
    if kind:
        graph["guided"] = GUIDED[kind - 1]()
    if kind in TRACED:
        graph["shown"] = node(
            "SAGMaskPreview", trace=["guided", 1], after=["image", 0], style="overlay", step="last"
        )  # fmt: skip
    return graph


@pytest.fixture
def start(tmp_path):
    """Starts a server, the second and further times on a folder of its own."""

    def start(name="one"):
        base = tmp_path / name
        base.mkdir()
        return serve(find_comfyui(), Path(sys.executable), base, ["--cpu"])

    return start


def drawn(server, number):
    """The pictures of a prompt in the server's folder."""
    return sorted((server.base / "output" / "load").glob(f"{number:04}_*.png"))


def check(server, number, prompt_id):
    entry = server.wait(prompt_id)
    assert entry["status"]["status_str"] == "success", entry["status"]
    files = drawn(server, number)
    assert len(files) == 1 + number % 2
    for file in files:
        with Image.open(io.BytesIO(file.read_bytes())) as picture:
            assert len(picture.convert("RGB").getcolors(picture.width * picture.height)) > 20


def test_a_long_queue_draws_every_picture_in_flat_memory(start, capsys):
    with start() as server:
        process = psutil.Process(server.process.pid)
        queued = [server.queue(prompt(number)) for number in range(PROMPTS)]
        resident = []
        for number, prompt_id in enumerate(queued):
            check(server, number, prompt_id)
            resident.append(process.memory_info().rss / MEBIBYTE)
        warm, last = resident[WARM], resident[-1]
        assert "Self-Attention Guidance:" not in server.log_text(), "a warning where all should be well"
        with capsys.disabled():
            print(
                f"\n[{PROMPTS} prompts: all pictures there; resident memory {warm:.0f} MiB after {WARM}, "
                f"{max(resident[WARM:]):.0f} at most, {last:.0f} at the end]"
            )
        assert last - warm < 50


def test_two_clients_at_once_get_their_own_pictures(start):
    with start() as server:
        problems = []

        def client(numbers):
            try:
                for number in numbers:
                    check(server, number, server.queue(prompt(number), client_id=str(numbers[0])))
            except Exception as problem:  # noqa: BLE001
                problems.append(problem)

        clients = [threading.Thread(target=client, args=([*range(first, 12, 2)],)) for first in (0, 1)]
        for one in clients:
            one.start()
        for one in clients:
            one.join()
        assert not problems


def test_a_server_killed_in_the_middle_of_a_run_draws_after_a_new_start(start):
    with start("killed") as server:
        check(server, 1, server.queue(prompt(1)))
        server.queue(prompt(2, steps=5000))
        while "5000 [" not in server.log_text() and "/5000" not in server.log_text():
            assert server.process.poll() is None
            time.sleep(0.1)
        server.process.kill()
        server.process.wait()
    base = server.base
    for folder in (base / "custom_nodes" / "self-attention-guidance", base / "hidden_packages"):
        folder.rename(folder.with_name(folder.name + ".disabled"))  # what the new start brings along itself
    with serve(find_comfyui(), Path(sys.executable), base, ["--cpu"]) as again:
        check(again, 3, again.queue(prompt(3)))
