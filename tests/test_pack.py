"""What holds for the pack as a whole."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCES = sorted(
    [ROOT / "__init__.py", *(path for room in ("sag_core", "nodes", "demo") for path in (ROOT / room).rglob("*.py"))]
)


def imports(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield node.module


@pytest.mark.parametrize("path", sorted((ROOT / "sag_core").rglob("*.py")), ids=lambda path: path.name)
def test_the_core_needs_only_torch_einops_and_numpy(path):
    allowed = {"torch", "einops", "numpy", "collections", "math", "typing", "dataclasses", "numbers", "enum", "reprlib"}
    assert {name.split(".")[0] for name in imports(path)} <= allowed


def test_what_the_demo_node_uses_of_the_demo_needs_only_torch_and_safetensors():
    used = [path for name in ("__init__", "prompts", "checkpoint") for path in imports(ROOT / "demo" / f"{name}.py")]
    assert set(used) <= {
        "hashlib",
        "json",
        "dataclasses",
        "pathlib",
        "reprlib",
        "torch",
        "safetensors",
        "safetensors.torch",
    }
    relative = [
        node.module
        for path in (ROOT / "nodes").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) and node.level and (node.module or "").startswith("demo")
    ]
    assert set(relative) <= {"demo", "demo.prompts", "demo.checkpoint", "demo_model"}


def test_importing_the_root_imports_nothing():
    assert list(imports(ROOT / "__init__.py")) == []


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_sources_are_ascii_and_run_no_code_from_text(path):
    text = path.read_text(encoding="utf-8")
    assert text.isascii()
    calls = [node.func for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call)]
    assert not {call.id for call in calls if isinstance(call, ast.Name)} & {"eval", "exec", "compile", "__import__"}


@pytest.mark.parametrize(
    "path", [path for room in ("sag_core", "nodes") for path in sorted((ROOT / room).rglob("*.py"))],
    ids=lambda path: path.relative_to(ROOT).as_posix(),
)  # fmt: skip
def test_nodes_and_core_open_no_files_and_no_connections(path):
    """What they read is the demo model's file, which is in the pack; what they show, the host writes."""
    assert not {name.split(".")[0] for name in imports(path)} & {
        *("os", "io", "shutil", "tempfile", "subprocess", "socket", "ssl", "http", "requests", "aiohttp", "pickle"),
    }
    assert "urllib.request" not in set(imports(path))
    calls = [node.func for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Call)]
    names = {call.id for call in calls if isinstance(call, ast.Name)}
    attributes = {call.attr for call in calls if isinstance(call, ast.Attribute)}
    assert not names & {"open"}
    assert not attributes & {
        *("open", "read_text", "read_bytes", "write_text", "write_bytes", "mkdir", "unlink", "rename", "touch"),
        *("from_file", "save_file", "load_file", "load_torch_file", "truetype", "urlopen"),
    }


def test_requirements_name_no_package():
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if line.strip() and not line.startswith("#")] == []
