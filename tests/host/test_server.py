"""The main job on the real ComfyUI: start its server, queue the shipped workflows, look at the pictures.

Runs inside the interpreter of a ComfyUI installation, whose folder COMFYUI_PATH names:

    COMFYUI_PATH=/path/to/ComfyUI /path/to/ComfyUI/.venv/bin/python -m pytest tests/host/test_server.py

It needs no GPU, no download and no network: the checkpoint is a small one with random weights, written here.
"""

import copy
import io
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

import comfyui
import pytest

torch = pytest.importorskip("torch")
safetensors_torch = pytest.importorskip("safetensors.torch")
Image = pytest.importorskip("PIL.Image")

COMFYUI = comfyui.find_comfyui()
pytestmark = pytest.mark.skipif(COMFYUI is None, reason=comfyui.NOT_FOUND)

ROOT = Path(__file__).resolve().parents[2]
PACK_FOLDER = "self-attention-guidance"
NODE_ID = "SAGSelfAttentionGuidance"
WORKFLOWS = sorted((ROOT / "example_workflows" / "api").glob("sag_sd15_*.json"))
DEMO = ROOT / "example_workflows" / "api" / "sag_demo.json"
CHECKPOINT = "random_sd15.safetensors"

WIDTH, HEIGHT, STEPS = 128, 96, 2  # not square, so that a mix-up of rows and columns shows
START_SECONDS, RUN_SECONDS = 120, 120


# --- a checkpoint that the host takes for SD 1.5 ---------------------------------------------------------------------


def write_checkpoint(path: Path) -> None:
    """Write a checkpoint with the keys and widths by which the host knows SD 1.5, and as few blocks as it accepts.

    The UNet has two levels with one residual block each, the VAE is the tiny one that the host knows as TAESD. The
    text encoder cannot lose a layer, so its weights are stored in 8 bits; the host casts them on loading. Weights are
    scaled by their fan-in, which keeps random activations near 1 through the whole network.
    """
    generator = torch.Generator().manual_seed(0)
    shapes = {**unet_shapes(), **vae_shapes(), **clip_shapes()}
    tensors = {}
    for key, shape in shapes.items():
        if key.endswith(".bias") or key.endswith("vae_shift"):
            value = torch.zeros(shape)
        elif key.endswith("vae_scale") or "norm" in key or len(shape) == 1:
            value = torch.ones(shape)
        else:
            fan_in = max(1, torch.Size(shape[1:]).numel())
            value = torch.randn(shape, generator=generator) * fan_in**-0.5
        in_clip = key.startswith("cond_stage_model.")
        tensors[key] = value.to(torch.float8_e4m3fn if in_clip else torch.float16)
    safetensors_torch.save_file(tensors, str(path))


def unet_shapes() -> dict:
    """Parameters of the UNet: model_channels 320 and context 768 are what makes it SD 1.5 to the host."""
    width, context, time_width = 320, 768, 1280
    shapes = {}

    def layer(key, *shape):
        shapes[key + ".weight"] = shape
        shapes[key + ".bias"] = (shape[0],)

    def norm(key, channels):
        shapes[key + ".weight"] = (channels,)
        shapes[key + ".bias"] = (channels,)

    def res_block(key, channels):
        norm(f"{key}.in_layers.0", channels)
        layer(f"{key}.in_layers.2", width, channels, 3, 3)
        layer(f"{key}.emb_layers.1", width, time_width)
        norm(f"{key}.out_layers.0", width)
        layer(f"{key}.out_layers.3", width, width, 3, 3)
        if channels != width:
            layer(f"{key}.skip_connection", width, channels, 1, 1)

    def transformer(key):
        norm(f"{key}.norm", width)
        layer(f"{key}.proj_in", width, width, 1, 1)
        layer(f"{key}.proj_out", width, width, 1, 1)
        block = f"{key}.transformer_blocks.0"
        for attention, source in (("attn1", width), ("attn2", context)):
            shapes[f"{block}.{attention}.to_q.weight"] = (width, width)
            shapes[f"{block}.{attention}.to_k.weight"] = (width, source)
            shapes[f"{block}.{attention}.to_v.weight"] = (width, source)
            layer(f"{block}.{attention}.to_out.0", width, width)
        layer(f"{block}.ff.net.0.proj", 8 * width, width)
        layer(f"{block}.ff.net.2", width, 4 * width)
        for name in ("norm1", "norm2", "norm3"):
            norm(f"{block}.{name}", width)

    layer("time_embed.0", time_width, width)
    layer("time_embed.2", time_width, time_width)
    layer("input_blocks.0.0", width, 4, 3, 3)
    res_block("input_blocks.1.0", width)
    layer("input_blocks.2.0.op", width, width, 3, 3)
    res_block("input_blocks.3.0", width)
    transformer("input_blocks.3.1")  # the host reads the context width off the first transformer of the input side
    res_block("middle_block.0", width)
    transformer("middle_block.1")
    res_block("middle_block.2", width)
    for index in range(4):
        res_block(f"output_blocks.{index}.0", 2 * width)
    layer("output_blocks.1.1.conv", width, width, 3, 3)
    norm("out.0", width)
    layer("out.2", 4, width, 3, 3)
    return {"model.diffusion_model." + key: shape for key, shape in shapes.items()}


