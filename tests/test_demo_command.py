"""`python -m demo`, as a new user types it."""

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("diffusers", reason='the demo needs its packages: pip install ".[demo]"')
Image = pytest.importorskip("PIL.Image")

ROOT = Path(__file__).resolve().parents[1]


def demo(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-m", "demo", *arguments], cwd=ROOT, capture_output=True, text=True)


def test_it_writes_a_sheet_and_says_where(tmp_path):
    out = tmp_path / "sheet.png"
    done = demo("--steps", "1", "--prompt", "blue duck", "--out", str(out))
    assert done.returncode == 0, done.stderr
    assert str(out) in done.stdout
    assert "4/4" in done.stderr  # the progress bar: four ways of drawing, a step each
    with Image.open(out) as sheet:
        assert sheet.width > sheet.height  # six columns, four rows
        assert len(sheet.getcolors(sheet.width * sheet.height)) > 100


@pytest.mark.parametrize(
    "arguments, expected",
    [
        (["--prompt", "a red dog"], "got 'dog'"),
        (["--prompt", "a red green apple"], "got 'green'"),
        (["--steps", "0"], "--steps: must be a whole number from 1 to 1000, got '0'"),
        (["--steps", "2.5"], "must be a whole number"),
        (["--scale", "nan"], "--scale: must be a number from -2 to 5, got 'nan'"),
        (["--scale", "9"], "--scale: must be a number from -2 to 5, got '9'"),
        (["--seed", "-1"], "--seed: must be a whole number"),
        (["--out", "picture.txt"], "--out: must end in .png, .jpg or .jpeg, got 'picture.txt'"),
        (["--out", "no/such/folder/sheet.png"], "does not exist"),
        (["--comfyui", "no-such-folder"], "--comfyui: must be the folder with ComfyUI's main.py"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_values_are_told(arguments, expected, demo_arguments):
    assert expected in demo_arguments(arguments)


@pytest.fixture
def demo_arguments(capsys):
    """What the command says to wrong arguments, without a new process for each."""
    from demo.__main__ import arguments

    def refused(argv):
        with pytest.raises(SystemExit) as end:
            arguments(argv)
        assert end.value.code == 2
        return capsys.readouterr().err

    return refused
