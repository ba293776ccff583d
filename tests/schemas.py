"""What saved workflows rely on: the pack's nodes with their inputs and outputs, in order.

As a program, writes that down for the version that is about to be released, beside the example workflows as they are:

    python tests/schemas.py

A saved workflow keeps widget values by position, links by the number of an input or output, and in the API format only
what was there when it was saved. So a node, an input or an output that was released stays, where it was.
"""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

WIDGETS = ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO")
RELEASED = Path(__file__).parent / "released"


def described(node) -> dict:
    """A node's inputs and outputs as a saved workflow knows them."""
    schema = node.define_schema()
    facts = ("default", "min", "max", "options")
    return {
        "inputs": [
            {
                "id": given.id,
                "type": given.get_io_type(),
                "optional": bool(given.optional),
                **{fact: getattr(given, fact) for fact in facts if getattr(given, fact, None) is not None},
            }
            for given in schema.inputs
        ],
        "outputs": [output.get_io_type() for output in schema.outputs],
    }


def breaks(released: dict, now: dict) -> "list[str]":
    """What would break a workflow that was saved with the released nodes when it meets these, each with the cure."""
    found = []
    for node, old in released.items():
        if node not in now:
            found.append(
                f"{node} is gone. Keep it with is_deprecated=True, or have the extension's on_load register an "
                "io.NodeReplace from it to the new node."
            )
            continue
        found += [f"{node}: {problem}" for problem in _changes(old, now[node])]
    return found


def _changes(old: dict, new: dict) -> "Iterator[str]":
    inputs = {given["id"]: given for given in new["inputs"]}
    released = [given["id"] for given in old["inputs"]]
    for given in old["inputs"]:
        if given["id"] not in inputs:
            yield f"the input {given['id']} is gone. Keep it; say in its tooltip that it has no effect any more."
        else:
            yield from _input_changes(given, inputs[given["id"]])
    for given in new["inputs"]:
        if given["id"] not in released and not given["optional"]:
            yield (
                f"the input {given['id']} is new and required, so prompts saved in the API format are refused. Declare "
                "it optional=True, with a default in execute."
            )
    for kind, is_kind in (("widget", True), ("socket", False)):
        before, after = (
            [given["id"] for given in side["inputs"] if (given["type"] in WIDGETS) is is_kind] for side in (old, new)
        )
        if after[: len(before)] != before and set(before) <= set(after):
            yield f"the {kind}s {before} were in this order. Append new ones behind them: values are kept by position."
    if new["outputs"][: len(old["outputs"])] != old["outputs"]:
        yield f"the outputs were {old['outputs']}, now {new['outputs']}. Append new ones: links go by number."


def _input_changes(old: dict, new: dict) -> "Iterator[str]":
    name = old["id"]
    if new["type"] != old["type"]:
        yield f"the input {name} was {old['type']}, now {new['type']}. Keep it and append another under a new name."
    if old["optional"] and not new["optional"]:
        yield f"the input {name} was optional. Keep it so: saved workflows lack it."
    if new.get("default") != old.get("default"):
        yield (
            f"the default of {name} was {old.get('default')!r}, now {new.get('default')!r}. Prompts that leave it out "
            "would draw another picture. Keep it; a better value is a preset."
        )
    missing = [option for option in old.get("options", []) if option not in new.get("options", [])]
    if missing:
        yield f"{name} lacks {missing}. Keep the old options, append new ones."
    for limit, narrower in (("min", lambda a, b: a > b), ("max", lambda a, b: a < b)):
        if limit in new and (limit not in old or narrower(new[limit], old[limit])):
            yield f"the {limit} of {name} was {old.get(limit)}, now {new[limit]}. Saved values may lie beyond: keep it."


def main() -> None:
    from on_standin import node_classes

    root = RELEASED.parents[1]
    lines = (root / "pyproject.toml").read_text(encoding="utf-8").splitlines()
    (version,) = [line.split('"')[1] for line in lines if line.startswith("version = ")]
    folder = RELEASED / version
    for file in (root / "example_workflows").rglob("*.json"):
        copy = folder / "workflows" / file.relative_to(root / "example_workflows")
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, copy)
    nodes = {name: described(node) for name, node in node_classes().items()}
    (folder / "schemas.json").write_text(json.dumps(nodes, indent=1) + "\n", encoding="utf-8")
    print(f"wrote {folder}")


if __name__ == "__main__":
    main()