def vae_shapes() -> dict:
    """Parameters of TAESD, whose layers are numbered in a plain sequence."""
    shapes = {"vae_scale": (), "vae_shift": ()}

    def conv(key, out_channels, in_channels, bias=True):
        shapes[key + ".weight"] = (out_channels, in_channels, 3, 3)
        if bias:
            shapes[key + ".bias"] = (out_channels,)

    def block(key):
        for index in (0, 2, 4):
            conv(f"{key}.conv.{index}", 64, 64)

    conv("taesd_encoder.0", 64, 3)
    for index in range(1, 14):
        if index in (2, 6, 10):
            conv(f"taesd_encoder.{index}", 64, 64, bias=False)
        else:
            block(f"taesd_encoder.{index}")
    conv("taesd_encoder.14", 4, 64)

    conv("taesd_decoder.1", 64, 4)
    for index in (3, 4, 5, 8, 9, 10, 13, 14, 15, 18):
        block(f"taesd_decoder.{index}")
    for index in (7, 12, 17):
        conv(f"taesd_decoder.{index}", 64, 64, bias=False)
    conv("taesd_decoder.19", 3, 64)
    return {"first_stage_model." + key: shape for key, shape in shapes.items()}


def clip_shapes() -> dict:
    """Parameters of the CLIP-L text encoder."""
    width, layers = 768, 12
    shapes = {
        "embeddings.token_embedding.weight": (49408, width),
        "embeddings.position_embedding.weight": (77, width),
        "final_layer_norm.weight": (width,),
        "final_layer_norm.bias": (width,),
    }
    for index in range(layers):
        linear = {"mlp.fc1": (4 * width, width), "mlp.fc2": (width, 4 * width)}
        linear.update({f"self_attn.{name}_proj": (width, width) for name in ("q", "k", "v", "out")})
        for name, shape in linear.items():
            shapes[f"encoder.layers.{index}.{name}.weight"] = shape
            shapes[f"encoder.layers.{index}.{name}.bias"] = (shape[0],)
        for name in ("layer_norm1", "layer_norm2"):
            shapes[f"encoder.layers.{index}.{name}.weight"] = (width,)
            shapes[f"encoder.layers.{index}.{name}.bias"] = (width,)
    return {"cond_stage_model.transformer.text_model." + key: shape for key, shape in shapes.items()}


# --- the server ------------------------------------------------------------------------------------------------------


