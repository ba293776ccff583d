"""The text of a sweep, and the node that makes models of it. Runs without ComfyUI."""

import re
import sys
from pathlib import Path

import on_standin
import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def pack():
    """The modules of the pack, loaded on the stand-in host."""
    on_standin.node_classes()
    return lambda name: sys.modules[f"pack_under_test.nodes.{name}"]


@pytest.fixture(scope="module")
def combinations(pack):
    return pack("combinations").combinations


def test_every_combination_is_there_and_the_first_setting_changes_fastest(combinations):
    found = combinations("scale=0, 0.5,1; blur_sigma = 1,2.5")
    assert found.settings == [
        {"scale": 0.0, "blur_sigma": 1.0}, {"scale": 0.5, "blur_sigma": 1.0}, {"scale": 1.0, "blur_sigma": 1.0},
        {"scale": 0.0, "blur_sigma": 2.5}, {"scale": 0.5, "blur_sigma": 2.5}, {"scale": 1.0, "blur_sigma": 2.5},
    ]  # fmt: skip
    assert found.labels[:4] == [
        "scale=0, blur_sigma=1", "scale=0.5, blur_sigma=1", "scale=1, blur_sigma=1", "scale=0, blur_sigma=2.5"
    ]  # fmt: skip
    assert found.columns == 3


def test_each_kind_of_value_is_read(combinations):
    found = combinations(
        '\n scale_curve=bell\nprojection=on, OFF\n\napply_every=2;attention_blocks="middle.0, output.3", auto'
    )
    assert found.settings[0] == {
        "scale_curve": "bell", "projection": True, "apply_every": 2, "attention_blocks": "middle.0, output.3"
    }  # fmt: skip
    assert [(s["projection"], s["attention_blocks"]) for s in found.settings[1:]] == [
        (False, "middle.0, output.3"), (True, "auto"), (False, "auto")
    ]  # fmt: skip
    assert found.labels[1] == 'scale_curve=bell, projection=OFF, apply_every=2, attention_blocks="middle.0, output.3"'


@pytest.mark.parametrize(
    ("text", "problem", "place"),
    [
        ("scale=0; scal=1", "there is no setting 'scal'; there are scale, blur_sigma", "scal=1"),
        ("scale=0, x", "scale must be a number, got 'x'", "x"),
        ("scale=0, 99", "scale must lie in [-2, 5], got 99", "99"),
        ("scale=nan", "scale must be", "nan"),
        ("scale=1;\nblur_kernel=9,  8", "blur_kernel must be odd", "8"),
        ("apply_every=1.5", "apply_every must be a whole number, got '1.5'", "1.5"),
        ("projection=maybe", "projection must be on or off, got 'maybe'", "maybe"),
        ("mask_mode=blurry", "mask_mode must be one of", "blurry"),
        ("scale=1,,2", "scale lacks a value here", ",2"),
        ("scale=", "scale lacks a value here", ""),
        ("scale", "expected name=value, value, got 'scale'", "scale"),
        ("scale=1; scale=2", "scale is there twice", "scale=2"),
        ("", "expected settings such as scale=0", ""),
        (" ;\n; ", "expected settings such as scale=0", " ;"),
        ("scale=" + ",".join(["0.1"] * 65), "these are 65 combinations, and the most is 64", "scale=0.1"),
    ],
)
def test_what_cannot_be_read_is_shown_in_its_place(combinations, text, problem, place):
    with pytest.raises(ValueError) as error:
        combinations(text)
    message, line, caret = str(error.value).split("\n")
    assert message.startswith(problem)
    assert line in text.split("\n")
    assert caret == " " * (len(caret) - 1) + "^" and line[len(caret) - 1 :].startswith(place)
    assert f"character {len(caret)})" in message and f"(line {text.split(chr(10)).index(line) + 1}, " in message


def test_a_preset_in_words_is_read_as_itself(pack, combinations):
    for name, settings in pack("presets").PRESETS.items():
        if settings:
            assert combinations(pack("combinations").described(settings)).settings == [settings], name
    written = pack("combinations").described({"projection": True, "attention_blocks": "middle.0, output.3"})
    assert combinations(written).settings == [{"projection": True, "attention_blocks": "middle.0, output.3"}]


def test_the_node_tells_at_queue_time_what_is_wrong(pack):
    node = on_standin.node_classes()["SAGSweep"]
    assert node.validate_inputs(sweep="scale=1") is True
    assert node.validate_inputs() is True
    assert node.validate_inputs(sweep="scale=1, ?").endswith("scale=1, ?\n         ^")


def test_presets_never_change_under_their_name(pack):
    """Saved workflows hold the name alone. Add to this table; change nothing in it."""
    released = {
        "default": {},
        "sharper": {"scale": 1.0, "blur_sigma": 3.0, "difference": "image", "start_percent": 0.2, "end_percent": 0.8},
        "fast": {
            "scale": 1.0,
            "blur_sigma": 3.0,
            "difference": "image",
            "start_percent": 0.2,
            "end_percent": 0.8,
            "apply_every": 3,
            "reuse": True,
        },
        "free": {"scale": 0.2, "blur_sigma": 2.0, "difference": "detail", "mask_mode": "global_blur"},
        "paper ADM": {"scale": 0.5, "blur_sigma": 9.0, "blur_kernel": 31, "attention_blocks": "output.2"},
        "diffusers": {"scale": 0.75, "blur_sigma": 1.0, "blur_kernel": 9},
        "ComfyUI built-in": {"scale": 0.5, "blur_sigma": 2.0, "blur_kernel": 9, "branch": "unconditional"},
        "gentle for SDXL": {"scale": 0.4, "blur_sigma": 0.5, "scale_curve": "cosine_fade_out"},
    }
    assert released == pack("presets").PRESETS


def test_the_documented_presets_are_those_of_the_node(pack, combinations):
    pages = [path.read_text(encoding="utf-8") for path in (ROOT / "README.md", *ROOT.glob("docs/*.md"))]
    (table,) = [table for page in pages for table in re.findall(r"\| Preset \| Inputs \|\n.*\n((?:\|.*\n)+)", page)]
    documented = {}
    for row in table.strip().split("\n"):
        name, inputs = (cell.strip() for cell in row.strip("|").split("|"))
        text = "; ".join(f"{k}={v}" for k, v in re.findall(r"`(\w+)` `?([^`,]+)", inputs))
        documented[name] = combinations(text).settings[0]
    assert documented == {name: settings for name, settings in pack("presets").PRESETS.items() if settings}
