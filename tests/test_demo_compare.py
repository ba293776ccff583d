"""`python -m demo.compare` against a server that answers like ComfyUI; the pictures are plain colours."""

import io
import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlparse

import numpy as np
import pytest

Image = pytest.importorskip("PIL.Image")
pytest.importorskip("diffusers", reason='the demo needs its packages: pip install ".[demo]"')

sys.path.append(str(Path(__file__).resolve().parents[1]))  # last, so that nothing of ComfyUI's is hidden

from demo import compare  # noqa: E402
from demo.presets import PRESETS  # noqa: E402

COLUMNS = ["without", *PRESETS]
ADVANCED = {
    "scale": ["FLOAT", {"default": 0.75}],
    "mask_mode": [["self_attention", "random"], {"default": "self_attention"}],
    "difference": ["COMBO", {"options": ["noise", "image"], "default": "noise"}],
    "model": ["MODEL"],
}


@pytest.fixture
def comfyui():
    """An address, and the workflows that were queued there. Column i of every row comes out in brightness 40 i."""
    queued = []
    nodes = {
        "CheckpointLoaderSimple": {"ckpt_name": [["small.safetensors"]]},
        "SAGSelfAttentionGuidanceAdvanced": ADVANCED,
    }

    class Handler(BaseHTTPRequestHandler):
        def reply(self, body: bytes):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(body)

        def do_POST(self):
            queued.append(json.loads(self.rfile.read(int(self.headers["Content-Length"])))["prompt"])
            self.reply(json.dumps({"prompt_id": f"p{len(queued)}"}).encode())

        def do_GET(self):
            path = urlparse(self.path)
            kind = path.path.split("/")[-1]
            if path.path.startswith("/object_info/"):
                answer = {kind: {"input": {"required": nodes[kind]}}} if kind in nodes else {}
                self.reply(json.dumps(answer).encode())
            elif path.path.startswith("/history/"):
                pictures = {c: {"images": [{"filename": c, "subfolder": "", "type": "temp"}]} for c in COLUMNS}
                self.reply(json.dumps({kind: {"status": {"status_str": "success"}, "outputs": pictures}}).encode())
            else:
                level = 40 * COLUMNS.index(parse_qs(path.query)["filename"][0])
                file = io.BytesIO()
                Image.new("RGB", (64, 32), (level, level, level)).save(file, "png")
                self.reply(file.getvalue())

        def log_message(self, *args):
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", queued
    server.shutdown()


def run(address: str, out: Path, *more: str) -> None:
    options = ["--checkpoint", "small.safetensors", "--server", address, "--out", str(out), *more]
    compare.run(compare.arguments(options))


def test_every_prompt_and_seed_is_queued_without_and_with_every_preset(comfyui, tmp_path):
    address, queued = comfyui
    run(address, tmp_path / "sheet.png", "--prompt", "a cat", "--prompt", "a dog", "--seeds", "2", "--seed", "5")
    assert [graph["positive"]["inputs"]["text"] for graph in queued] == ["a cat", "a cat", "a dog", "a dog"]
    assert [graph["without latent"]["inputs"]["seed"] for graph in queued] == [5, 6, 5, 6]
    graph = queued[0]
    assert graph["without latent"]["inputs"]["model"] == ["model", 0]
    for name, preset in PRESETS.items():
        node = graph[f"{name} model"]
        assert node["class_type"] == "SAGSelfAttentionGuidanceAdvanced"
        assert node["inputs"] == {"mask_mode": "self_attention", **preset, "model": ["model", 0]}
        assert graph[f"{name} latent"]["inputs"] == {
            **graph["without latent"]["inputs"],
            "model": [f"{name} model", 0],
        }
    used = {link[0] for node in graph.values() for link in node["inputs"].values() if isinstance(link, list)}
    assert used <= set(graph)


def test_the_sheet_has_a_column_for_each_and_the_table_their_strength(comfyui, tmp_path, capsys):
    address, _ = comfyui
    out = tmp_path / "sheet.png"
    run(address, out, "--prompt", "a cat", "--seeds", "1")
    sheet = np.asarray(Image.open(out).convert("L"))
    middle = sheet[compare.TITLE * 2 + 20]
    assert [middle[compare.GAP + (compare.CELL + compare.GAP) * i + 20] for i in range(len(COLUMNS))] == [
        40 * i for i in range(len(COLUMNS))
    ]
    report = out.with_suffix(".md").read_text()
    assert report.splitlines()[-len(COLUMNS) :] == [
        f"| {name} | 0.00 | 0.000 | {40 * i:.1f} |" for i, name in enumerate(COLUMNS)
    ]
    assert "drawn: a cat, seed 0" in capsys.readouterr().out


def test_measures_on_pictures_known_by_hand():
    stripes = np.zeros((8, 8, 3), dtype=np.uint8)
    stripes[:, ::2] = 100  # a step of 100 at every column, none at a row
    assert compare.sharpness(Image.fromarray(stripes)) == 50
    assert compare.sharpness(Image.new("RGB", (8, 8), "red")) == 0
    assert compare.saturation(Image.new("RGB", (8, 8), "red")) == 1
    assert compare.strength(Image.new("RGB", (8, 8), (3, 4, 0)), Image.new("RGB", (8, 8))) == pytest.approx(
        (25 / 3) ** 0.5
    )


def test_a_checkpoint_that_the_server_lacks_is_told(comfyui, tmp_path):
    with pytest.raises(RuntimeError, match="--checkpoint must be one of small.safetensors, got 'big.ckpt'"):
        run(comfyui[0], tmp_path / "sheet.png", "--checkpoint", "big.ckpt")


def test_a_server_without_the_pack_is_told(comfyui):
    with pytest.raises(RuntimeError, match="lacks the node SAGMissing: install the pack there"):
        compare.Client(comfyui[0]).defaults("SAGMissing")


def test_no_server_is_told_in_a_line(monkeypatch, tmp_path):
    options = ["--checkpoint", "x", "--server", "http://127.0.0.1:9", "--out", str(tmp_path / "sheet.png")]
    monkeypatch.setattr(sys, "argv", ["compare", *options])
    with pytest.raises(SystemExit, match="error: http://127.0.0.1:9 does not answer .*start ComfyUI"):
        compare.main()