class Server:
    """A running ComfyUI, spoken to over its HTTP interface on the loopback address."""

    def __init__(self, process, port: int, log: Path):
        self.process = process
        self.log = log
        self._address = f"http://127.0.0.1:{port}"
        # No handler of the environment: a proxy set there must not see loopback requests.
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def get(self, path: str) -> bytes:
        with self._opener.open(self._address + path, timeout=30) as answer:
            return answer.read()

    def get_json(self, path: str):
        return json.loads(self.get(path))

    def wait_until_ready(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                pytest.fail(f"ComfyUI ended with code {self.process.returncode} while starting\n{self.log_text()}")
            try:
                self.get("/object_info/KSampler")
                return
            except OSError:  # refused until the port is open; URLError is an OSError
                time.sleep(0.3)
        pytest.fail(f"ComfyUI did not answer within {START_SECONDS} s\n{self.log_text()}")

    def queue(self, prompt: dict) -> str:
        """Queue `prompt` and return its id; an HTTPError where ComfyUI refuses it."""
        body = json.dumps({"prompt": prompt}).encode()
        request = urllib.request.Request(self._address + "/prompt", body, {"Content-Type": "application/json"})
        with self._opener.open(request, timeout=30) as answer:
            return json.loads(answer.read())["prompt_id"]

    def wait(self, prompt_id: str) -> dict:
        """Wait until a queued prompt has ended, and return what ComfyUI says of it."""
        deadline = time.monotonic() + RUN_SECONDS
        while time.monotonic() < deadline:
            entry = self.get_json(f"/history/{prompt_id}").get(prompt_id)
            if entry is not None:
                return entry
            if self.process.poll() is not None:
                pytest.fail(f"ComfyUI ended with code {self.process.returncode} during a run")
            time.sleep(0.1)
        pytest.fail(f"the workflow did not finish within {RUN_SECONDS} s")

    def pictures(self, prompt: dict) -> dict:
        """Run `prompt` and return the pictures that it makes by the id of the node that saves them."""
        try:
            entry = self.wait(self.queue(prompt))
        except urllib.error.HTTPError as refusal:
            pytest.fail(f"ComfyUI refused the workflow: {refusal.read().decode()}")
        assert entry["status"]["status_str"] == "success", json.dumps(entry["status"], indent=1)
        return {node: [self._picture(image) for image in output["images"]] for node, output in entry["outputs"].items()}

    def run(self, prompt: dict):
        """Run `prompt` and return the one picture that it makes."""
        ((picture,),) = self.pictures(prompt).values()
        return picture

    def _picture(self, image: dict):
        query = urllib.parse.urlencode({key: image[key] for key in ("filename", "subfolder", "type")})
        return Image.open(io.BytesIO(self.get(f"/view?{query}"))).convert("RGB")

    def log_text(self) -> str:
        return self.log.read_text(errors="replace")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """ComfyUI on a base directory of its own, which holds the pack and the checkpoint and nothing else."""
    base = tmp_path_factory.mktemp("comfyui")
    for folder in ("models/checkpoints", "custom_nodes", "input", "output", "temp", "user"):
        (base / folder).mkdir(parents=True)
    # A copy, not a link: what the host writes beside the code stays out of the repository, and links need rights
    # that an ordinary account on Windows lacks.
    unused = shutil.ignore_patterns(".*", "__pycache__", "tests", "benchmarks", "build", "dist", "*.egg-info")
    shutil.copytree(ROOT, base / "custom_nodes" / PACK_FOLDER, ignore=unused)
    write_checkpoint(base / "models" / "checkpoints" / CHECKPOINT)

    port = free_port()
    log = base / "server.log"
    command = [sys.executable, "main.py", "--cpu", "--port", str(port), "--base-directory", str(base)]
    # The classic cache forgets what the last prompt did not use, so going back to an earlier prompt samples again.
    command += ["--cache-classic", "--disable-api-nodes", "--disable-auto-launch"]
    # The default database is a file in the installation, which another running ComfyUI may hold.
    command += ["--database-url", f"sqlite:///{(base / 'comfyui.db').as_posix()}"]
    # The gallery of workflow templates is a package of its own, and a release newer than the host stops the host from
    # starting (0.3.64 looks for a folder that is gone). A host starts without the package, so hide it here.
    hidden = base / "hidden_packages"
    hidden.mkdir()
    (hidden / "comfyui_workflow_templates.py").write_text("raise ImportError('not needed in this test')\n")
    paths = [str(hidden), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    with log.open("wb") as stream:
        process = subprocess.Popen(
            command,
            cwd=COMFYUI,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
        )
    try:
        running = Server(process, port, log)
        running.wait_until_ready()
        yield running
    finally:
        process.terminate()
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        # The checkpoint is large, and pytest keeps the folders of the last three runs.
        shutil.rmtree(base, ignore_errors=True)


@pytest.fixture(autouse=True)
def server_log(server):
    """Put the server's log into the report of a failed test; pytest drops it when the test passes."""
    yield
    print(server.log_text())


# --- the tests -------------------------------------------------------------------------------------------------------


def load_prompt(path: Path) -> dict:
    """Read a shipped workflow and make it small: checkpoint, picture size and steps, and nothing else."""
    prompt = json.loads(path.read_text(encoding="utf-8"))
    only_node(prompt, "CheckpointLoaderSimple")["inputs"]["ckpt_name"] = CHECKPOINT
    only_node(prompt, "EmptyLatentImage")["inputs"].update(width=WIDTH, height=HEIGHT)
    only_node(prompt, "KSampler")["inputs"]["steps"] = STEPS
    return prompt


def only_node(prompt: dict, class_type: str) -> dict:
    """The one node of that class."""
    (node,) = [node for node in prompt.values() if node["class_type"] == class_type]
    return node


def with_input(prompt: dict, class_type: str, **values) -> dict:
    """A copy of `prompt` with some inputs of its only node of that class changed."""
    changed = copy.deepcopy(prompt)
    inputs = only_node(changed, class_type)["inputs"]
    assert set(values) <= set(inputs), f"{class_type} has the inputs {sorted(inputs)}"
    inputs.update(values)
    return changed


def without_guidance(prompt: dict) -> dict:
    """A copy of `prompt` without our node: what it fed now gets what it was fed."""
    changed = copy.deepcopy(prompt)
    ((node_id, node),) = [(key, node) for key, node in changed.items() if node["class_type"] == NODE_ID]
    del changed[node_id]
    for other in changed.values():
        for name, value in other["inputs"].items():
            if value == [node_id, 0]:
                other["inputs"][name] = node["inputs"]["model"]
    return changed


def test_server_offers_the_pack(server):
    info = server.get_json(f"/object_info/{NODE_ID}").get(NODE_ID)
    assert info, "the node is not registered"
    assert info["display_name"] == "Self-Attention Guidance (SAG)"
    assert info["category"] == "guidance/self-attention"
    assert info["description"]
    assert info["output"] == ["MODEL"]
    assert len(info["output_tooltips"]) == 1 and info["output_tooltips"][0]

    inputs = info["input"]["required"]
    assert list(inputs)[:3] == ["model", "scale", "blur_sigma"]
    for name, (_, options) in inputs.items():
        assert options.get("tooltip"), f"input {name} has no tooltip"
    limits = {name: [inputs[name][1][key] for key in ("default", "min", "max", "step")] for name in list(inputs)[1:3]}
    assert limits == {"scale": [0.75, -2.0, 5.0, 0.01], "blur_sigma": [1.0, 0.0, 10.0, 0.1]}

    help_page = server.get(f"/extensions/{PACK_FOLDER}/docs/{NODE_ID}.md").decode()
    assert help_page.startswith("# Self-Attention Guidance (SAG)")
    assert NODE_ID in server.get_json("/i18n")["en"]["nodeDefs"]
    assert {path.stem for path in (*WORKFLOWS, DEMO)} <= set(server.get_json("/workflow_templates")[PACK_FOLDER])


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_shipped_workflow_makes_guided_pictures(server, path):
    prompt = load_prompt(path)
    seed = only_node(prompt, "KSampler")["inputs"]["seed"]

    guided = server.run(prompt)
    assert guided.size == (WIDTH, HEIGHT)
    assert len(guided.getcolors(WIDTH * HEIGHT)) > 100, "the picture is blank"

    off = server.run(with_input(prompt, NODE_ID, scale=0.0))
    plain = server.run(without_guidance(prompt))
    assert off.tobytes() == plain.tobytes(), "scale 0 must equal the workflow without the node"
    assert guided.tobytes() != plain.tobytes(), "the guidance changed nothing"

    other = server.run(with_input(prompt, "KSampler", seed=seed + 1))
    assert other.tobytes() != guided.tobytes()
    again = server.run(prompt)
    assert again.tobytes() == guided.tobytes(), "a run must not depend on the runs before it"


def demo_prompt(**inputs):
    prompt = json.loads(DEMO.read_text(encoding="utf-8"))
    only_node(prompt, "SAGDemoModel")["inputs"].update(inputs)
    return prompt


def test_the_demo_needs_no_checkpoint(server):
    prompt = demo_prompt(batch_size=2)
    for node in prompt.values():
        if node["class_type"] == "KSampler":
            node["inputs"]["steps"] = STEPS
    saved = {
        node["inputs"]["filename_prefix"]: key for key, node in prompt.items() if "filename_prefix" in node["inputs"]
    }
    pictures = server.pictures(prompt)
    without, guided = (pictures[saved[f"sag_demo/{name}"]] for name in ("without", "with"))
    assert len(without) == len(guided) == 2
    for plain, ours in zip(without, guided):
        assert plain.size == ours.size and min(plain.size) >= 128
        assert len(ours.getcolors(ours.width * ours.height)) > 20, "the picture is blank"
        assert plain.tobytes() != ours.tobytes(), "the guidance changed nothing"
    assert without[0].tobytes() != without[1].tobytes()
    assert "Self-Attention Guidance:" not in server.log_text(), "a warning where all should be well"


def test_a_word_that_the_demo_lacks_is_named(server):
    with pytest.raises(urllib.error.HTTPError) as refusal:
        server.queue(demo_prompt(prompt="a red zebra"))
    assert "got 'zebra' in 'a red zebra'" in refusal.value.read().decode()

    prompt = demo_prompt(prompt=["text", 0])
    prompt["text"] = {"class_type": "PrimitiveString", "inputs": {"value": "a red zebra"}}
    status = server.wait(server.queue(prompt))["status"]
    assert status["status_str"] == "error" and "got 'zebra' in 'a red zebra'" in json.dumps(status)
