"""Runs tests/host inside the real ComfyUI, with the interpreter that ComfyUI runs with."""

import os
import subprocess

import pytest

from demo.comfyui import NOT_FOUND, PACK, find_comfyui, find_python, is_this_interpreter


def test_everything_in_tests_host_passes_inside_the_real_comfyui(capsys):
    host = find_comfyui()
    if host is None:
        pytest.skip(NOT_FOUND)
    python = find_python(host)
    if is_this_interpreter(python):
        pytest.skip("this is ComfyUI's own interpreter: tests/host runs directly")
    run = subprocess.run(
        [str(python), "-m", "pytest", "-q", str(PACK / "tests" / "host")],
        env={**os.environ, "COMFYUI_PATH": str(host), "COMFYUI_PYTHON": str(python)},
        cwd=PACK,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert run.returncode == 0, run.stdout[-20000:]
    with capsys.disabled():
        print(f"\n[inside {host}] {run.stdout.strip().splitlines()[-1]}")
