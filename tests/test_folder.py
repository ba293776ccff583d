"""What the pack says about the folder that it lies in."""

import sys
from pathlib import Path, PurePosixPath, PureWindowsPath
from types import ModuleType

import on_standin
import pytest

NODE = "SAGSelfAttentionGuidance"


@pytest.fixture(scope="module")
def problems():
    package = on_standin.node_classes()[NODE].__module__.rpartition(".")[0]
    return sys.modules[f"{package}.adapter.folder"].problems


@pytest.mark.parametrize("name", ["self-attention-guidance", "SAG_2.0", "sag", "self-attention-guidance@1.0.0"])
@pytest.mark.parametrize("path", [PurePosixPath("/a b/custom_nodes"), PureWindowsPath(r"C:\My ComfyUI\custom_nodes")])
def test_a_folder_that_can_stand_in_an_address_is_fine(problems, path, name):
    assert problems(path / name, {}, NODE) == []


@pytest.mark.parametrize("name", ["self attention guidance", "sag (1) ", "F\u00fchrung", "sag#2", "100%"])
@pytest.mark.parametrize("path", [PurePosixPath("/custom_nodes"), PureWindowsPath(r"D:\ComfyUI\custom_nodes")])
def test_another_is_named_with_what_to_do(problems, path, name):
    (problem,) = problems(path / name, {}, NODE)
    assert repr(name) in problem and "rename it to self-attention-guidance" in problem


def test_a_second_copy_is_named_with_both_folders(problems, tmp_path, monkeypatch):
    module = ModuleType("first_copy")
    module.__file__ = str(tmp_path / "first" / "nodes" / "guidance.py")
    monkeypatch.setitem(sys.modules, "first_copy", module)
    node = type("Node", (), {"__module__": "first_copy"})
    (problem,) = problems(tmp_path / "second", {NODE: node}, NODE)
    assert str(tmp_path / "first") in problem and str(tmp_path / "second") in problem and "remove one" in problem
    assert problems(tmp_path / "first", {NODE: node}, NODE) == []  # loaded again
    assert problems(Path(tmp_path / "second"), {"Other": node}, NODE) == []
