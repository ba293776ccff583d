"""The program that docs/api.md shows, run as it is printed."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def run(folder: Path, address: str) -> "subprocess.CompletedProcess[str]":
    """Run it in a folder, to which the example workflows are copied if it has none, against another server."""
    text = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    (program,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert program.count("http://127.0.0.1:8188") == 1
    if not (folder / "example_workflows").exists():
        shutil.copytree(ROOT / "example_workflows", folder / "example_workflows")
    command = [sys.executable, "-c", program.replace("http://127.0.0.1:8188", address)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)
