"""The archive that the registry would serve, as comfy-cli packs it: what git tracks, less what .comfyignore names."""

import subprocess
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def tracked() -> bool:
    """Whether this is a checkout that git knows; only there the archive can be told."""
    return (ROOT / ".git").exists() and _git("rev-parse", "--is-inside-work-tree").returncode == 0


def files() -> "list[str]":
    """Paths of the files in the archive."""
    ignored = _names("--cached", "--ignored", "--exclude-from=.comfyignore")
    return sorted(name for name in set(_names("--cached")) - set(ignored) if (ROOT / name).is_file())


def pack(path: Path) -> int:
    """Write the archive and return its size in bytes."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in files():
            archive.write(ROOT / name, name)
    return path.stat().st_size


def _names(*options: str) -> "list[str]":
    return _git("ls-files", "-z", *options).stdout.decode().split("\0")[:-1]


def _git(*arguments: str) -> "subprocess.CompletedProcess[bytes]":
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True)
