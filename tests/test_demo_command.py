"""`python -m demo`, as a new user types it."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("diffusers", reason='the demo needs its packages: pip install ".[demo]"')
Image = pytest.importorskip("PIL.Image")

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT))  # last, so that nothing of ComfyUI's is hidden

from demo.sheet import CELL, GAP, TITLE, change, sheet  # noqa: E402


def demo(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-m", "demo", *arguments], cwd=ROOT, capture_output=True, text=True)


def test_it_writes_a_sheet_and_says_where(tmp_path):
    out = tmp_path / "sheet.png"
    done = demo("--steps", "2", "--prompt", "blue duck", "--out", str(out))
    assert done.returncode == 0, done.stderr
    assert str(out) in done.stdout
    assert done.stdout.startswith("loading PyTorch and the model")  # before the long silence of the first import
    assert "6/6" in done.stderr  # the progress bar: three ways of drawing, two steps each
    with Image.open(out) as sheet:
        assert sheet.width > sheet.height  # six columns, four rows
        assert len(sheet.getcolors(sheet.width * sheet.height)) > 100


def test_what_is_not_blurred_is_not_shown(tmp_path):
    """At scale 0 nothing is blurred, and the guided pictures are those without guidance."""
    wide, narrow = (tmp_path / name for name in ("wide.png", "narrow.png"))
    for out, scale in ((wide, "1"), (narrow, "0")):
        assert demo("--steps", "2", "--scale", scale, "--out", str(out)).returncode == 0
    with Image.open(wide) as with_masks, Image.open(narrow) as without:
        assert with_masks.width - without.width == CELL + GAP
        columns = [
            without.crop((GAP + (CELL + GAP) * i, 2 * TITLE, (CELL + GAP) * (i + 1), without.height)) for i in (0, 1)
        ]
        assert columns[0].tobytes() == columns[1].tobytes()


@pytest.mark.skipif(sys.platform == "win32", reason="Ctrl-C is no signal there")
def test_ctrl_c_ends_it_in_a_line(tmp_path):
    out = tmp_path / "sheet.png"
    command = [sys.executable, "-u", "-m", "demo", "--steps", "1000", "--out", str(out)]
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a job in the background inherits deaf ears
    )  # fmt: skip
    assert process.stdout.readline().startswith("loading")
    process.stderr.read(20)  # of the progress bar: it draws
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 1 and not out.exists()
    assert error.endswith("stopped; no picture was written\n") and "Traceback" not in error


def test_an_old_python_is_told(monkeypatch):
    from demo.__main__ import main

    monkeypatch.setattr(sys, "version_info", (3, 8, 10))
    with pytest.raises(SystemExit, match="error: Python 3.9 or newer is needed"):
        main()


def test_an_interpreter_that_cannot_run_comfyui_is_told_before_it_starts(tmp_path):
    from demo.comfyui import check_python

    with pytest.raises(RuntimeError, match="/nope/python cannot be run .*set COMFYUI_PYTHON to the interpreter"):
        check_python(Path("/nope/python"))
    bare = tmp_path / "python"
    bare.write_text("#!/bin/sh\necho aiohttp sqlalchemy\n")
    bare.chmod(0o755)
    with pytest.raises(RuntimeError, match="lacks packages that ComfyUI needs: aiohttp sqlalchemy; set COMFYUI_PYTHON"):
        check_python(bare)


def test_a_sheet_takes_pictures_and_tensors_and_labels_both():
    grey = Image.new("RGB", (8, 8), (128, 128, 128))
    page = sheet({"one": [grey], "two": torch.zeros(1, 3, 8, 8)}, "title")
    assert page.getpixel((GAP + 5, 2 * TITLE + 5)) == page.getpixel((2 * GAP + CELL + 5, 2 * TITLE + 5))
    labels = page.crop((0, TITLE, page.width, 2 * TITLE)).convert("L")
    for left in (0, CELL + GAP):
        assert labels.crop((left, 0, left + CELL, TITLE)).getextrema()[0] < 100  # something is written there


def test_a_title_is_never_cut_off():
    picture = {"one": torch.zeros(1, 3, 8, 8)}
    assert sheet(picture, "short").width == 2 * GAP + CELL
    page = sheet(picture, "a title that is wider than the only column")
    assert page.width > 2 * GAP + CELL
    assert page.crop((page.width - GAP, 0, page.width, TITLE)).convert("L").getextrema() == (255, 255)


def test_what_changed_is_enlarged_around_grey():
    before = torch.tensor([0.5, -0.5]).reshape(1, 2, 1, 1)
    after = torch.tensor([0.6, -0.5]).reshape(1, 2, 1, 1)
    torch.testing.assert_close(change(before, after, 4), torch.tensor([0.4, 0.0]).reshape(1, 2, 1, 1))


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
