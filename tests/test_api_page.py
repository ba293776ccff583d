"""What docs/api.md shows, against a server of canned replies; the real one is in tests/host."""

import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import api_page
import pytest

IMAGE = {"filename": "with_00001_.png", "subfolder": "sag_demo", "type": "output"}
SHOWN = {**IMAGE, "filename": "shown.png", "type": "temp"}
SUCCESS = {"status": {"status_str": "success"}, "outputs": {"9": {"images": [IMAGE, SHOWN]}, "10": {"text": ["none"]}}}
ERROR = {"node_id": "2", "node_type": "SAGSelfAttentionGuidance", "exception_message": "no such block"}
FAILURE = {"status": {"status_str": "error", "messages": [["execution_error", ERROR]]}, "outputs": {}}
REFUSAL = {
    "error": {"message": "Prompt outputs failed validation"},
    "node_errors": {"2": {"class_type": "KSampler", "errors": [{"message": "Too small", "details": "steps"}]}},
}


@pytest.fixture
def reply():
    """Starts a server whose runs end as given, and which refuses every prompt if there is no run."""
    servers = []

    def reply(run):
        asked = []

        class Handler(BaseHTTPRequestHandler):
            def answer(self, status, body):
                self.send_response(status)
                self.end_headers()
                self.wfile.write(body)

            def do_POST(self):
                asked.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                status, answer = (400, REFUSAL) if run is None else (200, {"prompt_id": "one"})
                self.answer(status, json.dumps(answer).encode())

            def do_GET(self):
                asked.append(self.path)
                picture = self.path.startswith("/view?")
                waiting = len(asked) == 2  # the first time that it asks, the run has not ended
                self.answer(200, b"PNG" if picture else json.dumps({} if waiting else {"one": run}).encode())

            def log_message(self, *args):
                pass

        server = HTTPServer(("127.0.0.1", 0), Handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{server.server_port}", asked

    yield reply
    for server in servers:
        server.shutdown()


def test_it_queues_the_demo_and_fetches_the_picture(reply, tmp_path):
    address, asked = reply(SUCCESS)
    run = api_page.run(tmp_path, address)
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip() == "sag_demo/with_00001_.png"
    assert (tmp_path / "with_00001_.png").read_bytes() == b"PNG"
    assert asked[-1] == "/view?filename=with_00001_.png&subfolder=sag_demo&type=output"
    nodes = [(node["class_type"], node["inputs"]) for node in asked[0]["prompt"].values()]
    guided = [inputs["scale"] for name, inputs in nodes if name.startswith("SAGSelfAttentionGuidance")]
    assert guided and set(guided) == {0.5}
    assert {inputs["seed"] for name, inputs in nodes if name == "KSampler"} == {7}
    names = {name for name, _ in nodes}
    assert "SAGDemoModel" in names and "CheckpointLoaderSimple" not in names


def test_it_shows_why_the_server_refuses(reply, tmp_path):
    run = api_page.run(tmp_path, reply(None)[0])
    assert run.returncode == 1
    assert run.stdout.splitlines() == [
        "refused: Prompt outputs failed validation",
        "node 2, KSampler: Too small: steps",
    ]


def test_it_shows_why_a_run_failed(reply, tmp_path):
    run = api_page.run(tmp_path, reply(FAILURE)[0])
    assert run.returncode == 1
    assert run.stdout.strip() == "failed: node 2, SAGSelfAttentionGuidance: no such block"
