"""Speaks with a running ComfyUI over its HTTP interface."""

import json
import time
import urllib.error
import urllib.parse
import urllib.request
from typing import Any

RUN_SECONDS = 600


class Client:
    """A running ComfyUI.

    Every method raises RuntimeError where the server refuses or fails, and OSError where it does not answer.

    Args:
        address: such as http://127.0.0.1:8188.
    """

    def __init__(self, address: str) -> None:
        self.address = address.rstrip("/")
        # No handler of the environment: a proxy set there must not see loopback requests.
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def get(self, path: str) -> bytes:
        """The body of an answer."""
        with self._opener.open(self.address + path, timeout=30) as answer:
            return answer.read()

    def get_json(self, path: str):
        """The value in an answer."""
        return json.loads(self.get(path))

    def post(self, path: str, body: bytes) -> "tuple[int, bytes]":
        """The status and the body of an answer to JSON."""
        request = urllib.request.Request(self.address + path, body, {"Content-Type": "application/json"})
        try:
            with self._opener.open(request, timeout=30) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as refusal:
            return refusal.code, refusal.read()

    def inputs(self, node: str) -> "dict[str, tuple[Any, dict]]":
        """The required inputs of a kind of node: by name, its type or choices, and its options."""
        description = self.get_json(f"/object_info/{urllib.parse.quote(node)}").get(node)
        if description is None:
            raise RuntimeError(f"the ComfyUI at {self.address} lacks the node {node}: install the pack there")
        return {
            name: (kind[0], kind[1] if len(kind) > 1 else {})
            for name, kind in description["input"].get("required", {}).items()
        }

    def defaults(self, node: str) -> "dict[str, Any]":
        """What the widgets of a kind of node stand at."""
        return {name: options["default"] for name, (_, options) in self.inputs(node).items() if "default" in options}

    def queue(self, prompt: dict, **more: str) -> str:
        """Queue a workflow in the API format and return its id; `more` goes with it, as a client_id."""
        status, answer = self.post("/prompt", json.dumps({"prompt": prompt, **more}).encode())
        if status != 200:
            raise RuntimeError(f"ComfyUI refused the workflow: {answer.decode()}")
        return json.loads(answer)["prompt_id"]

    def wait(self, prompt_id: str, seconds: float = RUN_SECONDS) -> dict:
        """Wait until a queued workflow has ended, and return what ComfyUI's history says of it."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            entry = self.get_json(f"/history/{prompt_id}").get(prompt_id)
            if entry is not None:
                return entry
            self._check()
            time.sleep(0.1)
        raise self._failure(f"the workflow did not finish within {seconds:g} s")

    def pictures(self, prompt: dict, seconds: float = RUN_SECONDS) -> "dict[str, list[bytes]]":
        """Queue a workflow, wait for it, and return the files of its pictures by the id of the node that shows them."""
        entry = self.wait(self.queue(prompt), seconds)
        if entry["status"]["status_str"] != "success":
            raise self._failure(f"the workflow failed: {json.dumps(entry['status'], indent=1)}")
        return {
            node: [self._view(picture) for picture in output.get("images", [])]
            for node, output in entry["outputs"].items()
        }

    def _view(self, picture: dict) -> bytes:
        query = urllib.parse.urlencode({key: picture[key] for key in ("filename", "subfolder", "type")})
        return self.get(f"/view?{query}")

    def _check(self) -> None:
        """Raise RuntimeError if the server is known to have ended."""

    def _failure(self, message: str) -> RuntimeError:
        return RuntimeError(message)
