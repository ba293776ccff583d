"""What the registry would serve: all that the nodes need, nothing that only work on the pack needs."""

from pathlib import Path

import archive
import pytest

if not archive.tracked():
    pytest.skip("no git checkout: what git tracks is not known", allow_module_level=True)

MOST_BYTES = 12_000_000  # of which the demo model takes 8.7 million


def test_the_archive_holds_what_the_nodes_need():
    files = set(archive.files())
    needed = ["__init__.py", "pyproject.toml", "LICENSE", "README.md", "requirements.txt", "venv.sh", "demo/run.sh"]
    needed += [
        path.relative_to(archive.ROOT).as_posix()
        for pattern in ("nodes/**/*.py", "sag_core/*.py", "demo/*.py", "web/docs/**/*.md", "locales/*/*.json")
        for path in archive.ROOT.glob(pattern)
    ]
    needed += ["demo/weights/sag_demo.safetensors", "example_workflows/sag_demo.json", "example_workflows/sag_demo.jpg"]
    assert not set(needed) - files, "git does not track them, or .comfyignore names them"


def test_the_archive_holds_nothing_else_that_is_large_or_only_for_development():
    assert {name.split("/")[0] for name in archive.files()} <= {
        *("__init__.py", "nodes", "sag_core", "demo", "web", "locales", "example_workflows", "docs"),
        *("pyproject.toml", "requirements.txt", "venv.sh", "README.md", "CHANGELOG.md", "LICENSE"),
    }
    large = [name for name in archive.files() if (archive.ROOT / name).stat().st_size > 300_000]
    assert large == ["demo/weights/sag_demo.safetensors"]


def test_the_archive_is_small(tmp_path: Path, capsys):
    size = archive.pack(tmp_path / "node.zip")
    assert size < MOST_BYTES
    with capsys.disabled():
        print(f"\n[archive for the registry: {len(archive.files())} files, {size / 1e6:.1f} MB]")


def test_what_pyproject_shows_in_the_registry_is_in_the_repository():
    text = (archive.ROOT / "pyproject.toml").read_text(encoding="utf-8")
    image = pytest.importorskip("PIL.Image")
    for key, size in (("Icon", (400, 400)), ("Banner", (1260, 540))):
        (url,) = [line.split('"')[1] for line in text.splitlines() if line.startswith(f"{key} = ")]
        path = url.partition("/main/")[2]
        with image.open(archive.ROOT / path) as picture:
            assert picture.size == size
