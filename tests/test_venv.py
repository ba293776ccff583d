"""venv.sh, with a stand-in for the interpreter: what it makes, what it leaves alone, and what it says."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
if os.name == "nt":
    pytest.skip("needs bash", allow_module_level=True)

# Writes down every call. "-m venv DIR" makes an interpreter there; a call that holds the text in $STOP ends in a stop.
PYTHON = """#!/bin/sh
echo "$@" >>"$CALLS"
case "$*" in *"${STOP:-nothing}"*) exit 130 ;; esac
case "$*" in
*version_info*) exit "${OLD:-0}" ;;
"-m venv "*) mkdir -p "$3/bin" && cp "$0" "$3/bin/python" ;;
*"import torch"*) exit 1 ;;
esac
"""


@pytest.fixture
def setup(tmp_path):
    """Runs venv.sh in a folder of its own; returns the result and the calls of the interpreter."""
    (tmp_path / "python").write_text(PYTHON)
    (tmp_path / "python").chmod(0o755)
    (tmp_path / "pyproject.toml").write_text("one")
    shutil.copy(ROOT / "venv.sh", tmp_path)

    def run(**environment):
        calls = tmp_path / "calls"
        calls.write_text("")
        done = subprocess.run(
            ["bash", "-c", "set -euo pipefail; . ./venv.sh demo; echo ready $bin"],
            cwd=tmp_path,
            env={"PATH": os.environ["PATH"], "PYTHON": str(tmp_path / "python"), "CALLS": str(calls), **environment},
            capture_output=True,
            text=True,
        )
        return done, calls.read_text().splitlines()

    return run


def test_it_installs_once_and_a_second_start_needs_no_network(setup, tmp_path):
    done, calls = setup()
    assert done.stdout.endswith("ready .venv/bin\n"), done.stderr
    assert any(".[demo]" in call for call in calls)
    done, calls = setup()
    assert done.stdout == "ready .venv/bin\n" and calls == []
    (tmp_path / "pyproject.toml").write_text("two")  # other packages are asked for
    done, calls = setup()
    assert any(".[demo]" in call for call in calls) and not any("-m venv" in call for call in calls)


@pytest.mark.parametrize("stop", ["-m venv", "torch==", ".[demo]"])
def test_a_stop_during_set_up_is_made_good_by_the_next_start(setup, stop):
    assert setup(STOP=stop)[0].returncode != 0 or stop == "torch=="  # without that index, PyPI alone does
    done, calls = setup()
    assert done.stdout.endswith("ready .venv/bin\n"), done.stderr
    assert stop == "torch==" or any("-m venv" in call for call in calls)
    assert setup()[1] == []


def test_an_old_python_is_told_what_to_set(setup, tmp_path):
    done, _ = setup(OLD="1")
    assert done.returncode == 1 and "error: Python 3.9 or newer is needed" in done.stderr
    assert not (tmp_path / ".venv").exists()
    assert setup()[0].returncode == 0


def test_an_environment_that_is_there_is_not_made_anew(setup, tmp_path):
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    shutil.copy(tmp_path / "python", tmp_path / ".venv" / "bin" / "python")
    _, calls = setup()
    assert calls and not any("-m venv" in call for call in calls)
