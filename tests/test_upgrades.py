"""A workflow that was saved with any released version still loads: nothing that it relies on may change."""

import copy
import json
import re
from pathlib import Path

import on_standin
import pytest
from schemas import RELEASED, WIDGETS, breaks, described

ROOT = Path(__file__).resolve().parents[1]
VERSIONS = sorted(folder.name for folder in RELEASED.iterdir() if folder.is_dir())


def read(path):
    return json.loads(path.read_text(encoding="utf-8"))


def released(version):
    return read(RELEASED / version / "schemas.json")


@pytest.fixture(scope="module")
def now():
    return {name: described(node) for name, node in on_standin.node_classes().items()}


@pytest.mark.parametrize("version", VERSIONS)
def test_nothing_that_was_released_is_broken(version, now):
    problems = breaks(released(version), now)
    assert not problems, f"workflows saved with {version} would break:\n" + "\n".join(problems)


def test_every_released_version_is_written_down():
    headings = re.findall(r"^## \[(.+?)\] - \d{4}-", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.M)
    assert set(headings) <= set(VERSIONS), "run `python tests/schemas.py` before a release, and commit what it writes"


@pytest.mark.parametrize("version", VERSIONS)
def test_widget_values_saved_by_position_land_on_their_widgets(version, now):
    seen = 0
    for path in (RELEASED / version / "workflows").glob("*.json"):
        for node in read(path)["nodes"]:
            if node["type"] not in now:
                continue
            seen += 1
            saved = [slot["widget"]["name"] for slot in node["inputs"] if "widget" in slot]
            widgets = [given for given in now[node["type"]]["inputs"] if given["type"] in WIDGETS]
            assert [given["id"] for given in widgets][: len(saved)] == saved
            for value, given in zip(node["widgets_values"], widgets):
                assert given.get("min", value) <= value <= given.get("max", value)
                assert value in given.get("options", [value])
                kinds = {"STRING": str, "COMBO": str, "BOOLEAN": bool, "INT": int, "FLOAT": (int, float)}
                assert isinstance(value, kinds[given["type"]])
            for slot in node["outputs"]:
                assert now[node["type"]]["outputs"][node["outputs"].index(slot)] == slot["type"]
    assert seen


ADVANCED = "SAGSelfAttentionGuidanceAdvanced"


def change(nodes, edit):
    nodes = copy.deepcopy(nodes)
    edit(nodes, nodes[ADVANCED]["inputs"], nodes[ADVANCED]["outputs"])
    return nodes


def new_input(**facts):
    return {"id": "new", "type": "FLOAT", "default": 1.0, "optional": True, **facts}


BREAKS = {
    "a node goes": (lambda n, i, o: n.pop(ADVANCED), "io.NodeReplace"),
    "an input goes": (lambda n, i, o: i.pop(3), "mask_threshold is gone. Keep it"),
    "an input gets another name": (lambda n, i, o: i[1].update(id="strength"), "scale is gone. Keep it"),
    "an input is put between": (lambda n, i, o: i.insert(2, new_input()), "Append new ones behind them"),
    "inputs change places": (lambda n, i, o: i.insert(1, i.pop(2)), "Append new ones behind them"),
    "a new input is required": (lambda n, i, o: i.append(new_input(optional=False)), "Declare it optional=True"),
    "a type changes": (lambda n, i, o: i[1].update(type="INT"), "append another under a new name"),
    "a default changes": (lambda n, i, o: i[1].update(default=1.0), "the default of scale was 0.75, now 1.0"),
    "a choice goes": (lambda n, i, o: i[6]["options"].pop(), "Keep the old options"),
    "a range gets narrower": (lambda n, i, o: i[1].update(max=4.0), "the max of scale was 5.0, now 4.0"),
    "an optional input is required": (lambda n, i, o: i[-1].update(optional=False), "Keep it so"),
    "an output goes": (lambda n, i, o: o.pop(), "Append new ones: links go by number"),
    "an output is put first": (lambda n, i, o: o.insert(0, "IMAGE"), "Append new ones: links go by number"),
}  # fmt: skip


@pytest.mark.parametrize("edit, cure", BREAKS.values(), ids=BREAKS)
def test_a_change_that_breaks_workflows_is_found_with_its_cure(edit, cure):
    (old,) = [released("0.1.0")]
    (problem, *_) = breaks(old, change(old, edit))
    assert ADVANCED in problem and cure in problem


SAFE = {
    "nothing": lambda n, i, o: None,
    "a new node": lambda n, i, o: n.update(New=copy.deepcopy(n[ADVANCED])),
    "an optional input at the end": lambda n, i, o: i.append(new_input()),
    "an output at the end": lambda n, i, o: o.append("IMAGE"),
    "a choice at the end": lambda n, i, o: i[6]["options"].append("wave"),
    "a wider range": lambda n, i, o: i[1].update(min=-3.0, max=9.0),
}


@pytest.mark.parametrize("edit", SAFE.values(), ids=SAFE)
def test_a_change_that_breaks_nothing_passes(edit):
    old = released("0.1.0")
    assert breaks(old, change(old, edit)) == []
