"""docs/models.md says of every family what ran on this host; SAG_WRITE_SUPPORT=1 writes what ran instead."""

import os
import re

import pytest
from comfyui_version import __version__
from families import FAMILIES, available
from outcomes import outcome

from demo.comfyui import PACK

PAGE = PACK / "docs" / "models.md"
TABLE = re.compile(r"(<!-- support: begin -->\n)(.*?)(<!-- support: end -->)", re.DOTALL)


def read_table():
    """{family: {version: cell}} and the versions, as the page has them."""
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in TABLE.search(PAGE.read_text(encoding="utf-8")).group(2).splitlines()
    ]
    versions = [cell.replace("ComfyUI ", "") for cell in rows[0][1:]] if rows else []
    return {row[0]: dict(zip(versions, row[1:])) for row in rows[2:]}, versions


def write_table(cells, versions):
    versions = sorted(versions, key=lambda version: [int(part) for part in version.split(".")])
    lines = ["| Model family | " + " | ".join(f"ComfyUI {version}" for version in versions) + " |"]
    lines.append("| --- |" + " --- |" * len(versions))
    for family in FAMILIES:
        row = cells.get(family.name, {})
        lines.append(f"| {family.name} | " + " | ".join(row.get(version, "?") for version in versions) + " |")
    page = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(TABLE.sub(lambda m: m.group(1) + "\n".join(lines) + "\n" + m.group(3), page), encoding="utf-8")


def test_the_support_table_says_what_ran_on_this_host(guide):
    ran = {family.name: outcome(family.name, guide)[0] if available(family) else "-" for family in FAMILIES}
    cells, versions = read_table()
    if os.environ.get("SAG_WRITE_SUPPORT"):
        for name, cell in ran.items():
            cells.setdefault(name, {})[__version__] = cell
        write_table(cells, {*versions, __version__})
        return
    assert list(cells) == [family.name for family in FAMILIES]
    if __version__ not in versions:
        pytest.skip(f"the table has no column for ComfyUI {__version__}")
    assert {name: row[__version__] for name, row in cells.items()} == ran
