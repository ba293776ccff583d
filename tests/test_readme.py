"""What README shows must run."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def python_blocks():
    return re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def test_the_example_of_the_core_runs():
    (example,) = [block for block in python_blocks() if "sag_core" in block]
    run = subprocess.run([sys.executable, "-c", example], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip() == "torch.Size([1, 4, 64, 64])"


def test_the_api_example_queues_a_shipped_workflow_and_prints_its_pictures(tmp_path):
    """Against a server of one reply each, since no ComfyUI may be at hand; the real one is in tests/host."""
    import json
    import threading
    from http.server import BaseHTTPRequestHandler, HTTPServer

    queued = []

    class Handler(BaseHTTPRequestHandler):
        def reply(self, data):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps(data).encode())

        def do_POST(self):
            queued.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.reply({"prompt_id": "one"})

        def do_GET(self):
            self.reply({"one": {"outputs": {"9": {"images": [{"filename": "sag_00001_.png"}]}}}})

        def log_message(self, *args):
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    (example,) = [block for block in python_blocks() if "urllib" in block]
    example = example.replace("http://127.0.0.1:8188", f"http://127.0.0.1:{server.server_port}")
    run = subprocess.run([sys.executable, "-c", example], cwd=ROOT, capture_output=True, text=True, timeout=60)
    server.shutdown()
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip() == "['sag_00001_.png']"
    nodes = {node["class_type"]: node["inputs"] for node in queued[0]["prompt"].values()}
    assert nodes["SAGSelfAttentionGuidance"]["scale"] == 0.5
