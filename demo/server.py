"""Runs a workflow in a ComfyUI that it starts and stops itself, without touching what the installation holds."""

import json
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from .client import Client
from .presets import ADVANCED, PLAIN, SHARPER

PACK = Path(__file__).resolve().parents[1]
START_SECONDS = 180
UNUSED = shutil.ignore_patterns(".*", "__pycache__", "tests", "benchmarks", "build", "dist", "*.egg-info")


class Server(Client):
    """A ComfyUI that `serve` started; every failure comes with the end of its log."""

    def __init__(self, process: subprocess.Popen, port: int, base: Path, log: Path) -> None:
        super().__init__(f"http://127.0.0.1:{port}")
        self.process = process
        self.base = base
        self.log = log

    def wait_until_ready(self) -> None:
        """Return when the server answers."""
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            self._check()
            try:
                self.get("/object_info/KSampler")
                return
            except OSError:  # refused until the port is open
                time.sleep(0.3)
        raise self._failure(f"ComfyUI did not answer within {START_SECONDS} s")

    def log_text(self) -> str:
        """All that the server has printed so far."""
        return self.log.read_text(errors="replace")

    def _check(self) -> None:
        if self.process.poll() is not None:
            raise self._failure(f"ComfyUI ended with code {self.process.returncode}")

    def _failure(self, message: str) -> RuntimeError:
        return RuntimeError(f"{message}; its log ends with\n{self.log_text()[-3000:]}")


@contextmanager
def serve(
    comfyui: Path, python: Path, base: Path, options: "Sequence[str]" = (), pack: Path = PACK
) -> "Iterator[Server]":
    """Start ComfyUI, and stop it at the end.

    Args:
        comfyui: the folder with ComfyUI's main.py.
        python: the interpreter that ComfyUI runs with.
        base: an existing folder that takes the place of ComfyUI's own for models, custom nodes and output. A copy of
            the pack is added to the custom nodes there.
        options: further ones of ComfyUI's command line.
        pack: the folder of the pack.

    Raises:
        RuntimeError: it does not start; the message holds the end of its log.
    """
    # A copy, not a link: links need rights that an ordinary account on Windows lacks.
    shutil.copytree(pack, base / "custom_nodes" / "self-attention-guidance", ignore=UNUSED)
    for folder in ("models", "input", "output", "temp", "user"):
        (base / folder).mkdir(exist_ok=True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [str(python), "main.py", "--port", str(port), "--base-directory", str(base)]
    command += ["--disable-api-nodes", "--disable-auto-launch", *options]
    # The default database is a file in the installation, which another running ComfyUI may hold.
    command += ["--database-url", f"sqlite:///{(base / 'comfyui.db').as_posix()}"]
    if "--cpu" not in options and not _has_accelerator(python):
        command.append("--cpu")
    # The gallery of workflow templates is a package of its own, and one that is newer than the host stops it from
    # starting (0.3.64 looks for a folder that is gone). A host starts without the package, so it is hidden.
    hidden = base / "hidden_packages"
    hidden.mkdir()
    (hidden / "comfyui_workflow_templates.py").write_text("raise ImportError('not needed here')\n")
    paths = [str(hidden), *filter(None, [os.environ.get("PYTHONPATH")])]
    log = base / "server.log"
    with log.open("wb") as stream:
        process = subprocess.Popen(
            command,
            cwd=comfyui,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
        )
    try:
        server = Server(process, port, base, log)
        server.wait_until_ready()
        yield server
    finally:
        process.terminate()
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def pictures_with_and_without(
    comfyui: Path, python: Path, *, prompt: str, seed: int, scale: float, blur_sigma: float, steps: int, cfg: float
) -> "tuple[list[bytes], list[bytes]]":
    """Run `with_and_without.json` with these values and otherwise the preset "sharper".

    Returns:
        The PNG files without guidance, and those with it.

    Raises:
        RuntimeError: ComfyUI does not start, refuses the workflow or fails.
    """
    workflow = json.loads(Path(__file__).with_name("with_and_without.json").read_text(encoding="utf-8"))
    values = {"SAGDemoModel": {"prompt": prompt}, "KSampler": {"seed": seed, "steps": steps, "cfg": cfg}}
    for node in workflow.values():
        node["inputs"].update(values.get(node["class_type"], {}))
    base = Path(tempfile.mkdtemp())
    try:
        with serve(comfyui, python, base) as server:
            chosen = {**server.defaults(ADVANCED), **SHARPER, "scale": scale, "blur_sigma": blur_sigma}
            for node in workflow.values():
                if node["class_type"] in (PLAIN, ADVANCED):
                    node.update(class_type=ADVANCED, inputs={**chosen, "model": node["inputs"]["model"]})
            pictures = server.pictures(workflow)
    finally:
        shutil.rmtree(base, ignore_errors=True)  # Windows may still hold a file of the server that has just ended
    saved = {
        workflow[node]["inputs"]["filename_prefix"].rsplit("/")[-1]: files
        for node, files in pictures.items()
        if workflow[node]["class_type"] == "SaveImage"
    }
    return saved["without"], saved["with"]


def _has_accelerator(python: Path) -> bool:
    check = "import torch; raise SystemExit(not torch.accelerator.is_available())"
    return subprocess.run([str(python), "-c", check], stderr=subprocess.DEVNULL).returncode == 0
